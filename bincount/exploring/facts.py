"""What is in a data set. Each fact is a question in SQL, see :mod:`bincount.exploring.database`.

A fact that a data set cannot tell, since it has no photos or no records, is None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bincount.data.balance import class_weights
from bincount.data.index import Counts, Index
from bincount.exploring.database import Database
from bincount.model.guessing import Baselines, baselines

#: The counts that bins are guessed among where no photos tell which the model learns.
USUAL = Counts(5)

#: The numbers that a distribution is told in: shares of all that is measured.
QUANTILES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}


@dataclass(frozen=True)
class Spread:
    """A distribution: how many values there are and how many are missing, QUANTILES, and all values."""

    values: Sequence[float]
    missing: int
    quantiles: Sequence[float]


@dataclass(frozen=True)
class Photos:
    """The photos of a data set.

    ``per_count``: photos of each split by the names of the counts; of photos without a label there are none.
    ``sides``: width and height in pixels as stored, and width / height. ``weights``: what a photo of each
    count weighs in training with data.balance=weights; ``guesses``: what guessing scores on each split.
    """

    per_split: Mapping[str, int]
    per_count: Mapping[str, Mapping[str, int]]
    sides: Mapping[str, Spread]
    weights: Mapping[str, float]
    guesses: Mapping[str, Baselines]


@dataclass(frozen=True)
class Pairs:
    """How many pairs of bins there are, and how many of them share an item."""

    pairs: int
    sharing: int

    @property
    def share(self) -> float | None:
        return self.sharing / self.pairs if self.pairs else None


@dataclass(frozen=True)
class Records:
    """The records of a data set.

    ``per_quantity``: bins of each expected quantity; ``per_items``: bins of so many different items;
    ``recurring``: items that are in so many bins. ``flagged``: bins whose quantity is not the sum of their
    items'. ``measures``: pounds and inches. ``consecutive``: bins with the numbers n and n + 1;
    ``neighbours``: bins next to each other in id order, whatever the gap, empty ones passed over.
    ``guesses``: what guessing scores on the bins of 0 to 5 items.
    """

    bins: int
    items: int
    flagged: int
    per_quantity: Mapping[int, int]
    per_items: Mapping[int, int]
    recurring: Mapping[int, int]
    measures: Mapping[str, Spread]
    consecutive: Pairs
    neighbours: Pairs
    guesses: Baselines


@dataclass(frozen=True)
class Facts:
    """All of it. ``photos``, ``records`` None: there are none."""

    address: str
    photos: Photos | None
    records: Records | None


def gather(database: Database) -> Facts:
    """Ask the data set for every fact."""
    photos = None if database.index is None else _photos(database, database.index)
    records = _records(database) if "bins" in database.tables else None
    return Facts(database.address, photos, records)


def _photos(database: Database, index: Index) -> Photos:
    names = index.counts.names
    counted = database.rows("select split, count, count(*) from photos where count is not null group by all")
    classes = {split: np.zeros(len(names), np.int64) for split in index.splits}
    for split, count, photos in counted:
        classes[split][index.counts.classes(np.array([count]))] += photos
    held = {split: photos for split, photos in classes.items() if photos.any()}
    per_split = dict(database.rows("select split, count(*) from photos group by split"))
    of_training = held.get("train", np.zeros(len(names), np.int64))
    weights = class_weights(_each(of_training), len(names))
    return Photos(
        {split: per_split[split] for split in index.splits},
        {split: dict(zip(names, photos.tolist(), strict=True)) for split, photos in held.items()},
        {
            "width": _spread(database, "photos", "width"),
            "height": _spread(database, "photos", "height"),
            "width / height": _spread(database, "photos", "width / height"),
        },
        {name: float(weight) for name, weight in zip(names, weights, strict=True) if weight},
        {split: baselines(_each(photos), len(names)) for split, photos in held.items()},
    )


def _records(database: Database) -> Records:
    whole = database.row(
        "select count(*) as bins, (select count(*) from items) as items, "
        "coalesce(sum(quantity_differs::int), 0)::bigint as flagged from bins"
    )
    per_quantity = _counted(database, "expected_quantity", "bins")
    usual = np.array([per_quantity.get(count, 0) for count in range(len(USUAL))])
    return Records(
        whole["bins"],
        whole["items"],
        whole["flagged"],
        per_quantity,
        _counted(database, "distinct_items", "bins"),
        _counted(database, "bins", "(select asin, count(distinct id) as bins from items group by asin)"),
        {
            "weight, lb": _spread(database, "items", "weight_lb"),
            "shortest side, in": _spread(database, "items", "height_in"),
            "middle side, in": _spread(database, "items", "width_in"),
            "longest side, in": _spread(database, "items", "length_in"),
        },
        _pairs(database, "next.series = this.series and next.number = this.number + 1", "places"),
        _pairs(database, "next.series = this.series and next.place = this.place + 1", _HOLDING),
        baselines(_each(usual), len(USUAL)),
    )


#: The places of bins that hold something, counted anew.
_HOLDING = """(
    select id, series, number, row_number() over (order by place) as place
    from places where id in (select id from items)
)"""


def _pairs(database: Database, next_to: str, places: str) -> Pairs:
    """The pairs of bins, ``this`` and ``next``, that lie so among ``places``."""
    found = database.row(f"""
        with places as (from {places}),
             pairs as (select this.id as this, next.id as next
                       from places as this join places as next on {next_to}),
             sharing as (select distinct pairs.this from pairs
                         join items as one on one.id = pairs.this
                         join items as other on other.id = pairs.next and other.asin = one.asin)
        select (select count(*) from pairs) as pairs, (select count(*) from sharing) as sharing
    """)
    return Pairs(**found)


def _counted(database: Database, column: str, table: str) -> dict[int, int]:
    return dict(database.rows(f"select {column}, count(*) from {table} group by 1 order by 1"))


def _spread(database: Database, table: str, value: str) -> Spread:
    asked = [each for (each,) in database.rows(f"select ({value})::double from {table}")]
    values = [each for each in asked if each is not None]
    quantiles = np.quantile(values, list(QUANTILES.values())).tolist() if values else []
    return Spread(values, len(asked) - len(values), quantiles)


def _each(photos: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The class of each photo, of how many there are of each class."""
    return np.repeat(np.arange(len(photos)), photos)
