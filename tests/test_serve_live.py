"""`bincount serve` as a process of its own: asked at once, badly, in a browser, and to the end."""

import contextlib
import http.client
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hostile
import pyarrow.parquet as pq
import pytest
from making import encoded, jpeg
from PIL import Image, ImageEnhance

from bincount import cli
from bincount.counter import load
from bincount.data.index import Index
from bincount.exploring.known import places

pytestmark = pytest.mark.slow

#: Seconds for what is sure to happen.
LONG = 120.0

#: What accessibility checkers grade as keeping somebody out.
SERIOUS = {"serious", "critical"}

POST = b"POST /invocations HTTP/1.1\r\nHost: x\r\n"

PHOTO = {"Content-Type": "image/jpeg"}


class Server:
    """A process that serves; its log is kept as it comes."""

    def __init__(self, run: Path, *words: str):
        command = [sys.executable, "-m", "bincount", "serve", f"run={run}", "serve.port=0", *words]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.log: list[dict[str, Any]] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        self.url = self.event("listening")["url"]
        self.port = int(self.url.rpartition(":")[2])
        assert self.ask("GET", "/ping")[0] == 200

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.log.append(json.loads(line))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [each for each in list(self.log) if each["event"] == name]

    def event(self, name: str) -> dict[str, Any]:
        until = time.monotonic() + LONG
        while not self.events(name):
            assert time.monotonic() < until, self.log
            assert self.process.poll() is None, self.log
            time.sleep(0.02)
        return self.events(name)[0]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (in lower case) and body, over a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()

    def count(self, body: bytes, **headers: str) -> tuple[int, Any]:
        status, _, told = self.ask("POST", "/invocations", body, {**PHOTO, **headers})
        return status, json.loads(told)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, by SIGINT as a terminal does: all of its processes; its exit code."""
        if self.process.poll() is None and how is signal.SIGINT:
            os.killpg(self.process.pid, how)
        elif self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(LONG)
        finally:
            self.process.kill()
            self.process.wait()
            self._reading.join()


@pytest.fixture(scope="module")
def starting(small_run: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*words: str) -> Server:
        started.append(Server(small_run, "serve.threads=1", *words))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture(scope="module")
def server(starting: Callable[..., Server]) -> Server:
    return starting(*hostile.LIMITS, "serve.queue=64")


def test_many_ask_at_once_and_each_gets_its_answer(server: Server, small_run: Path) -> None:
    photos = [jpeg(seed=seed) for seed in range(48)]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(server.count, photos))
    told = load(small_run, device="cpu")(photos)
    for (status, answer), each in zip(answers, told, strict=True):
        assert status == 200
        found = list(answer["answers"][0]["probabilities"].values())
        assert found == pytest.approx(each.probabilities, abs=1e-4)
    figures = dict(
        line.rpartition(" ")[::2]
        for line in server.ask("GET", "/metrics")[2].decode().splitlines()
        if not line.startswith("#")
    )
    assert float(figures["bincount_batch_photos_sum"]) > float(figures["bincount_batch_photos_count"])


def test_a_body_that_comes_too_slowly_is_given_up(server: Server) -> None:
    head = (
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 5000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), LONG) as connection:
        connection.sendall(head + b"\xff\xd8")
        start = time.monotonic()
        told = connection.recv(1 << 16)
        assert 0.9 < time.monotonic() - start < 30
        while more := connection.recv(1 << 16):  # the body may come by itself
            told += more
    assert told.startswith(b"HTTP/1.1 408")
    assert b"longer than 1 seconds" in told
    assert server.count(jpeg())[0] == 200


def test_a_body_that_is_too_large_is_refused_and_its_sender_is_told(server: Server) -> None:
    """Also where the sender reads no answer before it has sent everything."""
    status, headers, told = server.ask("POST", "/invocations", jpeg() + bytes(8_000_000), PHOTO)
    assert status == 413, told
    assert "connection" not in headers
    chunks = (bytes(100_000) for _ in range(30))
    assert server.ask("POST", "/invocations", chunks, PHOTO)[0] == 413
    with socket.create_connection(("127.0.0.1", server.port), LONG) as connection:
        connection.sendall(POST + b"Content-Type: image/jpeg\r\nContent-Length: 99999999999\r\n\r\n")
        told = connection.recv(1 << 16)
    assert told.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in told.lower()


# --- a bounded hostile run (benchmarks/hostile.py is a longer one) ------------------------------------


def test_hostile_requests_get_the_right_answers_and_leave_nothing_behind(server: Server) -> None:
    draw = random.Random(8)
    requests = [kind(draw) for kind in hostile.KINDS.values() for _ in range(2)]
    requests += [hostile.drawn(draw)[1] for _ in range(600)]

    def ask(each: hostile.Hostile) -> str | None:
        return hostile.wrong(each, *hostile.ask(server.port, each))

    before = [server.count(jpeg(seed=seed)) for seed in range(30)]
    with ThreadPoolExecutor(24) as pool:
        first = [each for each in pool.map(ask, requests[:300]) if each]
        held = hostile.memory(server.process.pid)
        rest = [each for each in pool.map(ask, requests[300:]) if each]
    assert first + rest == []
    assert hostile.memory(server.process.pid) - held < 100, "MB more than after the first half"
    after = [server.count(jpeg(seed=seed)) for seed in range(30)]
    assert after == before
    assert {status for status, _ in after} == {200}
    assert not [each for each in server.log if each["level"] == "error"]


def test_idle_connections_and_slow_headers_are_closed_and_quick_ones_kept(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        idle, slow = (
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), LONG)) for _ in range(2)
        )
        kept = stack.enter_context(contextlib.closing(server.connect()))
        start = time.monotonic()
        slow.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n")
        for _ in range(4):
            kept.request("GET", "/ping")
            answer = kept.getresponse()
            answer.read()
            assert answer.status == 200
            time.sleep(0.4)
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert idle.recv(1000) == b""
        assert time.monotonic() - start < 30


# --- what it saw --------------------------------------------------------------------------------------


def test_what_was_seen_tells_whether_it_has_changed(
    small_run: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "runs/default/a"))
    index = Index.open(str(small_data))
    photos = [each for each in index.store.read_ranges(places(index, index.splits, 1000, 0)) if each]

    def darker(photo: bytes) -> bytes:
        return encoded(ImageEnhance.Brightness(Image.open(io.BytesIO(photo))).enhance(0.5), quality=95)

    def told_of(kept: Path, sent: list[bytes], *words: str) -> str:
        server = Server(run, "serve.threads=1", "serve.keep=1", *words)
        with ThreadPoolExecutor(8) as pool:
            assert {status for status, _ in pool.map(server.count, sent)} == {200}
        assert server.count(sent[0][:-200])[0] == 422
        assert server.end() == 0
        assert sum(len(pq.read_table(path)) for path in kept.iterdir()) == len(sent)
        page = f"out={tmp_path / 'a.html'}"
        assert cli.main(["explore", f"kept={kept}", f"against={run}", page]) == 0
        return capsys.readouterr().out

    told = told_of(run / "kept", photos, "serve.workers=2")
    assert "No change: the photos are like those that the run was trained on." in told
    assert f"Compared: {len(photos)} photos, with " in told
    told = told_of(tmp_path / "dark", list(map(darker, photos)), f"serve.keep_in={tmp_path / 'dark'}")
    assert "The cameras or the light have changed: the photos are " in told
    assert "Darker: the brightness is " in told


# --- to the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "how"), [(1, signal.SIGTERM), (2, signal.SIGTERM), (2, signal.SIGINT)])
def test_an_end_under_load_loses_no_accepted_request(
    starting: Callable[..., Server], workers: int, how: signal.Signals
) -> None:
    server = starting(f"serve.workers={workers}", "serve.queue=64")
    answered: dict[str, int] = {}
    ended = threading.Event()

    def ask(client: int) -> None:
        connection, number = server.connect(), 0
        while not ended.is_set():
            number += 1
            id = f"{client}-{number}"
            try:
                connection.request("POST", "/invocations", jpeg(seed=client), {**PHOTO, "X-Request-Id": id})
                answer = connection.getresponse()
                answer.read()
                answered[id] = answer.status
            except (OSError, http.client.HTTPException):
                answered[id] = 0  # nobody took it
                connection.close()
                time.sleep(0.01)

    with ThreadPoolExecutor(16) as pool:
        asking = [pool.submit(ask, client) for client in range(16)]
        time.sleep(3)
        start = time.monotonic()
        code = server.end(how)
        took = time.monotonic() - start
        ended.set()
        for each in asking:
            each.result(LONG)
    assert code == 0
    assert took < 30
    logged = {each["id"]: each["status"] for each in server.events("request") if "-" in each["id"]}
    found = Tally(answered.values())
    assert set(found) <= {200, 503, 0}
    assert found[200] > 50
    assert {id: status for id, status in answered.items() if status} == logged, (
        "each that was taken is answered"
    )


def test_workers_share_a_port_add_up_their_figures_and_are_replaced(starting: Callable[..., Server]) -> None:
    server = starting("serve.workers=2")
    until = time.monotonic() + LONG
    while len(server.events("worker")) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda seed: server.count(jpeg(seed=seed))[0], range(40))) == {200}
    assert "bincount_photos_total 40.0" in server.ask("GET", "/metrics")[2].decode()
    os.kill(server.events("worker")[0]["pid"], signal.SIGKILL)
    while len(server.events("worker")) < 3:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert server.events("a worker ended by itself")[0]["exit_code"] == -signal.SIGKILL
    assert server.count(jpeg())[0] == 200
    assert "bincount_photos_total 41.0" in server.ask("GET", "/metrics")[2].decode()
    assert server.end() == 0


# --- in a browser -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = (
        os.environ.get("BINCOUNT_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    )
    if chromium is None:
        pytest.skip("there is no Chromium: apt-get install chromium, or BINCOUNT_CHROMIUM=PATH")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


#: Lets a file be dropped on the page as a person drops it.
DROP = """([name, bytes]) => {
  const given = new DataTransfer();
  given.items.add(new File([new Uint8Array(bytes)], name, { type: "image/jpeg" }));
  const how = { dataTransfer: given, bubbles: true, cancelable: true };
  for (const kind of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(kind, how));
}"""


def items(answer: Any) -> str:
    count = answer["answers"][0]["count"]
    return f"{count} {'item' if count == 1 else 'items'}"


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "light"), (390, "dark")])
def test_a_photo_is_dropped_and_its_count_read(server: Server, browser: Any, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(server.url)
    body = jpeg(400, 300, seed=3)
    _, told = server.count(body)
    page.evaluate(DROP, ["bin.jpg", list(body)])
    page.get_by_role("heading", name=items(told), exact=True).wait_for()
    page.wait_for_function("document.querySelector('#status').textContent.startsWith('bin.jpg: ')")
    for name, share in told["answers"][0]["probabilities"].items():
        row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name, exact=True))
        shown = row.get_by_role("cell").first.inner_text()
        assert shown == ("< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %")
    page.get_by_label("Show where it looked").check()
    assert page.locator("canvas").is_visible()
    page.get_by_label("The record says").fill("4")
    page.get_by_label("The record says").blur()
    judged = page.get_by_text("the record is wrong with a probability of")
    judged.wait_for()
    record = json.loads(server.ask("POST", "/invocations?expected=4", body, PHOTO)[2])["answers"][0]["record"]
    assert judged.inner_text().startswith("Check this bin" if record["check"] else "No need to check")
    page.evaluate(DROP, ["broken.jpg", list(body[:-500])])
    page.get_by_role("heading", name="Not counted").wait_for()
    assert page.get_by_text("broken.jpg: the photo cannot be read").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in SERIOUS] == []
    assert {url for url in asked if not url.startswith((server.url, "blob:", "data:"))} == set()
    assert [line for line in wrong if "422" not in line] == []
    page.close()


def test_the_keyboard_alone_does_it_all(server: Server, browser: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    # Files are chosen by the test and not by a dialog from the first listener on; nothing waits for that
    # before a key that follows at once, so it has to be in place when the page comes.
    page.on("filechooser", lambda _: None)
    page.goto(server.url)
    path = tmp_path / "bin.jpg"
    path.write_bytes(jpeg(400, 300, seed=3))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
    with page.expect_file_chooser() as choosing:
        page.keyboard.press("Enter")
    choosing.value.set_files(path)
    page.get_by_role("heading", name=items(server.count(path.read_bytes())[1]), exact=True).wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "take"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.get_by_label("Show where it looked").is_checked()
    page.keyboard.press("Tab")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    page.get_by_text("the record is wrong with a probability of").wait_for()
    page.close()


def test_the_description_of_the_api_keeps_nobody_out(server: Server, browser: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = browser.new_page(viewport={"width": 390, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server.url}/docs")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    found = axe.Axe().run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in SERIOUS] == []
    assert {url for url in asked if "favicon" not in url} == {f"{server.url}/docs"}
    page.close()
