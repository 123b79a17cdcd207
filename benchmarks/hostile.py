"""Hostile requests to `bincount serve`, then good ones: the statuses of each kind, and what memory it holds.

    python benchmarks/hostile.py RUN [--requests 10000] [--workers 1] [--seed 0]

The service is started on this machine's loopback with limits that make slow requests quick (tests/hostile.py
has them, and the kinds). Good requests come first, so that all that is loaded once is loaded; then hostile
ones from 32 clients at a time; then as many good ones. Ends with 1 where a status is none of those that are
right, an answer tells of the inside, a good photo is answered otherwise than before, the log has an error, a
process ended, or memory has grown by more than --more MB from before the hostile requests to the end.
"""

import argparse
import http.client
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import hostile
from making import jpeg

#: Clients at a time, hostile and good.
HOSTILE, GOOD = 32, 8

#: Good requests before the hostile ones.
FIRST = 500

PHOTOS = [jpeg(400, 300, seed=seed) for seed in range(50)]


def events(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def started(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port of the service, once it listens."""
    while process.poll() is None:
        time.sleep(0.2)
        for event in events(log):
            if event["event"] == "listening":
                return int(event["url"].rpartition(":")[2])
    sys.exit(f"the service did not start:\n{log.read_text()[-2000:]}")


_connections = threading.local()


def good(port: int, photo: bytes) -> list[float]:
    """The probabilities of a photo, over a connection that each client keeps."""
    if not hasattr(_connections, "kept"):
        _connections.kept = http.client.HTTPConnection("127.0.0.1", port, timeout=hostile.LONG)
    _connections.kept.request("POST", "/invocations", photo, {"Content-Type": "image/jpeg"})
    answer = _connections.kept.getresponse()
    told = answer.read()
    assert answer.status == 200, told
    return list(json.loads(told)["answers"][0]["probabilities"].values())


def all_good(port: int, requests: int) -> dict[int, list[float]]:
    """What was told of each photo; of all askings the same, but for the last digits."""
    found: dict[int, list[float]] = {}
    places = [n % len(PHOTOS) for n in range(requests)]
    with ThreadPoolExecutor(GOOD) as pool:
        told = pool.map(lambda place: good(port, PHOTOS[place]), places)
        for place, shares in zip(places, told, strict=True):
            first = found.setdefault(place, shares)
            assert apart(first, shares) < 1e-4, f"photo {place}: {first} and {shares}"
    return found


def apart(a: list[float], b: list[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def all_hostile(port: int, pid: int, requests: int, seed: int) -> list[str]:
    """Prints the statuses of each kind, and the memory on the way; what was wrong."""
    draw = random.Random(seed)
    statuses: dict[str, Counter[str]] = defaultdict(Counter)
    wrong: list[str] = []
    with ThreadPoolExecutor(HOSTILE) as pool:
        for begin in range(0, requests, 1000):
            part = [hostile.drawn(draw) for _ in range(min(1000, requests - begin))]
            answers = pool.map(lambda each: hostile.ask(port, each[1]), part)
            for (kind, each), (status, answer) in zip(part, answers, strict=True):
                statuses[kind][status or "closed"] += 1
                if line := hostile.wrong(each, status, answer):
                    wrong.append(f"{kind}: {line}")
            print(
                f"  after {begin + len(part):,} hostile requests: {hostile.memory(pid):,.0f} MB", flush=True
            )
    print(f"\n{'kind':<40} requests  statuses")
    for kind in hostile.KINDS:
        found = Counter({short(status): 0 for status in statuses[kind]})
        for status, many in statuses[kind].items():
            found[short(status)] += many
        told = ", ".join(f"{status}: {many:,}" for status, many in sorted(found.items()))
        print(f"{kind:<40} {statuses[kind].total():8,}  {told}")
    return wrong


def short(statuses: str) -> str:
    """200 200 200 as 200 …"""
    parts = statuses.split()
    return f"{parts[0]} …" if len(parts) > 1 and len(set(parts)) == 1 else statuses


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--more", type=float, default=100)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    words = [f"run={given.run}", "serve.port=0", f"serve.workers={given.workers}", *hostile.LIMITS]
    words.append("serve.threads=1")  # which is fastest for a small model
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as out:
            command = [sys.executable, "-m", "bincount", "serve", *words]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=out)
        try:
            wrong = measured(started(process, log), process, given)
        finally:
            process.terminate()
            try:
                code = process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        errors = [event for event in events(log) if event["level"] == "error"]
    wrong += [f"the service ended with {code}"] if code else []
    wrong += [f"logged: {event}" for event in errors]
    for line in wrong[:20]:
        print(f"wrong: {line}")
    print(f"{len(wrong):,} wrong")
    sys.exit(bool(wrong))


def measured(port: int, process: subprocess.Popen[bytes], given: argparse.Namespace) -> list[str]:
    pid, start = process.pid, time.monotonic()
    first = all_good(port, FIRST)
    before = hostile.memory(pid)
    print(f"memory after {FIRST:,} good requests: {before:,.0f} MB")
    wrong = all_hostile(port, pid, given.requests, given.seed)
    after = hostile.memory(pid)
    last = all_good(port, given.requests)
    end = hostile.memory(pid)
    difference = max(apart(first[place], last[place]) for place in last)
    print(
        f"\nmemory: {before:,.0f} MB before, {after:,.0f} MB after the hostile ones, {end:,.0f} MB at the end"
    )
    print(f"{given.requests:,} good ones after them: all answered, probabilities differ by {difference:.0e}")
    print(f"{time.monotonic() - start:,.0f} s")
    if difference > 1e-4:
        wrong.append(f"a probability differs by {difference}")
    if max(after, end) - before > given.more:
        wrong.append(f"memory has grown by {max(after, end) - before:,.0f} MB")
    return wrong


if __name__ == "__main__":
    main()
