"""Items of many requests are worked on together, by one thread; a bounded number of them may be under way.

Knows nothing of HTTP, photos or models.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")


class Full(Exception):
    """There is no room for so many items now."""


class Closed(Exception):
    """Nothing is taken any more."""


@dataclass(eq=False)
class _Asked(Generic[Item, Result]):
    """A request whose items wait or are worked on; ``future`` has all their results once ``left`` is 0."""

    items: Sequence[Item]
    results: list[Result | None]
    left: int
    future: "asyncio.Future[list[Result]]"
    since: float


class Batcher(Generic[Item, Result]):
    """Hands items to ``work`` in lists of up to ``batch_size``, in the order in which they were asked about.

    ``work`` gives one result an item, in order, and runs in a thread of its own. A list that is not full
    waits for more at most ``wait`` seconds, and only while accepted requests are still on their way.
    ``room``: items that may be under way. ``seen`` is told the size of each list.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], list[Result]],
        *,
        batch_size: int,
        wait: float,
        room: int,
        seen: Callable[[int], None] = lambda size: None,
        thread: ThreadPoolExecutor | None = None,
    ):
        self.batch_size, self.wait, self.room, self.closed = batch_size, wait, room, False
        self._work, self._seen = work, seen
        self._thread = thread or ThreadPoolExecutor(1, "model")
        self._waiting: deque[tuple[_Asked[Item, Result], int]] = deque()
        self._working, self._since = 0, 0.0
        self._taken = 0
        self._changed, self._empty = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def taken(self) -> int:
        """Items under way: accepted, and not answered yet."""
        return self._taken

    @property
    def working_for(self) -> float:
        """Seconds since the thread began with what it works on now; 0 where it does not."""
        return asyncio.get_running_loop().time() - self._since if self._working else 0.0

    async def start(self) -> None:
        """Begin to work, in the loop that runs."""
        self._task = asyncio.create_task(self._run())

    def close(self) -> None:
        """Take nothing more; what was accepted is still worked on."""
        self.closed = True

    async def drained(self) -> None:
        """Wait until all that was accepted is answered."""
        while self._taken:
            self._empty.clear()
            await self._empty.wait()

    async def stop(self) -> None:
        """End; what is not answered never will be."""
        self.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._thread.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def seat(self) -> Iterator["Seat[Item, Result]"]:
        """Room for a request, from when it is accepted until it is answered. Raises Full, Closed."""
        if self.closed:
            raise Closed
        seat = Seat(self)
        seat.resize(1)
        try:
            yield seat
        finally:
            seat.resize(0)

    def _take(self, more: int) -> None:
        if more > 0 and self._taken + more > self.room:
            raise Full
        self._taken += more
        self._changed.set()
        if not self._taken:
            self._empty.set()

    async def _ask(self, items: Sequence[Item]) -> list[Result]:
        if not items:
            return []
        loop = asyncio.get_running_loop()
        results: list[Result | None] = [None] * len(items)
        asked = _Asked(items, results, len(items), loop.create_future(), loop.time())
        self._waiting.extend((asked, n) for n in range(len(items)))
        self._changed.set()
        try:
            return await asked.future
        finally:
            if asked.left:  # it was given up, or failed: what still waits of it is wanted by nobody
                self._waiting = deque(each for each in self._waiting if each[0] is not asked)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._gathered()
            batch = [self._waiting.popleft() for _ in range(min(self.batch_size, len(self._waiting)))]
            if not batch:
                continue
            self._working, self._since = len(batch), loop.time()
            self._seen(len(batch))
            try:
                items = [asked.items[n] for asked, n in batch]
                results = await loop.run_in_executor(self._thread, self._work, items)
                self._hand_out(batch, results)
            except Exception as error:
                for asked, _ in batch:
                    if not asked.future.done():
                        asked.future.set_exception(error)
            finally:
                self._working = 0

    def _hand_out(self, batch: list[tuple[_Asked[Item, Result], int]], results: list[Result]) -> None:
        for (asked, n), result in zip(batch, results, strict=True):
            asked.results[n] = result
            asked.left -= 1
            if not asked.left and not asked.future.done():
                asked.future.set_result(cast(Any, asked.results))

    async def _gathered(self) -> None:
        """Wait for items, and then for more of them as long as that is worth it."""
        loop = asyncio.get_running_loop()
        while not self._waiting:
            self._changed.clear()
            await self._changed.wait()
        until = self._waiting[0][0].since + self.wait
        while 0 < len(self._waiting) < self.batch_size and self._coming and (left := until - loop.time()) > 0:
            self._changed.clear()
            with suppress(TimeoutError):
                # Not wait_for, which in Python 3.11 may lose a cancellation that comes with the event.
                async with asyncio.timeout(left):
                    await self._changed.wait()

    @property
    def _coming(self) -> bool:
        """Whether accepted requests are being read still, so that more items may come soon."""
        return self._taken > len(self._waiting) + self._working


class Seat(Generic[Item, Result]):
    """The room of one request in a :class:`Batcher`."""

    def __init__(self, batcher: Batcher[Item, Result]):
        self._batcher, self._size = batcher, 0

    def resize(self, size: int) -> None:
        """Take room for so many items. Raises Full."""
        self._batcher._take(size - self._size)
        self._size = size

    async def ask(self, items: Sequence[Item]) -> list[Result]:
        """The results of the items, in their order. Raises Full, and what ``work`` raises."""
        self.resize(len(items))
        return await self._batcher._ask(items)
