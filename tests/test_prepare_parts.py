"""`bincount prepare part=…` and `merge=true`: several machines make one data set."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Bucket, NewFolder
from making import Complaint, prepare, write_photos, write_records
from reading import contents

from bincount import cli, storage
from bincount import prepare as prepare_module
from bincount.data import tables
from bincount.data.index import Index
from bincount.errors import BadInput


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RECORDS_PER_PART", 7)


@pytest.fixture(scope="module")
def words(known: Path) -> list[str]:
    """What makes nine shards of the 30 known photos."""
    names = ["source.images=images", "source.metadata=records"]
    return ["source=s3", f"source.bucket={known}", *names, "photos_per_shard=4"]


@pytest.fixture(scope="module")
def at_once(words: list[str], new_folder: NewFolder) -> dict[str, bytes]:
    """The data set that one run makes."""
    out = new_folder("at-once") / "out"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tables, "RECORDS_PER_PART", 7)
        assert prepare(out, *words) == 0
    return contents(out)


@dataclass(frozen=True)
class Place:
    """Where a data set goes: its address, all that lies there, and what lies in its draft."""

    address: str
    held: Callable[[], dict[str, bytes]]
    draft: Callable[[], dict[str, bytes]]

    def prepare(self, *words: str) -> int:
        """Run the command with this ``out``, without worker processes."""
        return cli.main(["prepare", *words, "workers=0", f"out={self.address}"])


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A folder, and a prefix of a bucket."""
    if request.param == "folder":
        root = tmp_path / "root"
        root.mkdir()
        return Place(f"{root}/out", lambda: contents(root / "out"), lambda: contents(root / ".out.partial"))
    bucket: Bucket = request.getfixturevalue("bucket")
    held = lambda: contents(bucket.folder / "out")  # noqa: E731
    return Place(f"{bucket.address}/out", held, held)


# --- joined -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(3, 1, 2), (2, 3, 1)])
def test_parts_in_any_order_joined_equal_one_run(
    place: Place, words: list[str], at_once: dict[str, bytes], order: tuple[int, ...]
) -> None:
    for part in order:
        assert place.prepare(*words, f"part={part}/3") == 0
        assert "index.json" not in place.held()
        assert "skipped.csv" not in place.held()
    assert place.prepare(*words, "merge=true") == 0
    assert place.held() == at_once
    if place.draft is not place.held:
        assert place.draft() == {}


def test_each_part_makes_its_share_of_the_shards(place: Place, words: list[str]) -> None:
    made: set[str] = set()
    for part in (1, 2, 3):
        assert place.prepare(*words, f"part={part}/3") == 0
        tars = {name for name in place.draft() if name.endswith(".tar")}
        assert len(tars - made) == 3
        made = tars


