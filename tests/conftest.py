"""What tests share: the real photos and records, where the machine has them."""

import os
import tarfile
from pathlib import Path

import pytest


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
