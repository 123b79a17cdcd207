"""`bincount prepare`: from a bucket, and to one."""

import json
import shutil
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import Bucket, NewFolder
from faulty_proxy import Faults, Request, faulty
from making import KNOWN, Complaint, encoded, jpeg, photo, prepare, write_photos, write_records
from reading import contents, rows, skipped

from bincount.data import tables
from bincount.storage import objects

SHARDS = "photos_per_shard=4"

#: Ids that are listed; of the others nothing is asked.
LISTED = {id: count for id, count in KNOWN.items() if int(id) % 2}


@pytest.fixture(autouse=True)
def _small_parts_and_no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RECORDS_PER_PART", 11)
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(objects, "LONGEST_PAUSE", 0.01)


@pytest.fixture(scope="module")
def files(known: Path, new_folder: NewFolder) -> Path:
    """A folder laid out as ABID's bucket: the 30 known photos and records, among what cannot be used."""
    folder = new_folder("files")
    images, records = folder / "bin-images", folder / "metadata"
    shutil.copytree(known / "images", images)
    shutil.copytree(known / "records", records)
    write_photos(images, ["1", "no-record", "a.b", "a b", "ünï", "100%", "a+b&c=d", "above"], 44)
    write_records(records, {"1": 2, "no-photo": 2, "a.b": 1, "ünï": 4, "100%": 3, "a+b&c=d": 3, "above": 9})
    write_records(records, {"bad-record": -1, "bad-photo": 3, "empty": 1})
    write_photos(images, ["bad-record"])
    (images / "bad-photo.jpg").write_bytes(jpeg(seed=7)[:-50])
    (images / "empty.jpg").touch()
    (images / "00001.png").write_bytes(encoded(photo(), "PNG"))
    (images / "notes.txt").write_text("not a photo")
    (images / ".hidden.jpg").write_bytes(jpeg())
    write_photos(images / "deeper", ["00002"])
    return folder


@pytest.fixture
def abid_like(bucket: Bucket, files: Path) -> Bucket:
    """A bucket with the objects ``files``."""
    shutil.copytree(files, bucket.folder, dirs_exist_ok=True)
    return bucket


@pytest.fixture(scope="module")
def whole(files: Path, new_folder: NewFolder) -> dict[str, Any]:
    """The data set that the files give, apart from its source."""
    out = new_folder("whole") / "out"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tables, "RECORDS_PER_PART", 11)
        assert prepare(out, *from_folder(files), SHARDS) == 0
    assert rows(out).keys() == {*KNOWN, "1", "ünï", "100%", "a+b&c=d"} - {"00001"}
    assert len(contents(out)) == 10 + 8 + 3
    return apart_from_source(contents(out))


def from_folder(folder: Path) -> list[str]:
    return ["source=folder", f"source.images={folder}/bin-images", f"source.metadata={folder}/metadata"]


def from_bucket(bucket: Bucket) -> list[str]:
    return ["source=s3", f"source.bucket={bucket.address}"]


def apart_from_source(files: dict[str, bytes]) -> dict[str, Any]:
    """The files of a data set, but for the part of index.json that tells where the photos came from."""
    summary = json.loads(files["index.json"])
    del summary["source"]
    return {**files, "index.json": summary}


def in_bucket(bucket: Bucket, prefix: str) -> dict[str, bytes]:
    """The objects below a prefix; hidden ones, too."""
    return contents(bucket.folder / prefix)


def data_set_in(bucket: Bucket, prefix: str) -> dict[str, Any]:
    """All objects below a prefix as a data set, apart from its source."""
    return apart_from_source(in_bucket(bucket, prefix))


# --- from a bucket, and to one ------------------------------------------------------------------------


