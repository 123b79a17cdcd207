"""`bincount export`: one file tells what its run tells, or it is not kept."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import NewFolder
from making import jpeg, write_photos
from torchvision.models import VisionTransformer

from bincount import BadInput, Counter, __version__, cli, exported, load, storage
from bincount.data.images import encode_jpeg, read_photo
from bincount.data.index import Counts, ImageSize
from bincount.data.synthetic import draw_bin
from bincount.exported import Facts
from bincount.exporting import checking, graph
from bincount.exporting.opening import FileCounter, open_counter, open_file
from bincount.model import backbones, objectives
from bincount.model.decoding import DECODINGS, decode

pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6), reason="exporting needs torch 2.6"
)

ROOT = Path(__file__).parents[1]

FORMATS = {"onnx": graph.write_onnx, "torch": graph.write_program}

Read = Callable[[], str]


@pytest.fixture(scope="module")
def files(small_run: Path, new_folder: NewFolder) -> dict[str, Path]:
    """``small_run`` in each format, as the command writes it."""
    folder = new_folder("exported")
    made = {"onnx": folder / "a.onnx", "torch": folder / "a.pt2"}
    for format, path in made.items():
        words = [f"run={small_run}", f"format={format}", f"out={path}", "check.rounds=0"]
        assert cli.main(["export", *words]) == 0
    return made


@pytest.fixture(scope="module")
def counter(small_run: Path) -> Counter:
    return load(small_run, device="cpu")


def counter_of(model: torch.nn.Module, size: tuple[int, int] = (32, 32), **how: Any) -> Counter:
    """A counter of 0 to 5 with this model, whose answers are not all alike."""
    objective = objectives.build("cross_entropy", 6)
    torch.manual_seed(1)
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.1)
    where = torch.device("cpu")
    return Counter(model.eval(), objective, Counts(5), size, ImageSize(None, None), where, **how)


def written(
    counter: Counter, path: Path, format: str, program: torch.export.ExportedProgram | None = None
) -> FileCounter:
    """The counter as a file, opened again; ``program``: what `graph.program_of` made of it."""
    size, names = counter.image_size, tuple(counter.counts.names)
    facts = Facts(names, size, None, counter.decoding, "default/a", "sha256:0", __version__)
    FORMATS[format](program or graph.program_of(counter), facts, path)
    return open_file(path, format)


def pixels(photos: int, size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    """Patches of 16 pixels, always the same: uint8 (photos, 3, height, width)."""
    seeded = torch.Generator().manual_seed(0)
    patches = torch.randint(0, 256, (photos, 3, size[0] // 16, size[1] // 16), generator=seeded)
    return patches.to(torch.uint8).repeat_interleave(16, dim=2).repeat_interleave(16, dim=3)


def network() -> torch.nn.Module:
    """A convolution and a layer: what is quick to export."""
    layers = [torch.nn.Conv2d(3, 4, 5, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2)]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(16, 6))


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_answers_as_its_run(files: dict[str, Path], counter: Counter, format: str) -> None:
    file = open_file(files[format])
    photos = [jpeg(seed=seed) for seed in range(5)]
    for many in (photos, photos[:1]):
        for mine, its in zip(file(many), counter(many), strict=True):
            assert mine.count == its.count
            assert mine.probabilities == pytest.approx(its.probabilities, abs=1e-5)
    assert (file.counts, file.decoding, file.image_size) == (Counts(5), counter.decoding, (32, 32))


def test_a_file_tells_what_it_is(files: dict[str, Path], small_run: Path) -> None:
    told = [open_file(path).facts for path in files.values()]
    assert told[0] == told[1] == exported.load(files["onnx"]).facts
    assert told[0].counts == ("0", "1", "2", "3", "4", "5")
    assert told[0].image_size == (32, 32)
    assert told[0].run == f"{small_run.parent.name}/{small_run.name}"
    assert told[0].weights == storage.sha256(small_run / "checkpoints/best.ckpt")
    assert told[0].version == __version__


def test_onnx_counts_without_torch(files: dict[str, Path], counter: Counter, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(draw_bin(0, 0, 3, 0.1, 64, 48), 90))
    program = "import sys; from bincount.exported import load; from dataclasses import asdict; import json\n"
    program += "print(json.dumps([asdict(a) for a in load(sys.argv[1])([sys.argv[2]] * 2)]))\n"
    program += "assert 'torch' not in sys.modules"
    words = [sys.executable, "-c", program, str(files["onnx"]), str(tmp_path / "a.jpg")]
    answers = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    its = counter(tmp_path / "a.jpg")
    assert len(answers) == 2
    assert answers[0]["count"] == its.count
    assert answers[0]["probabilities"] == pytest.approx(its.probabilities, abs=0.01)


def test_what_the_page_says_runs(
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "counter.onnx").symlink_to(files["onnx"])
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/exporting.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, {})
    first, second = capsys.readouterr().out.splitlines()
    assert first[0] == second[0]
    numbers = [[float(n) for n in re.findall(r"\d\.\d+(?:e-\d+)?", line)] for line in (first, second)]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-5)
    assert len(numbers[0]) == 6


def test_an_old_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.4.1+cpu")
    with pytest.raises(BadInput, match=r"needs torch 2\.6 or newer, and this is 2\.4\.1"):
        graph.check_installed("torch")


@pytest.mark.parametrize(("width", "height"), [(64, 48), (48, 97), (33, 32), (300, 200)])
@pytest.mark.parametrize("side", [None, 40, 30])
def test_pillow_resizes_as_torch_does(
    files: dict[str, Path], counter: Counter, width: int, height: int, side: int | None
) -> None:
    file = exported.load(files["onnx"])
    file = replace(file, facts=replace(file.facts, shortest_side=side))
    photo = encode_jpeg(draw_bin(1, width, 4, 0.5, width, height), 90)
    mine = file.pixels(photo)
    its = replace(counter, stored=ImageSize(side, None)).pixels(photo).numpy()
    assert (mine.shape, mine.dtype) == ((3, 32, 32), np.uint8)
    assert np.abs(mine.astype(int) - its).max() <= (1 if side is None else 2)
    assert mine.std() > 5


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_counts_photos_for_predict(
    files: dict[str, Path], small_run: Path, tmp_path: Path, format: str
) -> None:
    photos = write_photos(tmp_path / "photos", ["1", "2", "3"])
    tables = []
    for name in (files[format], small_run):
        words = [f"run={name}", f"photos={photos}", f"out={tmp_path}/counts.csv", "decode=median"]
        assert cli.main(["predict", *words]) == 0
        with (tmp_path / "counts.csv").open(newline="") as table:
            tables.append(list(csv.DictReader(table)))
    assert [row["count"] for row in tables[0]] == [row["count"] for row in tables[1]]
    for mine, its in zip(*tables, strict=True):
        assert float(mine["p_3"]) == pytest.approx(float(its["p_3"]), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("decoding", DECODINGS)
def test_mirror_temperature_and_decoding_are_inside(format: str, decoding: str, tmp_path: Path) -> None:
    plain = counter_of(network(), decoding=decoding)
    counter = replace(plain, mirror=True, temperature=0.3)
    file = written(counter, tmp_path / "a", format)
    shown = pixels(64)
    probabilities, counts = file.graph(shown)
    torch.testing.assert_close(probabilities, counter.probabilities(shown), atol=1e-5, rtol=0)
    assert counts.tolist() == decode(counter.probabilities(shown), decoding).tolist()
    assert (counts.dtype, probabilities.dtype) == (torch.int64, torch.float32)
    assert len(counts.unique()) > 1
    assert checking.difference(plain, file, shown).probability > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_transformer_takes_any_number_of_photos(format: str, tmp_path: Path) -> None:
    model = VisionTransformer(32, 16, 1, 2, 16, 32, num_classes=6)
    counter = counter_of(model, mirror=True)
    file = written(counter, tmp_path / "a", format)
    for photos in (1, 2, 7):
        expected = counter.probabilities(pixels(photos))
        torch.testing.assert_close(file.probabilities(pixels(photos)), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "architecture", "size"),
    [
        ("resnet34", None, (112, 112)),
        ("resnet50", None, (64, 96)),
        ("vit_b_16", None, (32, 32)),
        ("timm", "convnext_atto", (64, 64)),
        ("timm", "vit_tiny_patch16_224", (64, 64)),
        ("timm", "efficientnet_b0", (64, 64)),
    ],
)
def test_each_backbone_can_be_exported(
    name: str, architecture: str | None, size: tuple[int, int], tmp_path: Path
) -> None:
    model = backbones.build(name, 6, size, None, False, architecture)
    counter = counter_of(model, size, mirror=True)
    program = graph.program_of(counter)
    for format in FORMATS:
        file = written(counter, tmp_path / format, format, program)
        found = checking.difference(counter, file, pixels(5, size))
        assert found.probability < 1e-4
        assert found.counts == 0


@pytest.mark.slow
def test_a_file_that_differs_is_not_kept(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = graph.program_of
    monkeypatch.setattr(graph, "program_of", lambda counter: made(replace(counter, temperature=9.0)))
    out = tmp_path / "new" / "a.pt2"
    assert cli.main(["export", f"run={small_run}", "format=torch", f"out={out}"]) == 1
    line = capsys.readouterr().err
    assert f"{out} is not kept: on " in line
    assert "(check.tolerance=0.0001)" in line
    assert list(out.parent.iterdir()) == []


def test_no_number_is_no_small_difference(tmp_path: Path) -> None:
    counter = counter_of(network())
    facts = Facts(("0", "1"), (32, 32), None, "mode", "", "", "")

    def broken(shown: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        told = torch.full((len(shown), 6), torch.nan)
        return told, decode(counter.probabilities(shown))

    assert checking.difference(counter, FileCounter(broken, facts, "mode"), pixels(3)).probability == np.inf


def test_it_is_checked_on_drawn_bins_where_the_data_is_gone(
    small_run: Path, tmp_path: Path, counter: Counter
) -> None:
    shown, whose = checking.photos_of(small_run, counter, 4)
    assert whose == "4 validation photos"
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    saved = (folder / "config.yaml").read_text()
    root = next(line for line in saved.splitlines() if line.strip().startswith("root:"))
    (folder / "config.yaml").write_text(saved.replace(root, "  root: /nowhere"))
    drawn, whose = checking.photos_of(folder, counter, 4)
    assert whose == "4 drawn bins"
    assert drawn.shape == shown.shape == (4, 3, 32, 32)


@pytest.mark.slow
def test_the_command_tells_size_difference_and_speed(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", f"run={small_run}", "format=torch", "check.rounds=1", "check.photos=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("counter.pt2: 45.")
    assert lines[1].startswith("checked on 3 validation photos: counts equal, probabilities differ by at ")
    assert [line.split(":")[0] for line in lines[2:]] == ["photo by photo", "32 at once"]
    assert all("photos/s, eager torch" in line for line in lines[2:])


@pytest.mark.parametrize("package", graph.PACKAGES)
def test_without_the_extra_it_says_what_to_install(
    small_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(graph, "find_spec", lambda name: None if name == package else there(name))
    assert cli.main(["export", f"run={small_run}"]) == 2
    line = f"format=onnx: {package} is not installed: pip install -e '.[export]' in the checkout, or write"
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["out=a.bin"], "out=a.bin: a file of format=onnx ends in .onnx"),
        (["format=torch", "out=a.onnx"], "out=a.onnx: a file of format=torch ends in .pt2"),
        (["format=onyx"], "format=onyx: must be one of onnx, torch; did you mean onnx?"),
        (["run=nowhere"], "nowhere is no run"),
    ],
)
def test_what_cannot_be_exported_is_told(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", *words]) == 2
    assert line in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.onnx", "a.pt2"])
def test_a_file_that_cannot_be_opened_is_told(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(BadInput, match="there is no such file"):
        open_counter(str(path), "runs")
    path.write_bytes(b"text")
    with pytest.raises(BadInput, match="cannot be read, it may be damaged") as raised:
        open_counter(str(path), "runs")
    assert "\n" not in str(raised.value)


def test_a_file_of_somebody_else_is_told(files: dict[str, Path], tmp_path: Path) -> None:
    import onnx

    model = onnx.load(files["onnx"])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(BadInput, match="was not written by `bincount export`"):
        exported.load(tmp_path / "a.onnx")
    program = torch.export.export(network(), (torch.zeros(1, 3, 32, 32),))
    torch.export.save(program, tmp_path / "a.pt2")
    with pytest.raises(BadInput, match="was not written by `bincount export`"):
        open_file(tmp_path / "a.pt2")


def test_without_onnxruntime_a_file_says_what_to_install(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BadInput, match=r"onnxruntime is not installed: pip install -e '.\[export\]'"):
        exported.load(files["onnx"])


@pytest.mark.slow
@pytest.mark.abid
def test_real_photos_count_alike(files: dict[str, Path], counter: Counter, abid: Path) -> None:
    file, alone = open_file(files["onnx"]), exported.load(files["onnx"])
    photos = sorted(abid.rglob("*.jpg"))[:8]
    for path in photos:
        content = path.read_bytes()
        its = counter(content)
        assert file(content).probabilities == pytest.approx(its.probabilities, abs=1e-5)
        assert alone(content).probabilities == pytest.approx(its.probabilities, abs=0.01)
        assert min(read_photo(content).shape[:2]) > 100
    assert len(photos) == 8
