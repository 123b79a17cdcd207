"""`bincount serve`, asked in this process: what it answers, what it refuses, and what it tells of itself."""

import base64
import csv
import importlib.util
import io
import json
import logging
import re
import shutil
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import NewFolder
from making import declaring, encoded, jpeg, photo
from starlette.testclient import TestClient

from bincount import cli
from bincount.auditing import suspicion
from bincount.compose import compose, typed
from bincount.config import Serve
from bincount.counter import Counter, load
from bincount.data.index import Counts
from bincount.errors import BadInput, BincountError
from bincount.heatmap import heat_maps
from bincount.serving import page, process, service
from bincount.serving.answers import CSV, wanted
from bincount.serving.app import PATHS, build
from bincount.serving.judging import Judge, judge_of
from bincount.serving.reading import JSON, asked
from bincount.serving.refusal import Refusal
from bincount.serving.service import Service

#: Seconds for what is sure to happen.
LONG = 60.0

JPEG = {"Content-Type": "image/jpeg"}

#: Starts a service for the test, with these keys of `serve`.
Start = Callable[..., tuple[TestClient, Service]]


@pytest.fixture(scope="module")
def counter(small_run: Path) -> Counter:
    return load(small_run, device="cpu")


def limits(**given: Any) -> Serve:
    limits: Serve = typed("serve", compose("serve", ["serve.threads=1"])).serve
    return replace(limits, **given)


@pytest.fixture(scope="module")
def start(small_run: Path, counter: Counter) -> Iterator[Start]:
    with ExitStack() as stack:

        def started(**given: Any) -> tuple[TestClient, Service]:
            judge = judge_of(small_run, counter.counts, 0.05, 0.2)
            made = Service(counter, judge, "default/it", limits(**given))
            return stack.enter_context(TestClient(build(made))), made

        yield started


@pytest.fixture(scope="module")
def client(start: Start) -> TestClient:
    return start()[0]


def posted(client: TestClient, content: bytes, kind: str = "image/jpeg", query: str = "") -> Any:
    return client.post(f"/invocations{query}", content=content, headers={"Content-Type": kind})


def in_json(client: TestClient, **body: Any) -> Any:
    return client.post("/invocations", json=body)


def text_of(photo: bytes) -> str:
    return base64.b64encode(photo).decode()


def refused(answer: Any, status: int) -> str:
    """The line that a request is refused with."""
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"error", "request"}
    assert told["request"] == answer.headers["X-Request-Id"]
    assert "\n" not in told["error"]
    assert "Traceback" not in answer.text
    line: str = told["error"]
    return line


# --- an exported file ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(small_run: Path, new_folder: NewFolder) -> Path:
    out = new_folder("exported") / "counter.onnx"
    assert cli.main(["export", f"run={small_run}", f"out={out}", "check.rounds=0"]) == 0
    return out


@pytest.mark.slow
def test_an_exported_file_counts_in_the_place_of_its_run(
    small_run: Path, counter: Counter, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = service.open_service(small_run, limits(onnx=str(exported)), None)

    def never(*_: Any) -> Any:
        raise AssertionError("the run counts")

    with TestClient(build(made)) as client:
        told = counter(jpeg(seed=3))
        monkeypatch.setattr(Counter, "probabilities", never)
        (found,) = posted(client, jpeg(seed=3), query="?heatmap=true").json()["answers"]
    assert list(found["probabilities"].values()) == pytest.approx(told.probabilities, abs=1e-4)
    assert found["heatmap"]


@pytest.mark.slow
def test_a_file_of_another_run_or_calibration_is_refused(
    small_run: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "runs/default/a"))
    calibration = json.loads((run / "calibration.json").read_bytes())
    (run / "calibration.json").write_text(json.dumps({**calibration, "temperature": 5.0}))
    with pytest.raises(BadInput, match=r"a probability differs by .* from the run's: export it again"):
        service.open_service(run, limits(onnx=str(exported)), None)
    best = run / "checkpoints/best.ckpt"
    best.write_bytes(best.read_bytes() + b"x")
    assert cli.main(["serve", f"run={run}", f"serve.onnx={exported}"]) == 2
    assert "was exported from other weights than those of" in capsys.readouterr().err
    assert cli.main(["serve", f"run={run}", "serve.onnx=counter.pt2"]) == 2
    assert "an ONNX file is needed" in capsys.readouterr().err


