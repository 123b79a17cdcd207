"""The facts of a data set in words, tables and pictures."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from bincount.comparison import number, percent
from bincount.exploring import drawing
from bincount.exploring.facts import QUANTILES, Facts, Photos, Records, Spread
from bincount.exploring.sections import Drawn, Section
from bincount.model.guessing import Baselines

#: Rows that quantities are told in; the last has no end.
QUANTITIES = (0, 1, 2, 3, 4, 5, 6, 11, 21)
RECURRENCES = (1, 2, 3, 4, 5, 10)

#: Bars up to which a picture shows each number by itself; the last bar is all above.
MOST_BARS = 20

#: The share of ABID's consecutive photos that share an item.
ABID_SHARING = 0.45


def sections(facts: Facts) -> Iterator[Section]:
    """Everything that is known of a data set, and what is missing."""
    yield Section("What there is", list(_whole(facts)))
    if facts.photos:
        yield from _of_photos(facts.photos)
    if facts.records:
        yield from _of_records(facts.records)
        if not facts.photos:
            yield _guessing({"bins of 0 to 5 items": facts.records.guesses})


def _whole(facts: Facts) -> Iterator[str]:
    if facts.photos:
        parts = ", ".join(f"{photos:,} {split}" for split, photos in facts.photos.per_split.items())
        yield f"{sum(facts.photos.per_split.values()):,} photos: {parts}."
    else:
        yield "There are no photos (index.parquet): `bincount prepare` makes them with source.images=…."
    if facts.records:
        found = facts.records
        different = sum(found.recurring.values())
        yield f"{found.bins:,} records of bins, with {found.items:,} items, {different:,} different ones."
        if found.flagged:
            yield f"In {found.flagged:,} records the quantity is not the sum of the items' quantities."
    else:
        yield "There are no records (tables/): `bincount prepare` makes them with source.metadata=…."


def _of_photos(photos: Photos) -> Iterator[Section]:
    per_count = photos.per_count
    if per_count:
        names = list(next(iter(per_count.values())))
        rows = [[split, *(f"{held[name]:,}" for name in names)] for split, held in per_count.items()]
        if len(rows) > 1:
            sums = (sum(held[name] for held in per_count.values()) for name in names)
            rows.append(["all", *(f"{each:,}" for each in sums)])
        unlabelled = [split for split in photos.per_split if split not in per_count]
        told = [f"Without a count: {', '.join(unlabelled)}."] if unlabelled else []
        drawn = partial(drawing.bars, series=per_count, across="items in the bin", up="share of photos")
        alt = f"photos of each count: {_listed(dict(zip(names, rows[-1][1:], strict=True)))}"
        yield Section("Photos of each count", told, ["split", *names], rows, Drawn(drawn, alt))
    if photos.weights:
        yield _balance(photos)
    if photos.guesses:
        yield _guessing(photos.guesses)
    yield _spreads("Sides of the photos, pixels as stored", photos.sides, "photos")


def _balance(photos: Photos) -> Section:
    held = photos.per_count["train"]
    photos_of = {name: held[name] for name in photos.weights}
    most, least = max(photos_of, key=photos_of.__getitem__), min(photos_of, key=photos_of.__getitem__)
    times = photos_of[most] / photos_of[least]
    empty = [name for name, number in held.items() if not number]
    lines = [
        f"In train the commonest count, {most}, comes {times:.1f} times as often as the rarest, {least}. "
        "With data.balance=weights a photo of each count weighs:"
    ]
    if empty:
        lines.insert(0, f"In train there is no photo of {', '.join(empty)}.")
    whole = sum(photos_of.values())
    rows = [
        [name, f"{photos_of[name]:,}", percent(photos_of[name] / whole), f"{weight:.2f}"]
        for name, weight in photos.weights.items()
    ]
    return Section("Balance", lines, ["count", "photos", "share", "weight"], rows)


def _guessing(guesses: Mapping[str, Baselines]) -> Section:
    rows = []
    for name, guess in guesses.items():
        majority, random = guess["majority"], guess["random"]
        for told, given in ((f"always {majority['count']}", majority), ("at random", random)):
            rows.append([f"{name}, {told}", percent(given["accuracy"]), number(given["rmse"])])
    lines = [
        "What is scored without looking at a photo: always with the commonest count, or at random, with each "
        "count as often as it comes."
    ]
    return Section("Guessing", lines, ["guess", "accuracy", "RMSE"], rows)


def _of_records(records: Records) -> Iterator[Section]:
    quantities = grouped(records.per_quantity, QUANTITIES)
    yield _numbers("Items in a bin", records.per_quantity, quantities, "items in the bin", "bins")
    distinct = grouped(records.per_items, QUANTITIES[:7])
    yield _numbers("Different items in a bin", records.per_items, distinct, "different items", "bins")
    recurring = grouped(records.recurring, RECURRENCES)
    title = f"How often each of {sum(records.recurring.values()):,} items recurs"
    yield _numbers(title, records.recurring, recurring, "bins that an item is in", "items")
    yield _spreads("Weights and sizes of items", records.measures, "items")
    yield Section("Neighbours", list(_neighbours(records)))


def _neighbours(records: Records) -> Iterator[str]:
    found = records.consecutive
    if found.share is None:
        yield "No two bins have consecutive numbers."
    else:
        yield (
            f"Of {found.pairs:,} pairs of bins with consecutive numbers {percent(found.share)} share an item "
            f"(in ABID {percent(ABID_SHARING, 0)}): they are often one bin before and after a pick."
        )
    near = records.neighbours
    if near.share is not None:
        yield (
            f"In id order, whatever the gap and empty bins passed over, {percent(near.share)} of "
            f"{near.pairs:,} pairs do. `bincount prepare` keeps such neighbours in one split."
        )


def _numbers(title: str, each: Mapping[int, int], told: Mapping[str, int], across: str, up: str) -> Section:
    """A section on how many there are of each number, ``each``; in its table they are ``told``."""
    if not each:
        return Section(title, ["There are none."])
    whole = sum(told.values())
    rows = [[name, f"{value:,}", percent(value / whole)] for name, value in told.items()]
    single = grouped(each, range(min(each), min(max(each), MOST_BARS) + 1))
    drawn = partial(drawing.bars, series={up: single}, across=across, up=up)
    alt = f"{up} by {across}: {_listed({name: f'{value:,}' for name, value in told.items()})}"
    return Section(title, [], [across, up, "share"], rows, Drawn(drawn, alt))


def _spreads(title: str, spreads: Mapping[str, Spread], of: str) -> Section:
    rows = [
        [
            name,
            *([f"{value:.4g}" for value in spread.quantiles] or [""] * len(QUANTILES)),
            f"{spread.missing:,}",
        ]
        for name, spread in spreads.items()
    ]
    values = {name: spread.values for name, spread in spreads.items() if spread.values}
    drawn = None
    if values:
        medians = {name: f"median {spreads[name].quantiles[2]:.4g}" for name in values}
        drawn = Drawn(partial(drawing.histograms, values=values, up=of), f"histograms: {_listed(medians)}")
    return Section(title, [], ["", *QUANTILES, "unknown"], rows, drawn)


def grouped(numbers: Mapping[int, int], firsts: Sequence[int]) -> dict[str, int]:
    """How many there are from each of ``firsts`` up to the next, the last without end; empty ends left out.

    What lies below the first counts to it.
    """
    found = dict.fromkeys(firsts, 0)
    for value, many in numbers.items():
        found[max((first for first in firsts if first <= value), default=firsts[0])] += many
    held = [place for place, first in enumerate(firsts) if found[first]]
    most = max(numbers, default=0)
    names = {}
    for place in range(held[0], held[-1] + 1) if held else ():
        first = firsts[place]
        end = firsts[place + 1] - 1 if place + 1 < len(firsts) else max(first, most)
        last = place + 1 == len(firsts) and end > first
        name = f"{first} or more" if last else str(first) if end == first else f"{first} to {end}"
        names[name] = found[first]
    return names


def _listed(told: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in told.items())
