"""The client: photos to a server and answers back, whatever the server does."""

import http.client
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber
from conftest import Answering, Asked
from making import encoded, jpeg, photo

from bincount import BadInput, BincountError, client, load
from bincount.answer import Answer
from bincount.client import Client, answer_of

SHARES = {"0": 0.05, "1": 0.05, "2": 0.1, "3": 0.6, "4": 0.1, "5": 0.1}
SAYS = Answer(3, tuple(SHARES.values()))

Start = Callable[..., Answering]


def told(count: int = 3) -> bytes:
    """What `bincount serve` answers about one photo."""
    answer = {"count": count, "or_more": False, "expected_value": 2.95, "probabilities": SHARES}
    return json.dumps({"run": "default/a", "answers": [answer]}).encode()


def good(asked: Asked) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, told()


def in_turn(
    *answers: tuple[int, dict[str, str], bytes],
) -> Callable[[Asked], tuple[int, dict[str, str], bytes]]:
    """Gives one answer after the other, the last one for ever."""
    left = list(answers)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.001)


@pytest.fixture
def server(answering: Start) -> Answering:
    return answering(good)


def test_a_path_or_bytes_are_counted(server: Answering, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(photo(), "PNG"))
    with Client(server.endpoint) as here:
        assert [here.count(path), here.count(str(path)), here.count(jpeg())] == [SAYS] * 3
    assert [(each.method, each.path) for each in server.asked] == [("POST", "/invocations")] * 3
    assert [each.headers["Content-Type"] for each in server.asked] == ["image/png"] * 2 + ["image/jpeg"]
    assert [each.body for each in server.asked] == [path.read_bytes()] * 2 + [jpeg()]


@pytest.mark.parametrize("path", ["", "/", "/invocations", "/invocations/"])
def test_an_address_may_have_the_path(server: Answering, path: str) -> None:
    Client(server.endpoint + path, headers={"X-Key": "a"}).count(jpeg())
    assert server.asked[0].path == "/invocations"
    assert server.asked[0].headers["X-Key"] == "a"


def test_many_photos_keep_their_order_and_a_bounded_number_is_under_way(answering: Start) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        number = asked.body[-1]
        time.sleep(0.003 * (5 - number))  # the first is answered last
        with lock:
            now -= 1
        return 200, {}, told(number)

    numbers = [0, 1, 2, 3, 4, 5] * 4
    with Client(answering(answer).endpoint, parallel=3) as here:
        answers = here.count(jpeg() + bytes([n]) for n in numbers)
    assert [answer.count for answer in answers] == numbers
    assert most == 3


def test_of_many_photos_few_are_read_ahead(server: Answering) -> None:
    read = 0

    def photos() -> Iterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield jpeg()

    here = Client(server.endpoint, parallel=2)
    answers = here.each(photos())
    assert next(answers) == SAYS
    assert read <= 5
    answers.close()  # type: ignore[attr-defined]
    assert len(server.asked) <= 5
    assert here.count([]) == []


