"""Photos a second, and how long answers take: `bincount serve` beside a plain handler, and beside LitServe.

    python benchmarks/serving.py RUN PHOTOS [--ways bincount plain litserve] [--clients 1 8 64] [--rounds 9]

PHOTOS: a folder. A way is a name and its settings, so that settings are compared like this:

    --ways bincount plain bincount:wait_ms=0 bincount:batch_size=8,threads=1 bincount:onnx=counter.onnx

- `bincount`: `bincount serve`, with any keys of `serve`.
- `plain`: a FastAPI handler as most are written: `def`, so FastAPI calls it in its pool of 40 threads, and
  each photo is counted by itself. The same uvicorn, decoding and model in inference mode; writes no log.
  `threads=1`: each of these threads computes with one, which several photos at once may like better.
- `litserve`: LitServe with batching, one worker, `batch_size` and `wait_ms` as `bincount serve` has them
  unless said. Left out where it is not installed (`pip install --target FOLDER litserve`, and FOLDER in
  PYTHONPATH).

All run on the same cores (--cores), with one thread a core unless said, and answer the same photos: what they
tell of some is compared first. Clients are in one process of their own; each has a connection that it keeps,
and asks for the next photo as soon as it was answered. Ways take turns of --seconds, with all others idle, in
an order that turns from round to round, so that what else happens on the machine falls on all alike. A turn
ends with its last answer; the first round warms up.

Times: by how much a way is faster than `plain` (or the first way), the median over rounds of the ratio within
a round, with the lowest and the highest. p50 and p99 are over all answers of all turns.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import itertools
import json
import multiprocessing
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

#: Photos that clients ask about, at the most, and of how many the answers are compared.
PHOTOS, COMPARED = 200, 8

#: By how much a probability may differ from way to way.
TOLERANCE = 1e-3

#: Seconds for a service to start.
STARTING = 180.0


@dataclass(frozen=True)
class Way:
    """A kind of service, and its settings as they were typed."""

    name: str
    settings: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        settings = ",".join(f"{key}={value}" for key, value in self.settings)
        return f"{self.name}:{settings}" if settings else self.name


def way(text: str) -> Way:
    name, _, settings = text.partition(":")
    if name not in ("bincount", "plain", "litserve"):
        raise argparse.ArgumentTypeError(f"{name}: there is no such way; there are bincount, plain, litserve")
    pairs = [each.partition("=") for each in settings.split(",") if each]
    return Way(name, tuple((key, value) for key, _, value in pairs))


# --- the services -------------------------------------------------------------------------------------


def command(way: Way, run: Path, port: int, cores: int) -> list[str]:
    settings = {"threads": str(cores), **dict(way.settings)}
    if way.name == "bincount":
        words = [f"serve.{key}={value}" for key, value in settings.items()]
        return [sys.executable, "-m", "bincount", "serve", f"run={run}", f"serve.port={port}", *words]
    if way.name == "litserve":
        settings = {"batch_size": "32", "wait_ms": "5", **settings}
    program = Path(__file__).with_name(f"serving_{way.name}.py")
    return [sys.executable, str(program), str(run), str(port), json.dumps(settings)]


@contextlib.contextmanager
def started(way: Way, run: Path, cores: int, photo: bytes, log: Path) -> Iterator[int]:
    """The port of a service that answers; it and all that it started are ended at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with log.open("w") as out:
        process = subprocess.Popen(
            command(way, run, port, cores), stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        until = time.monotonic() + STARTING
        while not answers(port, photo):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{way} does not serve:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield port
    finally:
        for sent in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def answers(port: int, photo: bytes) -> dict[str, float]:
    """The probabilities of a photo; none where nobody answers yet."""
    with contextlib.suppress(OSError):
        load = asyncio.run(asked(port, [photo], clients=1, most=1))
        if load.bodies and not load.failed:
            found: dict[str, float] = json.loads(load.bodies[0])["answers"][0]["probabilities"]
            return found
    return {}


# --- the clients --------------------------------------------------------------------------------------


@dataclass
class Load:
    """What came of a turn: how long each answer took and the turn as a whole, in seconds."""

    took: list[float] = field(default_factory=list)
    seconds: float = 0.0
    failed: int = 0
    bodies: list[bytes] = field(default_factory=list)


class _Client(asyncio.Protocol):
    """One connection that asks for one photo after the other. Not a client library, which would cost more."""

    def __init__(self, photos: Iterator[bytes], load: Load, until: list[float], keep: bool):
        self._photos, self._load, self._until, self._keep = photos, load, until, keep
        self._got, self._start = b"", 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def ask(self) -> None:
        """Ask for the next photo, where there is time and a photo."""
        photo = next(self._photos, None) if time.perf_counter() < self._until[0] else None
        if photo is None:
            self._transport.close()
            return
        self._start, self._got = time.perf_counter(), b""
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
        self._transport.write(b"%sContent-Length: %d\r\n\r\n%s" % (head, len(photo), photo))

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split()[0]):
            return
        self._load.took.append(time.perf_counter() - self._start)
        self._load.failed += not head.startswith(b"HTTP/1.1 200")
        if self._keep:
            self._load.bodies.append(body)
        self._got = b""
        self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._load.failed += error is not None
        if not self.done.done():
            self.done.set_result(None)


