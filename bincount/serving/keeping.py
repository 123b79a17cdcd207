"""A share of what is seen leaves a row, in a thread of its own, so that no request waits for it."""

import logging
import queue
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from bincount.answer import Answer
from bincount.counter import Counter
from bincount.data.images import UnreadablePhoto
from bincount.exploring import kept, known
from bincount.exploring.kept import Seen
from bincount.exploring.traits import camera_traits
from bincount.serving.logs import tell

#: Rows of a file, and seconds after which they are written however few they are.
ROWS, EVERY = 1000, 300.0

#: Bytes of photos that wait to be measured; those that come while there are more leave no row.
WAITING = 32_000_000

#: Seconds in which what waits is still measured at the end.
ENDING = 10.0


@dataclass(frozen=True)
class _Drawn:
    """A photo that is to leave a row, before its traits are measured."""

    time: datetime
    request: str
    photo: int
    encoded: bytes
    answer: Answer
    expected: int | None


class Keeper:
    """Keeps a row of each photo with the probability ``share``, drawn photo by photo, in files of ``folder``.

    All files of the folder, of other workers too, have at most ``most`` bytes; the oldest are deleted.
    """

    def __init__(
        self,
        counter: Counter,
        run: str,
        folder: Path,
        *,
        share: float,
        most: int,
        rows: int = ROWS,
        every: float = EVERY,
        chance: random.Random | None = None,
    ):
        self.folder, self.missed = folder, 0
        self._counter, self._run, self._model = counter, run, known.version(counter)
        self._share, self._most, self._rows, self._every = share, most, rows, every
        self._chance = chance or random.Random()
        self._lock, self._bytes = threading.Lock(), 0
        self._queue: queue.SimpleQueue[_Drawn | None] = queue.SimpleQueue()
        self._until = float("inf")
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._thread.start()

    def saw(
        self, request: str, photos: Sequence[bytes], answers: Sequence[Answer], expected: Sequence[int | None]
    ) -> None:
        """Draw which of these photos leave a row; takes no time."""
        now = datetime.now(UTC)
        for n, encoded in enumerate(photos):
            if self._chance.random() >= self._share:
                continue
            with self._lock:
                room = self._bytes + len(encoded) <= WAITING
                self._bytes += len(encoded) if room else 0
                self.missed += not room
            if room:
                self._queue.put(_Drawn(now, request, n + 1, encoded, answers[n], expected[n]))

    def close(self) -> None:
        """Measure what still waits, for ENDING seconds at the most, write it, and end."""
        self._until = time.monotonic() + ENDING
        self._queue.put(None)
        self._thread.join(2 * ENDING)
        if self.missed:
            tell(logging.WARNING, "photos left no row, as too many came", photos=self.missed)

    def _work(self) -> None:
        torch.set_num_threads(1)  # of this thread alone
        rows: list[Seen] = []
        due = 0.0
        while True:
            try:
                drawn = self._queue.get(timeout=max(0.0, due - time.monotonic()) if rows else None)
            except queue.Empty:
                rows = self._written(rows)
                continue
            if drawn is None:
                self._written(rows)
                return
            due = due if rows else time.monotonic() + self._every
            rows += self._measured(drawn)
            if len(rows) >= self._rows or time.monotonic() >= due:
                rows = self._written(rows)

    def _measured(self, drawn: _Drawn) -> list[Seen]:
        """Its row; none where there is no time left, or it cannot be measured."""
        with self._lock:
            self._bytes -= len(drawn.encoded)
        try:
            if time.monotonic() < self._until:
                camera = camera_traits(known.as_stored(self._counter, drawn.encoded))
                return [Seen(drawn.time, drawn.request, drawn.photo, camera, drawn.answer, drawn.expected)]
        except UnreadablePhoto as problem:
            tell(logging.WARNING, "a photo left no row", id=drawn.request, error=str(problem))
        with self._lock:
            self.missed += 1
        return []

    def _written(self, rows: list[Seen]) -> list[Seen]:
        """Write the rows; none are left then, written or not."""
        try:
            if rows:
                kept.write(self.folder, rows, self._run, self._model, self._counter.counts)
                kept.bound(self.folder, self._most)
        except Exception as error:  # whatever it is, requests are answered all the same
            tell(logging.ERROR, "rows are not kept", failure=error, folder=str(self.folder), rows=len(rows))
        return []
