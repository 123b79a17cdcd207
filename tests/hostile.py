"""Requests that mean no good, by kind, each with the answers that are right: for a live server's tests."""

import base64
import contextlib
import json
import random
import re
import socket
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from making import declaring, encoded, jpeg, photo

#: What the server has to be started with.
LIMITS = ["serve.body_timeout=1", "serve.body_mb=1"]

#: Seconds after which an answer is not waited for any more.
LONG = 120.0

#: What no answer may tell: where the code lies, or what it did.
INSIDE = (b"Traceback", b"/bincount/", b"site-packages")


@dataclass(frozen=True)
class Hostile:
    """Bytes for a connection of their own, sent in ``pieces``, with a pause before each but the first.

    ``right``: the statuses that may come back, those of several answers with spaces between, "" for none.
    ``leave``: hang up once all is sent.
    """

    pieces: list[bytes]
    right: set[str]
    leave: bool = False
    pause: float = 0.3


def ask(port: int, hostile: Hostile) -> tuple[str, bytes]:
    """The statuses of what comes back until the server closes, and all of it."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), LONG) as connection:
        with contextlib.suppress(ConnectionError):  # it may refuse, and close, before all is sent
            for number, piece in enumerate(hostile.pieces):
                time.sleep(hostile.pause if number else 0)
                connection.sendall(piece)
        with contextlib.suppress(ConnectionError):
            while not hostile.leave and (piece := connection.recv(1 << 16)):
                found += piece
    return b" ".join(re.findall(rb"HTTP/1\.1 (\d{3}) ", found)).decode(), found


def wrong(hostile: Hostile, statuses: str, answer: bytes) -> str | None:
    """What is wrong with an answer, in a line; None where nothing is."""
    if statuses in hostile.right and not any(each in answer for each in INSIDE):
        return None
    return f"{hostile.pieces[0][:120]!r}: {statuses or 'nothing'}, {answer[:300]!r}"


def drawn(draw: random.Random) -> tuple[str, Hostile]:
    """One of any kind, and the kind's name."""
    rare = [name for name in KINDS if name in RARE]
    names = rare if draw.random() < 0.003 else [name for name in KINDS if name not in RARE]
    name = draw.choice(names)
    return name, KINDS[name](draw)


def memory(pid: int) -> float:
    """MB that a process and its children hold."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    states = (Path(f"/proc/{each}/status").read_text() for each in pids)
    return sum(int(state.partition("VmRSS:")[2].split()[0]) for state in states) / 1000


# --- how they are put together ------------------------------------------------------------------------


def request(
    body: bytes = b"",
    kind: str = "image/jpeg",
    path: str = "/invocations",
    method: str = "POST",
    *,
    headers: bytes = b"",
    length: int | None = None,
    close: bool = True,
) -> bytes:
    """The bytes of a request; ``length`` as it declares it."""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n".encode()
    head += b"Connection: close\r\n" if close else b""
    return head + headers + b"Content-Length: %d\r\n\r\n" % (len(body) if length is None else length) + body


def one(sent: bytes, *right: int) -> Hostile:
    return Hostile([sent], {str(status) for status in right})


def good(draw: random.Random) -> bytes:
    return _photos()[draw.randrange(10)]


def noise(draw: random.Random) -> bytes:
    return draw.randbytes(draw.randrange(1, 5_000))


@cache
def _photos() -> list[bytes]:
    return [jpeg(seed=seed) for seed in range(10)]


@cache
def _png() -> bytes:
    return encoded(photo(), "PNG")


@cache
def _bomb(width: int, height: int) -> bytes:
    """A PNG that declares this size and has 3 MB of it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(3_000_000), 9))


@cache
def _huge() -> bytes:
    """A whole PNG of 49 million black pixels, in some 150 kB."""
    return encoded(np.zeros((7000, 7000, 3), np.uint8), "PNG")


# --- the kinds ----------------------------------------------------------------------------------------


def _truncated(draw: random.Random) -> Hostile:
    photo, kind = draw.choice([(good(draw), "image/jpeg"), (_png(), "image/png")])
    return one(request(photo[: draw.randrange(1, len(photo) - 20)], kind), 422)


