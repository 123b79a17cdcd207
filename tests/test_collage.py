"""Collages: the same arguments give the same bytes, the count is true, only training photos are cut up."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from making import prepare, write_photos
from reading import rows

from bincount import cli
from bincount.data import cutting
from bincount.data.collage import make_collage
from bincount.data.cutting import Cuttings, cut_up, learn_items, shared
from bincount.data.images import decode_jpeg
from bincount.data.index import Index
from bincount.data.synthetic import draw_bin, draw_scene

#: Pixels of a side of the photos below, and of the squares that are their items.
SIDE, ITEM = 48, 8


def photo_of(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A blue photo with red squares, none above another, and where they are."""
    random = np.random.default_rng((count, seed))
    photo = np.full((SIDE, SIDE, 3), (0, 0, 120), dtype=np.uint8)
    for place in random.choice(9, count, replace=False):
        top, left = 8 + 12 * (place // 3), 8 + 12 * (place % 3)
        photo[top : top + ITEM, left : left + ITEM] = 200, 0, 0
    return photo, np.where(photo[..., 0] > 0, 255, 0).astype(np.uint8)


def some(counts: tuple[int, ...] = (0, 1, 1, 1, 1, 2, 2, 3)) -> Cuttings:
    made = [photo_of(count, seed) for seed, count in enumerate(counts)]
    return Cuttings(
        np.stack([photo for photo, _ in made]), np.stack([at for _, at in made]), np.array(counts)
    )


def test_the_same_arguments_give_the_same_bytes() -> None:
    one, other = (make_collage(3, 7, 4, 0.6, some()) for _ in range(2))
    assert one.shape == (SIDE, SIDE, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, other)
    different = [make_collage(seed, index, 4, 0.6, some()) for seed, index in ((4, 7), (3, 8))]
    assert not any(np.array_equal(one, each) for each in different)


@pytest.mark.parametrize("count", range(7))
def test_it_has_as_many_items_as_it_says(count: int) -> None:
    shares = []
    for index in range(20):
        photo = make_collage(0, index, count, 0.0, some()).astype(int)
        red = (photo[..., 0] > 150) & (photo[..., 2] < 60)
        assert (red | ((photo[..., 0] < 60) & (photo[..., 2] > 100))).all()
        shares.append(red.sum() / ITEM**2)
    assert max(shares) <= count
    assert np.mean(shares) > 0.85 * count - 0.01  # items hide one another now and then, or stand at the rim


def test_the_easier_the_less_hides_another() -> None:
    seen = [
        np.mean([(make_collage(0, index, 5, difficulty, some())[..., 0] > 150).sum() for index in range(40)])
        for difficulty in (0.0, 0.5, 1.0)
    ]
    assert seen[0] > seen[1] > seen[2]


def test_what_is_laid_in_has_the_light_of_the_photo() -> None:
    cuttings = some((0, 1))
    darker = Cuttings(np.stack([cuttings.photos[0], cuttings.photos[1] // 2]), cuttings.items, cuttings.count)
    photo = make_collage(0, 0, 1, 0.0, darker)
    assert int(photo[..., 0].max()) == pytest.approx(160, abs=2)  # 100, as much lighter as it may become


@pytest.mark.parametrize("counts", [(1, 1, 1), (1, 2, 5), (1,)])
def test_without_empty_bins_one_is_drawn(counts: tuple[int, ...]) -> None:
    assert np.array_equal(make_collage(0, 4, 0, 0.6, some(counts)), draw_bin(0, 4, 0, 0.6, SIDE, SIDE))
    for count in range(1, 6):
        assert make_collage(0, 4, count, 0.6, some(counts)).shape == (SIDE, SIDE, 3)


def test_items_are_found_without_being_outlined() -> None:
    scenes = [draw_scene(0, index, index % 6, 0.1, 72, 72) for index in range(90)]
    photos = np.stack([scene.photo for scene in scenes])
    items_of = learn_items(photos[::6], np.concatenate([photos[4::6], photos[5::6]]))
    found = np.stack([items_of(photo) for photo in photos]) > 127
    true = np.stack([scene.items > 0 for scene in scenes])
    true[:, :10], true[:, -10:] = False, False  # the rim, where labels are, has no items in a map
    found[:, :10], found[:, -10:] = False, False
    assert found[true].mean() > 0.8
    assert found[~true].mean() < 0.35


@pytest.mark.slow
@pytest.mark.abid
def test_items_of_real_photos_are_found(abid: Path, tmp_path: Path) -> None:
    bucket, out = abid / "bucket", tmp_path / "out"
    words = [f"source.images={bucket}/bin-images", f"source.metadata={bucket}/metadata"]
    assert prepare(out, "source=folder", *words) == 0
    cuttings = cut_up(str(out), 96, 96)
    covered = [float(cuttings.covered[cuttings.count == count].mean()) for count in range(4)]
    assert covered[0] < 0.15
    assert 0.3 < covered[1] < covered[2] < covered[3]


def test_only_training_photos_are_cut_up(drawn: Path) -> None:
    cuttings = cut_up(str(drawn), 64, 48)
    table = Index.open(str(drawn)).split("train")
    few = table.count[table.count <= 3]
    assert cuttings.photos.shape == (len(few), 48, 64, 3)
    assert cuttings.items.shape == (len(few), 48, 64)
    assert sorted(cuttings.count) == sorted(few)
    row = int(np.flatnonzero(table.count == table.count.min())[0])
    shard = table.shards[table.shard[row]]
    jpeg = table.store.read_range(shard, int(table.jpeg_offset[row]), int(table.jpeg_length[row]))
    assert abs(cuttings.photos[0].mean() - decode_jpeg(jpeg).mean()) < 1


def test_what_was_cut_up_is_shared_by_files(drawn: Path, tmp_path: Path) -> None:
    cuttings = cut_up(str(drawn), 64, 48)
    cuttings.save(tmp_path)
    again = shared(tmp_path)
    assert isinstance(again.photos, np.memmap)
    assert all(
        np.array_equal(make_collage(0, n, n % 6, 0.2, again), make_collage(0, n, n % 6, 0.2, cuttings))
        for n in range(12)
    )


def test_photos_that_cannot_be_read_are_left_out(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path / "data")
    table = Index.open(str(drawn)).split("train")
    row = int(np.flatnonzero(table.count == 2)[0])
    with (tmp_path / "data" / table.shards[table.shard[row]]).open("r+b") as shard:
        shard.seek(int(table.jpeg_offset[row]))
        shard.write(bytes(int(table.jpeg_length[row])))
    whole, found = cut_up(str(drawn), 64, 48), cut_up(str(tmp_path / "data"), 64, 48)
    assert len(found.photos) == len(whole.photos) - 1
    assert (found.count == 2).sum() == (whole.count == 2).sum() - 1
    assert found.photos.mean(axis=(1, 2, 3)).min() > 5


def test_of_a_class_more_all_photos_are_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantities = {f"{n:05d}": n % 9 for n in range(90)}
    write_photos(tmp_path / "photos", list(quantities))
    lines = "".join(f"{id},{quantity}\n" for id, quantity in quantities.items())
    (tmp_path / "labels.csv").write_text(f"id,count\n{lines}")
    words = ["source=folder", f"source.images={tmp_path}/photos", f"source.labels={tmp_path}/labels.csv"]
    assert prepare(tmp_path / "out", *words, "max_count=4", "overflow=class") == 0
    learnt: list[int] = []
    learn = cutting.learn_items

    def counting(empty: np.ndarray, full: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        learnt.extend((len(empty), len(full)))
        return learn(empty, full)

    monkeypatch.setattr(cutting, "learn_items", counting)
    cut_up(str(tmp_path / "out"), 32, 32)
    count = Index.open(str(tmp_path / "out")).split("train").count
    assert learnt == [(count == 0).sum(), (count >= 4).sum()]


@pytest.mark.slow
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
        ("{empty}", "source.cut={empty}: no training photo has one item to cut out"),
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
