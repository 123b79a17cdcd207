"""`bincount predict`: new photos become a CSV of counts."""

import csv
import glob
import io
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from bincount import progress, run, storage
from bincount.config import PredictConfig
from bincount.counter import Counter, load
from bincount.data.images import SUFFIXES, UnreadablePhoto
from bincount.data.skipped import Skipped, as_csv
from bincount.errors import BadInput
from bincount.model.decoding import decode


def predict(config: PredictConfig) -> None:
    """Count every photo that can be read into ``config.out``; list the others beside it, with the reason."""
    paths = find_photos(config.photos)
    counter = load(run.find(config.run, config.runs), decoding=config.decode)
    out = storage.folder(config.out)
    skipped: list[Skipped] = []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "count", *(f"p_{name}" for name in counter.counts.names)])
    rows = 0
    for chunk, probabilities in _counted(counter, paths, config.batch_size, skipped):
        for path, count, shares in zip(
            chunk, decode(probabilities, counter.decoding).tolist(), probabilities.tolist(), strict=True
        ):
            writer.writerow([path.stem, counter.counts.names[count], *(f"{share:.6f}" for share in shares)])
            rows += 1
    left_out = out.with_name(f"{out.stem}.skipped.csv")
    if skipped:
        storage.Folder(left_out.parent).write(left_out.name, as_csv(skipped))
    else:
        left_out.unlink(missing_ok=True)
    if not rows:
        raise BadInput(
            f"none of the {len(paths)} photos could be read, the first because: {skipped[0].reason}"
        )
    storage.write_text(out, text.getvalue())
    progress.out.print(f"counted {rows:,} photos into {out}", soft_wrap=True)
    if skipped:
        progress.out.print(
            f"{len(skipped):,} could not be read, each with its reason in {left_out}",
            soft_wrap=True,
        )


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


def _counted(
    counter: Counter, paths: list[Path], batch_size: int, skipped: list[Skipped]
) -> Iterator[tuple[list[Path], Tensor]]:
    """Batches of readable photos with the probability of each count, float32 (photos, classes)."""
    chunk: list[tuple[Path, Tensor]] = []
    for place, path in enumerate(progress.track(paths, "counting photos", len(paths)), start=1):
        try:
            chunk.append((path, counter.pixels(path.read_bytes())))
        except UnreadablePhoto as problem:
            skipped.append(Skipped(path.stem, str(path), str(problem)))
        except OSError as error:
            skipped.append(Skipped(path.stem, str(path), error.strerror or "cannot be read"))
        if chunk and (len(chunk) == batch_size or place == len(paths)):
            yield (
                [path for path, _ in chunk],
                counter.probabilities(torch.stack([pixels for _, pixels in chunk])),
            )
            chunk = []