def test_a_connection_is_used_again(server: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    connect = http.client.HTTPConnection.connect

    def counted(self: http.client.HTTPConnection) -> None:
        opened.append(self)
        connect(self)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", counted)
    with Client(server.endpoint, parallel=2) as here:
        assert here.count(jpeg()) == SAYS
        assert here.count([jpeg()] * 20) == [SAYS] * 20
        assert here.count([jpeg()] * 20) == [SAYS] * 20
    assert len(opened) <= 2


def test_a_connection_that_the_server_dropped_while_idle_is_opened_again(tmp_path: Path) -> None:
    answer = told()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n".encode()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(3):
                connection, _ = listening.accept()
                with connection:
                    received = b""
                    while b"\r\n\r\n" not in received or not received.endswith(jpeg()[-4:]):
                        received += connection.recv(1 << 16)
                    connection.sendall(head + answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        here = Client(f"http://127.0.0.1:{listening.getsockname()[1]}", retries=0)
        assert [here.count(jpeg()) for _ in range(3)] == [SAYS] * 3
        thread.join(5)


@pytest.mark.parametrize("status", [503, 429, 502])
def test_a_busy_server_is_asked_again(answering: Start, status: int) -> None:
    busy = (status, {}, b'{"error": "the queue is full"}')
    server = answering(in_turn(busy, busy, (200, {}, told())))
    assert Client(server.endpoint).count(jpeg()) == SAYS
    assert len(server.asked) == 3


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_seconds_or_a_date(as_date: bool) -> None:
    after = formatdate(time.time() + 20, usegmt=True) if as_date else "7"
    problem = client._refused(503, b"", "here", "it", after)
    assert isinstance(problem, client.Unavailable)
    assert client._pause(0, problem.retry_after) == pytest.approx(20 if as_date else 7, abs=1.1)


def test_a_server_asks_for_a_second(answering: Start) -> None:
    server = answering(in_turn((503, {"Retry-After": "1"}, b""), (200, {}, told())))
    start = time.monotonic()
    assert Client(server.endpoint).count(jpeg()) == SAYS
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize("after", [None, "", "soon", "-1", "1.5", "Mon, 99 Foo 2026"])
def test_a_retry_after_that_says_nothing_is_none(after: str | None) -> None:
    assert client._seconds(after) is None


def test_pauses_grow_and_are_bounded() -> None:
    for attempt in range(12):
        assert client.FIRST_PAUSE * 2**attempt / 2 <= client._pause(attempt, None) <= client.MOST_PAUSE
    assert client._pause(0, 1e9) == client.MOST_PAUSE


BUSY = (503, {}, b'{"error": "the queue is full", "request": "a1"}')


@pytest.mark.parametrize(
    ("answer", "error", "line"),
    [
        (BUSY, BincountError, "URL is busy (503): the queue is full (3 attempts)"),
        ((413, {}, b'{"error": "too large"}'), BadInput, "the photo is refused by URL (413): too large"),
        ((422, {}, b'{"detail": "damaged"}'), BadInput, "the photo is refused by URL (422): damaged"),
        ((404, {}, b"<h1>not\n here</h1>"), BincountError, "URL answers 404: <h1>not here</h1>"),
        ((500, {}, b""), BincountError, "URL answers 500: nothing"),
        ((200, {}, b"\xff\x00"), BincountError, "this is no answer of bincount"),
        ((200, {}, b"{}"), BincountError, "this is no answer of bincount: {}"),
        ((200, {"Content-Length": "999"}, told()), BincountError, "URL cannot be reached: IncompleteRead"),
    ],
)
def test_what_goes_wrong_is_one_line(
    answering: Start, answer: tuple[int, dict[str, str], bytes], error: type[BincountError], line: str
) -> None:
    server = answering(in_turn(answer))
    with pytest.raises(BincountError) as raised:
        Client(server.endpoint, retries=2).count(jpeg())
    assert type(raised.value) is error
    assert line.replace("URL", server.endpoint) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_server_that_is_too_slow_is_told(answering: Start) -> None:
    def slow(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.3)
        return good(asked)

    server = answering(slow)
    with pytest.raises(BincountError, match=r"gave no answer within 0\.05 seconds \(2 attempts\)"):
        Client(server.endpoint, timeout=0.05, retries=1).count(jpeg())


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with pytest.raises(BincountError, match="cannot be reached: Connection refused"):
        Client(f"http://127.0.0.1:{port}", retries=1).count(jpeg())


def test_a_server_that_refuses_before_it_has_read_all_is_heard() -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge"
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                time.sleep(0.2)

        threading.Thread(target=refuse, daemon=True).start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(BadInput, match=r"is refused by .* \(413\): large"):
            Client(address, retries=0).count(jpeg() + bytes(20_000_000))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("nowhere.jpg", "nowhere.jpg: No such file or directory"),
        (b"text", "the photo: not a JPEG or PNG"),
        (b"", "the photo: the file is empty (0 bytes)"),
        ([jpeg(), b"text"], "photo 2: not a JPEG or PNG"),
        (3, "the photo is of type int: give a path, bytes, or a list of these"),
        ([3], "photo 1 is of type int: give a path, bytes, or a list of these"),
    ],
)
def test_what_is_no_photo_is_never_sent(server: Answering, given: Any, line: str) -> None:
    with pytest.raises(BadInput, match="^" + line.replace("(", r"\(").replace(")", r"\)")):
        Client(server.endpoint).count(given)
    assert len(server.asked) <= 1


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:8080", "ftp://a", "http://", "http://a:b", "sagemaker://", "sagemaker://a/b"]
)
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match="is no address: write"):
        Client(address)


def test_a_failure_ends_the_rest_soon(answering: Start) -> None:
    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        return (422, {}, b"bad") if asked.body.endswith(b"!") else (503, {"Retry-After": "30"}, b"")

    start = time.monotonic()
    with pytest.raises(BadInput, match="photo 1 is refused"):
        Client(answering(answer).endpoint).count([jpeg() + b"!", jpeg(), jpeg()])
    assert time.monotonic() - start < 5


def test_the_class_more_is_told() -> None:
    shares = {"0": 0.25, "1": 0.25, "more": 0.5}
    body = {"answers": [{"count": 2, "probabilities": shares}]}
    assert answer_of(json.dumps(body).encode()) == Answer(2, (0.25, 0.25, 0.5), more=True)


