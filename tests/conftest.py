"""What tests share: the real photos and records, where the machine has them."""

import os
import shutil
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from making import DRAWN, KNOWN, Complaint, prepare, write_photos, write_records
from s3_server import Server, serving

from bincount import cli

# How long an example takes says more about the machine's load than about the code.
settings.register_profile("bincount", deadline=None)
settings.load_profile("bincount")

_BUCKETS = count()

#: What `small_data` is prepared with.
SMALL = ["source.photos=96", "source.width=48", "source.height=48", "source.difficulty=0.1"]
SMALL += ["photos_per_shard=16"]


#: Makes an empty folder with a name that begins with the given one.
NewFolder = Callable[[str], Path]


@pytest.fixture(scope="module")
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewFolder]:
    """Folders that go with the module's tests: what all runs of all tests leave is more than 30 GB."""
    with ExitStack() as stack:

        def new(name: str) -> Path:
            folder = tmp_path_factory.mktemp(name)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            return folder

        yield new


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
    assert cli.main(["prepare", *SMALL, f"out={out}"]) == 0
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


@dataclass(frozen=True)
class Bucket:
    """A bucket of the test's own: each file below ``folder`` is an object of ``address``."""

    address: str
    folder: Path
    server: Server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real S3 server on this machine, one for all tests."""
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Nothing that tells of AWS: no variables, no files in the home folder, no machine's own role."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


@pytest.fixture
def bucket(s3_server: Server, no_aws: pytest.MonkeyPatch) -> Bucket:
    """A new, empty bucket, which the environment leads to."""
    for name, value in s3_server.environment.items():
        no_aws.setenv(name, value)
    folder = s3_server.folder / f"b-{next(_BUCKETS)}"
    folder.mkdir()
    time.sleep(0.015)  # for longer the server goes by no older list of its buckets
    return Bucket(f"s3://{folder.name}", folder, s3_server)


class Asked(NamedTuple):
    """A request that :class:`Answering` got."""

    method: str
    path: str
    headers: Message
    body: bytes


#: What to answer: a status, headers and a body, which a longer Content-Length breaks off.
Answer = Callable[[Asked], tuple[int, dict[str, str], bytes]]


class Answering(ThreadingHTTPServer):
    """A server that answers as a test says, for what the real one never does.

    ``pause``: seconds that it takes for each 256 KiB that it is sent.
    """

    def __init__(self, answer: Answer, pause: float = 0):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.pause = answer, pause
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[Asked] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # that is a client which has gone
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for the client's delayed ACK of its headers
    server: Answering

    def respond(self) -> None:
        body, length = b"", int(self.headers.get("Content-Length") or 0)
        while len(body) < length:
            piece = self.rfile.read(min(1 << 18, length - len(body)))
            if not piece:
                raise ConnectionResetError
            body += piece
            time.sleep(self.server.pause)
        asked = Asked(self.command, self.path, self.headers, body)
        self.server.asked.append(asked)
        status, headers, content = self.server.answer(asked)
        headers = {"Content-Length": str(len(content)), **headers}
        self.close_connection = int(headers["Content-Length"]) != len(content)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = respond  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def answering() -> Iterator[Callable[..., Answering]]:
    """Starts a server for the test: ``answering(answer, pause)``."""
    with ExitStack() as stack:

        def start(answer: Answer, pause: float = 0) -> Answering:
            server = Answering(answer, pause)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return server

        yield start
