"""Where photos come from and runs go: the data set, S3, the folder of runs, a run that counts."""

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bincount import run, storage
from bincount.checkup import environment
from bincount.checkup.finding import Finding, Mark
from bincount.errors import BadInput, BincountError
from bincount.storage import Range, Store

if TYPE_CHECKING:
    from bincount.data.index import Index

#: The data set that `bincount prepare` makes unless said.
DRAWN = "data/drawn"

#: The photo that a run counts: so many items, and pixels of each side.
ITEMS, SIDE = 3, 256

#: Shards that are named one by one where they are not in order.
NAMED = 3


def data(root: str | None) -> Iterator[Finding]:
    """Whether the data set opens, its shards are whole as far as their lengths tell, and photos decode."""
    if root is None and not Path(DRAWN).exists():
        yield Finding(Mark.HINT, "data", f"no data in {DRAWN} yet", "bincount prepare")
        return
    from bincount.data.index import Index

    index = Index.open(root or DRAWN)
    per_split = {split: index.summary["splits"][split]["samples"] for split in index.splits}
    told = ", ".join(f"{samples:,} {split}" for split, samples in per_split.items())
    yield Finding(Mark.OK, "data", f"{index.store.address}: {told}; its index has the right digest")
    yield _shards(index)
    yield _photos(index)


def s3(addresses: list[str], out: str | None) -> Iterator[Finding]:
    """Whether S3 lets us list and read; with ``out``, a folder or an address, also write there."""
    for address in dict.fromkeys(addresses):
        yield from _reading(address)
    if out is not None:
        yield _writing(out)


def runs(top: str) -> Iterator[Finding]:
    """Whether runs can be written."""
    folder = storage.folder(top)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise BadInput(f"runs={top}: {there} is a file: name a folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        told = f"nothing can be written in {there}: {error.strerror or error}"
        yield Finding(Mark.BAD, "runs", told, f"give yourself the right, or write runs=FOLDER (now {top})")
        return
    left = environment.room("runs", there)
    how = "can be written to" if there == folder else "is not there yet, and can be made"
    yield left if left.mark is Mark.BAD else replace(left, told=f"{folder} {how}; {left.told}")


def trained(name: str | None, top: str) -> Iterator[Finding]:
    """Whether a run loads and counts; ``name`` None: the latest, where there is one."""
    if name is None and not (storage.folder(top) / "latest").exists():
        yield Finding(Mark.HINT, "run", f"no run in {top} yet", "bincount train")
        return
    folder = run.find(name or "latest", top)
    if environment.probe()[1]:
        yield Finding(Mark.HINT, "run", f"{folder} was not tried, as torch cannot be imported")
        return
    from bincount.counter import load
    from bincount.data.images import encode_jpeg
    from bincount.data.synthetic import draw_bin

    photo = encode_jpeg(draw_bin(0, 0, ITEMS, 0.3, SIDE, SIDE), 90)
    counter = load(folder)
    start = time.monotonic()
    counts, probabilities = counter.count([photo])
    seconds = time.monotonic() - start
    count, share = counter.counts.names[int(counts[0])], float(probabilities[0, int(counts[0])])
    if not bool(probabilities.isfinite().all()):
        fix = "train again, with a lower optimizer.lr"
        yield Finding(Mark.BAD, "run", f"{folder}: its probabilities are no numbers", fix)
        return
    told = f"it loads, and tells {count} of a drawn bin of {ITEMS} ({share:.0%} sure, {seconds:.2f} s)"
    yield Finding(Mark.OK, "run", f"{folder}: {told}")


def _shards(index: "Index") -> Finding:
    """Each shard is read where its last photo's sample ends."""
    import pyarrow.compute as pc

    rows = index.rows()
    ends = rows.select(["shard"]).append_column("end", pc.add(rows["offset"], rows["length"]))
    last = ends.group_by("shard").aggregate([("end", "max")]).to_pylist()
    asked = [Range(each["shard"], each["end_max"] - 1, 1) for each in last]
    wrong = []
    for each, found in zip(asked, index.store.read_ranges(asked), strict=True):
        if isinstance(found, str):
            wrong.append(f"{each.name} {found}")
        elif not found:
            wrong.append(f"{each.name} ends before byte {each.offset + 1:,}")
    if wrong:
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        return Finding(
            Mark.BAD, "shards", f"{', '.join(wrong[:NAMED])}{more}", "copy them again, or prepare again"
        )
    return Finding(Mark.OK, "shards", f"{len(asked)} are there, each as long as the index says")


def _photos(index: "Index") -> Finding:
    """A photo in the middle of each split decodes."""
    from bincount.data.images import UnreadablePhoto, read_photo

    sizes = []
    for name in index.splits:
        split = index.split(name)
        row = len(split) // 2
        try:
            height, width, _ = read_photo(split.jpeg(row)).shape
        except UnreadablePhoto as problem:
            told = f"{split.id[row]} of {name} cannot be read: {problem}"
            return Finding(Mark.BAD, "photos", told, "copy its shard again, or prepare again")
        sizes.append(f"{name} {width}x{height}")
    return Finding(Mark.OK, "photos", f"one of each split decodes: {', '.join(sizes)} pixels")


def _reading(address: str) -> Iterator[Finding]:
    from bincount.storage import aws

    asking = aws.signed_by()
    if asking is None:
        told = "none found: requests are not signed, which is enough for a public bucket"
        yield Finding(Mark.HINT, "credentials", told, "set AWS_PROFILE or AWS_ACCESS_KEY_ID for any other")
    else:
        yield Finding(Mark.OK, "credentials", f"found ({asking}){_endpoint()}")
    store = storage.open_store(address)
    name = store.first()
    if name is None:
        yield Finding(
            Mark.BAD, "S3", f"{store.address} can be listed, and holds nothing", "check the address"
        )
        return
    read = len(store.read_range(name, 0, 1024))
    yield Finding(Mark.OK, "S3", f"{store.address} can be listed and read ({read} bytes of {name})")


def _writing(out: str) -> Finding:
    """Write a small object, read it again and take it away."""
    store: Store = storage.open_store(out)
    name, content = f".bincount-doctor-{secrets.token_hex(4)}", b"bincount doctor: this may be deleted\n"
    store.write(name, content)
    same = store.read(name) == content
    store.delete([name])
    if not same:
        raise BincountError(f"{store.address}: what was written is not what is read there")
    return Finding(Mark.OK, "out", f"{store.address} can be written to")


def _endpoint() -> str:
    """Where requests go, if not to AWS; without what an address may hold of a password."""
    told = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return f", asking {urlsplit(told).hostname}" if told else ""
