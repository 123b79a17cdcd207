"""A run that answers requests: photos are decoded by several threads and counted together by one."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bincount import machine, run
from bincount.config import Serve
from bincount.counter import Answer, Counter, PhotoCounter, answers_of, load
from bincount.data.images import UnreadablePhoto
from bincount.errors import BadInput, BincountError
from bincount.exporting.checking import difference, photos_of
from bincount.exporting.opening import FileCounter, open_file
from bincount.heatmap import heat_maps
from bincount.serving.answers import Told
from bincount.serving.batching import Batcher, Closed, Full, Seat
from bincount.serving.judging import Judge, judge_of
from bincount.serving.keeping import Keeper
from bincount.serving.metrics import Metrics
from bincount.serving.reading import Asked, Held, check_size, names
from bincount.serving.refusal import Refusal

T = TypeVar("T")

#: Seconds after which one that was refused should ask again.
RETRY_AFTER = 1

#: Photos that an exported file is held against its run on, and by how much a probability may differ.
CHECKED, TOLERANCE = 8, 1e-3


@dataclass(frozen=True)
class Wish:
    """A photo as the model takes it, uint8 (3, height, width), and whether its heat map is asked for."""

    pixels: Tensor
    heat: bool


@dataclass(frozen=True)
class Found:
    """What the model tells of one photo; ``heat``: float32 (h, w)."""

    answer: Answer
    heat: Tensor | None


class Service:
    """Counts the photos of requests; :meth:`start` begins, within the loop that serves.

    ``file``: was exported from the run, and counts in its place; heat maps are still the run's.
    """

    def __init__(
        self,
        counter: Counter,
        judge: Judge,
        name: str,
        limits: Serve,
        keeper: Keeper | None = None,
        file: PhotoCounter | None = None,
    ):
        self.counter, self.judge, self.name, self.limits = counter, judge, name, limits
        self.keeper, self.counting = keeper, file or counter
        self.metrics = Metrics()
        self.left_working = False
        self.held = Held(int(limits.held_mb * 1e6))
        threads = _threads(limits)
        # The model's thread computes with several; one that decodes has its own photo to itself.
        model = ThreadPoolExecutor(1, "model", initializer=torch.set_num_threads, initargs=(threads,))
        self._decoders = ThreadPoolExecutor(
            threads, "decoder", initializer=torch.set_num_threads, initargs=(1,)
        )
        self.has_heat = model.submit(_warm_up, counter, self.counting).result()
        self._batcher: Batcher[Wish, Found] = Batcher(
            self._count,
            batch_size=limits.batch_size,
            wait=limits.wait_ms / 1000,
            room=limits.queue,
            seen=self.metrics.batch.observe,
            thread=model,
        )

    async def start(self) -> None:
        """Begin to count."""
        await self._batcher.start()

    async def stop(self) -> None:
        """End at once; ``left_working`` tells whether the model still works, which nothing can stop."""
        self.left_working = self._batcher.working_for > 0
        await self._batcher.stop()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        if self.keeper is not None:
            await asyncio.to_thread(self.keeper.close)

    @property
    def closed(self) -> bool:
        """Whether new requests are refused, as the service is about to end."""
        return self._batcher.closed

    @property
    def stuck(self) -> bool:
        """Whether the model has worked on one batch for longer than an answer may take."""
        return self._batcher.working_for > self.limits.timeout

    async def drain(self) -> None:
        """Refuse new requests, and wait until the accepted ones are answered."""
        self._batcher.close()
        await self._batcher.drained()

    async def answer(self, id: str, reading: Coroutine[Any, Any, Asked], heat: bool) -> list[Told]:
        """What is told of the photos that ``reading`` gives, which begins once the request has a place.

        ``id``: the request's; ``heat``: with heat maps. Raises Refusal.
        """
        try:
            if heat and not self.has_heat:
                raise Refusal(422, "there is no heat map of this run's network")
            with self._batcher.seat() as seat:
                self._watch()
                return await self._answered(id, seat, await reading, heat)
        except Full:
            raise Refusal(503, "too many photos wait already: try again soon", RETRY_AFTER) from None
        except Closed:
            raise Refusal(503, "the service is about to end: try again soon", RETRY_AFTER) from None
        finally:
            reading.close()
            self._watch()

    async def _answered(self, id: str, seat: Seat[Wish, Found], asked: Asked, heat: bool) -> list[Told]:
        for expected in asked.expected:
            self.judge.refuse(expected)
        seat.resize(len(asked.photos))
        try:
            async with asyncio.timeout(self.limits.timeout):
                wishes = await self._decoded(asked, heat)
                found = await seat.ask(wishes)
        except TimeoutError:
            raise Refusal(504, f"no answer within {self.limits.timeout:g} seconds", RETRY_AFTER) from None
        self.metrics.photos.inc(len(found))
        if self.keeper is not None:
            self.keeper.saw(id, asked.photos, [each.answer for each in found], asked.expected)
        return [self._told(*each) for each in zip(found, asked.expected, strict=True)]

    async def _decoded(self, asked: Asked, heat: bool) -> list[Wish]:
        work = [partial(fitted, self.counter, *each) for each in sized(asked, self.limits.megapixels)]
        pixels = await asyncio.gather(*(self.beside(each) for each in work))
        return [Wish(each, heat) for each in pixels]

    async def beside(self, work: Callable[[], T]) -> T:
        """Do work in a thread that decodes, beside the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work)

    def _count(self, wishes: list[Wish]) -> list[Found]:
        """The batch that the model's thread counts."""
        start = time.perf_counter()
        pixels = torch.stack([each.pixels for each in wishes])
        probabilities = self.counting.probabilities(pixels)
        answers = answers_of(self.counter, probabilities)
        shown = [n for n, each in enumerate(wishes) if each.heat]
        counts = torch.tensor([answers[n].count for n in shown], dtype=torch.int64)
        maps = dict(zip(shown, heat_maps(self.counter, pixels[shown], counts), strict=True))
        self.metrics.counting.observe(time.perf_counter() - start)
        return [Found(answer, maps.get(n)) for n, answer in enumerate(answers)]

    def _told(self, found: Found, expected: int | None) -> Told:
        verdict = None if expected is None else self.judge.judge(found.answer.probabilities, expected)
        rows = None if found.heat is None else [[round(v, 3) for v in row] for row in found.heat.tolist()]
        return Told(found.answer, verdict, rows)

    def _watch(self) -> None:
        self.metrics.queue.set(self._batcher.taken)


