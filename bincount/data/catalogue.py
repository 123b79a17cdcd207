"""The catalogue: every photo that `prepare` will write, with its count and group, before any is read."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bincount import storage
from bincount.config import FolderSource, SyntheticSource
from bincount.data import images, synthetic
from bincount.data.ids import id_problem
from bincount.data.labels import read_labels
from bincount.data.records import BadRecord, Record, parse_record
from bincount.data.skipped import Skipped, common_reasons
from bincount.data.splits import block_groups, id_twins, neighbour_groups
from bincount.errors import BadInput

#: The folders of an ImageFolder tree, and the splits that they mean.
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class PhotoFile:
    """A photo on disk."""

    path: Path

    @property
    def name(self) -> str:
        """How it is called in `skipped.csv`."""
        return self.path.name

    def read(self) -> bytes:
        """Its bytes."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class DrawnPhoto:
    """A bin to draw."""

    seed: int
    index: int
    count: int
    source: SyntheticSource

    @property
    def name(self) -> str:
        """How it is called in `skipped.csv`."""
        return f"drawn photo {self.index}"

    def draw(self) -> images.Pixels:
        """Its pixels: uint8 (height, width, 3)."""
        size = {"width": self.source.width, "height": self.source.height}
        return synthetic.draw_bin(self.seed, self.index, self.count, self.source.difficulty, **size)


@dataclass(frozen=True)
class Entry:
    """A photo to prepare. ``split`` None: still to be chosen."""

    id: str
    count: int
    group: str
    split: str | None
    photo: PhotoFile | DrawnPhoto


@dataclass
class Catalogue:
    """What there is to prepare, what is left out, and the records that came along (None: none were given)."""

    entries: list[Entry]
    skipped: list[Skipped] = field(default_factory=list)
    records: list[Record] | None = None
    notes: list[str] = field(default_factory=list)


def drawn(source: SyntheticSource, max_count: int, seed: int) -> Catalogue:
    """Bins to draw, as many of each count."""
    counts = synthetic.counts_to_draw(source.photos, max_count, seed)
    entries = []
    for index, count in enumerate(counts):
        id = f"{index + 1:05d}"
        entries.append(Entry(id, count, id, None, DrawnPhoto(seed, index, count, source)))
    return Catalogue(entries)


def from_folder(source: FolderSource) -> Catalogue:
    """Photos of a folder with the counts of their records, of a label file, or of the folders they lie in."""
    folder = storage.existing_folder(source.images, "source.images")
    if source.metadata is None and source.labels is None:
        return _from_tree(folder, source.block)
    skipped: list[Skipped] = []
    photos = _by_id([(path, path.name) for path in storage.files(folder, images.SUFFIXES)], skipped)
    if not photos and not skipped:
        raise BadInput(f"source.images={source.images}: there are no photos in it (.jpg, .jpeg or .png)")
    records = None if source.metadata is None else _read_records(source.metadata, skipped)
    counts = {record.id: record.expected_quantity for record in records or []}
    given_groups: dict[str, str] = {}
    if source.labels is not None:
        labels, left_out = read_labels(storage.folder(source.labels))
        skipped += left_out
        counts = {label.id: label.count for label in labels}
        given_groups = {label.id: label.group for label in labels if label.group is not None}
    if not counts:
        where = f"source.labels={source.labels}" if source.labels else f"source.metadata={source.metadata}"
        raise BadInput(f"{where}: there is no usable count in it{common_reasons(skipped)}")

    what = "record" if source.labels is None else "label"
    told = {each.id for each in skipped}
    skipped += [
        Skipped(id, photos[id].name, f"the photo has no {what}")
        for id in photos
        if id not in counts and id not in told
    ]
    skipped += [
        Skipped(id, f"{id}.json" if what == "record" else id, f"the {what} has no photo")
        for id in counts
        if id not in photos and id not in told
    ]
    skipped += [
        Skipped(record.id, f"{record.id}.json", "the record has neither a label nor a photo")
        for record in records or []
        if record.id not in counts and record.id not in photos and record.id not in told
    ]
    used = [id for id in photos if id in counts]
    groups = _groups(used, records, source.block) | given_groups
    entries = [Entry(id, counts[id], groups[id], None, PhotoFile(photos[id])) for id in used]
    return Catalogue(entries, skipped, records, _twin_notes(used))


def _from_tree(folder: Path, block: int) -> Catalogue:
    """An ImageFolder tree split/count/ID.jpg, whose splits are kept."""
    places = {}
    for split in sorted(path for path in folder.iterdir() if path.is_dir() and path.name in SPLITS):
        for count in sorted(path for path in split.iterdir() if path.is_dir()):
            if not count.name.isdecimal():
                raise BadInput(
                    f"source.images={folder}: {split.name}/{count.name} is not named after a count"
                )
            for path in storage.files(count, images.SUFFIXES):
                places[path] = (SPLITS[split.name], int(count.name))
    if not places:
        raise BadInput(
            f"source.images={folder}: nothing tells its photos' counts: give source.metadata=DIR (records "
            "ID.json), source.labels=FILE, or folders named split/count (train/3/ID.jpg)"
        )
    skipped: list[Skipped] = []
    photos = _by_id([(path, str(path.relative_to(folder))) for path in places], skipped)
    skipped += [
        Skipped(path.stem, str(path.relative_to(folder)), "the photo lies in no folder split/count")
        for path in sorted(folder.rglob("*"))
        if path not in places and storage.is_one_of(path, images.SUFFIXES)
    ]
    groups = block_groups(list(photos), block)
    entries = [
        Entry(id, places[path][1], groups[id], places[path][0], PhotoFile(path))
        for id, path in photos.items()
    ]
    return Catalogue(entries, skipped, None, _twin_notes(photos))


def _by_id(files: Iterable[tuple[Path, str]], skipped: list[Skipped]) -> dict[str, Path]:
    """The files by id (their name without its ending); those with no usable id of their own are skipped."""
    named: defaultdict[str, list[tuple[Path, str]]] = defaultdict(list)
    for path, name in files:
        named[path.stem].append((path, name))
    usable = {}
    for id, same in named.items():
        problem = id_problem(id)
        if problem is None and len(same) > 1:
            problem = f"{len(same)} files have this id: {', '.join(name for _, name in same)}"
        if problem is None:
            usable[id] = same[0][0]
        else:
            skipped += [Skipped(id, name, problem) for _, name in same]
    return usable


def _read_records(metadata: str, skipped: list[Skipped]) -> list[Record]:
    folder = storage.existing_folder(metadata, "source.metadata")
    files = _by_id([(path, path.name) for path in storage.files(folder, (".json",))], skipped)
    if not files:
        raise BadInput(f"source.metadata={metadata}: there are no records in it (ID.json)")
    records = []
    for id, path in files.items():
        try:
            records.append(parse_record(id, path.read_bytes()))
        except BadRecord as problem:
            skipped.append(Skipped(id, path.name, str(problem)))
        except OSError as error:
            skipped.append(Skipped(id, path.name, f"cannot be read: {error.strerror}"))
    return records


def _groups(ids: list[str], records: list[Record] | None, block: int) -> dict[str, str]:
    if records is None:
        return block_groups(ids, block)
    items = {record.id: [item.asin for item in record.items] for record in records}
    return block_groups([id for id in ids if id not in items], block) | neighbour_groups(list(items), items)


def _twin_notes(ids: Iterable[str]) -> list[str]:
    twins = id_twins(ids)
    if not twins:
        return []
    shown = "; ".join(" and ".join(each) for each in twins[:3])
    return [f"{len(twins)} times ids differ only by zero padding and are kept as different photos: {shown}"]