# --- what it answers ----------------------------------------------------------------------------------


def test_it_is_there(client: TestClient) -> None:
    answer = client.get("/ping")
    assert answer.status_code == 200
    assert answer.json() == {"status": "counting", "run": "default/it"}


@pytest.mark.parametrize(("kind", "format"), [("image/jpeg", "JPEG"), ("image/png", "PNG")])
def test_a_photo_is_told_what_the_run_tells_of_it(
    client: TestClient, counter: Counter, kind: str, format: str
) -> None:
    body = encoded(photo(), format)
    answer, told = posted(client, body, kind), counter(body)
    assert answer.headers["Content-Type"] == JSON
    assert answer.json()["run"] == "default/it"
    (found,) = answer.json()["answers"]
    assert found["count"] == told.count
    assert found["or_more"] is False
    assert found["expected_value"] == pytest.approx(told.expected, abs=1e-5)
    assert list(found["probabilities"]) == counter.counts.names
    assert list(found["probabilities"].values()) == pytest.approx(told.probabilities, abs=1e-5)
    assert set(found) == {"count", "or_more", "expected_value", "probabilities"}


def test_several_photos_are_answered_in_their_order(client: TestClient, counter: Counter) -> None:
    photos = [jpeg(seed=seed) for seed in range(10)]
    answers = in_json(client, photos=list(map(text_of, photos))).json()["answers"]
    found = [list(each["probabilities"].values()) for each in answers]
    np.testing.assert_allclose(found, [told.probabilities for told in counter(photos)], atol=1e-5)
    one = in_json(client, photo=text_of(photos[3])).json()["answers"]
    assert list(one[0]["probabilities"].values()) == pytest.approx(found[3], abs=1e-5)


def test_csv_is_what_json_tells(client: TestClient) -> None:
    body = {"photos": [text_of(jpeg(seed=seed)) for seed in range(3)], "expected": [2, None, 5]}
    told = client.post("/invocations", json=body).json()["answers"]
    answer = client.post("/invocations", json=body, headers={"Accept": CSV})
    assert answer.headers["Content-Type"].startswith(CSV)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 3
    for row, each in zip(rows, told, strict=True):
        assert int(row["count"]) == each["count"]
        assert float(row["expected_value"]) == each["expected_value"]
        assert {name: float(row[f"p_{name}"]) for name in each["probabilities"]} == each["probabilities"]
    assert [row["expected"] for row in rows] == ["2", "", "5"]
    assert (rows[1]["p_wrong"], rows[1]["check"]) == ("", "")
    assert float(rows[0]["p_wrong"]) == told[0]["record"]["p_wrong"]
    assert rows[0]["check"] == str(int(told[0]["record"]["check"]))


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("text/csv", CSV),
        ("application/json;q=0.5, text/csv", CSV),
        ("text/*", CSV),
        ("text/html, */*;q=0.1", JSON),
        ("TEXT/CSV ; q=1", CSV),
    ],
)
def test_accept_says_the_type_of_the_answer(accept: str, kind: str) -> None:
    assert wanted(accept) == kind


@pytest.mark.parametrize("accept", ["image/png", "text/csv;q=0", "text/csv;q=x", ",", ";"])
def test_another_type_cannot_be_answered(accept: str) -> None:
    with pytest.raises(Refusal, match="Accept"):
        wanted(accept)


