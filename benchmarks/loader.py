"""Photos a second and core from shards to tensors of 224x224: ours beside the usual WebDataset pipeline.

    python benchmarks/loader.py BUCKET [--times 3]

The usual one: webdataset, PIL, torchvision's RandomResizedCrop(224), ToTensor, Normalize. Ours: the training
stream (the planned order, decoding, squashing to 224x224, batches of 64 with their random numbers). And
decoding alone, with simplejpeg, of the same bytes. All in this one process on one thread, over the photos of
BUCKET/bin-images as they are, and with a short side of 256, in shards that `bincount prepare` made.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
import torch
import webdataset as wds
from torchvision import transforms

from bincount import cli
from bincount.data.index import Index
from bincount.data.plan import Layout, training_plan
from bincount.data.stream import EpochStart, PhotoStream

SIDE, BATCH = 224, 64


def usual(root: Path) -> int:
    crop = transforms.RandomResizedCrop(SIDE)
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    transform = transforms.Compose([crop, transforms.ToTensor(), normalise])
    shards = sorted(map(str, (root / "train").glob("*.tar")))
    photos = wds.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("jpg", "json")
    batches = photos.map_tuple(transform, lambda told: told["count"]).batched(BATCH)
    return sum(len(counts) for _, counts in batches)


def itself(start: EpochStart) -> EpochStart:
    return start


def ours(root: Path) -> int:
    index = Index.open(str(root))
    table = index.split("train")
    rows = np.arange(len(table))
    plan = training_plan(rows, table.shard, Layout(1, 0, BATCH), seed=0, epoch=0, span=64, window=1024)
    start = EpochStart(plan, 0, 0, seed=0)
    stream = PhotoStream(table, index.counts, (SIDE, SIDE), 0, partial(itself, start))
    return sum(len(batch["count"]) for batch in stream)


def decoding(root: Path) -> int:
    table = Index.open(str(root)).split("train")
    for name in table.shards:
        for sample in wds.WebDataset(str(root / name), shardshuffle=False):
            simplejpeg.decode_jpeg(sample["jpg"], colorspace="RGB")
    return len(table)


def rate(way: Callable[[Path], int], root: Path) -> float:
    """Photos a second of this process's own time: what others do on the machine counts for little."""
    start = time.process_time()
    photos = way(root)
    return photos / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bucket", type=Path)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ways = {"webdataset, PIL, torchvision": usual, "bincount": ours, "decoding alone": decoding}
    with tempfile.TemporaryDirectory() as name:
        for told, side in (("originals", "null"), ("short side 256", "256")):
            root = Path(name) / told.replace(" ", "-")
            words = ["source=s3", f"source.bucket={given.bucket}", f"out={root}", "overflow=class"]
            words += ["split.train=1", "split.val=0", "split.test=0", f"shortest_side={side}"]
            assert cli.main(["prepare", *words]) == 0
            best = dict.fromkeys(ways, 0.0)
            for _ in range(
                given.times + 1
            ):  # in turn, so that a noisy minute touches all; the first warms up
                for way, run in ways.items():
                    best[way] = max(best[way], rate(run, root))
            print(f"{told}: photos/s")
            for way, found in best.items():
                first, last = best["webdataset, PIL, torchvision"], best["decoding alone"]
                print(
                    f"  {way:<30} {found:6.0f}   {found / first:4.2f} times   {found / last:4.2f} of decoding"
                )


if __name__ == "__main__":
    main()
