"""A bounded copy on this machine's disk of what is read again and again from far away.

Blocks of a fixed size are kept as files. They are written whole under another name and then renamed, and a
block has the same bytes whoever fetched it: ranks and workers of a machine share one folder without locks.
"""

import hashlib
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from bincount.storage.paths import written_whole
from bincount.storage.store import Range, RangeReader

log = logging.getLogger(__name__)

BLOCK = 1 << 20

#: The folder, in the one that is given, that has nothing but blocks: old files in it are deleted.
BLOCKS = "bincount-blocks"

#: Room is made after so many blocks were fetched, and down to this share of the bound.
EVERY, DOWN_TO = 64, 0.9


class Cached(RangeReader):
    """Reads of ``reader`` through ``folder``, which keeps about ``most`` bytes in a folder of its own.

    ``version``: what the content is known by, such as an index's digest; another one shares no block with it.
    The blocks that were not used for longest go first. Where nothing can be kept, it is read anew.
    """

    def __init__(self, reader: RangeReader, folder: Path, most: int, version: str):
        self._reader, self._top, self._most = reader, folder / BLOCKS, most
        self._folder = self._top / hashlib.sha256(version.encode()).hexdigest()[:16]
        self._fetched = 0
        self._told = False

    def read_ranges(self, ranges: Iterable[Range]) -> Iterator[bytes | str]:
        asked: deque[tuple[Range, Range | None]] = deque()
        # Drawn from by the reader, which reads ahead; so ``asked`` runs ahead of what is given out.
        contents = self._reader.read_ranges(self._gaps(ranges, asked))
        content: bytes | str | None = None
        while True:
            if not asked and content is None:
                content = next(contents, None)
                if not asked:
                    return
            wanted, gap = asked.popleft()
            if gap is None:
                yield self._from_blocks(wanted)
                continue
            fetched = next(contents) if content is None else content
            content = None
            if not isinstance(fetched, str):
                self._keep(gap, fetched)
            yield self._joined(wanted, gap, fetched)

    def _gaps(self, ranges: Iterable[Range], asked: "deque[tuple[Range, Range | None]]") -> Iterator[Range]:
        """What is missing of each range, from the first missing block to the last; all go to ``asked``."""
        for wanted in ranges:
            missing = [number for number in _blocks(wanted) if not self._path(wanted.name, number).exists()]
            if not missing:
                asked.append((wanted, None))
                continue
            start = missing[0] * BLOCK
            gap = Range(wanted.name, start, (missing[-1] + 1) * BLOCK - start)
            asked.append((wanted, gap))
            yield gap

    def _from_blocks(self, wanted: Range) -> bytes | str:
        try:
            whole = b"".join(self._block(wanted.name, number) for number in _blocks(wanted))
        except FileNotFoundError:  # another process made room meanwhile
            return next(self._reader.read_ranges([wanted]))
        start = wanted.offset % BLOCK
        return whole[start : start + wanted.length]

    def _joined(self, wanted: Range, gap: Range, fetched: bytes | str) -> bytes | str:
        """The range from what was fetched and the blocks around it."""
        if isinstance(fetched, str):
            return fetched
        try:
            parts = [
                fetched if number * BLOCK == gap.offset else self._block(wanted.name, number)
                for number in _blocks(wanted)
                if number * BLOCK <= gap.offset or number * BLOCK >= gap.offset + gap.length
            ]
        except FileNotFoundError:
            return next(self._reader.read_ranges([wanted]))
        start = wanted.offset % BLOCK
        return b"".join(parts)[start : start + wanted.length]

    def _block(self, name: str, number: int) -> bytes:
        path = self._path(name, number)
        content = path.read_bytes()
        os.utime(path)
        return content

    def _path(self, name: str, number: int) -> Path:
        return self._folder / name / f"{number:06d}"

    def _keep(self, gap: Range, content: bytes) -> None:
        try:
            for place in range(0, len(content), BLOCK):
                with written_whole(self._path(gap.name, (gap.offset + place) // BLOCK)) as partial:
                    partial.write_bytes(content[place : place + BLOCK])
                self._fetched += 1
            if self._fetched >= EVERY:
                self._fetched = 0
                self._make_room()
        except OSError as error:
            if not self._told:
                log.warning("%s: nothing more can be kept there (%s)", self._top, error.strerror or error)
            self._told = True

    def _make_room(self) -> None:
        blocks = []
        for path in self._top.rglob("*"):
            if (found := _status(path)) is not None:
                blocks.append((found.st_mtime_ns, found.st_size, path))
        held = sum(size for _, size, _ in blocks)
        if held <= self._most:
            return
        for _, size, path in sorted(blocks):
            path.unlink(missing_ok=True)
            held -= size
            if held <= self._most * DOWN_TO:
                return


def _status(path: Path) -> os.stat_result | None:
    """Size and times of a block; None for a folder, or what another process has taken away meanwhile."""
    try:
        return None if path.is_dir() else path.stat()
    except FileNotFoundError:
        return None


def _blocks(wanted: Range) -> range:
    return range(wanted.offset // BLOCK, -(-(wanted.offset + wanted.length) // BLOCK))
