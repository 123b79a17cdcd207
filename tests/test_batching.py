"""Items of many requests that are worked on together: nothing lost, nothing twice, in order, bounded."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bincount.serving.batching import Batcher, Closed, Full

#: Longer than any test waits for what it expects to happen.
LONG = 30.0


@dataclass(frozen=True)
class Request:
    """So many items, asked about after so many turns of the loop; given up after ``patience``."""

    size: int
    turn: int
    reading: int
    patience: int | None


requests = st.builds(
    Request,
    size=st.integers(0, 7),
    turn=st.integers(0, 6),
    reading=st.integers(0, 3),
    patience=st.none() | st.integers(0, 8),
)


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LONG):
            await test()

    asyncio.run(bounded())


@given(
    st.lists(requests, max_size=12),
    st.integers(1, 5),
    st.integers(1, 16),
    st.sampled_from([0.0, 0.0005]),
    st.sets(st.integers(0, 60), max_size=3),
)
def test_every_accepted_item_is_worked_on_once_in_order_and_within_bounds(
    given_requests: list[Request], batch_size: int, room: int, wait: float, failing: set[int]
) -> None:
    """Where requests are refused, given up and fail at any time."""
    worked: list[list[tuple[int, int]]] = []
    asked: list[tuple[int, int]] = []
    answered: dict[int, list[str]] = {}
    failed: set[int] = set()

    def work(items: list[tuple[int, int]]) -> list[str]:
        worked.append(items)
        if any(sum(map(len, worked[:-1])) + n in failing for n in range(len(items))):
            raise RuntimeError("this batch fails")
        return [f"{number}.{place}" for number, place in items]

    async def request(batcher: Batcher[tuple[int, int], str], number: int, of: Request) -> None:
        await turns(of.turn)
        before = batcher.taken
        try:
            with batcher.seat() as seat:
                await turns(of.reading)
                before = batcher.taken - 1
                seat.resize(of.size)
                assert batcher.taken <= room
                items = [(number, n) for n in range(of.size)]
                asked.extend(items)
                answered[number] = await seat.ask(items)
        except Full:
            assert before + max(of.size, 1) > room
        except RuntimeError:
            failed.add(number)

    async def all_of_them() -> None:
        batcher = Batcher(work, batch_size=batch_size, wait=wait, room=room)
        await batcher.start()
        tasks = []
        for number, of in enumerate(given_requests):
            tasks.append(asyncio.create_task(request(batcher, number, of)))
            if of.patience is not None:
                asyncio.get_running_loop().call_later(of.patience * 1e-4, tasks[-1].cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled():
                task.result()
        await batcher.drained()
        assert batcher.taken == 0
        await batcher.stop()

    run(all_of_them)
    flat = [item for batch in worked for item in batch]
    assert all(len(batch) <= batch_size for batch in worked)
    assert len(set(flat)) == len(flat), "nothing is worked on twice"
    order = {item: place for place, item in enumerate(asked)}
    assert [order[item] for item in flat] == sorted(order[item] for item in flat)
    for number, results in answered.items():
        assert results == [f"{number}.{n}" for n in range(given_requests[number].size)]
    patient = {n for n, of in enumerate(given_requests) if of.patience is None}
    assert patient & {number for number, _ in asked} <= set(answered) | failed


def test_one_who_asks_alone_does_not_wait_for_others() -> None:
    async def alone() -> None:
        batcher = Batcher[int, int](lambda items: items, batch_size=8, wait=LONG * 2, room=8)
        await batcher.start()
        with batcher.seat() as seat:
            assert await seat.ask([1, 2]) == [1, 2]
        await batcher.stop()

    run(alone)


def test_items_wait_for_an_accepted_request_that_is_on_its_way() -> None:
    sizes: list[int] = []

    async def two() -> None:
        batcher = Batcher[int, int](
            lambda items: items, batch_size=8, wait=LONG * 2, room=8, seen=sizes.append
        )
        await batcher.start()
        with batcher.seat() as later:

            async def first() -> list[int]:
                with batcher.seat() as seat:
                    return await seat.ask([1, 2])

            task = asyncio.create_task(first())
            await turns(5)
            assert not task.done()
            assert await later.ask([3]) == [3]
            assert await task == [1, 2]
        await batcher.stop()

    run(two)
    assert sizes == [3]


def test_no_wait_is_longer_than_it_may_be() -> None:
    async def waiting() -> None:
        batcher = Batcher[int, int](lambda items: items, batch_size=8, wait=0.02, room=8)
        await batcher.start()
        with batcher.seat(), batcher.seat() as seat:
            start = asyncio.get_running_loop().time()
            assert await seat.ask([1]) == [1]
            assert asyncio.get_running_loop().time() - start >= 0.019
        await batcher.stop()

    run(waiting)


def test_while_one_batch_is_worked_on_the_next_gathers() -> None:
    go, sizes = threading.Event(), list[int]()

    def work(items: list[int]) -> list[int]:
        assert go.wait(LONG)
        return items

    async def gathering() -> None:
        batcher = Batcher(work, batch_size=4, wait=0, room=16, seen=sizes.append)
        await batcher.start()

        async def ask(number: int) -> list[int]:
            with batcher.seat() as seat:
                return await seat.ask([number])

        tasks = [asyncio.create_task(ask(0))]
        await turns(5)
        tasks += [asyncio.create_task(ask(number)) for number in range(1, 8)]
        await turns(5)
        assert sizes == [1]
        assert batcher.taken == 8
        go.set()
        assert await asyncio.gather(*tasks) == [[number] for number in range(8)]
        await batcher.stop()

    run(gathering)
    assert sizes == [1, 4, 3]


def test_what_is_given_up_leaves_room_though_the_work_hangs() -> None:
    go = threading.Event()

    def work(items: list[int]) -> list[int]:
        assert go.wait(LONG)
        return items

    async def hanging() -> None:
        batcher = Batcher(work, batch_size=1, wait=0, room=2)
        await batcher.start()
        for _ in range(50):
            with batcher.seat() as seat, suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await seat.ask([1, 2])
        assert batcher.taken == 0
        assert not batcher._waiting
        go.set()
        with batcher.seat() as seat:
            assert await seat.ask([5, 6]) == [5, 6]
        await batcher.stop()

    run(hanging)


def test_a_closed_batcher_takes_nothing_and_answers_what_it_took() -> None:
    async def closing() -> None:
        batcher = Batcher[int, int](lambda items: items, batch_size=8, wait=0, room=8)
        await batcher.start()
        with batcher.seat() as seat:
            batcher.close()
            with pytest.raises(Closed), batcher.seat():
                pass
            assert await seat.ask([1]) == [1]
        await batcher.drained()
        await batcher.stop()

    run(closing)


def test_work_that_gives_too_few_results_is_an_error_for_all_who_asked() -> None:
    async def short() -> None:
        batcher = Batcher[int, int](lambda items: items[1:], batch_size=8, wait=0, room=8)
        await batcher.start()
        for _ in range(2):
            with batcher.seat() as seat, pytest.raises(ValueError, match="shorter"):
                await seat.ask([1, 2])
        await batcher.stop()

    run(short)
