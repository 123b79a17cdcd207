"""`bincount prepare`: where it writes, and what is left when it is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import NewFolder
from killed_prepares import MOMENTS, NAMED, WORDS
from making import DRAWN, Complaint, prepare, write_photos, write_records
from reading import contents, rows

from bincount import storage
from bincount.data.index import Index
from bincount.errors import BadInput

# --- where it is written ------------------------------------------------------------------------------


def test_a_folder_with_other_files_is_refused(complaint: Complaint, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    told = f"out={tmp_path}/mine has other files in it: name an empty or a new folder"
    assert complaint(out=tmp_path / "mine") == told
    assert complaint("overwrite=true", out=tmp_path / "mine") == told
    assert contents(tmp_path / "mine") == {"thesis.txt": b"all of it"}


def test_a_file_is_refused(complaint: Complaint, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("all of it")
    assert complaint(out=tmp_path / "mine") == f"out={tmp_path}/mine is a file: name a folder"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert prepare(tmp_path / "out", *WORDS[:3]) == 0
    assert len(rows(tmp_path / "out")) == 12


def test_a_data_set_is_not_replaced_unasked(complaint: Complaint, drawn: Path) -> None:
    before = contents(drawn)
    assert complaint(*DRAWN, out=drawn) == (
        f"out={drawn} is a data set already: name another folder, or add overwrite=true"
    )
    assert contents(drawn) == before


def test_a_data_set_is_replaced_when_asked_and_only_by_a_whole_one(
    complaint: Complaint, drawn: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(drawn, tmp_path / "out"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").touch()
    write_records(tmp_path / "records", {"1": 1})
    words = ["source=folder", f"source.images={tmp_path}/images", f"source.metadata={tmp_path}/records"]
    complaint(*words, "overwrite=true", out=out)
    assert contents(out) == contents(drawn)
    write_photos(tmp_path / "images", ["1"])
    assert prepare(out, *words, "overwrite=true") == 0
    assert set(rows(out)) == {"1"}
    assert not (out / "val").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "images", "records"}


def test_replacing_a_data_set_never_takes_other_files_away(
    complaint: Complaint, drawn: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(drawn, tmp_path / "out"))
    write_photos(out / "photos", ["1"])
    before = contents(out)
    assert complaint(*DRAWN, "overwrite=true", out=out) == (
        f"out={out} has other files in it: name an empty or a new folder"
    )
    assert contents(out) == before


def test_a_data_set_behind_a_link_is_replaced_where_it_is(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    shutil.copytree(drawn, tmp_path / "disk" / "data")
    (tmp_path / "data").symlink_to(tmp_path / "disk" / "data")
    assert prepare(tmp_path / "data", *WORDS) == 0
    assert (tmp_path / "data").is_symlink()
    assert len(rows(tmp_path / "disk" / "data")) == 12
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "data"}
    assert {path.name for path in (tmp_path / "disk").iterdir()} == {"data"}


# --- killed -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(new_folder: NewFolder) -> Path:
    folder = new_folder("killed")
    program = Path(__file__).with_name("killed_prepares.py")
    subprocess.run([sys.executable, str(program), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(new_folder: NewFolder) -> dict[str, bytes]:
    out = new_folder("uninterrupted") / "out"
    assert prepare(out, *WORDS, "seed=2") == 0
    return contents(out)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_prepare_leaves_nothing_that_is_taken_for_a_data_set_and_goes_on(
    killed: Path, uninterrupted: dict[str, bytes], moment: str
) -> None:
    out = killed / moment / "fresh"
    if moment not in NAMED:
        assert not out.exists()
        with pytest.raises(BadInput):
            Index.open(str(out))
    assert prepare(out, *WORDS, "seed=2") == 0
    assert contents(out) == uninterrupted
    assert [path.name for path in out.parent.iterdir() if "fresh" in path.name] == ["fresh"]


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_prepare_killed_while_replacing_leaves_the_data_set_that_was_there(
    killed: Path, uninterrupted: dict[str, bytes], moment: str
) -> None:
    out = killed / moment / "again"
    if moment == "between the renames":  # it stands beside its place, and the next writer puts it back
        assert not out.exists()
        storage.Folder(out).restore()
    index = Index.open(str(out))
    assert index.summary["source"]["seed"] == (2 if moment == "before the last note is taken away" else 1)
    for split in index.splits:
        for shard in index.summary["splits"][split]["shards"]:
            assert storage.sha256(out / shard["name"]) == f"sha256:{shard['sha256']}"
    assert prepare(out, *WORDS, "seed=2") == 0
    assert contents(out) == uninterrupted
    assert [path.name for path in out.parent.iterdir() if "again" in path.name] == ["again"]


def test_half_a_data_set_is_not_mixed_with_another(
    complaint: Complaint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, half = tmp_path / "out", tmp_path / ".out.partial"
    with monkeypatch.context() as failing:
        failing.delattr("bincount.prepare.write_index")
        assert prepare(out, *DRAWN, "seed=2") == 1
    before = contents(half)
    assert complaint(*DRAWN, "seed=3", out=out) == (
        f"{half} is half a data set that was begun with seed=2, not 3: "
        "go on with that, or add overwrite=true to begin anew"
    )
    assert contents(half) == before
    assert prepare(out, *DRAWN, "seed=3", "overwrite=true") == 0
    assert Index.open(str(out)).summary["source"]["seed"] == 3
    assert not half.exists()


@pytest.mark.slow
def test_a_killed_prepare_takes_its_workers_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bincount", "prepare", "source.photos=100000", "workers=2"]
    process = subprocess.Popen(
        [*command, f"out={tmp_path}/out"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: any((tmp_path / ".out.partial").rglob("*.tar")))
        assert len(members(process.pid)) > 2
        process.kill()
        process.wait()
        wait_for(lambda: not members(process.pid))
    finally:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    assert not (tmp_path / "out").exists()


def wait_for(happened: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.05)


def members(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(path.parent.name))
    return found
