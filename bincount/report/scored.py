"""An evaluation as it lies in its folder: the figures, and the answer to each photo."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from bincount.data.index import probability_columns

#: Splits in the order in which a reader wants them: what was never seen first.
ORDER = ("test", "val", "train")


@dataclass(frozen=True)
class Scored:
    """``results``: what results.json has. ``id`` of each photo, ``count`` and ``told`` int64 (photos,) are
    classes, ``probabilities`` float32 (photos, classes), None where nobody knows them.
    """

    folder: Path
    results: dict[str, Any]
    id: list[str]
    count: npt.NDArray[np.int64]
    told: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32] | None

    @classmethod
    def read(cls, folder: Path) -> "Scored":
        """Read ``results.json`` and ``predictions.parquet`` of an evaluation's folder."""
        results = json.loads((folder / "results.json").read_bytes())
        table = pq.read_table(folder / "predictions.parquet")
        columns = probability_columns(results["names"])
        known = set(columns) <= set(table.column_names)
        return cls(
            folder,
            results,
            table["id"].to_pylist(),
            table["count"].to_numpy(),
            table["predicted"].to_numpy(),
            np.stack([table[name].to_numpy() for name in columns], axis=1) if known else None,
        )

    @property
    def title(self) -> str:
        """What was evaluated: a split, or answers against a file of labels."""
        return f"Split {self.results['split']}" if self.results["split"] else "These answers"

    @property
    def names(self) -> list[str]:
        """The name of each class."""
        names: list[str] = self.results["names"]
        return names

    @property
    def certainty(self) -> npt.NDArray[np.float32] | None:
        """The probability of the count told, float32 (photos,)."""
        return (
            None if self.probabilities is None else self.probabilities[np.arange(len(self.told)), self.told]
        )


def evaluations(run: Path) -> list[Scored]:
    """The evaluations in a run's folder, that of photos it never saw first."""
    found = [Scored.read(path.parent) for path in (run / "evaluation").glob("*/results.json")]
    place = {split: number for number, split in enumerate(ORDER)}
    return sorted(found, key=lambda each: (place.get(each.folder.name, len(place)), each.folder.name))


def interval(right: int, of: int) -> tuple[float, float]:
    """Between which shares the true one lies with 95 % confidence (Wilson 1927), where ``of`` is above 0."""
    z = 1.96
    share = right / of
    middle = (share + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z * math.sqrt(share * (1 - share) / of + z**2 / (4 * of**2)) / (1 + z**2 / of)
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def chance_of_difference(only_one: int, only_other: int) -> float:
    """How often chance alone makes two equally good answerers differ so much: McNemar's exact test (1947).

    ``only_one`` and ``only_other``: photos that only the one, and only the other, has right.
    """
    differing, most = only_one + only_other, max(only_one, only_other)
    tail = sum(math.comb(differing, each) for each in range(most, differing + 1))
    return min(1.0, float(2 * tail / 2**differing))
