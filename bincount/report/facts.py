"""What a run learnt from, how it was set up, where it ran, and how to do it again."""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from bincount.data.index import SPLITS, UNLABELLED, Index
from bincount.data.skipped import common_reasons, from_csv
from bincount.errors import BincountError
from bincount.page import code, folded, heading, line, listed, table
from bincount.report.repeating import command, prepare_words, train_words
from bincount.storage import NotThere

DATA, REPEAT = "Data", "How to repeat it"
CONFIGURATION, ENVIRONMENT = "Configuration", "Environment"

#: How a data set's source is told.
SOURCES = {
    "synthetic": "drawn bins, not photos",
    "collage": "bins put together from items cut out of photos",
    "folder": "photos from a folder",
    "s3": "photos from S3",
    "shards": "shards made elsewhere",
}


def opened(address: str) -> Index | None:
    """The data set, where it can still be read."""
    try:
        return Index.open(address)
    except BincountError:
        return None


def data(address: str, index: Index | None, digest: str | None) -> list[str]:
    """What is in the data set. ``digest``: that of the data set which was evaluated, if any was."""
    if index is None:
        told = f"The data set {address} cannot be read any more from here."
        return [heading(2, DATA), line(told)]
    counts = index.counts
    splits = [name for name in (*SPLITS, UNLABELLED) if name in index.splits]
    rows = []
    for name in splits:
        per_count = index.photos_per_count(name)
        rows.append(
            (
                "",
                name,
                f"{index.summary['splits'][name]['samples']:,}",
                *(f"{per_count[each]:,}" for each in counts.names),
            )
        )
    head = ["split", "photos", *(f"of {name}" for name in counts.names)]
    parts = [
        heading(2, DATA),
        listed(data_sentences(address, index)),
        table(head, rows, "Photos by split and recorded count"),
    ]
    if digest is not None and digest != index.digest:
        parts.append(line(f"It was prepared anew since: what was evaluated had the digest {digest}."))
    return parts


def data_sentences(address: str, index: Index) -> list[str]:
    """Where photos and counts come from, and what was left out."""
    summary = index.summary
    source = dict(summary["source"])
    name = str(source.get("name"))
    places = ("images", "bucket", "metadata", "labels", "list", "cut")
    of = ", ".join(f"{key} {source[key]}" for key in places if source.get(key))
    above = {
        "skip": "bins with more are left out",
        "class": "bins with more are one class, “more”",
        "unlabelled": "bins with more have no count",
    }[summary["overflow"]]
    size = summary["image_size"]
    stored = "as they came"
    if size["shortest_side"]:
        stored = (
            f"with {size['shortest_side']} pixels on the shorter side at most, JPEG quality {size['quality']}"
        )
    told = [
        f"It lies in {index.store.address}; the digest of its index is {index.digest}.",
        f"Its source: {SOURCES.get(name, name)}{f' ({of})' if of else ''}.",
        f"Counts go from 0 to {summary['max_count']} (max_count); {above}.",
        f"Photos are stored {stored}.",
    ]
    try:
        skipped = from_csv(index.store.read("skipped.csv"))
    except (NotThere, ValueError):
        return told
    if not skipped:
        return [*told, "Nothing was left out (skipped.csv is empty)."]
    return [
        *told,
        f"Left out were {len(skipped):,} photos or records, in skipped.csv{common_reasons(skipped)}.",
    ]


def configuration(saved: DictConfig, text: str) -> list[str]:
    """What differs from the defaults, and the whole."""
    return [
        heading(2, CONFIGURATION),
        line("Set otherwise than by default:"),
        code("\n".join(words_of_training(saved)) or "nothing"),
        folded("The whole, as in config.yaml", [code(text)]),
    ]


def environment(found: dict[str, Any]) -> list[str]:
    """Versions and machine."""
    told = [
        ("", "started", str(found["started"])),
        ("", "command", " ".join(found["command"])),
        ("", "commit", str(found["commit"] or "not run from a checkout")),
        ("", "Python", found["python"]),
        ("", "machine", f"{found['platform']}, {found['processors']} processors"),
        *(("", name, str(version or "not installed")) for name, version in found["packages"].items()),
    ]
    return [heading(2, ENVIRONMENT), table(["", "what it was"], told, "Where the run was made", words=True)]


def repeat(
    saved: DictConfig, found: dict[str, Any], index: Index | None, splits: list[str], digest: str | None
) -> list[str]:
    """The commands that make the run again, as HTML."""
    words = words_of_training(saved)
    told = [
        f"Its seed is {saved.seed}, its versions are those under {ENVIRONMENT}"
        + (f", its data set has the digest {digest}." if digest else "."),
        "On the same machine with the same versions it ends with the same figures; on another, or with "
        "another number of ranks or workers, sums are rounded otherwise, and figures differ by a point or "
        "two, as they do from one seed to the next.",
    ]
    if str(found["commit"] or "").endswith("-dirty"):
        told.append("The checkout had changes that were not committed: its commit alone does not tell them.")
    return [heading(2, REPEAT), code("\n".join(commands(found, index, words, splits))), listed(told)]


def commands(found: dict[str, Any], index: Index | None, words: list[str], splits: list[str]) -> list[str]:
    """Lines for a shell: the versions, the data set, the training, the evaluations."""
    packages = {
        name: version for name, version in found["packages"].items() if version and name != "bincount"
    }
    pinned = " ".join(f"{name}=={version.partition('+')[0]}" for name, version in packages.items())
    commit = str(found["commit"] or "").removesuffix("-dirty")
    lines = ["# in a checkout of bincount, with its environment active"]
    lines += [f"git checkout {commit}"] if commit else []
    lines += [f"pip install -e . {pinned}"]
    if index is not None:
        try:
            prepared = prepare_words(index.summary, index.store.address)
        except BincountError:
            prepared = None
        if prepared is None:
            lines.append(
                f"# the data set {index.store.address} was not made by `bincount prepare` as it is now"
            )
        else:
            lines += ["# the data set, where it is not there any more", command("prepare", prepared)]
    lines.append(command("train", words))
    return lines + [command("evaluate", ["run=latest", f"split={split}"]) for split in splits]


def words_of_training(saved: DictConfig) -> list[str]:
    """What to type after `bincount train`: what differs from the defaults, and always the seed."""
    try:
        words = train_words(saved)
    except BincountError:  # saved by a version with other keys
        words = []
    seed = f"seed={saved.seed}"
    return words if any(word.startswith("seed=") for word in words) else [*words, seed]


def read_environment(folder: Path) -> dict[str, Any]:
    """What environment.json of a run has."""
    found: dict[str, Any] = json.loads((folder / "environment.json").read_bytes())
    return found
