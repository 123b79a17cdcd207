"""Ranges through `aws s3 cp ADDRESS -`, the way that WebDataset's users know; here to be compared with.

It starts a process for each object and reads all of it, whatever is wanted. No shell is involved: the address
is one argument of the command, whatever characters an index may hold.
"""

import subprocess
from collections.abc import Iterable, Iterator

from bincount.errors import BadInput, BincountError
from bincount.storage.store import Range, RangeReader, Store

COMMAND = ("aws", "s3", "cp", "--quiet")


class Piped(RangeReader):
    """Reads the objects of ``store``, which is in S3, one process an object; the last one is held."""

    def __init__(self, store: Store):
        if not store.address.startswith("s3://"):
            raise BadInput(f"data.reader=pipe reads from S3, and data.root={store.address} is not there")
        self._store, self._name, self._content = store, "", b""

    def read_ranges(self, ranges: Iterable[Range]) -> Iterator[bytes | str]:
        for name, offset, length in ranges:
            if name != self._name:
                self._name, self._content = name, self._read(name)
            yield self._content[offset : offset + length]

    def _read(self, name: str) -> bytes:
        place = self._store.place(name)
        try:
            done = subprocess.run([*COMMAND, "--", place, "-"], capture_output=True)
        except FileNotFoundError:
            raise BadInput("data.reader=pipe: there is no program aws: install awscli") from None
        if done.returncode:
            told = done.stderr.decode(errors="replace").strip().splitlines()
            raise BincountError(f"aws s3 cp {place}: {told[-1] if told else f'exit code {done.returncode}'}")
        return done.stdout