def test_records_are_judged_as_an_audit_judges_them(
    client: TestClient, counter: Counter, small_run: Path
) -> None:
    seen = pq.read_table(small_run / "calibration.parquet")["count"].to_numpy()
    share = np.bincount(seen, minlength=6) / len(seen)
    photos = [jpeg(seed=seed) for seed in range(6)]
    given = np.array([told.probabilities for told in counter(photos)])
    ratio = suspicion.ratios(given, np.arange(6), suspicion.mixed(suspicion.ways(share)))
    wanted = suspicion.probability(ratio, 0.05)
    answers = in_json(client, photos=list(map(text_of, photos)), expected=list(range(6))).json()["answers"]
    assert [each["record"]["p_wrong"] for each in answers] == pytest.approx(wanted.tolist(), abs=1e-4)
    assert [each["record"]["check"] for each in answers] == [p >= 0.2 for p in wanted]
    (one,) = posted(client, photos[4], query="?expected=4").json()["answers"]
    assert one["record"] == pytest.approx(answers[4]["record"], abs=1e-4)


def test_a_surely_wrong_record_is_checked_and_a_surely_right_one_is_not(tmp_path: Path) -> None:
    judge = judge_of(tmp_path, Counts(5), 0.05, 0.2)
    sure = (0.0, 0.0, 0.999, 0.001, 0.0, 0.0)
    assert judge.judge(sure, 2).p_wrong < 0.001
    assert not judge.judge(sure, 2).check
    assert judge.judge(sure, 4).p_wrong > 0.99
    assert judge.judge(sure, 4).check


def test_more_items_than_are_counted_are_judged_only_by_runs_that_know_of_more() -> None:
    shares = np.full((7, 7), 1 / 7)
    Judge(Counts(5, more=True), shares, 0.05, 0.2).refuse(9)
    with pytest.raises(Refusal, match="expected=9: this run counts up to 5"):
        Judge(Counts(5), shares, 0.05, 0.2).refuse(9)


def test_heat_maps_are_those_of_the_run(client: TestClient, counter: Counter) -> None:
    photos = [jpeg(seed=seed) for seed in range(3)]
    body = {"photos": list(map(text_of, photos))}
    answers = client.post("/invocations?heatmap=true", json=body).json()["answers"]
    pixels = torch.stack([counter.pixels(each) for each in photos])
    np.testing.assert_allclose([each["heatmap"] for each in answers], heat_maps(counter, pixels), atol=2e-3)


