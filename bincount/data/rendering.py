"""Photos become the JPEGs that shards hold, on all processors."""

import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from bincount.config import SyntheticSource
from bincount.data import collage, cutting, images, synthetic
from bincount.data.images import UnreadablePhoto
from bincount.machine import processors

#: Photos that one task of a worker process takes, and tasks that wait for each process.
CHUNK, WAITING = 16, 4


@dataclass(frozen=True)
class DrawnPhoto:
    """A bin to draw."""

    seed: int
    index: int
    count: int
    source: SyntheticSource

    def draw(self) -> images.Pixels:
        """Its pixels: uint8 (height, width, 3)."""
        which = self.seed, self.index, self.count, self.source.difficulty
        return synthetic.draw_bin(*which, self.source.width, self.source.height)


@dataclass(frozen=True)
class Collage:
    """A bin to put together from what lies in the folder ``cuttings``."""

    seed: int
    index: int
    count: int
    difficulty: float
    cuttings: Path

    def draw(self) -> images.Pixels:
        """Its pixels: uint8 (height, width, 3)."""
        which = self.seed, self.index, self.count, self.difficulty
        return collage.make_collage(*which, cutting.shared(self.cuttings))


#: A bin to make.
Made = DrawnPhoto | Collage

#: What a JPEG is made from: a bin to make, a file, the bytes of one, or the reason why these are missing.
Photo = Made | Path | bytes | str

#: A JPEG with its width and height in pixels, or the reason why there is none.
Rendered = tuple[bytes, int, int] | str


def render(
    photos: Iterable[Photo], shortest_side: int | None, quality: int, workers: int | None
) -> Iterator[Rendered]:
    """Render in order on ``workers`` processes (None: one a processor, 0: this one), few at a time."""
    one = partial(render_one, shortest_side, quality)
    if workers == 0:
        yield from map(one, photos)
        return
    workers = workers or processors()
    photos = iter(photos)
    chunk = list(islice(photos, CHUNK))
    shrinking = shortest_side is not None and not any(isinstance(photo, Made) for photo in chunk)
    context = multiprocessing.get_context("forkserver")
    # Imported once, not by each worker.
    context.set_forkserver_preload(["__main__", __name__, *(["torch"] if shrinking else [])])
    with ProcessPoolExecutor(workers, context, _start_worker) as pool:
        waiting: deque[Future[list[Rendered]]] = deque()
        while chunk:
            waiting.append(pool.submit(_render_chunk, one, chunk))
            chunk = list(islice(photos, CHUNK))
            if len(waiting) >= workers * WAITING:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def render_one(shortest_side: int | None, quality: int, photo: Photo) -> Rendered:
    """The photo's JPEG with its width and height, or the reason why there is none."""
    if isinstance(photo, str):
        return f"the photo {photo}"
    try:
        if isinstance(photo, Made):
            pixels = images.shrink(photo.draw(), shortest_side)
            return images.encode_jpeg(pixels, quality), pixels.shape[1], pixels.shape[0]
        encoded = photo if isinstance(photo, bytes) else photo.read_bytes()
        return images.stored_jpeg(encoded, shortest_side, quality)
    except UnreadablePhoto as problem:
        return f"unreadable photo: {problem}"
    except OSError as error:
        return f"the photo cannot be read: {error.strerror}"


def _start_worker() -> None:
    """Use one thread, and end when the parent is killed: a worker would wait for the next task for ever."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _render_chunk(one: Callable[[Photo], Rendered], chunk: list[Photo]) -> list[Rendered]:
    return [one(photo) for photo in chunk]
