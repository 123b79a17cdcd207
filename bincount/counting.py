"""Photos on this machine: found by what names them, and counted a batch at a time."""

import glob
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from bincount import storage
from bincount.counter import PhotoCounter
from bincount.data.images import SUFFIXES, UnreadablePhoto
from bincount.data.skipped import Skipped
from bincount.errors import BadInput


def find_photos(photos: str | list[str]) -> list[Path]:
    """The photos that a folder, glob, file or list of these names. Raises BadInput if one names none."""
    found: dict[Path, None] = {}
    for name in [photos] if isinstance(photos, str) else photos:
        place = storage.folder(name)
        if place.is_dir():
            here = storage.files(place, SUFFIXES)
        elif place.exists():
            here = [place]
        else:
            here = sorted(
                Path(path) for path in glob.glob(str(place), recursive=True) if Path(path).is_file()
            )
        if not here:
            raise BadInput(f"photos={name}: there are no photos there (.jpg, .jpeg or .png)")
        found |= dict.fromkeys(here)
    return list(found)


def counted(
    counter: PhotoCounter, photos: Iterable[Path], batch_size: int, skipped: list[Skipped]
) -> Iterator[tuple[list[Path], Tensor]]:
    """Batches of readable photos with the probability of each count, float32 (photos, classes).

    The others are added to ``skipped``.
    """
    readable = _readable(counter, photos, skipped)
    while batch := list(islice(readable, batch_size)):
        yield (
            [path for path, _ in batch],
            counter.probabilities(torch.stack([pixels for _, pixels in batch])),
        )


def _readable(
    counter: PhotoCounter, photos: Iterable[Path], skipped: list[Skipped]
) -> Iterator[tuple[Path, Tensor]]:
    for path in photos:
        try:
            yield path, counter.pixels(path.read_bytes())
        except UnreadablePhoto as problem:
            skipped.append(Skipped(path.stem, str(path), str(problem)))
        except OSError as error:
            skipped.append(Skipped(path.stem, str(path), error.strerror or "cannot be read"))
