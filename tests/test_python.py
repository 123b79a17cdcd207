"""bincount from Python: a run is a function of photos, however they are given."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Bucket
from making import encoded, jpeg, photo, write_photos
from PIL import Image

import bincount
from bincount import BadInput, BincountError, Counter, UnreadablePhoto, load
from bincount.counter import Answer
from bincount.data.given import pixels_of
from bincount.data.index import Counts

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def counter(small_run: Path) -> Counter:
    return load(small_run)


@pytest.fixture
def here(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in with ``runs``, ``photo.jpg`` and ``photos``."""
    (tmp_path / "runs").symlink_to(small_run.parents[1])
    write_photos(tmp_path / "photos", ["1", "2", "3"])
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks_of(page: str) -> list[str]:
    """The pieces of Python in a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_what_the_page_says_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = blocks_of("docs/python.md")
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    first, second, third = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d \((0\.\d+(e-\d+)?, ){5}0\.\d+(e-\d+)?\)", first)
    assert int(second) <= 15
    assert third == "the photo: not a JPEG or PNG"
    assert len(blocks) == 3


def test_what_the_readme_and_the_package_itself_say_runs(here: Path) -> None:
    assert bincount.__doc__
    example = "\n".join(line.strip() for line in bincount.__doc__.splitlines() if line.startswith("    "))
    assert "counter = load(" in example
    for block in (*blocks_of("README.md"), example):
        exec(block, {})


@pytest.mark.parametrize("name", ["latest", "runs/latest", "PATH", "BELOW"])
def test_a_run_is_found_as_on_the_command_line(here: Path, small_run: Path, name: str) -> None:
    below = f"{small_run.parent.name}/{small_run.name}"
    found = load({"PATH": small_run, "BELOW": below}.get(name, name))
    assert found("photo.jpg") == load()("photo.jpg")


def test_an_answer_has_a_count_and_what_it_rests_on(counter: Counter) -> None:
    answer = counter(jpeg())
    assert len(answer.probabilities) == 6
    assert sum(answer.probabilities) == pytest.approx(1, abs=1e-5)
    assert 0 <= answer.expected <= 5
    assert isinstance(answer.count, int)
    mode = replace(counter, decoding="mode")(jpeg())
    assert mode.probabilities[mode.count] == max(mode.probabilities)
    told = counter.count([jpeg()])
    assert ([answer.count], [*answer.probabilities]) == (told[0].tolist(), told[1][0].tolist())
    assert Answer(2, (0.0, 0.25, 0.75)).expected == 1.75


def test_a_photo_is_counted_alike_however_it_is_given(counter: Counter, tmp_path: Path) -> None:
    content = encoded(photo(), "PNG")
    path = tmp_path / "a photo.png"
    path.write_bytes(content)
    given = [str(path), path, content, bytearray(content), memoryview(content), photo(), Image.open(path)]
    answers = [counter(each) for each in given]
    assert answers == [answers[0]] * len(given)
    assert [answer.count for answer in counter(given)] == [answers[0].count] * len(given)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA", "I;16"])
def test_an_image_in_any_mode_is_rgb(mode: str) -> None:
    grey = Image.fromarray(np.full((20, 30), 200, np.uint8))
    image = Image.fromarray(np.full((20, 30), 200 << 8, np.uint16)) if mode == "I;16" else grey.convert(mode)
    pixels = pixels_of(image, "it")
    assert (pixels.shape, pixels.dtype) == ((20, 30, 3), np.uint8)
    if mode != "1":
        assert np.abs(pixels.astype(int) - 200).max() <= 2


def test_an_image_is_turned_as_its_camera_noted(counter: Counter) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(photo(), exif=exif, quality=95)
    with Image.open(io.BytesIO(content)) as image:
        turned = pixels_of(image, "it")
    assert turned.shape == (40, 32, 3)
    assert np.abs(turned.astype(int) - pixels_of(content, "it").astype(int)).mean() < 2


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_several_photos_have_answers_in_their_order(counter: Counter, here: Path, batch_size: int) -> None:
    paths = sorted(Path("photos").glob("*.jpg"))
    answers = counter(paths, batch_size=batch_size)
    assert [answer.count for answer in answers] == [counter(path).count for path in paths]
    for answer, path in zip(answers, paths, strict=True):
        assert answer.probabilities == pytest.approx(counter(path).probabilities, abs=1e-5)
    assert counter(iter(paths)) == counter(tuple(paths))
    assert counter([]) == []


def test_a_photo_in_s3_is_counted(counter: Counter, bucket: Bucket) -> None:
    (bucket.folder / "a.jpg").write_bytes(jpeg())
    assert counter(f"{bucket.address}/a.jpg") == counter(jpeg())


def test_the_class_more_is_told(counter: Counter) -> None:
    answer = replace(counter, counts=Counts(4, more=True))(jpeg())
    assert answer.more
    assert not counter(jpeg()).more


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ("torn.jpg", UnreadablePhoto, "torn.jpg: damaged or truncated"),
        ("empty.jpg", UnreadablePhoto, "empty.jpg: the file is empty (0 bytes)"),
        (["photo.jpg", "empty.jpg"], UnreadablePhoto, "empty.jpg: the file is empty"),
        (b"text", UnreadablePhoto, "the photo: not a JPEG or PNG"),
        ([jpeg(), b"text"], UnreadablePhoto, "photo 2: not a JPEG or PNG"),
        ("nowhere.jpg", BincountError, "there is no nowhere.jpg"),
        ("photos", BincountError, "photos: Is a directory"),
        (3, BadInput, "the photo is of type int: give a path, bytes, an image of Pillow or an array"),
        (None, BadInput, "the photo is of type NoneType"),
        ([jpeg(), 3], BadInput, "photo 2 is of type int"),
        (photo().astype(np.float32), BadInput, "is an array float32 of shape (32, 40, 3): it must be uint8"),
        (photo().transpose(2, 0, 1), BadInput, "is an array uint8 of shape (3, 32, 40)"),
        (photo()[:0], BadInput, "is an array uint8 of shape (0, 40, 3)"),
        (photo()[..., 0], BadInput, "is an array uint8 of shape (32, 40)"),
    ],
)
def test_what_is_no_photo_is_told_in_one_line(
    counter: Counter, here: Path, given: object, error: type[Exception], told: str
) -> None:
    Path("torn.jpg").write_bytes(jpeg()[:-200])
    Path("empty.jpg").touch()
    with pytest.raises(error) as raised:
        counter(given)  # type: ignore[call-overload]
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_damaged_image_of_pillow_is_unreadable(counter: Counter, here: Path) -> None:
    Path("torn.png").write_bytes(encoded(photo(), "PNG")[:-400])
    with Image.open("torn.png") as image, pytest.raises(UnreadablePhoto, match="the photo: a damaged image"):
        counter(image)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"name": "nowhere/a"}, "nowhere/a is no run"),
        ({"runs": "nowhere"}, "there is no run in nowhere yet: train one"),
        ({"decoding": "medain"}, "decoding=medain: did you mean median?"),
        ({"device": "gpu"}, "device=gpu: "),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_line(here: Path, words: dict[str, str], told: str) -> None:
    with pytest.raises(BadInput) as raised:
        load(**words)  # type: ignore[arg-type]
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(here: Path) -> None:
    with pytest.raises(BadInput, match="device=cuda: "):
        load(device="cuda")


def test_importing_bincount_is_light() -> None:
    program = "import sys, bincount; print({'torch', 'numpy', 'omegaconf', 'PIL'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_is_public_is_there() -> None:
    assert set(bincount.__all__) <= set(dir(bincount))
    assert all(getattr(bincount, name) for name in bincount.__all__)
    assert issubclass(BadInput, BincountError)
    assert Path(bincount.__file__).with_name("py.typed").exists()
    with pytest.raises(AttributeError, match="module 'bincount' has no attribute 'nothing'"):
        _ = bincount.nothing
