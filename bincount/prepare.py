"""`bincount prepare`: photos and records become shards and an index.

The work is cut into pieces (parts of the tables, the catalogue, shards), each made whole and then noted in
the draft of the data set. So a killed command goes on where it was, and several machines can share the work.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from rich.table import Table

from bincount import __version__, progress, storage
from bincount.config import (
    CollageSource,
    PhotoSource,
    PrepareConfig,
    S3Source,
    ShardsSource,
    Source,
    SyntheticSource,
)
from bincount.data import catalogue, foreign
from bincount.data.allotment import ShardPlan, allot, as_table, shard_plans
from bincount.data.catalogue import Entry
from bincount.data.cutting import cut_up
from bincount.data.index import (
    SPLITS,
    UNLABELLED,
    Counts,
    ImageSize,
    Index,
    IndexedSample,
    rows_of,
    write_index,
)
from bincount.data.origin import Origin, open_origin
from bincount.data.parquet import table_in
from bincount.data.rendering import Collage, DrawnPhoto, Photo, render
from bincount.data.shards import ShardWriter
from bincount.data.skipped import Skipped, as_csv, common_reasons, from_csv
from bincount.data.splits import id_twins
from bincount.data.tables import describe, write_tables
from bincount.data.unfinished import ARGUMENTS, FOLDER, Piece, Unfinished
from bincount.engines.session import write_with_spark
from bincount.errors import BadInput, BincountError, Denied
from bincount.storage import Folder, Store

#: What a data set, or a draft of one, holds.
WRITTEN = {"index.json", "index.parquet", "skipped.csv", "tables", *SPLITS, UNLABELLED, FOLDER}

#: Keys that say how the work is done, and change nothing of what comes out.
HOW = {"out", "workers", "part", "merge", "overwrite"}

#: Pieces of which there is but one: the records that there are, and the photos with their places.
RECORDS, CATALOGUE = "records", "catalogue"

#: The piece that is all tables, where Spark makes them at once.
SPARK = "tables/spark"


class Unmade(BincountError):
    """Shards are missing that other parts are to make; ``number`` is how many."""

    def __init__(self, number: int, told: str):
        super().__init__(told)
        self.number = number


def prepare(config: PrepareConfig) -> None:
    """Make the data set ``config.out``, or go on making it, and tell what it holds."""
    out = make(config)
    if out is not None:
        _tell(out)
        return
    told = f"part {config.part} is done; once all are, give merge=true in its place"
    progress.out.print(told, soft_wrap=True)


def make(config: PrepareConfig) -> Store | None:
    """Make the data set ``config.out``, or go on making it; None while only some of its parts are made."""
    if config.part is not None and config.merge:
        raise BadInput("merge=true joins all parts: leave part=… out")
    _check_engine(config)
    out = storage.open_store(config.out)
    if isinstance(config.source, ShardsSource):
        _index_shards(config, out)
        return out
    arguments = _arguments(config)
    draft = _draft(out, config, arguments)
    begun_before = draft.begin(arguments)
    try:
        whole = draft.store.has("index.json") or _make(draft, config)
    except BadInput as problem:
        # Access may be lost after hours of work: that is kept.
        kept = isinstance(problem, Denied) and draft.whole()
        if not begun_before and config.part is None and not kept:
            draft.clear()
        raise
    if not whole:
        return None
    draft.forget(draft.whole())
    if draft.store is not out:
        out.publish(draft.store)
    out.delete([ARGUMENTS])
    return out


def _check_engine(config: PrepareConfig) -> None:
    """Raise BadInput where the engine cannot make what is asked for."""
    source, engine = config.source, config.tables.engine
    if engine == "local":
        return
    if engine == "athena":
        raise BadInput(
            "tables.engine=athena: Athena runs in AWS alone: python launch/submit.py tables "
            "tables.engine=athena source.metadata=s3://… out=s3://…"
        )
    if not isinstance(source, PhotoSource) or source.metadata is None:
        raise BadInput("tables.engine=spark: there are no records: give source.metadata=…, or leave it out")
    if isinstance(source, S3Source) and source.list is not None:
        raise BadInput(
            "tables.engine=spark: Spark reads all records, not those of source.list: leave one out"
        )
    if config.part is not None:
        raise BadInput(f"part={config.part}: Spark shares its work by itself: leave one of them out")


def _arguments(config: PrepareConfig) -> dict[str, Any]:
    """What settles every byte of the data set, by dotted key."""
    keys: dict[str, Any] = {"version": __version__}
    for key, value in asdict(config).items():
        if key not in HOW:
            keys |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    if isinstance(config.source, CollageSource):
        keys["source.cut"] = _checked(config.source).digest
    return keys


def _checked(source: CollageSource) -> Index:
    """The data set whose photos are cut up. Raises BadInput where there is none, or none of one item."""
    try:
        index = Index.open(source.cut)
    except BadInput as problem:
        raise BadInput(str(problem).replace("data.root=", "source.cut=")) from None
    if "train" not in index.splits or not (index.split("train").count == 1).any():
        raise BadInput(f"source.cut={source.cut}: no training photo has one item to cut out")
    return index


def _draft(out: Store, config: PrepareConfig, arguments: dict[str, Any]) -> Unfinished:
    """The draft to go on with. Raises BadInput where ``out`` would lose more than may be replaced."""
    out.restore()
    try:
        held = out.held()
    except BadInput as problem:
        raise BadInput(f"out={problem}") from None
    if held - WRITTEN or (held and not held & {"index.json", "skipped.csv", FOLDER}):
        raise BadInput(f"out={config.out} has other files in it: name an empty or a new folder")
    published, draft = Unfinished(out), Unfinished(out.draft())
    if held & {"index.json", "skipped.csv"} and published.arguments() == arguments:
        return published  # killed when all was there but the last bit of tidying
    half = FOLDER in held and draft.store is out
    if "index.json" in held:
        _check_replaceable(out, config)
    elif "skipped.csv" in held and not half and not config.overwrite:
        raise BadInput(f"out={config.out} has tables already: name another folder, or add overwrite=true")
    if config.overwrite and draft.arguments() != arguments:
        draft.clear()
    return draft


def _check_replaceable(out: Store, config: PrepareConfig) -> None:
    if not config.overwrite:
        raise BadInput(f"out={config.out} is a data set already: name another folder, or add overwrite=true")
    if not isinstance(out, Folder):
        raise BadInput(
            f"out={config.out} is a data set already, and objects cannot be replaced all at once: "
            "name another prefix, or delete it first"
        )
    if _source_of(out) == "shards":
        raise BadInput(f"out={config.out} has shards that were made elsewhere: name an empty or a new folder")


def _source_of(out: Store) -> Any:
    """The name of the source that ``index.json`` tells, None where it is damaged."""
    try:
        return orjson.loads(out.read("index.json"))["source"]["name"]
    except (ValueError, KeyError, TypeError):
        return None


# --- the pieces ---------------------------------------------------------------------------------------


def _make(draft: Unfinished, config: PrepareConfig) -> bool:
    """Make the pieces that are missing and join them; tells whether the data set is whole now.

    With ``part`` only its share of the pieces is made, and with ``merge`` they must all be there.
    """
    part, parts = _part(config)
    origin = open_origin(config.source) if isinstance(config.source, PhotoSource) else None
    if origin and origin.photos is None:
        tables = _make_tables(draft, origin, config, part / parts)
        skipped = [*tables, *origin.labels_left_out]
        if config.part is None:
            draft.store.write("skipped.csv", as_csv(skipped))
        return config.part is None
    if not draft.has(CATALOGUE):
        _make_catalogue(draft, origin, config, part / parts)
    (allotted,) = draft.read([CATALOGUE])
    plans = list(shard_plans(allotted.rows, config.photos_per_shard))
    if not config.merge:
        whole = draft.whole()
        _make_shards(draft, origin, config, [plan for plan in plans[part::parts] if plan.name not in whole])
    if config.part is None:
        _join(draft, config, plans, allotted.skipped)
    return config.part is None


def _part(config: PrepareConfig) -> tuple[int, int]:
    """Which part of how many: from 0."""
    if config.part is None:
        return 0, 1
    number, _, of = config.part.partition("/")
    return int(number) - 1, int(of)


def _make_tables(draft: Unfinished, origin: Origin, config: PrepareConfig, first: float) -> list[Skipped]:
    """Write the tables, where there are records; gives what was left out."""
    if origin.records is None:
        return []
    if config.tables.engine == "spark":
        return _make_tables_with_spark(draft, origin.records)
    if not draft.has(RECORDS):
        # Noted before any is read: a part is a stretch of this list, also when records are added meanwhile.
        left_out: list[Skipped] = []
        named = catalogue.usable_names(origin.record_names(), left_out)
        rows = pa.table(
            {"id": pa.array(list(named), pa.string()), "name": pa.array(named.values(), pa.string())}
        )
        draft.finish(RECORDS, Piece(rows, left_out))
    (listed,) = draft.read([RECORDS])
    named = dict(zip(listed.rows["id"].to_pylist(), listed.rows["name"].to_pylist(), strict=True))
    pieces = write_tables(draft, origin.records, named, first)
    return [*listed.skipped, *(each for piece in draft.read(pieces) for each in piece.skipped)]


def _make_tables_with_spark(draft: Unfinished, records: Store) -> list[Skipped]:
    if not draft.has(SPARK):
        half = draft.store.below("tables")
        half.delete(half.names(deep=True))
        half.clear()
        found = write_with_spark(records.address, draft.store.address)
        if not found.records:
            raise BadInput(f"source.metadata={records.address}: there are no records in it (ID.json)")
        draft.finish(SPARK, Piece(pa.table({}), [Skipped(*each) for each in found.refused]))
    (piece,) = draft.read([SPARK])
    return list(piece.skipped)


def _make_catalogue(draft: Unfinished, origin: Origin | None, config: PrepareConfig, first: float) -> None:
    """Settle which photo goes where, before any is read."""
    if origin is None:
        assert isinstance(config.source, SyntheticSource | CollageSource)
        found = catalogue.drawn(config.source, config.max_count, config.seed)
    else:
        assert isinstance(config.source, PhotoSource)
        skipped = _make_tables(draft, origin, config, first)
        tables = draft.store if origin.records else None
        found = catalogue.from_origin(origin, tables, config.source.block, skipped)
    counts = Counts(config.max_count, config.overflow == "class")
    entries = allot(found, counts, config.overflow, asdict(config.split), config.seed)
    if not entries:
        raise BadInput(f"no photo is left to prepare{common_reasons(found.skipped)}")
    draft.finish(CATALOGUE, Piece(as_table(entries), found.skipped))


def _make_shards(
    draft: Unfinished, origin: Origin | None, config: PrepareConfig, plans: Sequence[ShardPlan]
) -> None:
    """Write the shards; while one is on its way the photos of the next are rendered."""
    if not plans:
        return
    what = "drawing bins" if origin is None else "preparing photos"
    entries = chain.from_iterable(plan.entries() for plan in plans)
    with _cuttings(config.source) as cuttings, ThreadPoolExecutor(1) as sender:
        photos = _photos(origin, config, entries, cuttings)
        rendering = render(photos, config.shortest_side, config.quality, config.workers)
        rendered = iter(progress.track(rendering, what, sum(len(plan.rows) for plan in plans)))
        on_its_way: list[Future[None]] = []
        for plan in plans:
            results = islice(rendered, len(plan.rows))
            shard = ShardWriter(plan.name)
            samples, skipped = [], []
            for entry, result in zip(plan.entries(), results, strict=True):
                if isinstance(result, str):
                    skipped.append(Skipped(entry.id, entry.photo, result))
                    continue
                count = None if plan.split == UNLABELLED else entry.count
                samples.append(IndexedSample(shard.write(entry.id, count, *result), plan.split, entry.group))
            for before in on_its_way:
                before.result()
            on_its_way = [sender.submit(_send, draft, plan.name, shard, Piece(rows_of(samples), skipped))]
        for last in on_its_way:
            last.result()


@contextmanager
def _cuttings(source: Source) -> Iterator[Path | None]:
    """The folder of what collages are put together from, for all processes; None where none are made."""
    if not isinstance(source, CollageSource):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="bincount-") as folder:
        cut_up(source.cut, source.width, source.height).save(Path(folder))
        yield Path(folder)


def _photos(
    origin: Origin | None, config: PrepareConfig, entries: Iterable[Entry], cuttings: Path | None
) -> Iterator[Photo]:
    source = config.source
    if isinstance(source, SyntheticSource):
        return (DrawnPhoto(config.seed, int(entry.photo), entry.count, source) for entry in entries)
    if isinstance(source, CollageSource):
        assert cuttings is not None
        made = partial(Collage, difficulty=source.difficulty, cuttings=cuttings)
        return (made(config.seed, int(entry.photo), entry.count) for entry in entries)
    assert origin is not None
    assert origin.photos is not None
    if isinstance(origin.photos, Folder):
        folder = origin.photos.path
        return (folder / entry.photo for entry in entries)  # the workers read it
    return origin.photos.read_many(entry.photo for entry in entries)


def _send(draft: Unfinished, name: str, shard: ShardWriter, piece: Piece) -> None:
    if len(piece.rows):
        content = shard.finish()
        draft.store.write(name, content)
        piece = replace(piece, sha256=sha256(content).hexdigest())
    draft.finish(name, piece)


def _join(
    draft: Unfinished, config: PrepareConfig, plans: Sequence[ShardPlan], skipped: Sequence[Skipped]
) -> None:
    """Write the index over all shards. Raises Unmade where one is missing."""
    missing = sorted({plan.name for plan in plans} - draft.whole())
    if missing:
        raise Unmade(
            len(missing),
            f"{config.out}: {len(missing):,} of {len(plans):,} shards are missing, such as {missing[0]}: "
            "make the parts that are not done, or leave merge=true out",
        )
    pieces = list(draft.read([plan.name for plan in plans]))
    rows = pa.concat_tables([rows_of([]), *(piece.rows for piece in pieces)])
    skipped = [*skipped, *(each for piece in pieces for each in piece.skipped)]
    if not len(rows):
        raise BadInput(f"not one photo could be read{common_reasons(skipped)}")
    digests = {plan.name: str(piece.sha256) for plan, piece in zip(plans, pieces, strict=True)}
    draft.store.write("skipped.csv", as_csv(skipped))
    _write_index(draft.store, rows, digests, ImageSize(config.shortest_side, config.quality), config)


def _index_shards(config: PrepareConfig, out: Store) -> None:
    """Index WebDataset shards made elsewhere, where they are."""
    if not isinstance(out, Folder):
        raise BadInput(f"out={config.out}: source=shards indexes a folder's shards: copy them to one")
    storage.existing_folder(config.out, "out")
    if out.has("index.json") and not config.overwrite:
        raise BadInput(f"out={config.out} is a data set already: name another folder, or add overwrite=true")
    shards = foreign.find_shards(out.path)
    samples, skipped = foreign.index_samples(out.path, shards, config.max_count, config.overflow)
    if not samples:
        raise BadInput(f"out={config.out}: not one sample of its shards can be used{common_reasons(skipped)}")
    digests = {name: storage.sha256(out.path / name).removeprefix("sha256:") for name in shards}
    out.write("skipped.csv", as_csv(skipped))
    _write_index(out, rows_of(samples), digests, ImageSize(None, None), config)


def _write_index(
    store: Store, rows: pa.Table, digests: dict[str, str], image_size: ImageSize, config: PrepareConfig
) -> None:
    counts = Counts(config.max_count, config.overflow == "class")
    source = {**asdict(config.source), "seed": config.seed, "split": asdict(config.split)}
    write_index(store, rows, digests, counts, config.overflow, image_size, source)


# --- what is said of it -------------------------------------------------------------------------------


def _tell(out: Store) -> None:
    """Print what a data set, or tables alone, hold."""
    if out.has("index.json"):
        _tell_photos(out)
    if "tables" in out.held():
        progress.out.print(f"{out.place('tables')}: {describe(out)}", soft_wrap=True)
    skipped = from_csv(out.read("skipped.csv"))
    if skipped:
        where = f"{len(skipped):,} left out, each with its reason in {out.place('skipped.csv')}"
        progress.out.print(f"{where}{common_reasons(skipped)}", soft_wrap=True)


def _tell_photos(out: Store) -> None:
    splits = orjson.loads(out.read("index.json"))["splits"]
    names = list(next(iter(splits.values()))["photos_per_count"])
    table = Table("split", "photos", *names, "shards")
    for split, told in splits.items():
        per_count = (f"{told['photos_per_count'][name]:,}" for name in names)
        table.add_row(split, f"{told['samples']:,}", *per_count, str(len(told["shards"])))
    progress.out.print(f"{out.address}: photos of each count", soft_wrap=True)
    progress.out.print(table)
    ids = table_in(out.read("index.parquet"), ["id"])["id"].to_pylist()
    twins = id_twins(ids)
    if twins:
        shown = "; ".join(" and ".join(each) for each in twins[:3])
        progress.out.print(
            f"{len(twins)} times ids differ only by zero padding and are kept as different photos: {shown}",
            soft_wrap=True,
        )
