"""A built wheel works without the checkout: its configs come with it."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from conftest import NewFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(new_folder: NewFolder) -> Path:
    """The Python of a new environment that has the wheel, and nothing else of ours."""
    folder = new_folder("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", folder, ROOT], check=True, stdin=subprocess.DEVNULL)
    venv.create(folder / "env", with_pip=True)
    python = folder / "env/bin/python"
    (wheel,) = folder.glob("bincount-*.whl")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    return python


def run(python: Path, cwd: Path, *words: str) -> str:
    # The packages we depend on are those of this environment; its link to the checkout is not followed there.
    env = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    command = [python.with_name("bincount"), *words]
    return subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True, text=True).stdout


def test_an_installed_wheel_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [installed, "-c", "import bincount; print(bincount.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert Path(where.strip()).is_relative_to(installed.parents[1])
    assert Path(where.strip()).with_name("py.typed").exists()
    assert (Path(where.strip()).parent / "serving/page.html").exists()
    assert "image_size" in run(installed, tmp_path, "train", "--cfg", "job")
    assert "resnet34\n" in run(installed, tmp_path, "completion", "reply", "bincount train model=", "=")
    assert "\nhint  data" in run(installed, tmp_path, "doctor")
    small = ["source.photos=60", "source.width=32", "source.height=32", "out=data"]
    assert "train" in run(installed, tmp_path, "prepare", *small)
    quick = [
        "model=resnet18",
        "data.root=data",
        "data.image_size=32",
        "data.batch_size=8",
        "trainer.max_epochs=1",
    ]
    assert "report:" in run(installed, tmp_path, "train", *quick, "launcher.devices=2")