def _flipped(draw: random.Random) -> Hostile:
    photo = bytearray(good(draw))
    photo[draw.randrange(2, len(photo))] ^= 1 << draw.randrange(8)
    return one(request(bytes(photo)), 200, 413, 422)


def _disguised(draw: random.Random) -> Hostile:
    begin, kind = draw.choice([(b"\xff\xd8", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png")])
    return one(request(begin + noise(draw), kind), 413, 422)


def _too_many_pixels(draw: random.Random) -> Hostile:
    bombs = [_bomb(30_000, 30_000), _bomb(3, 200_000_000)]
    photo, kind = draw.choice(
        [(declaring(good(draw), 60_000, 60_000), "image/jpeg")] + [(b, "image/png") for b in bombs]
    )
    return one(request(photo, kind), 413)


def _json(draw: random.Random) -> Hostile:
    photo = base64.b64encode(good(draw)).decode()
    body: list[object] = [
        [],
        "photo",
        {},
        {"photo": 1},
        {"photos": []},
        {"photos": {"a": photo}},
        {"photos": [photo, None]},
        {"photo": photo, "photos": [photo]},
        {"photo": photo, "__class__": "x"},
        {"photo": photo, "expected": [1, 2]},
        {"photo": photo, "expected": "3"},
        {"photo": photo, "expected": True},
        {"photo": photo, "expected": 1e400},
        {"photo": photo, "expected": 10**30},
        {"photo": "!" * 100},
        {"photo": photo[:-3]},
        {"photo": base64.b64encode(noise(draw)).decode()},
        {"photo": ""},
    ]
    return one(request(json.dumps(draw.choice(body)).encode(), "application/json"), 422)


def _no_json(draw: random.Random) -> Hostile:
    bodies = [noise(draw), b"[" * 200_000, b'{"photo": "', b'{"a":' * 100_000, b'"\xed\xa0\x80"', b"", b"NaN"]
    return one(request(draw.choice(bodies), "application/json"), 422)


def _too_many_photos(draw: random.Random) -> Hostile:
    return one(request(json.dumps({"photos": ["aaaa"] * 1000}).encode(), "application/json"), 413)


def _too_large(draw: random.Random) -> Hostile:
    whole = good(draw) + bytes(1_000_000)
    chunked = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nConnection: close\r\n"
    chunked += b"Transfer-Encoding: chunked\r\n\r\n" + b"40000\r\n%s\r\n" % bytes(0x40000) * 5 + b"0\r\n\r\n"
    return one(draw.choice([request(whole), chunked, request(b"x", length=10**11)]), 413)


def _type(draw: random.Random) -> Hostile:
    kinds = [
        "text/html",
        "image/svg+xml",
        "",
        "x" * 500,
        "image/jpeg/../png",
        "multipart/form-data; boundary=a",
    ]
    return one(request(good(draw), draw.choice(kinds)), 415)


def _query(draw: random.Random) -> Hostile:
    asked = draw.choice(
        ["expected=x", "expected=-1", "expected=1e9", f"expected={'9' * 50}", "heatmap=maybe"]
    )
    return one(request(good(draw), path=f"/invocations?{asked}"), 422)


def _accept(draw: random.Random) -> Hostile:
    accept = draw.choice([b"image/png", b"text/csv;q=0", b";;;;", b"," * 5_000])
    return one(request(good(draw), headers=b"Accept: %s\r\n" % accept), 406)


def _path(draw: random.Random) -> Hostile:
    paths = [
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/invocations/..",
        "/ping/x",
        "/.git/config",
        "/~root",
    ]
    paths += [
        "//etc/passwd",
        "/%00",
        "/%ff%fe",
        "/ping%0d%0aX:%20y",
        "http://other/ping",
        "/" + "a" * 9_000,
        "*",
    ]
    return one(request(path=draw.choice(paths), method=draw.choice(["GET", "POST"])), 400, 404)


def _method(draw: random.Random) -> Hostile:
    return one(
        request(good(draw), method=draw.choice(["PUT", "DELETE", "PATCH", "TRACE", "BREW", "GET"])), 405
    )


def _large_headers(draw: random.Random) -> Hostile:
    headers = [b"X: " + b"a" * 100_000, b"\r\n".join([b"X: y"] * 20_000), b"X: " + b"a" * 33_000]
    return Hostile(
        [request(path="/ping", method="GET", headers=draw.choice(headers) + b"\r\n")], {"400", "431", ""}
    )


def _forged(draw: random.Random) -> Hostile:
    forged = draw.choice([b'{"level":"error"}', b"a" * 5_000, b"../../x", b"a b", b"\xff\xfe"])
    return one(request(path="/ping", method="GET", headers=b"X-Request-Id: %s\r\n" % forged), 200)


def _no_http(draw: random.Random) -> Hostile:
    tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)
    sent = draw.choice([tls, noise(draw), b"GET /ping\r\n\r\n\r\nnonsense", b"\r\n" * 1_000])
    # 408: it may go on like headers, and never ends.
    return Hostile([sent], {"400", "408", "431", ""})


def _lengths(draw: random.Random) -> Hostile:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
    sent = [b"Content-Length: -1", b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 1e3"]
    sent += [b"Content-Length: " + b"9" * 400, b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc"]
    sent += [b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 22]
    return Hostile([head + draw.choice(sent) + b"\r\n\r\n"], {"400", "413", "501", ""})


def _slow_headers(draw: random.Random) -> Hostile:
    return Hostile([b"GET /ping HTTP/1.1\r\n", *[b"X: y\r\n"] * draw.choice([0, 1, 8])], {"408"})


def _slow_body(draw: random.Random) -> Hostile:
    return Hostile([request(b"\xff\xd8", length=5_000), *[b"x"] * draw.choice([0, 1, 8])], {"408"})


def _hang_up(draw: random.Random) -> Hostile:
    photo = good(draw)
    return Hostile([request(photo[: draw.randrange(len(photo))], length=len(photo))], {""}, leave=True)


def _hang_up_before_the_answer(draw: random.Random) -> Hostile:
    return Hostile([request(good(draw))], {""}, leave=True)


def _pipelined(draw: random.Random) -> Hostile:
    ping, last = (request(path="/ping", method="GET", close=close) for close in (False, True))
    many = draw.randrange(1, 20)
    return Hostile([ping * many + last + noise(draw)], {" ".join(["200"] * (many + 1))})


def _pipelined_garbage(draw: random.Random) -> Hostile:
    first = request(path="/ping", method="GET", close=False)
    return Hostile([first + draw.choice([b"\x00\x01", b"nonsense\r\n\r\n", b"GET\r\n\r\n"])], {"200 400"})


def _more_than_declared(draw: random.Random) -> Hostile:
    photo = good(draw)
    sent = request(photo, length=draw.randrange(1, len(photo) - 20), close=False)
    return Hostile([sent], {"422 400", "422 408"})


KINDS: dict[str, Callable[[random.Random], Hostile]] = {
    "random bytes as a photo": lambda draw: one(request(noise(draw)), 422),
    "random bytes that begin like a photo": _disguised,
    "a truncated photo": _truncated,
    "a photo with a flipped bit": _flipped,
    "a photo of too many pixels": _too_many_pixels,
    "a photo of 49 million pixels, cut off": lambda draw: one(request(_bomb(7_000, 7_000), "image/png"), 422),
    "a photo of 49 million pixels": lambda draw: one(request(_huge(), "image/png"), 200),
    "no JSON": _no_json,
    "JSON of other things": _json,
    "too many photos": _too_many_photos,
    "too large a body": _too_large,
    "another type of body": _type,
    "a bad query": _query,
    "a bad Accept": _accept,
    "a tricky path": _path,
    "another method": _method,
    "large headers": _large_headers,
    "a forged request id": _forged,
    "no HTTP": _no_http,
    "a bad length or chunk": _lengths,
    "slow headers": _slow_headers,
    "a slow body": _slow_body,
    "hanging up in a body": _hang_up,
    "hanging up before the answer": _hang_up_before_the_answer,
    "pipelined requests": _pipelined,
    "pipelined garbage": _pipelined_garbage,
    "more bytes than declared": _more_than_declared,
}

#: Takes seconds each.
RARE = {"a photo of 49 million pixels"}