def test_a_part_is_told_and_what_comes_next(
    place: Place, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.prepare(*words, "part=2/3") == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out == "part 2/3 is done; once all are, give merge=true in its place\n"


def test_a_part_again_changes_nothing(place: Place, words: list[str]) -> None:
    assert place.prepare(*words, "part=1/3") == 0
    before = place.draft()
    assert place.prepare(*words, "part=1/3", "overwrite=true") == 0
    assert place.draft() == before


def test_one_part_of_one_is_all(place: Place, words: list[str], at_once: dict[str, bytes]) -> None:
    assert place.prepare(*words, "part=1/1") == 0
    assert "index.json" not in place.held()
    assert place.prepare(*words, "merge=true") == 0
    assert place.held() == at_once


@pytest.mark.slow
def test_more_parts_than_shards_leave_some_with_nothing_to_do(
    tmp_path: Path, words: list[str], at_once: dict[str, bytes]
) -> None:
    for part in range(11, 0, -1):
        assert prepare(tmp_path / "out", *words, f"part={part}/11") == 0
    assert prepare(tmp_path / "out", *words, "merge=true") == 0
    assert contents(tmp_path / "out") == at_once


def test_drawn_bins_can_be_drawn_in_parts(tmp_path: Path, drawn: Path) -> None:
    words = ["source.photos=40", "source.width=48", "source.height=40", "photos_per_shard=7", "seed=3"]
    for part in (2, 1):
        assert prepare(tmp_path / "out", *words, f"part={part}/2") == 0
    assert prepare(tmp_path / "out", *words, "merge=true") == 0
    assert contents(tmp_path / "out") == contents(drawn)


def test_tables_alone_can_be_made_in_parts(
    place: Place, words: list[str], at_once: dict[str, bytes], tmp_path: Path
) -> None:
    for part in (3, 1, 2):
        assert place.prepare(*words, "source.images=null", f"part={part}/3") == 0
        assert "skipped.csv" not in place.draft()
    assert place.prepare(*words, "source.images=null", "merge=true") == 0
    alone = place.held()
    assert alone.pop("skipped.csv") == b"id,file,reason\n"
    assert alone == {name: content for name, content in at_once.items() if name.startswith("tables/")}


# --- before all is done -------------------------------------------------------------------------------


def test_joining_before_all_parts_are_done_is_told_and_loses_nothing(
    place: Place, words: list[str], at_once: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    for part, missing in [(3, 6), (1, 3)]:
        assert place.prepare(*words, f"part={part}/3") == 0
        before = place.draft()
        capsys.readouterr()
        assert place.prepare(*words, "merge=true") == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err == (
            f"bincount: {place.address}: {missing} of 9 shards are missing, such as test/bins-000000.tar: "
            "make the parts that are not done, or leave merge=true out\n"
        )
        assert place.draft() == before
    assert place.prepare(*words, "part=2/3") == 0
    assert place.prepare(*words, "merge=true") == 0
    assert place.held() == at_once


def test_joining_where_nothing_was_made_is_told(
    place: Place, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.prepare(*words, "merge=true") == 1
    told = capsys.readouterr().err
    assert told.startswith(f"bincount: {place.address}: 9 of 9 shards are missing, such as ")
    assert told.count("\n") == 1
    assert "index.json" not in place.held()


def test_a_plain_run_makes_what_the_parts_did_not(
    place: Place, words: list[str], at_once: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.prepare(*words, "part=2/3") == 0
    made = {name for name in place.draft() if name.endswith(".tar")}
    sent: list[str] = []

    def send(draft: object, name: str, *rest: object) -> None:
        sent.append(name)
        really_send(draft, name, *rest)

    really_send = prepare_module._send
    monkeypatch.setattr(prepare_module, "_send", send)
    assert place.prepare(*words) == 0
    assert place.held() == at_once
    assert {*sent} == {name for name in at_once if name.endswith(".tar")} - made


def test_parts_of_another_data_set_are_refused(complaint: Complaint, place: Place, words: list[str]) -> None:
    assert place.prepare(*words, "part=1/2") == 0
    before = place.draft()
    for how in ("part=2/2", "merge=true"):
        told = complaint(*words, "seed=1", how, f"out={place.address}")
        assert told.endswith(
            " is half a data set that was begun with seed=0, not 1: "
            "go on with that, or add overwrite=true to begin anew"
        )
        assert place.draft() == before


def test_photos_that_came_later_are_not_taken_up_by_the_later_parts(
    tmp_path: Path, known: Path, words: list[str], at_once: dict[str, bytes]
) -> None:
    write_photos(tmp_path / "more" / "images", [path.stem for path in sorted((known / "images").iterdir())])
    write_records(tmp_path / "more" / "records", {f"{n:05d}": n % 6 for n in range(1, 31)})
    words = [word.replace(str(known), f"{tmp_path}/more") for word in words]
    assert prepare(tmp_path / "out", *words, "part=1/2") == 0
    write_photos(tmp_path / "more" / "images", ["00000"])
    write_records(tmp_path / "more" / "records", {"00000": 3})
    assert prepare(tmp_path / "out", *words, "part=2/2") == 0
    assert prepare(tmp_path / "out", *words, "merge=true") == 0
    made = contents(tmp_path / "out")
    assert {name: made[name] for name in made if name != "index.json"} == {
        name: at_once[name] for name in at_once if name != "index.json"
    }


def test_a_whole_data_set_takes_no_parts(
    complaint: Complaint, tmp_path: Path, words: list[str], at_once: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    assert prepare(out, *words) == 0
    for how in ("part=1/2", "merge=true"):
        assert complaint(*words, how, out=out) == (
            f"out={out} is a data set already: name another folder, or add overwrite=true"
        )
    assert contents(out) == at_once
    assert not (tmp_path / ".out.partial").exists()


def test_parts_replace_a_data_set_only_when_they_are_joined(
    tmp_path: Path, drawn: Path, words: list[str], at_once: dict[str, bytes]
) -> None:
    out, old = tmp_path / "out", ["source.photos=12", "source.width=32", "source.height=32"]
    assert prepare(out, *old) == 0
    before = contents(out)
    for part in (1, 2):
        assert prepare(out, *words, f"part={part}/2", "overwrite=true") == 0
        assert contents(out) == before
    assert prepare(out, *words, "merge=true", "overwrite=true") == 0
    assert contents(out) == at_once
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# --- what is no part ----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["0/3", "4/3", "x", "3", "1/3/5", "/3", "1/", "-1/3", "1.5/3", "0/0"])
def test_what_is_no_part_is_told(complaint: Complaint, words: list[str], part: str) -> None:
    told = complaint(*words, f"part={part}")
    assert told == f"part={part}: write which part of how many, as 3/8"


def test_a_part_cannot_be_joined_with_itself(complaint: Complaint, place: Place, words: list[str]) -> None:
    told = "merge=true joins all parts: leave part=… out"
    assert complaint(*words, "part=1/3", "merge=true") == told
    assert complaint(*words, "part=1/3", "merge=true", f"out={place.address}") == told
    assert place.draft() == {}


def test_a_part_whose_photos_are_not_there_is_told(complaint: Complaint, place: Place, known: Path) -> None:
    gone = ["source=folder", f"source.images={known}/gone", "part=1/2", f"out={place.address}"]
    assert complaint(*gone) == f"source.images: there is no folder {known}/gone"
    with pytest.raises(BadInput):
        Index.open(place.address)


# --- at the same time ---------------------------------------------------------------------------------


#: The command, with the small parts of the tables that these tests have.
PREPARE = """
import sys
from bincount import cli
from bincount.data import tables
tables.RECORDS_PER_PART = 7
sys.exit(cli.main(["prepare", *sys.argv[1:]]))
"""


def run(*words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PREPARE, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_parts_made_at_the_same_time_joined_equal_one_run(
    place: Place, words: list[str], tmp_path: Path
) -> None:
    words = [*words, "photos_per_shard=1", "workers=0"]
    assert prepare(tmp_path / "at-once", *words) == 0
    running = [run(*words, f"part={part}/3", f"out={place.address}") for part in (1, 2, 3)]
    for part, process in enumerate(running, start=1):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out.startswith(f"part {part}/3 is done; ")
    assert place.prepare(*words, "merge=true") == 0
    assert place.held() == contents(tmp_path / "at-once")


def test_machines_whose_processes_have_one_number_may_write_one_piece_at_the_same_time(
    tmp_path: Path,
) -> None:
    with storage.written_whole(tmp_path / "piece") as partial, partial.open("wb") as one:
        one.write(b"one ")
        with storage.written_whole(tmp_path / "piece") as other:
            other.write_bytes(b"the other")
        assert (tmp_path / "piece").read_bytes() == b"the other"
        one.write(b"piece")
    assert contents(tmp_path) == {"piece": b"one piece"}


@pytest.mark.slow
@pytest.mark.abid
def test_eight_parts_of_the_real_bucket_joined_equal_one_run(
    abid: Path, place: Place, tmp_path: Path
) -> None:
    words = ["source=s3", f"source.bucket={abid}/bucket", "photos_per_shard=40", "shortest_side=64"]
    assert cli.main(["prepare", *words, f"out={tmp_path}/at-once"]) == 0
    for part in (5, 2, 8, 1, 7, 3, 6, 4):
        assert cli.main(["prepare", *words, f"part={part}/8", f"out={place.address}"]) == 0
    assert place.prepare(*words, "merge=true") == 0
    assert place.held() == contents(tmp_path / "at-once")
