"""Entries of a catalogue become JPEGs, on all processors."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial

from bincount.data import images
from bincount.data.catalogue import DrawnPhoto, Entry
from bincount.data.images import UnreadablePhoto
from bincount.machine import processors

#: Photos that one task of a worker process takes, and tasks that wait for each process.
CHUNK, WAITING = 16, 4

#: A JPEG with its width and height in pixels.
Jpeg = tuple[bytes, int, int]
Rendered = tuple[Entry, Jpeg | str]


def render(
    entries: list[Entry], shortest_side: int | None, quality: int, workers: int | None
) -> Iterator[Rendered]:
    """Render in order on ``workers`` processes (None: one a processor, 0: this one), few at a time.

    Yields each entry with its JPEG, width and height, or with the reason why there is no JPEG.
    """
    one = partial(render_one, shortest_side, quality)
    if workers == 0:
        yield from ((entry, one(entry)) for entry in entries)
        return
    workers = workers or processors()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])  # imported once, not by each worker
    with ProcessPoolExecutor(workers, context, _end_with_parent) as pool:
        waiting: deque[Future[list[Rendered]]] = deque()
        for place in range(0, len(entries), CHUNK):
            waiting.append(pool.submit(_render_chunk, one, entries[place : place + CHUNK]))
            if len(waiting) >= workers * WAITING:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def render_one(shortest_side: int | None, quality: int, entry: Entry) -> Jpeg | str:
    """The entry's JPEG with its width and height, or the reason why there is none."""
    try:
        if isinstance(entry.photo, DrawnPhoto):
            photo = images.shrink(entry.photo.draw(), shortest_side)
            return images.encode_jpeg(photo, quality), photo.shape[1], photo.shape[0]
        return images.stored_jpeg(entry.photo.read(), shortest_side, quality)
    except UnreadablePhoto as problem:
        return f"unreadable photo: {problem}"
    except OSError as error:
        return f"the photo cannot be read: {error.strerror}"


def _end_with_parent() -> None:
    """End this worker when its parent is killed: it would wait for the next task for ever."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _render_chunk(one: Callable[[Entry], Jpeg | str], chunk: list[Entry]) -> list[Rendered]:
    return [(entry, one(entry)) for entry in chunk]
