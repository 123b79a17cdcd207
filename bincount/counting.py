"""Many photos, counted a batch at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor

from bincount.counter import PhotoCounter
from bincount.data.found import Found, read_photos
from bincount.data.images import UnreadablePhoto
from bincount.data.skipped import Skipped


def counted(
    counter: PhotoCounter, photos: Iterable[Found], batch_size: int, skipped: list[Skipped]
) -> Iterator[tuple[list[Found], Tensor]]:
    """Batches of readable photos with the probability of each count, float32 (photos, classes).

    The others are added to ``skipped``.
    """
    readable = _readable(counter, photos, skipped)
    while batch := list(islice(readable, batch_size)):
        yield (
            [photo for photo, _ in batch],
            counter.probabilities(torch.stack([pixels for _, pixels in batch])),
        )


def _readable(
    counter: PhotoCounter, photos: Iterable[Found], skipped: list[Skipped]
) -> Iterator[tuple[Found, Tensor]]:
    for photo, content in read_photos(photos):
        if isinstance(content, str):
            skipped.append(Skipped(photo.id, photo.address, content))
            continue
        try:
            yield photo, counter.pixels(content)
        except UnreadablePhoto as problem:
            skipped.append(Skipped(photo.id, photo.address, str(problem)))
