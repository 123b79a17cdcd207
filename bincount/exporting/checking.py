"""Whether an exported file tells what its run tells, and which of the two is faster."""

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bincount import run
from bincount.counter import Counter
from bincount.data.images import UnreadablePhoto, encode_jpeg
from bincount.data.index import Index
from bincount.data.synthetic import draw_bin
from bincount.errors import BincountError
from bincount.exporting.opening import FileCounter
from bincount.model.decoding import decode

#: Photos that are counted at once.
BATCH = 32

#: Photos that are counted one by one in a round of timing.
SINGLES = 16


def photos_of(folder: Path, counter: Counter, most: int) -> tuple[Tensor, str]:
    """Photos to check a run's file on, uint8 (photos, 3, height, width), and what they are.

    ``most`` of the run's validation split, spread evenly; drawn bins where that cannot be read.
    """
    with suppress(BincountError):
        root = str(run.saved_config(folder).data.root)
        table = Index.open(root).split("val")
        rows = np.unique(np.linspace(0, len(table) - 1, min(most, len(table))).round().astype(int))
        shown = [pixels for row in rows if (pixels := _pixels(counter, table.jpeg(int(row)))) is not None]
        if shown:
            return torch.stack(shown), f"{len(shown):,} validation photos"
    drawn = [encode_jpeg(draw_bin(0, n, n % 6, 0.5, 256, 224), 90) for n in range(most)]
    return torch.stack([counter.pixels(each) for each in drawn]), f"{most:,} drawn bins"


def _pixels(counter: Counter, encoded: bytes) -> Tensor | None:
    try:
        return counter.pixels(encoded)
    except UnreadablePhoto:
        return None


@dataclass(frozen=True)
class Difference:
    """Between a file and its run: the largest of a probability, and how many counts differ."""

    probability: float
    counts: int


def difference(counter: Counter, file: FileCounter, pixels: Tensor) -> Difference:
    """How far the file is from the run, over photos uint8 (B, 3, height, width), in batches and alone."""
    worst, counts = 0.0, 0
    for batch in (*torch.split(pixels, BATCH), pixels[:1]):
        expected = counter.probabilities(batch)
        probabilities, told = file.graph(batch)
        apart = float((probabilities - expected).abs().max())
        worst = max(worst, apart if np.isfinite(apart) else np.inf)
        counts += int((told != decode(expected, counter.decoding)).sum())
    return Difference(worst, counts)


@dataclass(frozen=True)
class Speed:
    """Photos a second, the median of the rounds, of the file and of the run in eager torch."""

    batch: int
    file: float
    eager: float


def speed(counter: Counter, file: FileCounter, pixels: Tensor, batch: int, rounds: int) -> Speed:
    """Count the same photos with each in turn, ``rounds`` times; both with torch's number of threads."""
    photos = pixels[: SINGLES if batch == 1 else batch]
    ways: list[Callable[[Tensor], object]] = [file.graph, counter.probabilities]
    seconds: list[list[float]] = [[], []]
    for turn in range(rounds + 1):
        for way, taken in zip(ways, seconds, strict=True):
            start = time.perf_counter()
            for part in torch.split(photos, batch):
                way(part)
            if turn:  # the first is for warming up
                taken.append(time.perf_counter() - start)
    file_speed, eager_speed = (len(photos) / statistics.median(taken) for taken in seconds)
    return Speed(batch, file_speed, eager_speed)