def test_a_network_without_places_says_so(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise BincountError("no places")

    monkeypatch.setattr(service, "heat_maps", none)
    client, _ = start()
    assert "no heat map" in refused(posted(client, jpeg(), query="?heatmap=1"), 422)


# --- what it refuses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body", "status", "line"),
    [
        ("image/jpeg", b"", 422, "the body is empty"),
        ("image/jpeg", b"no photo", 422, "the body is not image/jpeg"),
        ("image/png", jpeg(), 422, "the body is not image/png"),
        ("image/jpeg", jpeg()[:300], 422, "cannot be read"),
        ("image/jpeg", jpeg()[:-300], 422, "the photo cannot be read"),
        ("image/png", encoded(photo(), "PNG")[:20], 422, "PNG header"),
        ("image/png", encoded(photo(), "PNG")[:-200], 422, "damaged PNG"),
        ("image/jpeg", declaring(jpeg(), 20_000, 20_000), 413, "20000x20000 pixels"),
        ("image/gif", b"GIF89a", 415, "'image/gif' is not image/jpeg, image/png or application/json"),
        ("", jpeg(), 415, "there is no Content-Type"),
        ("multipart/form-data; boundary=x", b"--x--", 415, "multipart"),
        (JSON, b"{", 422, "no JSON"),
        (JSON, b"[]", 422, 'write {"photo"'),
        (JSON, b"{}", 422, 'write {"photo"'),
        (JSON, b'{"photo": "", "photos": []}', 422, 'write {"photo"'),
        (JSON, b'{"photos": []}', 422, "list of texts"),
        (JSON, b'{"photos": [1]}', 422, "list of texts"),
        (JSON, b'{"photos": "abcd"}', 422, "list of texts"),
        (JSON, b'{"photo": "%%%"}', 422, "the photo is no base64"),
        (JSON, b'{"photo": "\xc3\xa4"}', 422, "the photo is no base64"),
        (JSON, b'{"photo": ""}', 422, "the photo cannot be read: the file is empty"),
        (JSON, b'{"photo": "abcd", "excepted": 3}', 422, "'excepted': there is no such key"),
        (JSON, b'{"photo": "abcd", "expected": -1}', 422, "whole number"),
        (JSON, b'{"photo": "abcd", "expected": true}', 422, "whole number"),
        (JSON, b'{"photo": "abcd", "expected": 2.5}', 422, "whole number"),
        (JSON, b'{"photo": "abcd", "expected": [1, 2]}', 422, "2 quantities for 1 photo"),
        (JSON, b'{"photo": "abcd", "expected": 9}', 422, "counts up to 5"),
        (JSON, b"[" * 100_000, 422, "no JSON"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_a_line(
    client: TestClient, kind: str, body: bytes, status: int, line: str
) -> None:
    assert line in refused(posted(client, body, kind), status)


def test_which_of_several_photos_is_bad_is_said(client: TestClient) -> None:
    photos = [text_of(jpeg()), text_of(jpeg()[:-200]), "x"]
    assert "photo 3 is no base64" in refused(in_json(client, photos=photos), 422)
    assert "photo 2 cannot be read" in refused(in_json(client, photos=photos[:2]), 422)


@pytest.mark.parametrize("query", ["?expected=x", "?expected=-1", "?heatmap=perhaps", "?expected=1.5"])
def test_a_query_that_makes_no_sense_is_refused(client: TestClient, query: str) -> None:
    refused(posted(client, jpeg(), query=query), 422)


@pytest.mark.parametrize("expected", [-1, 10**30])
def test_a_quantity_that_no_record_says_is_refused(expected: int) -> None:
    assert asked(jpeg(), "image/jpeg", 10**9, limits()).expected == [10**9]
    with pytest.raises(Refusal, match="whole number"):
        asked(jpeg(), "image/jpeg", expected, limits())


def test_a_png_of_many_pixels_is_refused_before_it_is_decoded(client: TestClient) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10_000_000)))
    start = time.perf_counter()
    assert "50000x50000 pixels" in refused(posted(client, bomb, "image/png"), 413)
    assert time.perf_counter() - start < 5


def test_limits_are_those_of_the_configuration(start: Start) -> None:
    client, service = start(body_mb=0.05, photos=2, megapixels=0.01)
    assert "larger than 0.05 MB" in refused(posted(client, jpeg() + bytes(60_000)), 413)
    assert "larger than 0.05 MB" in refused(
        client.post("/invocations", content=iter([bytes(30_000)] * 3), headers=JPEG), 413
    )
    assert "3 photos are more than 2" in refused(in_json(client, photos=[text_of(jpeg())] * 3), 413)
    assert "200x60 pixels are more than 0.01 million" in refused(posted(client, jpeg(200, 60)), 413)
    assert posted(client, jpeg()).status_code == 200
    assert service.held.now == 0


def test_bytes_of_bodies_are_bounded(start: Start) -> None:
    client, service = start(held_mb=0.01)
    answer = posted(client, bytes(20_000))
    assert "too many bytes" in refused(answer, 503)
    assert answer.headers["Retry-After"] == "1"
    chunks = client.post("/invocations", content=iter([bytes(6_000)] * 3), headers=JPEG)
    assert "too many bytes" in refused(chunks, 503)
    assert posted(client, jpeg()).status_code == 200
    assert service.held.now == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/ping/", 404),
        ("GET", "/..%2f..%2fetc/passwd", 404),
        ("GET", "/page.html", 404),
        ("GET", "/%00", 404),
        ("GET", "/invocations", 405),
        ("PUT", "/invocations", 405),
        ("POST", "/ping", 405),
        ("DELETE", "/", 405),
        ("TRACE", "/ping", 405),
    ],
)
def test_other_paths_and_methods(client: TestClient, method: str, path: str, status: int) -> None:
    refused(client.request(method, path), status)


