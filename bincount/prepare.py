"""`bincount prepare`: photos and records become shards and an index."""

import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.table import Table

from bincount import progress, storage
from bincount.config import FolderSource, PrepareConfig, ShardsSource, SyntheticSource
from bincount.data import catalogue
from bincount.data.catalogue import Catalogue, Entry
from bincount.data.index import UNLABELLED, Counts, ImageSize, IndexedSample, write_index
from bincount.data.records import record_tables
from bincount.data.rendering import render
from bincount.data.shards import Sample, ShardWriter, read_samples
from bincount.data.skipped import Skipped, common_reasons, write_skipped
from bincount.data.splits import assign_splits
from bincount.errors import BadInput, one_line

SPLITS = ("train", "val", "test")

#: What a data set holds.
WRITTEN = {"index.json", "index.parquet", "skipped.csv", "tables", *SPLITS, UNLABELLED}


def prepare(config: PrepareConfig) -> None:
    """Make the data set ``config.out``, whole or not at all."""
    out = storage.folder(config.out)
    if (out / "index.json").exists() and not config.overwrite:
        raise BadInput(f"out={config.out} is a data set already: name another folder, or add overwrite=true")
    if isinstance(config.source, ShardsSource):
        _index_shards(config, out)
        return
    _check_out(out, config.out)
    found = _catalogue(config)
    entries = _planned(found, config)
    if not entries:
        raise BadInput(f"no photo is left to prepare{common_reasons(found.skipped)}")
    with storage.folder_written_whole(out) as root:
        samples = list(_write_shards(root, entries, found.skipped, config))
        if not samples:
            raise BadInput(f"not one photo could be read{common_reasons(found.skipped)}")
        if found.records is not None:
            for name, table in zip(("bins", "items"), record_tables(found.records), strict=True):
                (root / "tables" / name).mkdir(parents=True)
                pq.write_table(table, root / "tables" / name / "part-000000.parquet", compression="snappy")
        write_skipped(found.skipped, root / "skipped.csv")
        stored = ImageSize(config.shortest_side, config.quality)
        summary = _write_index(root, samples, stored, config)
    _tell(out, summary, found.skipped, found.notes)


def _check_out(out: Path, given: str) -> None:
    """Raise BadInput where writing ``out`` would take away more than a data set that `prepare` wrote."""
    if out.exists() and not out.is_dir():
        raise BadInput(f"out={given} is a file: name a folder")
    held = {path.name for path in out.iterdir()} if out.exists() else set()
    if held and ("index.json" not in held or held - WRITTEN):
        raise BadInput(f"out={given} has other files in it: name an empty or a new folder")
    if held and _source_of(out / "index.json") == "shards":
        raise BadInput(f"out={given} has shards that were made elsewhere: name an empty or a new folder")


def _source_of(index: Path) -> Any:
    """The name of the source that ``index.json`` tells, None where it is damaged."""
    try:
        return json.loads(index.read_bytes())["source"]["name"]
    except (ValueError, KeyError, TypeError):
        return None


def _catalogue(config: PrepareConfig) -> Catalogue:
    if isinstance(config.source, SyntheticSource):
        return catalogue.drawn(config.source, config.max_count, config.seed)
    assert isinstance(config.source, FolderSource)
    return catalogue.from_folder(config.source)


def _planned(found: Catalogue, config: PrepareConfig) -> list[Entry]:
    """The entries to write, each with its split, in the order in which they are written."""
    labelled, unlabelled = [], []
    for entry in found.entries:
        if entry.count <= config.max_count or config.overflow == "class":
            labelled.append(entry)
        elif config.overflow == "unlabelled":
            unlabelled.append(replace(entry, split=UNLABELLED))
        else:
            found.skipped.append(Skipped(entry.id, entry.photo.name, _too_many(entry.count, config)))
    if any(entry.split is None for entry in labelled):
        classes = Counts(config.max_count, True).classes(np.array([entry.count for entry in labelled]))
        groups = [entry.group for entry in labelled]
        splits = assign_splits(classes.tolist(), groups, asdict(config.split), config.seed)
        labelled = [replace(entry, split=split) for entry, split in zip(labelled, splits, strict=True)]
    # Neighbouring ids show the same bin: apart from each other, they do not come in one batch.
    entries = sorted([*labelled, *unlabelled], key=lambda entry: entry.id)
    order = np.random.default_rng([config.seed, len(entries)]).permutation(len(entries))
    return [entries[place] for place in order]


