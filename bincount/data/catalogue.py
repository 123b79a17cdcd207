"""The catalogue: every photo that `prepare` will write, with its count and group, before any is read."""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from bincount.config import CollageSource, SyntheticSource
from bincount.data import synthetic
from bincount.data.ids import id_problem
from bincount.data.origin import Origin
from bincount.data.skipped import Skipped, common_reasons
from bincount.data.splits import block_groups, neighbour_groups
from bincount.data.tables import read_counts, read_items
from bincount.errors import BadInput
from bincount.storage import Store

#: The folders of an ImageFolder tree, and the splits that they mean.
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A photo to prepare."""

    id: str
    count: int
    group: str
    split: str | None
    """None: still to be chosen."""
    photo: str
    """The photo's name in its store; of a drawn bin, its number."""


@dataclass
class Catalogue:
    """What there is to prepare, and what is left out."""

    entries: list[Entry]
    skipped: list[Skipped]


def drawn(source: SyntheticSource | CollageSource, max_count: int, seed: int) -> Catalogue:
    """Bins to draw, as many of each count."""
    counts = synthetic.counts_to_draw(source.photos, max_count, seed)
    entries = []
    for number, count in enumerate(counts):
        id = f"{number + 1:05d}"
        entries.append(Entry(id, count, id, None, str(number)))
    return Catalogue(entries, [])


def from_origin(origin: Origin, tables: Store | None, block: int, skipped: Iterable[Skipped]) -> Catalogue:
    """The photos of ``origin`` with their counts: of their labels, or of the records in ``tables``.

    Neighbours that share an item form a group where there are tables; a label's own group comes before that.
    With neither labels nor tables the photos lie in folders that tell their split and count. ``skipped`` is
    what was left out on the way here. Raises BadInput where nothing tells the counts.
    """
    left_out = [*skipped, *origin.labels_left_out]
    if origin.labels is None and tables is None:
        return _from_tree(origin, block, left_out)
    photos = usable_names(origin.photo_names(), left_out)
    quantities = read_counts(tables) if tables else {}
    counts = quantities if origin.labels is None else {label.id: label.count for label in origin.labels}
    if not counts:
        raise BadInput(f"{origin.counts_from}: there is no usable count in it{common_reasons(left_out)}")
    what = "record" if origin.labels is None else "label"
    left_out += _without_partner(photos, counts, quantities, what, {each.id for each in left_out})
    used = [id for id in photos if id in counts]
    groups = block_groups([id for id in used if id not in quantities], block)
    if tables:
        groups |= neighbour_groups(list(quantities), read_items(tables))
    groups |= {label.id: label.group for label in origin.labels or [] if label.group is not None}
    return Catalogue([Entry(id, counts[id], groups[id], None, photos[id]) for id in used], left_out)


def _without_partner(
    photos: Mapping[str, str],
    counts: Mapping[str, int],
    quantities: Mapping[str, int],
    what: str,
    told: Container[str],
) -> Iterator[Skipped]:
    """The photos, labels and records that have nothing to go with, but for the ids that were ``told``."""
    for id, name in photos.items():
        if id not in counts and id not in told:
            yield Skipped(id, name, f"the photo has no {what}")
    for id in counts:
        if id not in photos and id not in told:
            yield Skipped(id, f"{id}.json" if what == "record" else id, f"the {what} has no photo")
    for id in quantities:
        if id not in counts and id not in photos and id not in told:
            yield Skipped(id, f"{id}.json", "the record has neither a label nor a photo")


def _from_tree(origin: Origin, block: int, skipped: list[Skipped]) -> Catalogue:
    """The photos of an ImageFolder tree, split/count/ID.jpg, whose splits are kept."""
    assert origin.photos is not None
    where = f"source.images={origin.photos.address}"
    places = {}
    for name in origin.photo_names(deep=True):
        folders = name.split("/")[:-1]
        if len(folders) != 2 or folders[0] not in SPLITS:
            skipped.append(Skipped(id_of(name), name, "the photo lies in no folder split/count"))
        elif not folders[1].isdecimal():
            raise BadInput(f"{where}: {'/'.join(folders)} is not named after a count")
        else:
            places[name] = (SPLITS[folders[0]], int(folders[1]))
    if not places:
        raise BadInput(
            f"{where}: nothing tells its photos' counts: give source.metadata=DIR (records ID.json), "
            "source.labels=FILE, or folders named split/count (train/3/ID.jpg)"
        )
    photos = usable_names(places, skipped)
    groups = block_groups(list(photos), block)
    entries = [Entry(id, places[name][1], groups[id], places[name][0], name) for id, name in photos.items()]
    return Catalogue(entries, skipped)


def usable_names(names: Iterable[str], skipped: list[Skipped]) -> dict[str, str]:
    """The names by id; those with no usable id of their own are added to ``skipped``."""
    named: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        named[id_of(name)].append(name)
    usable = {}
    for id, same in named.items():
        problem = id_problem(id)
        if problem is None and len(same) > 1:
            problem = f"{len(same)} files have this id: {', '.join(same)}"
        if problem is None:
            usable[id] = same[0]
        else:
            skipped += [Skipped(id, name, problem) for name in same]
    return usable


def id_of(name: str) -> str:
    """The id that a photo's or record's name gives: its last part without its ending."""
    return name.rpartition("/")[2].rpartition(".")[0]