def test_photos_in_a_bucket_give_the_data_set_that_the_same_files_give(
    abid_like: Bucket, whole: dict[str, Any], tmp_path: Path
) -> None:
    assert prepare(tmp_path / "out", *from_bucket(abid_like), SHARDS) == 0
    assert apart_from_source(contents(tmp_path / "out")) == whole
    summary = json.loads((tmp_path / "out" / "index.json").read_bytes())
    assert summary["source"]["name"] == "s3"
    assert summary["source"]["bucket"] == abid_like.address


def test_a_data_set_in_a_bucket_is_that_of_a_folder_and_nothing_but_it(
    bucket: Bucket, files: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    assert prepare(tmp_path, *from_folder(files), SHARDS, f"out={bucket.address}/deep/in/it") == 0
    assert contents(bucket.folder).keys() == {f"deep/in/it/{name}" for name in whole}
    assert data_set_in(bucket, "deep/in/it") == whole


def test_a_data_set_goes_from_bucket_to_bucket(
    abid_like: Bucket, files: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    assert prepare(tmp_path, *from_bucket(abid_like), SHARDS, f"out={abid_like.address}/out/") == 0
    assert data_set_in(abid_like, "out") == whole
    shutil.rmtree(abid_like.folder / "out")
    assert contents(abid_like.folder) == contents(files)


def test_a_data_set_can_fill_a_whole_bucket(bucket: Bucket, tmp_path: Path, drawn: Path) -> None:
    words = ["source.photos=40", "source.width=48", "source.height=40", "photos_per_shard=7", "seed=3"]
    assert prepare(tmp_path, *words, f"out={bucket.address}") == 0
    assert contents(bucket.folder) == contents(drawn)


@pytest.mark.slow
def test_worker_processes_change_nothing(abid_like: Bucket, whole: dict[str, Any], tmp_path: Path) -> None:
    words = [*from_bucket(abid_like), SHARDS, f"out={abid_like.address}/out"]
    assert prepare(tmp_path, *words, "workers=2") == 0
    assert data_set_in(abid_like, "out") == whole


def test_what_a_bucket_was_made_into_is_told(
    abid_like: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(tmp_path, *from_bucket(abid_like), SHARDS, f"out={abid_like.address}/out") == 0
    told = capsys.readouterr()
    assert told.err == ""
    out = f"{abid_like.address}/out"
    assert told.out.startswith(f"{out}: photos of each count\n")
    assert f"\n{out}/tables: 38 bins, 33 items\n" in told.out
    assert f" left out, each with its reason in {out}/skipped.csv: " in told.out
    assert "00001 and 1" not in told.out


def test_other_folders_of_a_bucket_can_be_named(bucket: Bucket, known: Path, tmp_path: Path) -> None:
    shutil.copytree(known / "images", bucket.folder / "a" / "photos")
    shutil.copytree(known / "records", bucket.folder / "a" / "b" / "stock")
    names = ["source.images=a/photos", "source.metadata=a/b/stock"]
    assert prepare(tmp_path / "out", *from_bucket(bucket), *names) == 0
    assert rows(tmp_path / "out").keys() == KNOWN.keys()


def test_a_bucket_may_be_a_folder(files: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    assert prepare(tmp_path / "out", "source=s3", f"source.bucket={files}", SHARDS) == 0
    assert apart_from_source(contents(tmp_path / "out")) == whole


def test_records_in_a_bucket_alone_become_tables(abid_like: Bucket, tmp_path: Path) -> None:
    records = ["source=folder", "source.images=null", f"source.metadata={abid_like.folder}/metadata"]
    assert prepare(tmp_path / "out", *records) == 0
    to = f"out={abid_like.address}/tables-alone"
    assert prepare(tmp_path, *from_bucket(abid_like), "source.images=null", to) == 0
    assert in_bucket(abid_like, "tables-alone") == contents(tmp_path / "out")


# --- a list -------------------------------------------------------------------------------------------


def as_csv() -> str:
    return "".join(["id,count\n", *(f"{id},{count}\n" for id, count in LISTED.items())])


def as_paths() -> str:
    paths: defaultdict[str, list[str]] = defaultdict(list)
    for id, count in LISTED.items():
        paths[str(count)].append(f"data/metadata/{id}.json")
    return json.dumps(paths)


def as_pairs() -> str:
    return json.dumps([[int(id) - 1, count] for id, count in LISTED.items()])


LISTS = {"list.csv": as_csv, "file_list.json": as_paths, "pairs.json": as_pairs}


@pytest.fixture
def seen(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Request]]:
    """What is asked of the server from now on."""
    with faulty(bucket.server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy.seen


def read(seen: list[Request], bucket: Bucket) -> Counter[str]:
    """The objects that were read, and how often."""
    got = [urlsplit(request.path) for request in seen if request.method in ("GET", "HEAD")]
    return Counter(url.path.removeprefix(f"/{bucket.folder.name}/") for url in got if not url.query)


def listings(seen: list[Request]) -> set[str]:
    """The prefixes of which all keys were asked for."""
    urls = [urlsplit(request.path) for request in seen]
    return {parse_qs(url.query).get("prefix", [""])[0] for url in urls if "list-type" in url.query}


@pytest.mark.parametrize("where", ["on disk", "in the bucket"])
@pytest.mark.parametrize("name", LISTS)
def test_of_a_list_only_the_listed_objects_are_asked_for(
    abid_like: Bucket, seen: list[Request], tmp_path: Path, name: str, where: str
) -> None:
    (tmp_path / "few" / "lists").mkdir(parents=True)
    for kind, suffix in {"bin-images": "jpg", "metadata": "json"}.items():
        (tmp_path / "few" / kind).mkdir()
        for id in LISTED:
            shutil.copy(abid_like.folder / kind / f"{id}.{suffix}", tmp_path / "few" / kind)
    local = tmp_path / "few" / "lists" / name
    local.write_text(LISTS[name]())
    shutil.copytree(tmp_path / "few" / "lists", abid_like.folder / "lists")
    files = [*from_folder(tmp_path / "few"), f"source.labels={local}", SHARDS]
    assert prepare(tmp_path / "files", *files) == 0
    assert rows(tmp_path / "files").keys() == LISTED.keys()

    address = local if where == "on disk" else f"{abid_like.address}/lists/{name}"
    assert prepare(tmp_path / "objects", *from_bucket(abid_like), f"source.list={address}", SHARDS) == 0
    assert apart_from_source(contents(tmp_path / "objects")) == apart_from_source(
        contents(tmp_path / "files")
    )
    wanted = {f"bin-images/{id}.jpg" for id in LISTED} | {f"metadata/{id}.json" for id in LISTED}
    wanted |= {f"lists/{name}"} if where == "in the bucket" else set()
    assert read(seen, abid_like) == dict.fromkeys(wanted, 1)
    assert listings(seen) == set()


def test_each_object_of_a_whole_bucket_is_read_once(
    abid_like: Bucket, seen: list[Request], tmp_path: Path
) -> None:
    assert prepare(tmp_path / "out", *from_bucket(abid_like), SHARDS) == 0
    asked = {name: times for name, times in read(seen, abid_like).items() if name.startswith("bin-images/")}
    assert len(asked) == 35
    assert set(asked.values()) == {1}


def test_what_is_listed_and_not_in_the_bucket_is_left_out_and_listed(
    abid_like: Bucket, tmp_path: Path
) -> None:
    (abid_like.folder / "bin-images" / "00005.jpg").unlink()
    (abid_like.folder / "metadata" / "00007.json").unlink()
    lines = [f"{id},{count}" for id, count in LISTED.items()]
    lines += ["99999,1", "bad-photo,1", "bad-record,1", "00003,9", "a b,1", "00011,six"]
    (tmp_path / "list.csv").write_text("\n".join(["id,count", *lines]))
    assert prepare(tmp_path / "out", *from_bucket(abid_like), f"source.list={tmp_path}/list.csv") == 0
    assert skipped(tmp_path / "out") == {
        "00003": [
            ("list.csv:3", "the id has different counts: 3, 9"),
            ("list.csv:20", "the id has different counts: 3, 9"),
        ],
        "00005": [("00005.jpg", "the photo is not there")],
        "00007": [("00007.json", "the record is not there")],
        "00011": [("list.csv:22", 'count is "six", not a whole number')],
        "99999": [
            ("99999.json", "the record is not there"),
            ("99999.jpg", "the photo is not there"),
        ],
        "a b": [("list.csv:21", "the id has whitespace or an unprintable character")],
        "bad-record": [("bad-record.json", "EXPECTED_QUANTITY is -1, not 0 or more")],
        "bad-photo": [
            ("bad-photo.jpg", "unreadable photo: damaged or truncated: Premature end of JPEG file")
        ],
    }
    used = LISTED.keys() - {"00003", "00005"} | {"bad-record"}
    assert rows(tmp_path / "out").keys() == used
    assert {row["count"] for id, row in rows(tmp_path / "out").items() if id == "00007"} == {1}


def test_a_list_alone_gives_the_counts_where_there_are_no_records(
    abid_like: Bucket, seen: list[Request], tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text(as_csv())
    words = [*from_bucket(abid_like), "source.metadata=null", f"source.list={tmp_path}/list.csv"]
    assert prepare(tmp_path / "out", *words, "source.block=3") == 0
    assert {id: row["count"] for id, row in rows(tmp_path / "out").items()} == LISTED
    assert not (tmp_path / "out" / "tables").exists()
    assert read(seen, abid_like).keys() == {f"bin-images/{id}.jpg" for id in LISTED}


# --- what is under `out` already ----------------------------------------------------------------------


def test_other_objects_under_out_are_refused(complaint: Complaint, bucket: Bucket) -> None:
    (bucket.folder / "mine" / "deep").mkdir(parents=True)
    (bucket.folder / "mine" / "deep" / "thesis.txt").write_text("all of it")
    out = f"{bucket.address}/mine"
    told = f"out={out} has other files in it: name an empty or a new folder"
    assert complaint(f"out={out}") == told
    assert complaint(f"out={out}", "overwrite=true") == told
    assert contents(bucket.folder) == {"mine/deep/thesis.txt": b"all of it"}


def test_objects_beside_out_are_nobody_s_business(bucket: Bucket, tmp_path: Path) -> None:
    (bucket.folder / "mine-too").mkdir()
    (bucket.folder / "mine-too" / "thesis.txt").write_text("all of it")
    assert prepare(tmp_path, "source.photos=6", f"out={bucket.address}/mine") == 0
    assert contents(bucket.folder / "mine-too") == {"thesis.txt": b"all of it"}


def test_a_data_set_in_a_bucket_is_never_replaced(complaint: Complaint, bucket: Bucket) -> None:
    out = f"{bucket.address}/out"
    words = ["source.photos=12", "source.width=32", "source.height=32", f"out={out}"]
    assert prepare(Path("unused"), *words) == 0
    before = contents(bucket.folder)
    for others in ([], ["seed=1"], ["part=1/2"], ["merge=true"]):
        assert complaint(*words, *others) == (
            f"out={out} is a data set already: name another folder, or add overwrite=true"
        )
        assert complaint(*words, *others, "overwrite=true") == (
            f"out={out} is a data set already, and objects cannot be replaced all at once: "
            "name another prefix, or delete it first"
        )
        assert contents(bucket.folder) == before


def test_tables_alone_in_a_bucket_are_replaced_only_when_asked(
    complaint: Complaint, abid_like: Bucket, tmp_path: Path
) -> None:
    out = f"{abid_like.address}/out"
    words = [*from_bucket(abid_like), "source.images=null", f"out={out}"]
    assert prepare(tmp_path, *words) == 0
    before = in_bucket(abid_like, "out")
    assert len(before) == 9
    told = f"out={out} has tables already: name another folder, or add overwrite=true"
    assert complaint(*words) == told
    assert complaint(*words, "seed=1") == told
    assert in_bucket(abid_like, "out") == before
    write_records(abid_like.folder / "others", {"x": 1})
    assert prepare(tmp_path, *words, "source.metadata=others", "overwrite=true") == 0
    assert len(in_bucket(abid_like, "out")) == 3


def test_half_a_data_set_in_a_bucket_is_not_mixed_with_another(
    complaint: Complaint, abid_like: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = f"{abid_like.address}/out"
    words = [*from_bucket(abid_like), SHARDS]
    with monkeypatch.context() as failing:
        failing.delattr("bincount.prepare.write_index")
        assert prepare(tmp_path, *words, f"out={out}") == 1
    before = in_bucket(abid_like, "out")
    assert len(before) > 15
    assert complaint(*words, f"out={out}", "quality=80") == (
        f"{out} is half a data set that was begun with quality=90, not 80: "
        "go on with that, or add overwrite=true to begin anew"
    )
    assert complaint(f"out={out}").startswith(f"{out} is half a data set that was begun with ")
    assert in_bucket(abid_like, "out") == before
    assert prepare(tmp_path, *words, "quality=80", f"out={out}", "overwrite=true") == 0
    assert prepare(tmp_path / "out", *words, "quality=80") == 0
    assert in_bucket(abid_like, "out") == contents(tmp_path / "out")


def test_shards_in_a_bucket_are_not_indexed_where_they_are(complaint: Complaint, bucket: Bucket) -> None:
    out = f"{bucket.address}/out"
    assert complaint("source=shards", f"out={out}") == (
        f"out={out}: source=shards indexes a folder's shards: copy them to one"
    )


# --- what ends the command ----------------------------------------------------------------------------


def test_a_missing_bucket_is_told(complaint: Complaint, bucket: Bucket) -> None:
    no, out = "s3://no-such-bucket", f"out={bucket.address}/out"
    assert complaint("source=s3", f"source.bucket={no}", out) == f"{no}/metadata: there is no bucket {no}"
    assert complaint(*from_bucket(bucket), f"source.list={no}/list.csv", out) == (
        f"cannot read the labels: {no}/list.csv: there is no bucket {no}"
    )
    assert complaint(*from_bucket(bucket), f"out={no}/out") == f"out={no}/out: there is no bucket {no}"
    assert contents(bucket.folder) == {}
    assert not (bucket.server.folder / "no-such-bucket").exists()


def test_an_empty_bucket_is_told(complaint: Complaint, bucket: Bucket) -> None:
    assert complaint(*from_bucket(bucket)) == (
        f"source.metadata={bucket.address}/metadata: there are no records in it (ID.json)"
    )
    (bucket.folder / "metadata").mkdir()
    write_records(bucket.folder / "metadata", {"1": 1})
    assert complaint(*from_bucket(bucket), f"out={bucket.address}/out") == (
        f"source.images={bucket.address}/bin-images: there are no photos in it (.jpg, .jpeg or .png)"
    )
    assert contents(bucket.folder).keys() == {"metadata/1.json"}


def test_a_list_that_is_not_there_is_told(complaint: Complaint, abid_like: Bucket) -> None:
    no = f"{abid_like.address}/no.csv"
    assert complaint(*from_bucket(abid_like), f"source.list={no}") == (
        f"cannot read the labels: there is no {no}"
    )


def test_the_bucket_is_asked_for(complaint: Complaint) -> None:
    assert complaint("source=s3") == "source.bucket is not given: add source.bucket=…"


def test_denied_access_is_told(
    complaint: Complaint, abid_like: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-fake-secret")
    told = complaint(*from_bucket(abid_like))
    assert told.startswith(f"{abid_like.address}/metadata: access denied: check AWS_PROFILE")
    told = complaint(f"out={abid_like.address}/out")
    assert told.startswith(f"out={abid_like.address}/out: access denied: check AWS_PROFILE")


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers at the endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.setattr(objects, "TRIES", 3)


def test_a_server_that_does_not_answer_is_told(
    abid_like: Bucket, unreachable: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(abid_like.folder)
    for words, place in [
        (from_bucket(abid_like), f"{abid_like.address}/metadata"),
        ([f"out={abid_like.address}/out"], f"{abid_like.address}/out"),
    ]:
        assert prepare(tmp_path / "out", *words) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.count("\n") == 1
        assert told.err.startswith(f"bincount: {place}: no whole answer in 3 tries: ")
    assert contents(abid_like.folder) == before
    assert not (tmp_path / "out").exists()


def fails_at(kind: str, of: Callable[[str], bool], from_nth: int) -> Callable[[Request], str | None]:
    """Answer the requests whose method and path are ``of`` that kind with a fault from the nth on."""
    met = 0

    def choose(request: Request) -> str | None:
        nonlocal met
        met += of(f"{request.method} {request.path}")
        return kind if met >= from_nth and of(f"{request.method} {request.path}") else None

    return choose


BREAKS = {
    "a record": (lambda told: told.startswith("GET") and "/metadata/0" in told, 12),
    "a photo": (lambda told: told.startswith("GET") and "/bin-images/0" in told, 15),
    "a shard": (lambda told: told.startswith("PUT") and ".tar" in told and ".parquet" not in told, 4),
    "a note": (lambda told: told.startswith("PUT") and ".tar.parquet" in told, 4),
    "the index": (lambda told: told.startswith("PUT") and "index.json" in told, 1),
}


@pytest.mark.parametrize(
    ("what", "kind"), [*((what, "denied") for what in BREAKS), ("a photo", "503"), ("a shard", "503")]
)
def test_what_was_made_before_a_server_failed_is_gone_on_with(
    abid_like: Bucket,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: str,
    kind: str,
) -> None:
    words = [*from_bucket(abid_like), SHARDS, f"out={abid_like.address}/out"]
    monkeypatch.setattr(objects, "TRIES", 3)
    of, nth = BREAKS[what]
    with (
        faulty(abid_like.server.endpoint, fails_at(kind, of, nth)) as proxy,
        monkeypatch.context() as failing,
    ):
        failing.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        assert prepare(tmp_path, *words) == (2 if kind == "denied" else 1)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith(f"bincount: {abid_like.address}/")
    assert ("access denied" if kind == "denied" else "no whole answer in 3 tries") in told
    left = in_bucket(abid_like, "out")
    assert "index.json" not in left
    noted = {name for name in left if name.startswith(".prepare/t")}
    assert noted
    with faulty(abid_like.server.endpoint) as proxy, monkeypatch.context() as honest:
        honest.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        assert prepare(tmp_path, *words) == 0
    assert data_set_in(abid_like, "out") == whole
    written = {urlsplit(r.path).path.partition("/out/")[2] for r in proxy.seen if r.method == "PUT"}
    assert not noted & written


FAULTS = ("503", "500", "refuse", "reset", "truncated", "drip")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_through_a_server_that_fails_now_and_then_nothing_is_lost_and_nothing_comes_twice(
    abid_like: Bucket, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    faults = Faults(seed=seed, rate=0.2, kinds=FAULTS)
    with faulty(abid_like.server.endpoint, faults, drip_seconds=0.1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        assert prepare(tmp_path, *from_bucket(abid_like), SHARDS, f"out={abid_like.address}/out") == 0
    assert data_set_in(abid_like, "out") == whole
    assert proxy.injected.keys() == set(FAULTS)
    assert proxy.injected.total() > 0.1 * proxy.requests
