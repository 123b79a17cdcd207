"""What tests share: the real photos and records, where the machine has them."""

import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import settings
from making import DRAWN, KNOWN, Complaint, prepare, write_photos, write_records

from bincount import cli

# How long an example takes says more about the machine's load than about the code.
settings.register_profile("bincount", deadline=None)
settings.load_profile("bincount")


@pytest.fixture(scope="session")
def abid() -> Path:
    """The folder of real photos and records: `BINCOUNT_ABID`, or `../shared/abid` beside the repository."""
    beside = Path(__file__).parents[2] / "shared" / "abid"
    folder = Path(os.environ.get("BINCOUNT_ABID") or beside)
    if not (folder / "labels.csv").is_file():
        pytest.skip(f"no real photos in {folder}: set BINCOUNT_ABID to their folder")
    return folder


@pytest.fixture(scope="session")
def abid_records(abid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the 10,677 real records, `ID.json` each."""
    folder = tmp_path_factory.mktemp("abid")
    with tarfile.open(abid / "metadata.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "metadata"


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of 96 drawn photos of 48x48 in shards of 16; not to be changed."""
    out = tmp_path_factory.mktemp("small") / "data"
    words = ["source.photos=96", "source.width=48", "source.height=48", "source.difficulty=0.1"]
    assert cli.main(["prepare", *words, "photos_per_shard=16", f"out={out}"]) == 0
    return out


@pytest.fixture(scope="session")
def small_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on ``small_data``: ResNet18 trained for an epoch, and evaluated on test; not to be changed."""
    runs = tmp_path_factory.mktemp("small_run")
    words = [f"data.root={small_data}", "model=resnet18", "data.image_size=32", "data.batch_size=8"]
    words += ["data.workers=0", "trainer.max_epochs=1", "launcher.precision=32-true"]
    assert cli.main(["train", *words, f"runs={runs}"]) == 0
    return (runs / "latest").resolve()


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 photos with records: ``images`` and ``records``."""
    folder = tmp_path_factory.mktemp("known")
    write_photos(folder / "images", list(KNOWN))
    write_records(folder / "records", KNOWN)
    return folder


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 40 drawn photos; not to be changed."""
    out = tmp_path_factory.mktemp("drawn") / "out"
    assert prepare(out, *DRAWN, "seed=3") == 0
    return out


@pytest.fixture
def complaint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Complaint:
    """Runs `bincount prepare` where it must end badly, and gives the line that it ends with."""
    return Complaint(tmp_path, capsys)