async def asked(
    port: int, photos: list[bytes], clients: int, seconds: float = 1e9, most: int | None = None
) -> Load:
    """Ask for so many seconds, or for ``most`` photos, with so many clients at a time."""
    loop, load, until = asyncio.get_running_loop(), Load(), [0.0]
    coming = itertools.islice(itertools.cycle(photos), most)
    made = []
    for _ in range(clients):
        client = _Client(coming, load, until, keep=most is not None)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
        made.append(client)
    start = time.perf_counter()
    until[0] = start + seconds
    for each in made:
        each.ask()
    await asyncio.gather(*(each.done for each in made))
    load.seconds = time.perf_counter() - start
    return load


def turn(port: int, clients: int, seconds: float) -> Load:
    """A turn, in the clients' process."""
    return asyncio.run(asked(port, _photos, clients, seconds))


def take(photos: list[bytes]) -> None:
    """Keep the photos of all turns, in the clients' process."""
    _photos.extend(photos)


_photos: list[bytes] = []


# --- the measurement ----------------------------------------------------------------------------------


def compared(ports: dict[Way, int], photos: list[bytes]) -> float:
    """By how much the services' answers differ at the most; ends where that is too much."""
    told = {way: [list(answers(port, photo).values()) for photo in photos] for way, port in ports.items()}
    first = np.array(next(iter(told.values())))
    apart = max(float(np.abs(np.array(each) - first).max()) for each in told.values())
    if not apart < TOLERANCE:
        sys.exit(f"the services do not tell the same: a probability differs by {apart:.2g}")
    return apart


def measured(
    ports: dict[Way, int], clients: int, rounds: int, seconds: float, pool: ProcessPoolExecutor
) -> dict[Way, list[Load]]:
    """The turns of each way, without the first."""
    found: dict[Way, list[Load]] = {way: [] for way in ports}
    order = list(ports)
    for number in range(rounds + 1):
        for each in order:
            load = pool.submit(turn, ports[each], clients, seconds).result()
            if number:
                found[each].append(load)
        order = [*order[1:], order[0]]
    return found


def speed(load: Load) -> float:
    return (len(load.took) - load.failed) / load.seconds


def table(clients: int, found: dict[Way, list[Load]]) -> None:
    beside = next((way for way in found if str(way) == "plain"), next(iter(found)))
    print(f"\n{clients} client{'s' if clients > 1 else ''}")
    print(f"  {'':<34} photos/s   times {beside!s:<12}    p50 ms    p99 ms  answers  failed")
    for each, loads in found.items():
        times = [speed(a) / speed(b) for a, b in zip(loads, found[beside], strict=True)]
        took = np.concatenate([load.took for load in loads]) * 1000
        ratio = f"{statistics.median(times):5.2f} ({min(times):.2f} to {max(times):.2f})"
        p50, p99 = np.percentile(took, [50, 99])
        failed = sum(load.failed for load in loads)
        print(
            f"  {each!s:<34} {statistics.median(map(speed, loads)):8.1f}   {ratio:<20} "
            f"{p50:9.0f} {p99:9.0f} {len(took):8,} {failed:7,}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("photos", type=Path)
    usual = [way("bincount"), way("plain"), way("litserve")]
    parser.add_argument("--ways", type=way, nargs="+", default=usual)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--cores", type=int, default=2)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    ways = given.ways
    if importlib.util.find_spec("litserve") is None and any(each.name == "litserve" for each in ways):
        print("litserve is not installed: left out")
        ways = [each for each in ways if each.name != "litserve"]
    paths = sorted(path for path in given.photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    random.Random(0).shuffle(paths)
    photos = [path.read_bytes() for path in paths[:PHOTOS]]
    size = sum(map(len, photos)) / len(photos) / 1000
    print(f"{given.run}, {len(photos)} photos of {size:.0f} kB, {given.cores} cores,", end=" ")
    print(f"{given.rounds} rounds of {given.seconds:g} s")
    spawn = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = {
            each: stack.enter_context(started(each, given.run, given.cores, photos[0], logs / f"{n}.log"))
            for n, each in enumerate(ways)
        }
        print(f"the answers differ by {compared(ports, photos[:COMPARED]):.1e} at the most")
        pool = stack.enter_context(ProcessPoolExecutor(1, spawn, take, (photos,)))
        for clients in given.clients:
            table(clients, measured(ports, clients, given.rounds, given.seconds, pool))


if __name__ == "__main__":
    main()
