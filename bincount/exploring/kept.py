"""What a service saw: a row a photo, never the photo, in Parquet files that `bincount serve` writes."""

import glob
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bincount import storage
from bincount.answer import Answer
from bincount.data.index import Counts, probability_columns
from bincount.errors import BadInput, one_line
from bincount.exploring.known import Traits, chosen
from bincount.exploring.traits import CAMERA, TRAITS

#: What the name of each file begins with, so that no others are taken for them, or deleted.
PREFIX, SUFFIX = "kept-", ".parquet"


@dataclass(frozen=True)
class Seen:
    """A photo that was counted.

    ``request``: the id of its request, ``photo``: its place in it, from 1 on. ``camera``: the traits CAMERA.
    ``expected``: what the record says, where that was given.
    """

    time: datetime
    request: str
    photo: int
    camera: dict[str, float]
    answer: Answer
    expected: int | None


def write(folder: Path, seen: Sequence[Seen], run: str, model: str, counts: Counts) -> Path:
    """Write a file with these photos, whole or not at all; gives its path. Raises OSError.

    Its name tells the time (UTC) of the first. ``model``: ``known.version`` of what counted them.
    """
    shares = np.array([each.answer.probabilities for each in seen], dtype=np.float32).reshape(-1, len(counts))
    columns = {
        "time": pa.array([each.time for each in seen], pa.timestamp("us", "UTC")),
        "request": pa.array([each.request for each in seen]),
        "photo": pa.array([each.photo for each in seen], pa.int32()),
        "run": pa.array([run] * len(seen)),
        "model": pa.array([model] * len(seen)),
        **{name: pa.array([each.camera[name] for each in seen], pa.float64()) for name in CAMERA},
        "count": pa.array([each.answer.count for each in seen], pa.int32()),
        "certainty": pa.array([max(each.answer.probabilities) for each in seen], pa.float64()),
        "expected": pa.array([each.expected for each in seen], pa.int64()),
        **dict(zip(probability_columns(counts.names), shares.T, strict=True)),
    }
    first = seen[0].time.astimezone(UTC)
    path = folder / f"{PREFIX}{first:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}{SUFFIX}"
    with storage.written_whole(path) as partial:
        pq.write_table(pa.table(columns), partial, compression="zstd")
    return path


def bound(folder: Path, most: int) -> None:
    """Delete the oldest files of a folder until the others have ``most`` bytes or less. Raises OSError."""
    size = 0
    for path in sorted(_files(folder), reverse=True):
        try:
            size += path.stat().st_size
            if size > most:
                path.unlink()
        except FileNotFoundError:  # another worker's bound was quicker
            continue


def find(kept: str) -> list[Path]:
    """The files that a folder, a file or a glob names. Raises BadInput where it names none."""
    place = storage.folder(kept)
    if place.is_dir():
        found = _files(place)
    else:
        found = [Path(path) for path in glob.glob(str(place)) if Path(path).is_file()]
    if not found:
        raise BadInput(
            f"kept={kept}: there is nothing that a service kept ({PREFIX}*{SUFFIX}; see serve.keep)"
        )
    return sorted(found)


def read(files: Iterable[Path], model: str, sample: int, seed: int) -> Traits:
    """The traits of photos that ``model`` counted, at most ``sample`` of them, drawn evenly.

    Raises BadInput for a file that no service wrote, and where no photo was counted by this model.
    """
    names = ["model", *TRAITS]
    tables = []
    for path in files:
        try:
            tables.append(pq.read_table(path, columns=names))
            if tables[-1].column_names != names:
                raise BadInput(f"{path} has not the columns of what a service keeps")
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{path} cannot be read: {one_line(error)}") from None
    seen = pa.concat_tables(tables)
    own = seen.filter(pc.field("model") == model)
    if not len(own):
        raise BadInput(
            f"of the {len(seen):,} photos that were kept none was counted by this run as it is now "
            "(its weights, calibration and decoding)"
        )
    places = chosen(list(range(len(own))), sample, seed)
    own = own.take(places)
    return Traits({name: own[name].to_numpy().astype(np.float64) for name in TRAITS})


def _files(folder: Path) -> list[Path]:
    return list(folder.glob(f"{PREFIX}*{SUFFIX}"))