@pytest.mark.parametrize("count", [True, 1.0, "1", -1, 6, None])
def test_a_count_that_is_none_is_no_answer(count: Any) -> None:
    body = {"answers": [{"count": count, "probabilities": SHARES}]}
    with pytest.raises(BincountError, match="no answer of bincount"):
        answer_of(json.dumps(body).encode())


def test_importing_the_client_is_light() -> None:
    heavy = "{'torch', 'numpy', 'PIL', 'omegaconf', 'boto3', 'pyarrow'}"
    program = f"import sys, bincount.client; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- SageMaker ----------------------------------------------------------------------------------------


@pytest.fixture
def endpoint(no_aws: pytest.MonkeyPatch) -> Iterator[tuple[Client, Stubber]]:
    no_aws.setenv("AWS_ACCESS_KEY_ID", "a")
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "b")
    here = Client("sagemaker://bins", region="eu-west-1", retries=2)
    with Stubber(here._transport.runtime) as stubber:  # type: ignore[attr-defined]
        yield here, stubber
        stubber.assert_no_pending_responses()


ASKS = {"EndpointName": "bins", "ContentType": "image/jpeg", "Accept": "application/json", "Body": jpeg()}


def says(body: bytes) -> dict[str, Any]:
    return {"Body": StreamingBody(io.BytesIO(body), len(body))}


def of_container(stubber: Stubber, status: int, body: str) -> None:
    stubber.add_client_error(
        "invoke_endpoint",
        "ModelError",
        "Received an error from the model",
        424,
        modeled_fields={"OriginalStatusCode": status, "OriginalMessage": body},
        expected_params=ASKS,
    )


def test_a_sagemaker_endpoint_counts(endpoint: tuple[Client, Stubber]) -> None:
    here, stubber = endpoint
    stubber.add_response("invoke_endpoint", says(told()), ASKS)
    assert here.count(jpeg()) == SAYS


def test_a_busy_endpoint_is_asked_again(endpoint: tuple[Client, Stubber]) -> None:
    here, stubber = endpoint
    of_container(stubber, 503, '{"error": "the queue is full"}')
    stubber.add_client_error("invoke_endpoint", "ThrottlingException", "slowly", 400)
    stubber.add_response("invoke_endpoint", says(told()), {**ASKS, "Body": ANY})
    assert here.count(jpeg()) == SAYS


def test_what_an_endpoint_refuses_is_one_line(endpoint: tuple[Client, Stubber]) -> None:
    here, stubber = endpoint
    of_container(stubber, 422, '{"error": "the photo cannot be read"}')
    line = r"the photo is refused by sagemaker://bins \(422\): the photo cannot be read"
    with pytest.raises(BadInput, match=line):
        here.count(jpeg())
    stubber.add_client_error("invoke_endpoint", "ValidationError", "Endpoint bins\nnot found.", 400)
    with pytest.raises(BincountError, match="sagemaker://bins: ValidationError: Endpoint bins not found"):
        here.count(jpeg())


def test_who_asks_an_endpoint_must_be_known(no_aws: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="sagemaker://bins: You must specify a region"):
        Client("sagemaker://bins")
    with pytest.raises(BadInput, match="sagemaker://bins: Unable to locate credentials"):
        Client("sagemaker://bins", region="eu-west-1").count(jpeg())


def test_without_boto3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(BadInput, match=r"boto3 is not installed: pip install -e '.\[aws\]'"):
        Client("sagemaker://bins")


# --- the real server ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_server_gives_the_answers_of_the_run(small_run: Path) -> None:
    words = ["serve", f"run={small_run}", "serve.port=0", "serve.batch_size=4", "serve.threads=1"]
    command = [sys.executable, "-u", "-m", "bincount", *words]
    photos = [jpeg(seed=seed) for seed in range(24)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout
            address = next(word for word in server.stdout.readline().split() if word.startswith("http"))
            with Client(address.rstrip(";"), retries=12, timeout=60) as here:
                answers = here.count(photos)
                with pytest.raises(BadInput, match=r"photo 2 is refused by .* \(422\): "):
                    here.count([photos[0], photos[1][:-200]])
        finally:
            server.terminate()
    its = load(small_run)(photos)
    assert [answer.count for answer in answers] == [answer.count for answer in its]
    for mine, theirs in zip(answers, its, strict=True):
        assert mine.probabilities == pytest.approx(theirs.probabilities, abs=1e-5)
        assert mine.expected == pytest.approx(theirs.expected, abs=1e-4)
