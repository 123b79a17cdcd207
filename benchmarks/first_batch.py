"""Seconds to the first batch of 64 photos from S3: our ranged reads beside WebDataset's `pipe:aws s3 cp`.

    python benchmarks/first_batch.py DATA [--times 5]

DATA is a prepared data set with several shards in its split train. It is served by rclone's S3 server on
loopback; the program `aws` must be on the PATH. Each way starts with the address alone, in this process,
without workers; imports are not counted. ``data.reader=pipe`` is our stream through the same `aws s3 cp`.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import webdataset as wds
from torchvision import transforms

from bincount.data.index import Index
from bincount.data.plan import Layout, training_plan
from bincount.data.stream import EpochStart, PhotoStream
from bincount.storage.pipe import Piped

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

BATCH, SIDE = 64, 224


def itself(start: EpochStart) -> EpochStart:
    return start


def ours(root: str, pipe: bool = False) -> int:
    index = Index.open(root)
    table = index.split("train")
    rows = np.arange(len(table))
    plan = training_plan(rows, table.shard, Layout(1, 0, BATCH), seed=0, epoch=0, span=64, window=1024)
    start = partial(itself, EpochStart(plan, 0, 0, seed=0))
    reader = Piped(index.store) if pipe else index.store
    return len(next(iter(PhotoStream(table, index.counts, (SIDE, SIDE), 0, start, reader)))["count"])


def usual(root: str, shards: list[str]) -> int:
    crop = transforms.Compose([transforms.RandomResizedCrop(SIDE), transforms.ToTensor()])
    urls = [f"pipe:aws s3 cp --quiet {root}/{name} -" for name in shards]
    photos = (
        wds.WebDataset(urls, shardshuffle=100, seed=0).shuffle(1024).decode("pil").to_tuple("jpg", "json")
    )
    batches = photos.map_tuple(crop, lambda told: told["count"]).batched(BATCH)
    return len(next(iter(batches))[1])


def median(way: Callable[[], int], times: int) -> float:
    """The median seconds of ``times`` runs after one that warms up."""
    taken = []
    for _ in range(times + 1):
        start = time.perf_counter()
        assert way() == BATCH
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    from s3_server import serving

    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(given.data, Path(name) / "bucket" / "data")
        shards = Index.open(str(given.data)).split("train").shards
        with serving(Path(name), remember=600) as server:
            os.environ.update(server.environment)
            root = "s3://bucket/data"
            ranged = median(partial(ours, root), given.times)
            print(f"bincount, ranges                    {ranged:5.2f} s")
            for told, way in (
                ("webdataset, pipe:aws s3 cp", partial(usual, root, shards)),
                ("bincount, data.reader=pipe", partial(ours, root, True)),
            ):
                taken = median(way, given.times)
                print(f"{told:<35} {taken:5.2f} s   {taken / ranged:4.1f} times")


if __name__ == "__main__":
    main()
