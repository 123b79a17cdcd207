"""Photos to shards with a short side of 256 pixels: `bincount prepare` beside a plain loop.

    python benchmarks/photos_to_shards.py BUCKET [--times 3] [--s3] [--repeat 4]

BUCKET has bin-images/ID.jpg and metadata/ID.json; ``--repeat`` copies them under new ids. The plain loop
opens each photo with PIL, resizes it (bicubic, PIL's own choice), saves it with the same quality and gives it
to `webdataset.ShardWriter`, on one core. Both write the same photos, whatever their count. Imports are not
counted; starting our worker processes is. ``--s3`` reads the bucket from rclone's S3 server on loopback, and
writes the shards there.
"""

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import webdataset as wds
from PIL import Image

from bincount import cli

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SIDE, QUALITY, PER_SHARD = 256, 90, 100


def plain_loop(bucket: str, out: str) -> None:
    os.makedirs(out)
    with wds.ShardWriter(f"{out}/bins-%06d.tar", maxcount=PER_SHARD, verbose=0) as shards:
        for path in sorted(Path(bucket, "bin-images").glob("*.jpg")):
            record = json.loads(Path(bucket, "metadata", f"{path.stem}.json").read_bytes())
            photo = Image.open(path).convert("RGB")
            scale = SIDE / min(photo.size)
            if scale < 1:
                size = tuple(max(SIDE, round(side * scale)) for side in photo.size)
                photo = photo.resize(size, Image.Resampling.BICUBIC)
            file = io.BytesIO()
            photo.save(file, "JPEG", quality=QUALITY)
            count = record["EXPECTED_QUANTITY"]
            shards.write(
                {"__key__": path.stem, "jpg": file.getvalue(), "json": {"id": path.stem, "count": count}}
            )


def ours(bucket: str, out: str, *words: str) -> None:
    words = ("source=s3", f"source.bucket={bucket}", f"out={out}", "overflow=class", *words)
    assert cli.main(["prepare", f"photos_per_shard={PER_SHARD}", *words]) == 0


def rate(way: Callable[[str, str], None], bucket: str, outs: str, photos: int, times: int) -> float:
    """Photos a second in the best of ``times`` runs, each to a new place, after one that warms up."""
    best = 0.0
    for turn in range(times + 1):
        start = time.perf_counter()
        way(bucket, f"{outs}/{time.time_ns()}")
        if turn:
            best = max(best, photos / (time.perf_counter() - start))
    return best


def copy(bucket: Path, to: Path, repeat: int) -> int:
    """Copy the photos and records ``repeat`` times under new ids; gives their number."""
    photos = sorted((bucket / "bin-images").glob("*.jpg"))
    for folder in ("bin-images", "metadata"):
        (to / folder).mkdir(parents=True)
    for n in range(repeat):
        for path in photos:
            id = path.stem if n == 0 else f"{n}{int(path.stem):07d}"
            shutil.copy(path, to / "bin-images" / f"{id}.jpg")
            shutil.copy(bucket / "metadata" / f"{path.stem}.json", to / "metadata" / f"{id}.json")
    return repeat * len(photos)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bucket", type=Path)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--s3", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bucket, outs = f"{name}/theirs", f"{name}/mine"
        photos = copy(given.bucket, Path(bucket), given.repeat)
        Path(outs).mkdir()
        plain = rate(plain_loop, bucket, outs, photos, given.times)
        print(f"PIL and ShardWriter, one core   {plain:7.0f} photos/s")
        one = rate(lambda b, o: ours(b, o, "workers=0"), bucket, outs, photos, given.times)
        print(f"bincount prepare, one core      {one:7.0f} photos/s   {one / plain:.1f} times")
        found = rate(ours, bucket, outs, photos, given.times)
        print(f"bincount prepare, all cores     {found:7.0f} photos/s   {found / plain:.1f} times")
        if given.s3:
            from s3_server import environment, serving

            with serving(Path(name), remember=600) as server:
                os.environ.update(environment(server.direct))
                found = rate(ours, "s3://theirs", "s3://mine", photos, given.times)
            print(f"the same, from S3 to S3         {found:7.0f} photos/s   {found / plain:.1f} times")


if __name__ == "__main__":
    main()
