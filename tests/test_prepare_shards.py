"""`bincount prepare source=shards`: shards made elsewhere are indexed where they are."""

import shutil
from pathlib import Path

import pytest
import webdataset as wds
from making import Complaint, jpeg, prepare
from reading import contents, jpeg_of, rows, skipped

from bincount.data.index import Index


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """14 photos with counts 0 to 6 in two shards of another program."""
    (tmp_path / "out" / "train").mkdir(parents=True)
    for shard in range(2):
        with wds.TarWriter(str(tmp_path / "out" / "train" / f"their-{shard}.tar")) as tar:
            for count in range(7):
                tar.write({"__key__": f"{shard}{count}", "jpg": jpeg(seed=count), "cls": count})
    return tmp_path / "out"


def test_foreign_shards_are_indexed_where_they_are(foreign: Path) -> None:
    before = contents(foreign)
    assert prepare(foreign, "source=shards") == 0
    assert {id: row["count"] for id, row in rows(foreign).items()} == {
        f"{shard}{count}": count for shard in range(2) for count in range(6)
    }
    assert skipped(foreign)["16"] == [("train/their-1.tar", "above max_count 5: the count is 6")]
    for row in rows(foreign).values():
        assert jpeg_of(foreign, row) == jpeg(seed=row["count"])
    after = contents(foreign)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"index.json", "index.parquet", "skipped.csv"}


def test_foreign_counts_above_the_highest_can_go_without_labels(foreign: Path) -> None:
    assert prepare(foreign, "source=shards", "overflow=unlabelled") == 0
    index = Index.open(str(foreign))
    assert index.splits == ["train", "unlabelled"]
    assert index.split("unlabelled").id.to_pylist() == ["06", "16"]
    assert {rows(foreign)[id]["count"] for id in ("06", "16")} == {None}
    assert index.split("train").count.max() == 5


def test_foreign_counts_above_the_highest_can_be_a_class(foreign: Path) -> None:
    assert prepare(foreign, "source=shards", "overflow=class") == 0
    assert Index.open(str(foreign)).photos_per_count("train")["more"] == 2


def test_an_id_in_two_foreign_shards_is_used_once_and_listed(foreign: Path) -> None:
    (foreign / "val").mkdir()
    shutil.copy(foreign / "train" / "their-1.tar", foreign / "val")
    assert prepare(foreign, "source=shards") == 0
    assert len(rows(foreign)) == 12
    assert ("val/their-1.tar", "the id again, as in train/their-1.tar") in skipped(foreign)["10"]


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, None])
def test_a_foreign_shard_that_is_no_whole_tar_is_told(
    foreign: Path, complaint: Complaint, content: bytes | None
) -> None:
    shard = foreign / "train" / "their-1.tar"
    shard.write_bytes(shard.read_bytes()[:3000] if content is None else content)
    assert complaint("source=shards", out=foreign).startswith(f"{shard} is no whole tar file: ")
    assert not (foreign / "index.json").exists()


def test_a_folder_without_foreign_shards_is_told(complaint: Complaint, tmp_path: Path) -> None:
    assert complaint("source=shards", out=tmp_path / "no") == f"out: there is no folder {tmp_path}/no"
    (tmp_path / "empty").mkdir()
    assert complaint("source=shards", out=tmp_path / "empty") == (
        f"out={tmp_path}/empty: there are no shards in it: put them in train/*.tar, val/*.tar, test/*.tar"
    )


def test_foreign_shards_without_counts_are_told(foreign: Path, complaint: Complaint) -> None:
    for path in foreign.rglob("*.tar"):
        with wds.TarWriter(str(path)) as tar:
            tar.write({"__key__": "a", "jpg": jpeg()})
    assert complaint("source=shards", out=foreign) == (
        f"out={foreign}: not one sample of its shards can be used: has no count (2)"
    )


def test_foreign_shards_are_never_replaced(foreign: Path, complaint: Complaint) -> None:
    told = f"out={foreign} has other files in it: name an empty or a new folder"
    assert complaint("overwrite=true", out=foreign) == told
    assert prepare(foreign, "source=shards") == 0
    before = contents(foreign)
    told = f"out={foreign} has shards that were made elsewhere: name an empty or a new folder"
    assert complaint("overwrite=true", out=foreign) == told
    assert contents(foreign) == before
    assert complaint("source=shards", out=foreign).startswith(f"out={foreign} is a data set already")
    assert prepare(foreign, "source=shards", "overwrite=true") == 0
