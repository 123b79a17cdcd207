"""S3 that fails: what passes is tried again and loses nothing, and what stays is told in one line at once."""

import multiprocessing
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Answering, Asked, Bucket
from faulty_proxy import KINDS, Choose, Faults, Proxy, Request, faulty

from bincount import storage
from bincount.errors import BadInput, BincountError
from bincount.storage import NotThere, Range, Store, objects, open_store

Serve = Callable[[Answer], Answering]

CONTENT = random.Random(0).randbytes(100_000)

#: Every kind that passes.
PASSING = [kind for kind in KINDS if kind != "denied"]


@pytest.fixture(autouse=True)
def tiny_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(objects, "LONGEST_PAUSE", 0.01)


@dataclass(frozen=True)
class Faulty:
    """A bucket behind a faulty proxy, with ``big``, ``dir/0`` to ``dir/4`` and ``.hidden`` in it."""

    bucket: Bucket
    store: Store
    proxy: Proxy

    @property
    def asked(self) -> list[str]:
        """Method and key of each request, in order."""
        return [f"{each.method} {each.path.partition('?')[0].split('/', 2)[-1]}" for each in self.proxy.seen]

    @property
    def ranges(self) -> list[str]:
        return [each.range for each in self.proxy.seen]


Through = Callable[..., Faulty]


@pytest.fixture
def through(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Through]:
    """Starts a proxy before the test's bucket: ``through(choose, drip_seconds)``."""
    (bucket.folder / "big").write_bytes(CONTENT)
    (bucket.folder / ".hidden").write_bytes(b"1")
    (bucket.folder / "dir").mkdir()
    for n in range(5):
        (bucket.folder / "dir" / str(n)).write_bytes(CONTENT[: n * 1_000])
    with ExitStack() as stack:

        def start(choose: Choose, drip_seconds: float = 0.1) -> Faulty:
            proxy = stack.enter_context(faulty(bucket.server.endpoint, choose, drip_seconds))
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            return Faulty(bucket, open_store(bucket.address), proxy)

        yield start


def first(kind: str, times: int = 1) -> Choose:
    """This fault for the first requests, however many different ones there are."""
    left = [kind] * times
    return lambda request: left.pop() if left else None


def always(kind: str) -> Choose:
    return lambda request: kind


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


#: name: (what is done, what it gives)
ACTIONS: dict[str, tuple[Callable[[Store], Any], Any]] = {
    "read": (lambda store: store.read("big"), CONTENT),
    "read_range": (lambda store: store.read_range("big", 777, 50_000), CONTENT[777:50_777]),
    "read_many": (
        lambda store: list(store.read_many(["big", "dir/3", "dir/nothing", "dir/0"])),
        [CONTENT, CONTENT[:3_000], "is not there", b""],
    ),
    "read_ranges": (
        lambda store: list(store.read_ranges([Range("dir/4", 9, 90), Range("no", 0, 9), Range("big", 5, 5)])),
        [CONTENT[9:99], "is not there", CONTENT[5:10]],
    ),
    "has": (lambda store: store.has("big"), True),
    "held": (lambda store: store.held(), {"big", "dir", ".hidden"}),
    "names": (lambda store: store.names(deep=True), ["big", *(f"dir/{n}" for n in range(5))]),
    "write": (lambda store: store.write("new/one", CONTENT), None),
    "delete": (lambda store: store.delete(["dir/1", "big", "nothing"]), None),
    "clear": (lambda store: store.below("dir").clear(), None),
}

#: What lies in the bucket after an action, where that changes something.
BEFORE = {"big": CONTENT, ".hidden": b"1", **{f"dir/{n}": CONTENT[: n * 1_000] for n in range(5)}}
AFTER = {
    "write": {**BEFORE, "new/one": CONTENT},
    "delete": {name: content for name, content in BEFORE.items() if name not in ("dir/1", "big")},
    "clear": {name: content for name, content in BEFORE.items() if not name.startswith("dir/")},
}


def refusal(action: Callable[[], Any], kind: type[BincountError] = BadInput) -> str:
    """The one line that the action ends with."""
    with pytest.raises(kind) as failure:
        action()
    assert type(failure.value).exit_code == (2 if kind is BadInput else 1)
    told = str(failure.value)
    assert "\n" not in told
    assert len(told) < 500
    return told


