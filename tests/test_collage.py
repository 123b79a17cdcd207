"""Collages: the same arguments give the same bytes, the count is true, only training photos are cut up."""

from pathlib import Path

import numpy as np
import pytest
from making import prepare
from reading import rows

from bincount import cli
from bincount.data.collage import CUT_SIZE, Cuttings, cuttings_of, draw_collage
from bincount.data.images import decode_jpeg
from bincount.data.index import Index
from bincount.data.synthetic import FULL, draw_scene

SIZE = (144, 128)


def some(filled: int = 3, empty: int = 2) -> Cuttings:
    random = np.random.default_rng(0)
    shape = (CUT_SIZE, CUT_SIZE, 3)
    red = random.integers(100, 256, (filled, *shape), dtype=np.uint8) * np.array([1, 0, 0], dtype=np.uint8)
    blue = random.integers(100, 256, (empty, *shape), dtype=np.uint8) * np.array([0, 0, 1], dtype=np.uint8)
    return Cuttings(red, blue)


def test_the_same_arguments_give_the_same_bytes() -> None:
    one, other = (draw_collage(3, 7, 4, 0.6, *SIZE, some()) for _ in range(2))
    assert one.shape == (128, 144, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, other)
    different = [draw_collage(seed, index, 4, 0.6, *SIZE, some()) for seed, index in ((4, 7), (3, 8))]
    assert not any(np.array_equal(one, each) for each in different)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_what_is_cut_from_photos_lies_where_the_items_are(count: int) -> None:
    """Of red photos the items are red, and nothing else is: walls are drawn, or of blue photos."""
    seen = 0
    for index in range(12):
        photo = draw_collage(0, index, count, 0.0, *SIZE, some()).astype(int)
        items = draw_scene(0, index, count, 0.0, *SIZE, FULL).items
        assert len(np.unique(items)) == count + 1
        red = (photo[..., 0] > 60) & (photo[..., 1] < 40) & (photo[..., 2] < 40)
        around = np.zeros_like(items, dtype=bool)  # blurred by up to a pixel or two
        for down in range(-3, 4):
            for right in range(-3, 4):
                around |= np.roll(items > 0, (down, right), (0, 1))
        assert not (red & ~around).any()
        seen += int((red & (items > 0)).sum())
    assert (seen > 1000) == (count > 0)


def test_without_empty_bins_all_walls_are_drawn() -> None:
    assert draw_collage(0, 1, 2, 0.6, *SIZE, some(empty=0)).shape == (128, 144, 3)


def test_only_training_photos_are_cut_up(drawn: Path) -> None:
    cuttings = cuttings_of(str(drawn))
    table = Index.open(str(drawn)).split("train")
    assert len(cuttings.filled) == (table.count > 0).sum()
    assert len(cuttings.empty) == (table.count == 0).sum()
    row = int(np.flatnonzero(table.count > 0)[1])
    shard = table.shards[table.shard[row]]
    jpeg = table.store.read_range(shard, int(table.jpeg_offset[row]), int(table.jpeg_length[row]))
    assert abs(cuttings.filled[1].mean() - decode_jpeg(jpeg).mean()) < 1


def test_a_data_set_of_collages_is_prepared_like_any_other(drawn: Path, tmp_path: Path) -> None:
    words = ["source=collage", f"source.cut={drawn}", "source.photos=24"]
    words += ["source.width=48", "source.height=40"]
    for name, workers in (("one", 0), ("other", 2)):
        assert prepare(tmp_path / name, *words, f"workers={workers}") == 0
    one, other = (Index.open(str(tmp_path / name)) for name in ("one", "other"))
    assert one.digest == other.digest
    assert sorted(row["count"] for row in rows(tmp_path / "one").values()) == sorted(4 * list(range(6)))


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ("missing", "source.cut=missing: there is no such folder: make it with `bincount prepare`"),
        ("{empty}", "source.cut={empty}: there is no training photo with an item to cut up"),
    ],
)
def test_what_cannot_be_cut_up_is_told(
    root: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["source.photos=4", "split.train=0", "split.val=1", "split.test=0", "out=empty", "workers=0"]
    assert cli.main(["prepare", *words]) == 0
    capsys.readouterr()
    root, told = (each.format(empty=tmp_path / "empty") for each in (root, told))
    assert cli.main(["prepare", "source=collage", f"source.cut={root}", "out=collages"]) == 2
    assert capsys.readouterr().err == f"bincount: {told}\n"
