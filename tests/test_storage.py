"""Storage: one contract for folders, memory and S3; what folders do beside it; addresses and AWS settings."""

import errno
import os
import pickle
import random
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from conftest import Answer, Answering, Asked, Bucket, NewFolder
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from processes import held_elsewhere
from s3_server import Server

from bincount import storage
from bincount.errors import BadInput, BincountError
from bincount.storage import Folder, NotThere, Range, Store, aws, objects, open_store

Serve = Callable[[Answer], Answering]

KINDS = ("folder", "memory", "s3")

#: Names that something between us and the disk could take for something else.
NAMES = [
    "a b/c d.txt",
    " first and last ",
    "ünïcödé/日本語/emoji 😀.jpg",
    "e\u0301 is not \u00e9",
    "100%",
    "%20",
    "%2F",
    "a#b",
    "a+b",
    "a?b=c&d",
    "a\\b",
    "~user",
    "*[x]{y}^|`'\"<>!$@:;,=",
    "a..b",
    "a.b/c..d/e.",
    "x" * 200,
]

_MEMORIES = count()


def exactly(line: str) -> str:
    """The pattern of this line alone."""
    return f"^{re.escape(line)}$"


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store, with a prefix that has to be quoted."""
    if request.param == "folder":
        return open_store(f"{tmp_path}/a data+set/50%")
    if request.param == "memory":
        return open_store(f"memory://m{next(_MEMORIES)}/a data+set/50%")
    bucket: Bucket = request.getfixturevalue("bucket")
    return open_store(f"{bucket.address}/a data+set/50%")


@pytest.fixture(scope="module", params=KINDS)
def lasting(request: pytest.FixtureRequest, new_folder: NewFolder) -> Iterator[Store]:
    """A store that all examples of a property share."""
    if request.param == "folder":
        yield Folder(new_folder("lasting"))
    elif request.param == "memory":
        yield open_store(f"memory://m{next(_MEMORIES)}/lasting")
    else:
        server: Server = request.getfixturevalue("s3_server")
        (server.folder / "lasting").mkdir()
        with pytest.MonkeyPatch.context() as environment:
            for name, value in server.environment.items():
                environment.setenv(name, value)
            yield open_store("s3://lasting")


# --- the contract -------------------------------------------------------------------------------------


def test_what_is_written_is_read_and_the_last_write_counts(store: Store) -> None:
    for content in (b"", b"\x00\xff" * 70_000, b"short"):
        store.write("deep/down/here.bin", content)
        assert store.read("deep/down/here.bin") == content
    assert store.names(deep=True) == ["deep/down/here.bin"]


def test_any_name_is_as_good_as_another(store: Store) -> None:
    for name in NAMES:
        assert not store.has(name)
        store.write(name, name.encode())
    assert store.names(deep=True) == sorted(NAMES)
    assert store.held() == {name.partition("/")[0] for name in NAMES}
    for name in NAMES:
        assert store.has(name)
        assert store.read(name) == name.encode()
        assert store.read_range(name, 0, 2) == name.encode()[:2]
    assert list(store.read_many(NAMES)) == [name.encode() for name in NAMES]
    store.delete(NAMES[1:])
    assert store.names(deep=True) == NAMES[:1]


#: What can stand in a file's name and in XML.
CHARACTERS = st.characters(exclude_categories=["C", "Zl", "Zp"], exclude_characters="/")


@given(name=st.text(CHARACTERS, min_size=1, max_size=30).filter(lambda name: name not in (".", "..")))
@hypothesis_settings(max_examples=50)
def test_every_printable_name_comes_back_from_a_list(lasting: Store, name: str) -> None:
    store = lasting.below("names")
    store.write(f"in/{name}", b"1")
    assert store.names(deep=True) == ([] if name.startswith(".") else [f"in/{name}"])
    assert store.below("in").held() == {name}
    assert store.read(f"in/{name}") == b"1"
    store.delete([f"in/{name}"])
    assert store.held() == set()


@given(content=st.binary(max_size=20), offset=st.integers(0, 25), length=st.integers(0, 25))
@hypothesis_settings(max_examples=50)
def test_every_range_is_what_slicing_gives(lasting: Store, content: bytes, offset: int, length: int) -> None:
    lasting.write("sliced", content)
    wanted = Range("sliced", offset, length)
    with pytest.MonkeyPatch.context() as once:
        once.setattr(objects, "TRIES", 1)
        assert lasting.read_range(*wanted) == content[offset : offset + length]
        assert list(lasting.read_ranges([wanted])) == [content[offset : offset + length]]


@pytest.mark.parametrize("offset", [99_990, 100_000, 300_000])
def test_a_range_past_the_end_is_cut_at_once(
    store: Store, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "TRIES", 1)
    content = bytes(range(250)) * 400
    store.write("long", content)
    assert store.read_range("long", offset, 20) == content[offset:]


def test_nothing_has_a_name_that_was_never_written(store: Store) -> None:
    store.write("here/too", b"1")
    for name in ("nowhere", "here/nothing", "her", "here/to", "no/folder/either"):
        assert not store.has(name)
        told = exactly(f"there is no {store.place(name)}")
        with pytest.raises(NotThere, match=told):
            store.read(name)
        with pytest.raises(NotThere, match=told):
            store.read_range(name, 3, 5)


def test_where_nothing_was_written_there_is_nothing(store: Store) -> None:
    for empty in (store, store.below("no/where")):
        assert empty.held() == set()
        assert empty.first() is None
        assert empty.names() == []
        assert empty.names(deep=True) == []
        assert list(empty.read_many([])) == []
        empty.delete([])
        empty.delete(["nothing", "no/thing"])
        empty.clear()
        empty.restore()


def test_names_are_sorted_and_hidden_ones_are_only_held(store: Store) -> None:
    shown = ["A", "B/a", "a", "a b", "a-b", "a.b", "a0", "b/c/d.json", "b/c.json", "é", "z"]
    hidden = [".a", ".b/c", "b/.c", "b/.d/e", "b/.d/.e"]
    for name in random.Random(0).sample(shown + hidden, len(shown + hidden)):
        store.write(name, b"1")
    assert store.names() == sorted(name for name in shown if "/" not in name)
    assert store.names(deep=True) == sorted(shown)
    assert store.first() in shown
    assert store.held() == {name.partition("/")[0] for name in shown + hidden}
    assert store.below("b").names(deep=True) == ["c.json", "c/d.json"]
    assert store.below("b").held() == {".c", ".d", "c", "c.json"}
    assert store.read("b/.d/.e") == b"1"


def test_a_store_below_sees_its_folder_alone(store: Store) -> None:
    for name in ("train/a/1", "train/2", "train-old/3", "trainer", "4"):
        store.write(name, name.encode())
    below = store.below("train")
    assert below.address == f"{store.address}/train"
    assert below.place("a/1") == store.place("train/a/1") == f"{store.address}/train/a/1"
    assert below.names(deep=True) == ["2", "a/1"]
    assert below.held() == {"2", "a"}
    assert below.below("a").read("1") == store.below("train/a").read("1") == b"train/a/1"
    assert store.below("train/").names() == ["2"]
    below.write("5", b"new")
    assert store.read("train/5") == b"new"
    below.delete(["3", "2"])
    assert store.names(deep=True) == ["4", "train-old/3", "train/5", "train/a/1", "trainer"]
    below.clear()
    assert store.names(deep=True) == ["4", "train-old/3", "trainer"]
    assert store.held() == {"4", "train-old", "trainer"}


def test_clear_takes_hidden_and_deep_things_away_and_leaves_a_store_to_write_to(store: Store) -> None:
    for name in ("a", ".hidden", "b/c/d", ".e/.f"):
        store.write(name, b"1")
    store.clear()
    assert store.held() == set()
    store.write("a", b"2")
    assert store.names(deep=True) == ["a"]


def test_delete_takes_what_is_there_and_no_folder_stays_empty(store: Store) -> None:
    for name in ("a/b/c", "a/d", "e"):
        store.write(name, b"1")
    store.delete(iter(["nothing", "a/b/c", "a/b/nothing", "no/folder"]))
    assert store.names(deep=True) == ["a/d", "e"]
    assert store.held() == {"a", "e"}
    assert not store.has("a/b/c")
    store.delete(["a/d"])
    assert store.held() == {"e"}


def test_read_many_keeps_the_order_and_tells_why_one_cannot_be_read(store: Store) -> None:
    names = [f"{n % 7}/{n * 7919 % 500:03d}" for n in range(500)]
    missing = set(names[::9])
    for name in set(names) - missing:
        store.write(name, name.encode() * 20)
    for name, found in zip(names, store.read_many(iter(names)), strict=True):
        if name in missing:
            assert found in ("is not there", "cannot be read: No such file or directory")
        else:
            assert found == name.encode() * 20


def test_read_many_gives_a_name_that_is_asked_for_twice_twice(store: Store) -> None:
    store.write("a", b"1")
    store.write("b", b"")
    assert list(store.read_many(["a", "b", "a"])) == [b"1", b"", b"1"]


def test_read_many_takes_few_names_ahead_and_none_once_given_up(store: Store) -> None:
    store.write("a", b"1")
    taken = 0

    def names() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "a"

    reading = store.read_many(names())
    assert taken == 0
    for number in range(1, 200):
        assert next(reading) == b"1"
        assert taken <= number + 2 * objects.IN_FLIGHT
    before, threads = taken, threading.active_count()
    reading.close()  # type: ignore[attr-defined]
    assert taken == before
    assert threading.active_count() <= threads
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bincount-read")]


def test_ranges_come_in_order_and_few_bytes_are_read_ahead(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "AHEAD", 1_000)
    content = random.Random(0).randbytes(2_500)
    store.write("a", content)
    ranges = [Range("a" if n % 10 else "missing", n * 7, 90) for n in range(300)]
    taken = 0

    def wanted() -> Iterator[Range]:
        nonlocal taken
        for each in ranges:
            taken += 1
            yield each

    for number, (each, found) in enumerate(zip(ranges, store.read_ranges(wanted()), strict=True)):
        expected = content[each.offset : each.offset + 90] if each.name == "a" else "is not there"
        assert found == expected, each
        assert taken <= number + 2 + 1_000 // 90


def test_a_store_goes_to_another_process_by_its_address(store: Store) -> None:
    store.below("train").write("a", b"1")
    there = pickle.loads(pickle.dumps(store.below("train")))
    assert there.address == store.place("train")
    assert there.read("a") == b"1"


@pytest.mark.parametrize("store", ["folder", "memory"], indirect=True)  # S3 promises it itself
def test_a_reader_sees_the_old_or_the_whole_new_content(store: Store) -> None:
    versions = [bytes([letter]) * 300_000 for letter in b"abc"]
    store.write("changing", versions[0])
    done = threading.Event()

    def write() -> None:
        for n in range(150):
            store.write("changing", versions[n % 3])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not done.is_set():
            assert store.read("changing") in versions
            assert store.has("changing")
            if isinstance(store, Folder):  # obstore 0.11 locks itself up at a list of memory amid writes
                assert store.names() == ["changing"]
    finally:
        writer.join()


def test_a_name_that_no_object_can_have_is_told_at_once(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "TRIES", 1)
    for address in (bucket.address, "memory://bad"):
        store = open_store(address)
        for name in ("a//b", "a/../b", "line\nbreak", "\udcff"):
            for action in (store.read, store.has, lambda name: store.write(name, b"")):  # noqa: B023
                with pytest.raises(BadInput):
                    action(name)


def test_more_objects_than_a_page_of_a_list_are_named_and_taken_away(bucket: Bucket) -> None:
    (bucket.folder / "many").mkdir()
    for n in range(2_100):
        (bucket.folder / "many" / f"{n:05d}").touch()
    store = open_store(bucket.address)
    assert store.names(deep=True) == [f"many/{n:05d}" for n in range(2_100)]
    assert len(store.below("many").held()) == 2_100
    store.below("many").delete(f"{n:05d}" for n in range(2, 2_100))
    assert store.names(deep=True) == ["many/00000", "many/00001"]


# --- what only folders do -----------------------------------------------------------------------------


class Killed(BaseException):
    """Ends the program where it stands, but for `finally`."""


def published(path: Path, content: bytes) -> Folder:
    """The folder with one file, published."""
    out = Folder(path)
    out.draft().write("deep/file", content)
    out.publish(out.draft())
    return out


def kill_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """Kill at a call of ``owner.name``, before it does anything."""
    function, calls = getattr(owner, name), 0

    def killing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, killing)


def test_nobody_sees_a_draft_until_it_is_published(tmp_path: Path) -> None:
    out = published(tmp_path / "out", b"old")
    draft = out.draft()
    assert draft.address == f"{tmp_path}/.out.partial"
    draft.write("new", b"new")
    assert Folder(tmp_path / "out").draft().read("new") == b"new"
    assert out.names(deep=True) == ["deep/file"]
    out.publish(draft)
    assert out.names(deep=True) == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_draft_is_published_where_there_was_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert published(Path("out"), b"new").read("deep/file") == b"new"
    assert os.listdir() == ["out"]


@pytest.mark.parametrize("call", [1, 2])
def test_a_publish_that_was_killed_loses_neither_the_old_nor_the_draft(
    tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = published(tmp_path / "out", b"old")
    out.draft().write("deep/file", b"new")
    with monkeypatch.context() as killing:
        kill_at(killing, Path, "rename", call)
        with pytest.raises(Killed):
            out.publish(out.draft())
    assert out.has("deep/file") == (call == 1)
    again = Folder(tmp_path / "out")
    again.restore()
    assert again.read("deep/file") == b"old"
    assert again.draft().read("deep/file") == b"new"
    again.publish(again.draft())
    assert again.read("deep/file") == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_publish_that_was_killed_while_it_tidied_up_is_tidied_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = published(tmp_path / "out", b"old")
    out.draft().write("deep/file", b"new")
    with monkeypatch.context() as killing:
        kill_at(killing, shutil, "rmtree", 1)
        with pytest.raises(Killed):
            out.publish(out.draft())
    assert (tmp_path / ".out.replaced").exists()
    out.restore()
    assert out.read("deep/file") == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_restore_changes_nothing_where_nothing_was_killed(tmp_path: Path) -> None:
    out = published(tmp_path / "out", b"new")
    out.draft().write("a", b"1")
    out.restore()
    assert out.read("deep/file") == b"new"
    assert out.draft().read("a") == b"1"


def test_a_link_to_a_folder_stays_one_and_the_draft_is_made_beside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "out")
    published(tmp_path / "disk" / "out", b"old")
    out = Folder(tmp_path / "link")
    assert out.draft().address == f"{tmp_path}/disk/.out.partial"
    out.draft().write("deep/file", b"new")
    out.publish(out.draft())
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "out" / "deep" / "file").read_bytes() == b"new"
    assert {path.name for path in tmp_path.rglob("*")} == {"disk", "link", "out", "deep", "file"}


def test_what_a_killed_writer_left_is_swept_when_the_draft_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Folder(tmp_path / "out")
    out.draft().write("deep/file", b"1")
    for left in (".file.4711.partial", "deep/.file.4711.partial"):
        (tmp_path / ".out.partial" / left).write_bytes(b"half")
    out.publish(out.draft())
    assert {path.name for path in (tmp_path / "out").rglob("*")} == {"deep", "file"}


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Folder(tmp_path)
    store.write("file", b"old")
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        write_bytes(path, content[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BincountError, match=exactly(f"{tmp_path}/file: No space left on device")) as failure:
        store.write("file", b"new")
    assert failure.value.exit_code == 1
    assert store.read("file") == b"old"
    assert store.held() == {"file"}


def test_a_file_in_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("all of it")
    out = Folder(tmp_path / "out")
    for action in (out.held, out.names):
        with pytest.raises(BadInput, match=exactly(f"{tmp_path}/out is a file: name a folder")):
            action()
    with pytest.raises(BincountError, match=exactly(f"{tmp_path}/out/name: File exists")):
        out.write("name", b"1")
    with pytest.raises(BincountError, match=exactly(f"{tmp_path}/out/name: Not a directory")):
        out.read("name")
    assert not out.has("name")
    assert (tmp_path / "out").read_text() == "all of it"


def test_what_the_system_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    store, name = Folder(tmp_path), "x" * 300
    told = exactly(f"{tmp_path}/{name}: File name too long")
    for action in (store.read, store.has, lambda name: store.write(name, b"")):
        with pytest.raises(BincountError, match=told):
            action(name)
    assert list(store.read_many([name])) == ["cannot be read: File name too long"]
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "loop").symlink_to("../loop")
    with pytest.raises(BincountError, match=exactly(f"{tmp_path}: Too many levels of symbolic links")):
        store.names(deep=True)


# --- addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *("s3://", "s3:///a", "memory://", "gs://b/a", "S3://b/a", "file:///a", "http://b/a", "://b/a"),
        *("s3://my bucket/a", "s3://bücket/a", "s3://user@b/a", "s3://b?c/a", "s3://../a", "s3://-b/a"),
    ],
)
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(BadInput) as refusal:
        open_store(address)
    assert str(refusal.value) == f"{address} is no address: give a folder, or s3://bucket/prefix"


def test_a_path_is_a_folder_and_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    open_store("~/data").write("a", b"1")
    assert (tmp_path / "data" / "a").read_bytes() == b"1"
    assert open_store("~/data").address == f"{tmp_path}/data"
    assert open_store("relative/path").address == "relative/path"
    with pytest.raises(BadInput, match=r"^~nobody-of-this-name/data: "):
        open_store("~nobody-of-this-name/data")


def test_slashes_around_a_prefix_say_nothing() -> None:
    assert open_store("memory://a").address == open_store("memory://a/").address == "memory://a"
    assert open_store("memory://a//b/c/").address == "memory://a/b/c"


def test_memory_is_the_same_for_the_same_name_alone() -> None:
    open_store("memory://same/a").write("b", b"1")
    assert open_store("memory://same").read("a/b") == b"1"
    assert not open_store("memory://other").has("a/b")


def test_one_name_is_read_by_its_address(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bucket.folder / "labels.csv").write_bytes(b"s3")
    (tmp_path / "labels.csv").write_bytes(b"here")
    monkeypatch.chdir(tmp_path)
    assert storage.read(f"{bucket.address}/labels.csv") == b"s3"
    assert storage.read(f"{tmp_path}/labels.csv") == b"here"
    assert storage.read("labels.csv") == b"here"
    with pytest.raises(NotThere, match=exactly(f"there is no {bucket.address}/nothing.csv")):
        storage.read(f"{bucket.address}/nothing.csv")
    with pytest.raises(NotThere, match=exactly("there is no /nothing.csv")):
        storage.read("/nothing.csv")


# --- AWS settings -------------------------------------------------------------------------------------


@pytest.fixture
def no_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)


def region_of(server: Answering, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(aws, "ASK_REGION", server.endpoint + "/{bucket}")
    return aws.settings("photos", True)["region"]


def signed_by(server: Answering) -> str:
    """Whose key signed the last request, or ""."""
    return server.asked[-1].headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]


def ok(asked: Asked) -> tuple[int, dict[str, str], bytes]:
    return 200, {"ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, b"content"


def test_an_endpoint_for_s3_goes_before_one_for_all_of_aws(no_aws: pytest.MonkeyPatch) -> None:
    no_aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert aws.settings("b", True)["endpoint"] == "http://127.0.0.1:1"
    no_aws.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:2")
    assert aws.settings("b", True)["endpoint"] == "http://127.0.0.1:2"
    no_aws.setenv("AWS_ENDPOINT_URL_S3", "")
    with pytest.raises(BadInput, match=exactly("AWS_ENDPOINT_URL_S3 is empty: unset it")):
        aws.settings("b", True)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "minio", "ftp://minio"])
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str, no_aws: pytest.MonkeyPatch) -> None:
    no_aws.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(BadInput, match=f"^AWS_ENDPOINT_URL={endpoint} is no address: "):
        open_store("s3://photos/a")


def test_requests_go_to_the_endpoint_for_s3(answering: Serve, no_aws: pytest.MonkeyPatch) -> None:
    server = answering(ok)
    no_aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    no_aws.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
    assert open_store("s3://photos/a b", anonymous=True).read("c+d") == b"content"
    assert server.asked[0].path == "/photos/a%20b/c%2Bd"


def test_a_variable_that_is_empty_is_none(answering: Serve, no_aws: pytest.MonkeyPatch) -> None:
    server = answering(ok)
    keys = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
    for name in ("ENDPOINT_URL", "REGION", "SKIP_SIGNATURE", *keys):
        no_aws.setenv(f"AWS_{name}", "")
    no_aws.setattr(aws, "ASK_REGION", server.endpoint + "/{bucket}")
    no_aws.setattr(aws, "AWS", server.endpoint)
    assert open_store("s3://photos").read("a") == b"content"
    no_aws.setattr(aws, "AWS", "not to be used")
    no_aws.setenv("AWS_ENDPOINT_URL", server.endpoint)
    assert open_store("s3://photos").read("a") == b"content"
    assert [asked.headers.get("Authorization") for asked in server.asked] == [None] * 3


def test_with_an_endpoint_the_environment_alone_tells_the_region(no_aws: pytest.MonkeyPatch) -> None:
    no_aws.setattr(aws, "ASK_REGION", "not to be asked")
    no_aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert aws.settings("b", True)["region"] == "us-east-1"
    no_aws.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert aws.settings("b", True)["region"] == "eu-north-1"
    no_aws.setenv("AWS_REGION", "eu-west-3")
    assert aws.settings("b", True)["region"] == "eu-west-3"


@pytest.mark.parametrize("status", [200, 301, 403])
def test_without_an_endpoint_s3_tells_where_the_bucket_is(
    answering: Serve, status: int, no_aws: pytest.MonkeyPatch
) -> None:
    server = answering(lambda asked: (status, {"x-amz-bucket-region": "ap-south-1"}, b""))
    no_aws.setenv("AWS_REGION", "eu-west-3")
    assert region_of(server, no_aws) == "ap-south-1"
    assert [(asked.method, asked.path) for asked in server.asked] == [("HEAD", "/photos")]
    assert aws.settings("photos", True)["endpoint"] == "https://s3.ap-south-1.amazonaws.com"


def test_where_s3_names_no_region_the_environment_does(answering: Serve, no_aws: pytest.MonkeyPatch) -> None:
    server = answering(lambda asked: (404, {}, b""))
    assert region_of(server, no_aws) == "us-east-1"
    no_aws.setenv("AWS_REGION", "eu-west-3")
    assert region_of(server, no_aws) == "eu-west-3"


def test_where_nobody_answers_the_environment_names_the_region(
    answering: Serve, no_aws: pytest.MonkeyPatch
) -> None:
    no_aws.setenv("AWS_REGION", "eu-west-3")
    no_aws.setattr(aws, "ASK_SECONDS", 0.1)
    late = threading.Event()

    def silent(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        late.wait(5)
        return 200, {"x-amz-bucket-region": "ap-south-1"}, b""

    def hangs_up(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        raise ConnectionResetError

    server = answering(silent)
    assert region_of(server, no_aws) == "eu-west-3"
    late.set()
    assert region_of(answering(hangs_up), no_aws) == "eu-west-3"
    server.server_close()
    assert region_of(server, no_aws) == "eu-west-3"


def test_keys_of_the_environment_sign_unless_asked_as_nobody(
    answering: Serve, no_aws: pytest.MonkeyPatch
) -> None:
    server = answering(ok)
    no_aws.setenv("AWS_ENDPOINT_URL", server.endpoint)
    no_aws.setenv("AWS_ACCESS_KEY_ID", "fake-key")
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "fake-secret")
    no_aws.setenv("AWS_SESSION_TOKEN", "fake-token")
    open_store("s3://photos").read("a")
    assert signed_by(server) == "fake-key"
    assert server.asked[-1].headers["x-amz-security-token"] == "fake-token"
    open_store("s3://photos", anonymous=True).read("a")
    assert signed_by(server) == ""
    for told, signed in {
        "1": "",
        "true": "",
        "True": "",
        "yes": "",
        "false": "fake-key",
        "": "fake-key",
    }.items():
        no_aws.setenv("AWS_SKIP_SIGNATURE", told)
        open_store("s3://photos").read("a")
        assert signed_by(server) == signed, told


def test_boto3_finds_the_keys_of_a_profile(
    answering: Serve, tmp_path: Path, no_aws: pytest.MonkeyPatch
) -> None:
    server = answering(ok)
    no_aws.setenv("AWS_ENDPOINT_URL", server.endpoint)
    (tmp_path / "config").write_text("[profile photos]\nregion = eu-north-1\n")
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = fake-default\naws_secret_access_key = fake-secret\n"
        "[photos]\naws_access_key_id = fake-photos\naws_secret_access_key = fake-secret\n"
    )
    no_aws.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    no_aws.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    open_store("s3://photos").read("a")
    assert signed_by(server) == "fake-default"
    no_aws.setenv("AWS_PROFILE", "photos")
    store = open_store("s3://photos")
    store.read("a")
    assert signed_by(server) == "fake-photos"
    store.write("a", b"1")
    assert signed_by(server) == "fake-photos"
    no_aws.setenv("AWS_ACCESS_KEY_ID", "fake-key")
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "fake-secret")
    open_store("s3://photos").read("a")
    assert signed_by(server) == "fake-key"


def test_a_profile_that_is_not_there_or_has_no_keys_any_more_is_told(
    tmp_path: Path, no_aws: pytest.MonkeyPatch
) -> None:
    assert boto3.Session().get_credentials() is None
    no_aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    no_aws.setenv("AWS_PROFILE", "nobody")
    told = exactly("AWS credentials: The config profile (nobody) could not be found")
    with pytest.raises(BadInput, match=told):
        open_store("s3://photos")
    (tmp_path / "config").write_text(
        "[profile sso]\nsso_session = s\nsso_account_id = 000000000000\nsso_role_name = fake\n"
        "[sso-session s]\nsso_start_url = http://127.0.0.1:1/start\nsso_region = us-east-1\n"
    )
    no_aws.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    no_aws.setenv("HOME", str(tmp_path))
    no_aws.setenv("AWS_PROFILE", "sso")
    with pytest.raises(BadInput, match=r"^s3://photos/a: AWS credentials: SSOTokenLoadError: [^\n]+$"):
        open_store("s3://photos").read("a")


@pytest.mark.usefixtures("no_boto3")
def test_a_profile_without_boto3_is_told(no_aws: pytest.MonkeyPatch) -> None:
    no_aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    no_aws.setenv("AWS_PROFILE", "photos")
    told = exactly("AWS_PROFILE=photos needs boto3: pip install -e '.[aws]' in the checkout, or unset it")
    with pytest.raises(BadInput, match=told):
        open_store("s3://photos")
    assert open_store("s3://photos", anonymous=True).address == "s3://photos"


@pytest.mark.usefixtures("no_boto3")
def test_without_boto3_a_container_has_its_own_keys(no_aws: pytest.MonkeyPatch) -> None:
    no_aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for name in aws.GIVEN_TO_CONTAINERS:
        with no_aws.context() as container:
            container.setenv(name, "/fake")
            assert aws.settings("photos", False)["skip_signature"] is False
        assert aws.settings("photos", False)["skip_signature"] is True


@pytest.mark.parametrize("boto3_there", [True, False])
def test_where_there_are_no_keys_at_all_nothing_is_signed(
    answering: Serve, boto3_there: bool, no_aws: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if not boto3_there:
        request.getfixturevalue("no_boto3")
    server = answering(ok)
    no_aws.setenv("AWS_ENDPOINT_URL", server.endpoint)
    assert open_store("s3://photos").read("a") == b"content"
    assert signed_by(server) == ""


def test_a_lock_keeps_other_processes_out_until_it_is_given_back(tmp_path: Path) -> None:
    lock = tmp_path / "new" / ".lock"
    there = "somebody is there"
    with held_elsewhere(lock), pytest.raises(BadInput, match=there), storage.alone(lock, there):
        raise AssertionError
    with storage.alone(lock, "somebody is there"):
        assert lock.exists()
    assert not lock.exists()