# --- what passes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PASSING)
@pytest.mark.parametrize("action", ACTIONS)
def test_what_passes_is_tried_again(through: Through, action: str, kind: str) -> None:
    s3 = through(first(kind, times=2))
    act, expected = ACTIONS[action]
    assert act(s3.store) == expected
    assert files(s3.bucket.folder) == AFTER.get(action, BEFORE)
    if kind == "drip" and s3.proxy.injected == {"drip": 1}:
        return  # an answer with a body, which is only slow
    assert s3.proxy.injected == {kind: 2}


@pytest.mark.parametrize("seed", range(2))
def test_many_reads_at_once_through_many_faults_are_all_whole_and_in_order(
    through: Through, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(objects, "SECONDS", 0.3)
    s3 = through(Faults(seed, rate=0.4, kinds=tuple(PASSING)), drip_seconds=0.6)
    contents = {f"many/{n:03d}": random.Random(n).randbytes(n * 37) for n in range(150)}
    (s3.bucket.folder / "many").mkdir()
    for name, content in contents.items():
        (s3.bucket.folder / name).write_bytes(content)
    names = random.Random(seed).sample([*contents, *(f"many/{n}" for n in range(20))], 170)
    assert list(s3.store.read_many(names)) == [contents.get(name, "is not there") for name in names]
    assert set(s3.proxy.injected) == set(PASSING)


@pytest.mark.parametrize("seed", range(3))
def test_many_writes_through_many_faults_are_all_there_and_once(through: Through, seed: int) -> None:
    s3 = through(Faults(seed, rate=0.4, kinds=tuple(PASSING)))
    contents = {f"out/{n % 3}/{n:02d}": random.Random(n).randbytes(n * 999) for n in range(40)}
    for name, content in contents.items():
        s3.store.write(name, content)
    assert s3.store.below("out").names(deep=True) == sorted(name.removeprefix("out/") for name in contents)
    s3.store.delete(name for name in contents if "/1/" in name)
    left = {name: content for name, content in contents.items() if "/1/" not in name}
    assert files(s3.bucket.folder) == BEFORE | left
    assert s3.proxy.injected.total() >= 3


@pytest.mark.parametrize("kind", ["truncated", "reset"])
def test_a_broken_read_goes_on_where_it_ended(through: Through, kind: str) -> None:
    s3 = through(first(kind, times=2))
    assert s3.store.read("big") == CONTENT
    assert s3.ranges == ["", "bytes=50000-", "bytes=75000-"]


@pytest.mark.parametrize("kind", ["truncated", "reset"])
def test_a_broken_read_of_a_range_goes_on_where_it_ended(through: Through, kind: str) -> None:
    s3 = through(first(kind, times=2))
    assert s3.store.read_range("big", 1_000, 50_000) == CONTENT[1_000:51_000]
    assert s3.ranges == ["bytes=1000-50999", "bytes=26000-50999", "bytes=38500-50999"]


def test_a_broken_read_of_a_range_past_the_end_goes_on_to_the_end(through: Through) -> None:
    s3 = through(first("truncated", times=2))
    assert s3.store.read_range("big", 90_000, 50_000) == CONTENT[90_000:]
    assert s3.ranges == ["bytes=90000-139999", "bytes=95000-139999", "bytes=97500-139999"]


def test_an_error_before_any_byte_begins_anew(through: Through) -> None:
    s3 = through(first("503"))
    assert s3.store.read("big") == CONTENT
    assert s3.ranges == ["", ""]


def test_a_drip_is_given_up_in_time_and_what_came_is_kept(
    through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "SECONDS", 0.2)
    s3 = through(first("drip"), drip_seconds=30)
    begun = time.monotonic()
    assert s3.store.read("big") == CONTENT
    assert time.monotonic() - begun < 15
    assert s3.ranges[0] == ""
    assert len(s3.ranges) == 2
    found = re.fullmatch(r"bytes=(\d+)-", s3.ranges[1])
    assert found
    assert 1 <= int(found[1]) < 300


def test_a_slow_answer_in_time_is_not_given_up(through: Through, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "SECONDS", 20)
    s3 = through(first("drip"), drip_seconds=0.3)
    assert s3.store.read("big") == CONTENT
    assert s3.ranges == [""]


def test_an_answer_that_never_begins_is_asked_for_again(
    answering: Serve, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "SILENCE", 0.2)
    late = threading.Event()

    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        if len(server.asked) == 1:
            late.wait(10)
        return 200, {"ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, b"content"

    server = answering(answer)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    try:
        assert open_store(bucket.address).read("a") == b"content"
        assert len(server.asked) >= 2
    finally:
        late.set()


def test_sending_may_take_longer_than_any_silence(
    answering: Callable[..., Answering], bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "SILENCE", 0.2)
    server = answering(lambda asked: (200, {"ETag": '"1"'}, b""), pause=0.02)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    content = bytes(8 << 20)
    begun = time.monotonic()
    open_store(bucket.address).write("shard", content)
    assert time.monotonic() - begun > 0.5
    assert [asked.body for asked in server.asked] == [content]


def test_an_object_that_changes_while_it_is_read_is_never_a_mixture(
    answering: Serve, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        if "If-Match" in asked.headers:
            assert asked.headers["If-Match"] == '"old"'
            return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
        head = {"ETag": '"old"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "Content-Length": "100"}
        return 200, head, b"x" * 40

    server = answering(answer)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    store = open_store(bucket.address)
    told = refusal(lambda: store.read("a"), BincountError)
    assert told == f"{store.place('a')} was changed while it was read: start again"
    assert len(server.asked) == 2


@pytest.mark.parametrize("kind", ["truncated", "reset", "503"])
def test_a_list_that_breaks_on_its_second_page_names_each_object_once(through: Through, kind: str) -> None:
    broken: list[str] = []

    def choose(request: Request) -> str | None:
        if "continuation-token" not in request.path or len(broken) == 2:
            return None
        broken.append(request.path)
        return kind

    s3 = through(choose)
    (s3.bucket.folder / "many").mkdir()
    for n in range(1_200):
        (s3.bucket.folder / "many" / f"{n:04d}").touch()
    assert s3.store.below("many").names() == [f"{n:04d}" for n in range(1_200)]
    assert len(broken) == 2


def test_a_delete_whose_answer_was_lost_is_fine_the_second_time(through: Through) -> None:
    s3 = through(first("truncated"))
    s3.store.delete(["big", "dir/1"])
    assert not {"big", "dir/1"} & set(files(s3.bucket.folder))
    assert s3.proxy.requests == 2


def test_pauses_double_up_to_the_longest(through: Through, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(objects, "LONGEST_PAUSE", 10.0)
    monkeypatch.setattr(objects, "TRIES", 12)
    s3 = through(always("503"))
    refusal(lambda: s3.store.read("big"), BincountError)
    longest = [min(10, 0.1 * 2**n) for n in range(11)]
    assert len(pauses) == 11
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))


# --- what stays ---------------------------------------------------------------------------------------

#: Whose trouble is told by the place of one name.
OF_A_NAME = {"read": "big", "read_range": "big", "read_many": "big", "has": "big", "write": "new/one"}


def place(s3: Faulty, action: str) -> str:
    """What a refusal of the action begins with: the bucket, and the key where there is one."""
    return f"{s3.bucket.address}/{OF_A_NAME.get(action, 'dir' if action == 'clear' else '')}"


@pytest.mark.parametrize("action", [name for name in ACTIONS if name != "read_ranges"])
def test_who_may_not_is_told_so_at_once(through: Through, action: str) -> None:
    s3 = through(always("denied"))
    told = refusal(lambda: ACTIONS[action][0](s3.store))
    assert told.startswith(f"{place(s3, action)}: access denied: check AWS_PROFILE or AWS_ACCESS_KEY_ID")
    assert set(s3.proxy.asked.values()) == {1}  # of many reads some were on their way already
    assert files(s3.bucket.folder) == BEFORE


@pytest.mark.parametrize("action", ["read", "names", "held", "write", "delete"])
def test_a_wrong_secret_is_told_at_once(
    through: Through, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-fake-secret")
    s3 = through(lambda request: None)
    told = refusal(lambda: ACTIONS[action][0](s3.store))
    assert told.startswith(f"{place(s3, action)}: access denied: ")
    assert s3.proxy.requests == 1
    assert files(s3.bucket.folder) == BEFORE


@pytest.mark.parametrize("action", ["read", "names", "held", "write", "delete", "read_many"])
def test_a_bucket_that_is_not_there_is_told_at_once(through: Through, action: str) -> None:
    s3 = through(lambda request: None)
    store = open_store("s3://no-such-bucket")
    told = refusal(lambda: ACTIONS[action][0](store))
    name = OF_A_NAME.get(action, "")
    assert told == f"s3://no-such-bucket/{name}: there is no bucket s3://no-such-bucket"
    assert set(s3.proxy.asked.values()) == {1}


def test_a_name_that_is_not_there_is_asked_for_once(through: Through) -> None:
    s3 = through(lambda request: None)
    with pytest.raises(NotThere, match=f"^there is no {s3.store.place('dir/nothing')}$"):
        s3.store.read("dir/nothing")
    with pytest.raises(NotThere, match=f"^there is no {s3.store.place('dir/nothing')}$"):
        s3.store.read_range("dir/nothing", 5, 5)
    assert not s3.store.has("dir/nothing")
    assert s3.asked == ["GET dir/nothing", "GET dir/nothing", "HEAD dir/nothing"]


@pytest.mark.parametrize("action", ACTIONS)
def test_what_fails_for_ever_is_given_up_with_its_last_reason(
    through: Through, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "TRIES", 3)
    s3 = through(always("503"))
    told = refusal(lambda: ACTIONS[action][0](s3.store), BincountError)
    name = "dir/4" if action == "read_ranges" else OF_A_NAME.get(action, "dir" if action == "clear" else "")
    assert told.startswith(f"{s3.bucket.address}/{name}: no whole answer in 3 tries: ")
    assert "503 Service Unavailable" in told
    assert max(s3.proxy.asked.values()) == 3
    assert files(s3.bucket.folder) == BEFORE


def test_answers_that_break_for_ever_are_given_up(through: Through, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "TRIES", 4)
    s3 = through(always("truncated"))
    told = refusal(lambda: s3.store.read("big"), BincountError)
    assert told.startswith(f"{s3.store.place('big')}: no whole answer in 4 tries: ")
    assert s3.ranges == ["", "bytes=50000-", "bytes=75000-", "bytes=87500-"]


def test_where_nobody_listens_that_is_told(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "TRIES", 3)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    store = open_store(bucket.address)
    for action, name in (
        (store.names, ""),
        (lambda: store.read("a"), "a"),
        (lambda: store.write("a", b""), "a"),
    ):
        told = refusal(action, BincountError)
        assert told.startswith(f"{bucket.address}/{name}: no whole answer in 3 tries: ")
        assert endpoint in told


def test_one_read_that_fails_ends_many_without_asking_for_the_rest(
    through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "IN_FLIGHT", 4)
    s3 = through(lambda request: "denied" if request.path.endswith("/3") else None)
    reading = s3.store.read_many(f"dir/{n % 5}" for n in range(1_000))
    assert [len(next(reading)) for _ in range(3)] == [0, 1_000, 2_000]
    assert refusal(lambda: next(reading)).startswith(f"{s3.store.place('dir/3')}: access denied: ")
    assert s3.proxy.requests <= 3 + 2 * 4 + 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bincount-read")]


# --- what the server of these tests never answers -----------------------------------------------------


@pytest.fixture
def answered(answering: Serve, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Opens a store that gets one answer to all: ``answered(status, body)``; gives it and the server."""

    def start(status: int, body: str) -> tuple[Store, Answering]:
        server = answering(lambda asked: (status, {"Content-Type": "application/xml"}, body.encode()))
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        return open_store("s3://bucket/photos"), server

    return start


def listing(*keys: str, folders: tuple[str, ...] = ()) -> str:
    contents = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f'<ETag>"1"</ETag><Size>0</Size></Contents>'
        for key in keys
    )
    prefixes = "".join(f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in folders)
    return (
        "<ListBucketResult><Name>bucket</Name><Prefix></Prefix><MaxKeys>1000</MaxKeys>"
        f"<IsTruncated>false</IsTruncated>{contents}{prefixes}</ListBucketResult>"
    )


def test_the_mark_that_the_console_makes_of_a_folder_is_nothing_in_it(answered: Callable[..., Any]) -> None:
    store, _ = answered(200, listing("photos/"))
    assert store.held() == set()
    assert store.names(deep=True) == []
    store, _ = answered(200, listing("photos/", "photos/a.jpg", folders=("photos/b/",)))
    assert store.held() == {"a.jpg", "b"}
    assert store.names() == ["a.jpg"]


@pytest.mark.parametrize("key", ["photos//a.jpg", "photos/../a.jpg", "photos/a&#10;b.jpg"])
def test_a_key_that_cannot_be_a_name_is_told_at_once(answered: Callable[..., Any], key: str) -> None:
    store, server = answered(200, listing("photos/a.jpg", key))
    for action in (store.names, store.held):
        assert refusal(action).startswith("s3://bucket/photos: Encountered object with invalid path: ")
    assert len(server.asked) == 2


def test_a_delete_that_is_denied_for_one_key_is_told_at_once(answered: Callable[..., Any]) -> None:
    error = "<Error><Key>photos/a</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    store, server = answered(
        200, f"<DeleteResult><Deleted><Key>photos/b</Key></Deleted>{error}</DeleteResult>"
    )
    assert refusal(lambda: store.delete(["a", "b"])).startswith("s3://bucket/photos: access denied: ")
    assert len(server.asked) == 1


def test_a_delete_of_what_is_gone_is_fine_whatever_the_server_says(answered: Callable[..., Any]) -> None:
    store, server = answered(404, "<Error><Code>NoSuchKey</Code></Error>")
    store.delete(["a", "b"])
    assert len(server.asked) == 1


def test_a_list_that_never_ends_is_given_up(answered: Callable[..., Any]) -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>"
    page = listing(*(f"photos/{n}" for n in range(1_000))).replace("<IsTruncated>false</IsTruncated>", more)
    store, server = answered(200, page)
    told = refusal(lambda: store.names(), BincountError)
    assert told == "s3://bucket/photos: its list of objects goes round in circles"
    assert 2 <= len(server.asked) <= 5


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken"])
@pytest.mark.parametrize("action", ["read", "names", "held", "write", "delete"])
def test_a_token_that_has_expired_is_told_at_once(
    answered: Callable[..., Any], action: str, code: str
) -> None:
    store, server = answered(400, f"<Error><Code>{code}</Code><Message>it has expired</Message></Error>")
    assert ": access denied: " in refusal(lambda: ACTIONS[action][0](store))
    assert len(server.asked) == 1


@pytest.mark.parametrize("action", ["read", "has", "names", "held", "write", "delete"])
def test_a_bucket_in_another_region_is_told_at_once(answered: Callable[..., Any], action: str) -> None:
    store, server = answered(301, "<Error><Code>PermanentRedirect</Code></Error>")
    told = refusal(lambda: ACTIONS[action][0](store))
    assert told.endswith(": the bucket is in another region: set AWS_REGION to its own")
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("action", ["read", "has", "names", "held", "write", "delete"])
def test_a_refusal_without_a_word_is_one(answered: Callable[..., Any], action: str, status: int) -> None:
    store, server = answered(status, "")
    assert ": access denied: " in refusal(lambda: ACTIONS[action][0](store))
    assert len(server.asked) == 1


def test_an_error_of_the_server_that_only_its_body_tells_is_tried_again(
    answering: Serve, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        error = "<Error><Key>a</Key><Code>InternalError</Code><Message>once</Message></Error>"
        fine = "<Deleted><Key>a</Key></Deleted>"
        return 200, {}, f"<DeleteResult>{error if len(server.asked) == 1 else fine}</DeleteResult>".encode()

    server = answering(answer)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    open_store(bucket.address).delete(["a"])
    assert len(server.asked) == 2


# --- other processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_was_opened_and_read_here_is_read_in_another_process(bucket: Bucket, method: str) -> None:
    (bucket.folder / "a").write_bytes(CONTENT)
    store = open_store(bucket.address)
    assert store.read("a") == CONTENT
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, context, set_environment, (dict(os.environ),)) as pool:
        assert pool.submit(storage.read, store.place("a")).result(60) == CONTENT
    assert store.read("a") == CONTENT


def set_environment(variables: dict[str, str]) -> None:
    """Make the child's environment the test's: a fork server has that of the test which started it."""
    os.environ.update(variables)