def test_an_error_inside_does_not_get_out(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client, service = start()

    def broken(_: torch.Tensor) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(service, "counting", Instead(service.counting, broken))
    with caplog.at_level(logging.INFO, logger="bincount.serving"):
        answer = posted(client, jpeg())
    assert "secret" not in refused(answer, 500)
    assert any("secret" in str(record.exc_info) for record in caplog.records)
    monkeypatch.undo()
    assert posted(client, jpeg()).status_code == 200


# --- many at once -------------------------------------------------------------------------------------


class Instead:
    """A counter whose probabilities are those of another function."""

    def __init__(self, counter: Any, probabilities: Callable[[torch.Tensor], Any]):
        self._counter, self.probabilities = counter, probabilities

    def __getattr__(self, name: str) -> Any:
        return getattr(self._counter, name)


class Gate:
    """Holds a service's model until it is opened; ``sizes``: of the batches that came."""

    def __init__(self, service: Service):
        self._real, self._open, self.sizes = service.counting, threading.Event(), list[int]()
        service.counting = Instead(service.counting, self._count)  # type: ignore[assignment]

    def _count(self, pixels: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(pixels))
        assert self._open.wait(LONG)
        return self._real.probabilities(pixels)

    def open(self) -> None:
        self._open.set()


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_photos_of_many_clients_are_counted_together_and_beyond_the_queue_refused(
    start: Start, counter: Counter
) -> None:
    client, service = start(queue=8, photos=8, batch_size=4)
    gate = Gate(service)
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(posted, client, jpeg(seed=seed)) for seed in range(8)]
        eventually(lambda: service._batcher.taken == 8)
        answer = posted(client, jpeg())
        assert "too many photos wait" in refused(answer, 503)
        assert answer.headers["Retry-After"] == "1"
        assert "bincount_queue_photos 8.0" in client.get("/metrics").text
        gate.open()
        answers = [each.result(LONG) for each in asked]
    assert [each.status_code for each in answers] == [200] * 8
    told = counter([jpeg(seed=seed) for seed in range(8)])
    found = [list(each.json()["answers"][0]["probabilities"].values()) for each in answers]
    np.testing.assert_allclose(found, [each.probabilities for each in told], atol=1e-5)
    assert sum(gate.sizes) == 8
    assert max(gate.sizes) <= 4
    assert len(gate.sizes) <= 5
    assert "bincount_queue_photos 0.0" in client.get("/metrics").text


def test_a_late_answer_is_none(start: Start) -> None:
    client, service = start(timeout=0.05)
    gate = Gate(service)
    assert "no answer within 0.05 seconds" in refused(posted(client, jpeg()), 504)
    assert service._batcher.taken == 0
    eventually(lambda: client.get("/ping").json()["status"] == "stuck")
    assert client.get("/ping").status_code == 503
    gate.open()
    eventually(lambda: client.get("/ping").status_code == 200)


def test_a_service_that_is_about_to_end_answers_what_it_took(start: Start) -> None:
    client, service = start()
    gate = Gate(service)
    assert client.portal is not None
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(posted, client, jpeg())
        eventually(lambda: bool(gate.sizes))
        draining = client.portal.start_task_soon(service.drain)
        eventually(lambda: service.closed)
        assert client.get("/ping").status_code == 503
        late = posted(client, jpeg())
        assert "about to end" in refused(late, 503)
        assert (late.headers["Retry-After"], late.headers["Connection"]) == ("1", "close")
        assert not draining.done()
        gate.open()
        assert asked.result(LONG).status_code == 200
        draining.result(LONG)


# --- what it tells of itself --------------------------------------------------------------------------


