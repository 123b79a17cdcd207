"""`bincount explore against=RUN`: photos that are like the run's are not called changed, others are."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from making import encoded, jpeg, write_photos
from PIL import Image, ImageEnhance, ImageFilter

from bincount import cli
from bincount.data.images import decode_jpeg
from bincount.data.index import Index
from bincount.exploring import change
from bincount.exploring.comparing import compare, verdict
from bincount.exploring.known import FILE, Known, Traits, chosen, places
from bincount.exploring.traits import CAMERA, camera_traits, columns

Change = Callable[[Image.Image], Image.Image]


# --- one photo ----------------------------------------------------------------------------------------


def traits_of(photo: Image.Image) -> dict[str, float]:
    return camera_traits(np.array(photo))


@pytest.fixture(scope="module")
def bin_photo() -> Image.Image:
    """A smooth photo with some grain, nowhere near black or white."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(70, 150, (8, 10, 3), dtype=np.uint8)).resize((320, 256))
    grain = rng.normal(0, 6, (256, 320, 1))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("changed", "trait", "lower"),
    [
        (lambda photo: ImageEnhance.Brightness(photo).enhance(0.7), "brightness", True),
        (lambda photo: ImageEnhance.Brightness(photo).enhance(1.3), "brightness", False),
        (lambda photo: ImageEnhance.Contrast(photo).enhance(0.6), "contrast", True),
        (lambda photo: photo.filter(ImageFilter.GaussianBlur(1.5)), "sharpness", True),
        (lambda photo: Image.merge("RGB", photo.split()[::-1]), "red", False),
        (lambda photo: photo.transpose(Image.Transpose.ROTATE_90), "width", True),
        (lambda photo: photo.transpose(Image.Transpose.ROTATE_90), "aspect", True),
    ],
)
def test_a_trait_goes_the_way_it_is_named(
    bin_photo: Image.Image, changed: Change, trait: str, lower: bool
) -> None:
    tinted = Image.merge("RGB", [bin_photo.getchannel(0).point(lambda v: v // 2), *bin_photo.split()[1:]])
    before, after = traits_of(tinted)[trait], traits_of(changed(tinted))[trait]
    assert after < before if lower else after > before


def test_a_darker_photo_is_neither_blurred_nor_poorer_in_contrast(bin_photo: Image.Image) -> None:
    before = traits_of(bin_photo)
    after = traits_of(ImageEnhance.Brightness(bin_photo).enhance(0.7))
    assert after["brightness"] == pytest.approx(0.7 * before["brightness"], rel=0.02)
    for trait in ("contrast", "sharpness", "red", "blue"):
        assert after[trait] == pytest.approx(before[trait], rel=0.05)


def test_a_black_photo_has_traits_like_any_other() -> None:
    found = camera_traits(np.zeros((30, 60, 3), np.uint8))
    assert (found["brightness"], found["contrast"], found["sharpness"]) == (0, 0, 0)
    assert (found["width"], found["height"], found["aspect"]) == (60, 30, 2)


# --- real photos --------------------------------------------------------------------------------------


class RealPhotos:
    """Real photos at 224x224 with their counts, and what a fair model might tell of them.

    It goes half by how crowded and colourful a photo looks, and half sees what is there, with errors.
    """

    LOOKS = ("contrast", "red", "blue")

    def __init__(self, photos: Sequence[Image.Image], counts: Sequence[int]):
        self.photos, self.counts = photos, np.array(counts, dtype=float)
        self.traits = columns([traits_of(photo) for photo in photos])
        self.fit, *_ = np.linalg.lstsq(self._looks(self.traits), self.counts, rcond=None)

    def told(self, rows: Sequence[int], changed: Change | None = None) -> Traits:
        """What is measured and told of these photos, changed."""
        if changed is None:
            values = {name: each[rows] for name, each in self.traits.items()}
        else:
            values = columns([traits_of(changed(self.photos[row])) for row in rows])
        rng = np.random.default_rng(list(rows))
        seen = (self._looks(values) @ self.fit + self.counts[rows]) / 2 + rng.normal(0, 0.6, len(rows))
        values["count"] = seen.round().clip(0, 5)
        values["certainty"] = rng.beta(4, 6, len(rows))
        return Traits(values)

    def _looks(self, traits: dict[str, np.ndarray]) -> np.ndarray:
        return np.stack([*(traits[name] for name in self.LOOKS), np.ones_like(traits["red"])], axis=1)


@pytest.fixture(scope="module")
def real(abid: Path) -> RealPhotos:
    """1,000 real photos, spread over all ids."""
    lines = (abid / "labels.csv").read_text().splitlines()[1:]
    counts = {id: int(count) for id, count, *_ in (line.split(",") for line in lines)}
    wanted = set(list(counts)[:: len(counts) // 1000])
    photos, held = [], []
    with tarfile.open(abid / "squashed-224.tar") as archive:
        for member in archive:
            id = Path(member.name).stem
            if id in wanted and (file := archive.extractfile(member)):
                photos.append(Image.fromarray(decode_jpeg(file.read())))
                held.append(counts[id])
    return RealPhotos(photos, held)


def less_red(photo: Image.Image) -> Image.Image:
    red, green, blue = photo.split()
    return Image.merge("RGB", [red.point(lambda v: v * 9 // 10), green, blue])


def known(traits: Traits) -> Known:
    return Known(traits, traits, "val", "data")


@pytest.mark.abid
@pytest.mark.slow
@pytest.mark.parametrize(("run", "now"), [(500, 500), (900, 60), (900, 15)])
def test_random_halves_of_real_photos_are_unchanged_in_95_percent(
    real: RealPhotos, run: int, now: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change, "DEALS", 200)
    rng = np.random.default_rng(0)
    draws, wrong = 100, 0
    for _ in range(draws):
        rows = rng.permutation(len(real.photos))
        before, after = real.told(rows[:run]), real.told(rows[run : run + now])
        wrong += compare(known(before), after).changed
    assert wrong / draws <= 0.05


@pytest.mark.abid
@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "told", "may"),
    [
        (lambda photo: ImageEnhance.Brightness(photo).enhance(0.8), {"brightness"}, set()),
        (lambda photo: photo.filter(ImageFilter.GaussianBlur(1)), {"sharpness"}, {"contrast"}),
        (lambda photo: photo.resize((224, 168)), {"height", "aspect"}, {"sharpness"}),
        (less_red, {"red", "blue"}, {"brightness"}),
    ],
    ids=["darker", "blurred", "other sides", "other colours"],
)
def test_photos_of_other_cameras_are_told_by_what_is_other(
    real: RealPhotos, changed: Change, told: set[str], may: set[str]
) -> None:
    rows = np.random.default_rng(1).permutation(len(real.photos))
    finding = compare(known(real.told(rows[:800])), real.told(rows[800:], changed))
    assert told <= set(finding.cameras_changed) <= told | may
    assert verdict(finding).startswith("The cameras or the light have changed: the photos are ")
    if not {"red", "contrast"} & (told | may):  # by which the model goes
        assert finding.bins_changed == []
        assert verdict(finding).endswith("What the model tells of the bins has not.")


@pytest.mark.abid
@pytest.mark.slow
@pytest.mark.parametrize(("fewest", "most", "word"), [(0, 2, "fewer"), (4, 5, "more")])
def test_other_bins_are_told_and_the_same_cameras_are_not_blamed(
    real: RealPhotos, fewest: int, most: int, word: str
) -> None:
    rows = np.random.default_rng(2).permutation(len(real.photos))
    these = [row for row in rows[700:] if fewest <= real.counts[row] <= most]
    finding = compare(known(real.told(rows[:700])), real.told(these))
    assert finding.bins_changed == ["count"]
    assert finding.cameras_changed == []
    assert verdict(finding).startswith(f"The bins have changed: {word} items are told.")


@pytest.mark.abid
@pytest.mark.slow
def test_with_other_bins_another_camera_is_seen_all_the_same(real: RealPhotos) -> None:
    rows = np.random.default_rng(2).permutation(len(real.photos))
    these = [row for row in rows[700:] if real.counts[row] <= 2]
    darker = real.told(these, lambda photo: ImageEnhance.Brightness(photo).enhance(0.7))
    finding = compare(known(real.told(rows[:700])), darker)
    assert "brightness" in finding.cameras_changed
    assert finding.bins_changed == ["count"]
    assert "which may be due to that" in verdict(finding)


# --- the command --------------------------------------------------------------------------------------


@pytest.fixture
def trained(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run, to be changed."""
    return Path(shutil.copytree(small_run, tmp_path / "runs/default/a"))


@pytest.fixture
def stored(small_data: Path, tmp_path: Path) -> Path:
    """A folder with the photos of the small data set, and one that cannot be read."""
    folder = tmp_path / "stored"
    folder.mkdir()
    index = Index.open(str(small_data))
    for number, photo in enumerate(index.store.read_ranges(places(index, index.splits, 1000, 0))):
        assert isinstance(photo, bytes)
        (folder / f"{number}.jpg").write_bytes(photo)
    (folder / "torn.jpg").write_bytes(jpeg()[:-200])
    return folder


def against(trained: Path, out: Path, *words: str) -> int:
    return cli.main(["explore", f"against={trained}", f"out={out}", *words])


@pytest.mark.slow
def test_the_runs_own_photos_are_unchanged_and_darker_ones_are_not(
    trained: Path, stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert against(trained, tmp_path / "a.html", f"photos={stored}", "fail=true") == 0
    told = capsys.readouterr().out
    assert "No change: the photos are like those that the run was trained on." in told
    assert "Compared: 96 photos, with " in told
    assert "Left out, as they cannot be read: 1." in told
    assert (tmp_path / "a.html").read_text().count("data:image/png") == 2
    for path in stored.glob("[0-9]*.jpg"):
        dark = ImageEnhance.Brightness(Image.open(io.BytesIO(path.read_bytes()))).enhance(0.5)
        path.write_bytes(encoded(dark, quality=95))
    assert against(trained, tmp_path / "b.html", f"photos={stored}") == 0
    assert "Darker: the brightness is " in capsys.readouterr().out
    assert against(trained, tmp_path / "b.html", f"photos={stored}", "fail=true") == 1
    error = capsys.readouterr().err
    assert error.startswith(
        f"bincount: photos={stored}: The cameras or the light have changed: the photos are "
    )
    assert error.count("\n") == 1


@pytest.mark.slow
def test_what_the_runs_photos_were_like_is_kept_for_when_they_are_gone(
    trained: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "data"
    shutil.copytree(small_data, own)
    config = trained / "config.yaml"
    config.write_text(config.read_text().replace(str(small_data), str(own)))
    words = [f"data.root={small_data}", "sample=20"]
    assert against(trained, tmp_path / "a.html", *words) == 0
    first = capsys.readouterr().out
    assert "Compared: 20 photos" in first
    kept = pq.read_table(trained / FILE)
    assert set(kept["split"].to_pylist()) == {"train", "val"}
    shutil.rmtree(own)
    assert against(trained, tmp_path / "a.html", *words) == 0
    assert capsys.readouterr().out == first
    # Calibrated anew the model tells something else: what was kept is no fair comparison any more.
    calibration = json.loads((trained / "calibration.json").read_bytes())
    (trained / "calibration.json").write_text(json.dumps({**calibration, "temperature": 3.0}))
    assert against(trained, tmp_path / "a.html", *words) == 2
    error = capsys.readouterr().err
    assert f"data.root={own}: there is no such folder" in error
    assert f"{trained / FILE} then keeps what they are like" in error
    # Prepared anew it is not what the run learnt from.
    assert cli.main(["prepare", "source.photos=40", "source.width=48", "source.height=48", f"out={own}"]) == 0
    assert against(trained, tmp_path / "a.html", *words) == 2
    assert f"data.root={own}: it was prepared anew since the run was trained on it" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_cannot_be_written_to_is_compared_with_all_the_same(
    trained: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained / FILE).mkdir()
    (trained / FILE / "something").touch()
    assert against(trained, tmp_path / "a.html", f"data.root={small_data}") == 0
    told = capsys.readouterr()
    assert "Have the photos changed?" in told.out
    assert "what the run's photos are like is not kept: " in told.err


@pytest.mark.slow
def test_photos_of_which_none_can_be_read_are_an_error(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_photos(tmp_path / "photos", ["1"])
    (photos / "1.jpg").write_bytes(b"")
    assert against(trained, tmp_path / "a.html", f"photos={photos}") == 2
    assert "none of its 1 photos could be read" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()


def test_a_sample_is_bounded_even_and_in_order() -> None:
    photos = list(range(500))
    assert chosen(photos, 500, 0) == photos
    drawn = chosen(photos, 100, 0)
    assert drawn == sorted(set(drawn)) == chosen(photos, 100, 0)
    assert len(drawn) == 100
    assert drawn != chosen(photos, 100, 1)
    assert 200 < np.mean(drawn) < 300
    assert set(CAMERA) == set(camera_traits(np.zeros((4, 4, 3), np.uint8)))
