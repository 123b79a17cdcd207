"""Where bytes come from and go to: every read and write of a data set or a run passes here.

A :class:`Store` is a folder on this machine, a place in S3, or memory; :func:`open_store` tells them apart by
their address. What is always on this machine (run folders, reports) is written with the functions on paths.
"""

import re

from bincount.errors import BadInput
from bincount.storage.folders import Folder
from bincount.storage.paths import (
    alone,
    existing_folder,
    files,
    folder,
    is_one_of,
    read_range,
    sha256,
    write_durably,
    write_text,
    written_whole,
)
from bincount.storage.store import NotThere, Range, RangeReader, Store

__all__ = [
    "Folder",
    "NotThere",
    "Range",
    "RangeReader",
    "Store",
    "absolute",
    "alone",
    "existing_folder",
    "files",
    "folder",
    "is_one_of",
    "open_store",
    "read",
    "read_range",
    "sha256",
    "write_durably",
    "write_text",
    "written_whole",
]


def open_store(address: str, *, anonymous: bool = False) -> Store:
    """The store at ``address``: ``s3://bucket/prefix``, ``memory://name/prefix``, or a folder's path.

    ``anonymous``: requests to S3 are not signed, as public buckets allow. Nothing is read yet. Raises
    BadInput for an address of another kind.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return Folder(folder(address))
    name, _, prefix = rest.partition("/")
    if scheme not in ("s3", "memory") or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise BadInput(f"{address} is no address: give a folder, or s3://bucket/prefix")
    from bincount.storage import objects

    root, prefix = f"{scheme}://{name}", prefix.strip("/")
    if scheme == "memory":
        return objects.Objects(root, objects.in_memory(name), prefix)
    asking, sending = objects.in_s3(name, anonymous)
    return objects.Objects(root, asking, prefix, sending)


def absolute(address: str) -> str:
    """The address as it is understood from any folder."""
    return address if "://" in address else str(folder(address).resolve())


def read(address: str) -> bytes:
    """What is at ``address``, which names one file or object. Raises NotThere, and what the store raises."""
    above, _, name = address.rpartition("/")
    return open_store(above or ("/" if address.startswith("/") else ".")).read(name)