def sized(asked: Asked, megapixels: float) -> list[tuple[bytes, str]]:
    """The photos and what they are called. Raises Refusal for one too large, before any is decoded."""
    named = list(zip(asked.photos, names(asked), strict=True))
    for encoded, name in named:
        check_size(encoded, name, megapixels)
    return named


def fitted(counter: PhotoCounter, encoded: bytes, name: str) -> Tensor:
    """The photo as the model takes it, uint8 (3, height, width). Raises Refusal."""
    try:
        return counter.pixels(encoded)
    except UnreadablePhoto as problem:
        raise Refusal(422, f"{name} cannot be read: {problem}") from None


def open_service(folder: Path, limits: Serve, decoding: str | None) -> Service:
    """The service of a run, loaded and tried on a blank photo. Raises BadInput."""
    counter = load(folder, decoding=decoding)
    judge = judge_of(folder, counter.counts, limits.error_rate, limits.check_from)
    name, keeper = run.title(folder), None
    if limits.keep:
        place = Path(limits.keep_in or folder / run.KEPT)
        keeper = Keeper(counter, name, place, share=limits.keep, most=int(limits.keep_mb * 1e6))
    file = _checked_file(folder, counter, Path(limits.onnx), _threads(limits)) if limits.onnx else None
    return Service(counter, judge, name, limits, keeper, file)


def _threads(limits: Serve) -> int:
    return limits.threads or max(1, machine.processors() // limits.workers)


def _checked_file(folder: Path, counter: Counter, path: Path, threads: int) -> FileCounter:
    """The run's exported file. Raises BadInput where it does not tell what the run tells as it is now."""
    file = open_file(path, threads=threads)
    pixels, whose = photos_of(folder, counter, CHECKED)
    found = difference(counter, file, pixels)
    if not found.probability <= TOLERANCE:
        told = f"on {whose} a probability differs by {found.probability:.2g} from the run's: export it again"
        raise BadInput(f"serve.onnx={path}: {told}")
    return file


def _warm_up(counter: Counter, counting: PhotoCounter) -> bool:
    """Count a blank photo, as the first one takes longer; whether there are heat maps."""
    torch.get_num_threads()  # of this thread, before those that decode set theirs
    blank = torch.zeros(1, 3, *counter.image_size, dtype=torch.uint8)
    counting.probabilities(blank)
    try:
        heat_maps(counter, blank)
    except BincountError:
        return False
    return True