def test_requests_have_ids_and_lines_in_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="bincount.serving"):
        given = client.post("/invocations", content=jpeg(), headers={**JPEG, "X-Request-Id": "mine-1"})
        bad = client.get("/no%0Awhere", headers={"X-Request-Id": 'a "quoted" one'})
    assert given.headers["X-Request-Id"] == "mine-1"
    assert re.fullmatch("[0-9a-f]{16}", bad.headers["X-Request-Id"])
    from bincount.serving.logs import JsonLines

    lines = [JsonLines().format(each) for each in caplog.records if each.message == "request"]
    first, second = (json.loads(line) for line in lines)
    assert "\n" not in "".join(lines)
    assert (first["id"], first["status"], first["photos"]) == ("mine-1", 200, 1)
    assert first["bytes"] == len(jpeg())
    assert first["ms"] > 0
    assert (second["status"], second["path"], second["level"]) == (404, "/no\nwhere", "info")


def test_figures_for_prometheus(start: Start) -> None:
    client, _ = start()
    in_json(client, photos=[text_of(jpeg())] * 3)
    posted(client, b"x")
    client.get("/nothing")
    text = client.get("/metrics").text
    for line in (
        'bincount_requests_total{method="POST",path="/invocations",status="200"} 1.0',
        'bincount_requests_total{method="POST",path="/invocations",status="422"} 1.0',
        'bincount_requests_total{method="GET",path="other",status="404"} 1.0',
        'bincount_request_seconds_count{path="/invocations"} 2.0',
        "bincount_photos_total 3.0",
        "bincount_batch_photos_sum 3.0",
        "bincount_queue_photos 0.0",
    ):
        assert line in text.splitlines()


def test_the_api_is_described_and_the_description_needs_nothing_else(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/ping", "/invocations", "/metrics"}
    body = schema["paths"]["/invocations"]["post"]["requestBody"]["content"]
    assert set(body) == {"image/jpeg", "image/png", JSON}
    page = client.get("/docs").text
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "<script" not in page
    for word in ("POST /invocations", "expected_value", "p_wrong", "heatmap", "image/png", "503"):
        assert word in page
    assert all(path in client.get("/nothing").text for path in PATHS)


def test_the_description_is_what_is_answered(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()["paths"]["/invocations"]["post"]["responses"]
    of_answer = schema["200"]["content"][JSON]["schema"]["properties"]["answers"]["items"]
    (found,) = posted(client, jpeg(), query="?expected=2&heatmap=1").json()["answers"]
    assert set(found) == set(of_answer["properties"])
    assert set(found["record"]) == set(of_answer["properties"]["record"]["properties"])
    assert set(posted(client, jpeg()).json()["answers"][0]) == set(of_answer["required"])
    assert {"408", "413", "415", "422", "503", "504"} <= set(schema)


def test_the_page_is_one_file_that_may_run_nothing_else(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.text == page.PAGE.read_text(encoding="utf-8")
    rules = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in rules
    assert "unsafe" not in rules
    assert rules.count("sha256-") == 2
    assert not re.search(r"https?://|@import|url\(", answer.text)


# --- the command --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run=nowhere"], "nowhere is no run"),
        (["serve.port=99999"], "serve.port=99999: must be from 0 to 65535"),
        (["serve.queue=4"], "serve.photos=64: must not be above serve.queue=4"),
        (["serve.host=no.such.host.invalid"], "cannot listen there"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_line(
    small_run: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", f"run={small_run}", f"runs={small_run.parent}", *words]) == 2
    told = capsys.readouterr()
    assert line in told.err
    assert told.err.count("\n") == 1


def test_a_port_that_is_taken_is_said(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bincount.serving.process import listen

    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", f"run={small_run}", f"serve.port={port}"]) == 2
    assert f"serve.port={port}: cannot listen there: Address already in use" in capsys.readouterr().err


def test_an_answer_is_sent_at_once() -> None:
    with process.listen("127.0.0.1", 0) as listening:
        # asyncio turns Nagle's algorithm off only for connections of a socket that tells its protocol.
        assert listening.proto == socket.IPPROTO_TCP


def test_without_the_extra_it_is_said_what_to_install(
    small_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("bincount.serve.find_spec", lambda name: None if name == "fastapi" else real(name))
    assert cli.main(["serve", f"run={small_run}"]) == 2
    assert (
        capsys.readouterr().err
        == "bincount: fastapi not installed: pip install -e '.[serve]' in the checkout\n"
    )
