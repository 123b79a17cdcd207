"""`bincount predict`: a CSV of counts, and a list of what could not be read."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Bucket
from making import jpeg, write_photos

from bincount import cli, storage
from bincount.counter import load
from bincount.data.index import Index


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_photos(tmp_path / "photos", ["00001", "1", "00002"])


def test_a_folder_is_counted(small_run: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["predict", f"run={small_run}", f"photos={photos}", "out=out/counts.csv", "decode=mode"])
        == 0
    )
    rows = read(Path("out/counts.csv"))
    assert list(rows[0]) == ["id", "count", *(f"p_{n}" for n in range(6))]
    assert [row["id"] for row in rows] == ["00001", "00002", "1"]
    for row in rows:
        shares = [float(row[f"p_{n}"]) for n in range(6)]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert int(row["count"]) == int(np.argmax(shares))
    assert "counted 3 photos into out/counts.csv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("photos_key", "ids"),
    [
        ("photos=photos/*2.jpg", ["00002"]),
        ("photos=photos/1.jpg", ["1"]),
        ("photos=[photos/1.jpg,photos/00001.jpg]", ["1", "00001"]),
        ("photos=**/0*.jpg", ["00001", "00002"]),
    ],
)
def test_globs_single_photos_and_lists_are_counted(
    small_run: Path, photos: Path, photos_key: str, ids: list[str]
) -> None:
    assert cli.main(["predict", f"run={small_run}", photos_key, "out=counts.csv"]) == 0
    assert [row["id"] for row in read(Path("counts.csv"))] == ids


@pytest.mark.slow
def test_photos_in_s3_are_counted_as_those_in_a_folder(
    small_run: Path, photos: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "torn.jpg").write_bytes(jpeg()[:-200])
    (photos / "notes.txt").write_text("no photo")
    shutil.copytree(photos, bucket.folder / "of bins")
    there = f"{bucket.address}/of bins"
    for named, out in ((str(photos), "here"), (there, "there"), (f"[{there}/1.jpg,{there}]", "listed")):
        assert cli.main(["predict", f"run={small_run}", f"photos={named}", f"out={out}.csv"]) == 0
    assert Path("there.csv").read_text() == Path("here.csv").read_text()
    assert [row["id"] for row in read(Path("listed.csv"))] == ["1", "00001", "00002"]
    (left_out,) = read(Path("there.skipped.csv"))
    assert left_out["id"] == "torn"
    assert left_out["file"] == f"{there}/torn.jpg"
    capsys.readouterr()
    for wrong, told in (
        (f"{bucket.address}/none", "there are no photos there"),
        (f"{there}/2.jpg", "there are no photos there"),
        (f"{there}/*.jpg", "in S3 name a folder or a photo"),
    ):
        assert cli.main(["predict", f"run={small_run}", f"photos={wrong}", "out=no.csv"]) == 2
        assert told in capsys.readouterr().err


def test_unreadable_photos_are_listed_and_the_rest_counted(
    small_run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "text.png").write_bytes(b"not a photo")
    (photos / "torn.jpg").write_bytes(jpeg()[:-200])
    (photos / "._1.jpg").write_bytes(b"what some systems leave beside a file")
    assert cli.main(["predict", f"run={small_run}", f"photos={photos}", "out=new/counts.csv"]) == 0
    assert len(read(Path("new/counts.csv"))) == 3
    reasons = {row["id"]: row["reason"] for row in read(Path("new/counts.skipped.csv"))}
    assert len(reasons) == 3
    assert reasons["empty"] == "the file is empty (0 bytes)"
    assert reasons["text"] == "not a JPEG or PNG"
    assert "truncated" in reasons["torn"]
    assert "3 could not be read, each with its reason in new/counts.skipped.csv" in capsys.readouterr().out


def test_no_readable_photo_is_an_error_and_keeps_the_old_answers(
    small_run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("counts.csv").write_text("old")
    (photos / "bad").mkdir()
    (photos / "bad/empty.jpg").write_bytes(b"")
    assert cli.main(["predict", f"run={small_run}", f"photos={photos / 'bad'}", "out=counts.csv"]) == 2
    assert "none of the 1 photos could be read" in capsys.readouterr().err
    assert Path("counts.csv").read_text() == "old"


@pytest.mark.parametrize("batch", [1, 2, 3, 64])
def test_the_answers_do_not_depend_on_the_batch(small_run: Path, photos: Path, batch: int) -> None:
    assert (
        cli.main(["predict", f"run={small_run}", f"photos={photos}", "out=a.csv", f"batch_size={batch}"]) == 0
    )
    assert cli.main(["predict", f"run={small_run}", f"photos={photos}", "out=b.csv"]) == 0
    for one, other in zip(read(Path("a.csv")), read(Path("b.csv")), strict=True):
        assert [float(one[f"p_{n}"]) for n in range(6)] == pytest.approx(
            [float(other[f"p_{n}"]) for n in range(6)], abs=1e-4
        )


def test_a_photo_is_counted_as_it_was_evaluated(small_run: Path, small_data: Path) -> None:
    split = Index.open(str(small_data)).split("test")
    row = len(split) // 2
    shard = small_data / split.shards[split.shard[row]]
    stored = storage.read_range(shard, int(split.jpeg_offset[row]), int(split.jpeg_length[row]))
    counts, probabilities = load(small_run).count([stored])
    told = pq.read_table(small_run / "evaluation/test/predictions.parquet").slice(row, 1)
    assert counts.tolist() == told["predicted"].to_pylist()
    expected = [told[f"p_{n}"][0].as_py() for n in range(6)]
    assert probabilities[0].tolist() == pytest.approx(expected, abs=0.02)


def test_with_mirror_a_photo_and_its_mirror_image_count_alike(small_run: Path) -> None:
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    one_view = replace(load(small_run), temperature=1.0)
    both = replace(one_view, mirror=True)
    told = both.probabilities(pixels)
    torch.testing.assert_close(told, both.probabilities(pixels.flip(3)))
    views = [one_view.probabilities(view) for view in (pixels, pixels.flip(3))]
    torch.testing.assert_close(told, torch.stack(views).mean(dim=0))
    assert not torch.allclose(*views)
