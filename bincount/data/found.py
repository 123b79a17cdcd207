"""Photos to count: found by what names them, on this machine or in S3, and read in order."""

import glob
from collections.abc import Iterable, Iterator
from itertools import groupby, tee
from pathlib import Path
from typing import NamedTuple

from bincount import storage
from bincount.data.images import SUFFIXES
from bincount.errors import BadInput
from bincount.storage import Folder, Store


class Found(NamedTuple):
    """A photo that is there: ``name`` in ``store``."""

    store: Store
    name: str

    @property
    def address(self) -> str:
        """Its path, or its address in S3."""
        return self.store.place(self.name)

    @property
    def id(self) -> str:
        return Path(self.name).stem


def find_photos(photos: str | list[str]) -> list[Found]:
    """The photos that a folder, glob, photo, place in S3, or list of these names, each once.

    Raises BadInput if one names none.
    """
    found: dict[str, Found] = {}
    for name in [photos] if isinstance(photos, str) else photos:
        here = _in_a_store(name) if "://" in name else _on_this_machine(name)
        if not here:
            raise BadInput(f"photos={name}: there are no photos there (.jpg, .jpeg or .png)")
        found |= {photo.address: photo for photo in here}
    return list(found.values())


def read_photos(photos: Iterable[Found]) -> Iterator[tuple[Found, bytes | str]]:
    """Each photo with its encoded bytes, in order, or with the reason why it cannot be read."""
    for store, of_store in groupby(photos, lambda photo: photo.store):
        asked, here = tee(of_store)
        yield from zip(here, store.read_many(photo.name for photo in asked), strict=False)


def _in_a_store(address: str) -> list[Found]:
    if set("*?") & set(address):
        raise BadInput(f"photos={address}: in S3 name a folder or a photo: patterns are for files alone")
    if address.lower().endswith(SUFFIXES):
        above, _, name = address.rpartition("/")
        store = storage.open_store(above)
        return [Found(store, name)] if store.has(name) else []
    store = storage.open_store(address)
    return [Found(store, name) for name in store.names() if name.lower().endswith(SUFFIXES)]


def _on_this_machine(name: str) -> list[Found]:
    place = storage.folder(name)
    if place.is_dir():
        here = storage.files(place, SUFFIXES)
    elif place.exists():
        here = [place]
    else:
        here = sorted(Path(path) for path in glob.glob(str(place), recursive=True) if Path(path).is_file())
    folders = {folder: Folder(folder) for folder in {path.parent for path in here}}
    return [Found(folders[path.parent], path.name) for path in here]