def _too_many(count: int, config: PrepareConfig) -> str:
    return f"above max_count {config.max_count}: the count is {count}"


def _write_shards(
    root: Path, entries: list[Entry], skipped: list[Skipped], config: PrepareConfig
) -> Iterator[IndexedSample]:
    """Write every photo that can be read into the shards of its split."""
    by_split: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_split[str(entry.split)].append(entry)
    ordered = [entry for split in (*SPLITS, UNLABELLED) for entry in by_split[split]]
    what = "drawing bins" if isinstance(config.source, SyntheticSource) else "preparing photos"
    rendering = render(ordered, config.shortest_side, config.quality, config.workers)
    rendered = iter(progress.track(rendering, what, len(ordered)))
    for split in (*SPLITS, UNLABELLED):
        with ShardWriter(root, split, config.photos_per_shard) as shards:
            for entry, result in islice(rendered, len(by_split[split])):
                if isinstance(result, str):
                    skipped.append(Skipped(entry.id, entry.photo.name, result))
                    continue
                count = None if split == UNLABELLED else entry.count
                yield IndexedSample(shards.write(entry.id, count, *result), split, entry.group)


def _index_shards(config: PrepareConfig, out: Path) -> None:
    """Index WebDataset shards made elsewhere, where they are."""
    storage.existing_folder(config.out, "out")
    shards = sorted(path for split in SPLITS for path in (out / split).glob("*.tar"))
    if not shards:
        wanted = ", ".join(f"{split}/*.tar" for split in SPLITS)
        raise BadInput(f"out={config.out}: there are no shards in it: put them in {wanted}")
    indexed: dict[str, IndexedSample] = {}
    skipped: list[Skipped] = []
    for path in progress.track(shards, "indexing shards", len(shards)):
        split, name = path.parent.name, f"{path.parent.name}/{path.name}"
        for found in _samples(out, name):
            if not isinstance(found, Sample):
                skipped.append(Skipped(found[0], name, found[1]))
            elif found.id in indexed:
                skipped.append(
                    Skipped(found.id, name, f"the id again, as in {indexed[found.id].sample.shard}")
                )
            elif found.count is None or found.count <= config.max_count or config.overflow == "class":
                indexed[found.id] = IndexedSample(found, split, found.id)
            elif config.overflow == "unlabelled":
                indexed[found.id] = IndexedSample(replace(found, count=None), UNLABELLED, found.id)
            else:
                skipped.append(Skipped(found.id, name, _too_many(found.count, config)))
    if not indexed:
        raise BadInput(f"out={config.out}: not one sample of its shards can be used{common_reasons(skipped)}")
    write_skipped(skipped, out / "skipped.csv")
    summary = _write_index(out, list(indexed.values()), ImageSize(None, None), config)
    _tell(out, summary, skipped, [])


def _samples(root: Path, shard: str) -> Iterator[Sample | tuple[str, str]]:
    try:
        yield from read_samples(root, shard)
    except tarfile.TarError as error:
        raise BadInput(f"{root / shard} is no whole tar file: {one_line(error)}") from None


def _write_index(
    root: Path, samples: list[IndexedSample], image_size: ImageSize, config: PrepareConfig
) -> dict[str, Any]:
    counts = Counts(config.max_count, config.overflow == "class")
    splits = [*SPLITS, *([UNLABELLED] if config.overflow == "unlabelled" else [])]
    source = {**asdict(config.source), "seed": config.seed, "split": asdict(config.split)}
    return write_index(root, samples, counts, config.overflow, image_size, source, splits)


def _tell(out: Path, summary: dict[str, Any], skipped: list[Skipped], notes: list[str]) -> None:
    names = list(next(iter(summary["splits"].values()))["photos_per_count"])
    table = Table("split", "photos", *names, "shards")
    for split, told in summary["splits"].items():
        per_count = (f"{told['photos_per_count'][name]:,}" for name in names)
        table.add_row(split, f"{told['samples']:,}", *per_count, str(len(told["shards"])))
    progress.out.print(f"{out}: photos of each count", soft_wrap=True)
    progress.out.print(table)
    if skipped:
        where = f"{len(skipped):,} left out, each with its reason in {out / 'skipped.csv'}"
        progress.out.print(f"{where}{common_reasons(skipped)}", soft_wrap=True)
    for note in notes:
        progress.out.print(note, soft_wrap=True)
