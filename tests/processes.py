"""A real `bincount train` with its ranks and workers, which tests signal, stop and kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from trouble import wait_until


class Process(NamedTuple):
    """A line of the system's table of processes."""

    pid: int
    parent: int
    state: str
    command: str


def table() -> dict[int, Process]:
    """All processes that there are."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            found[int(path.name)] = Process(int(path.name), int(parent), state, command)
    return found


class Training:
    """`bincount train WORDS`, running in ``folder``."""

    def __init__(self, folder: Path, words: list[str], command: list[str] | None = None):
        self.folder = folder
        self._out = folder / "output.txt"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "BINCOUNT_RUN_ID": "run"}
        with self._out.open("w") as out:
            self.main = subprocess.Popen(
                command or [sys.executable, "-m", "bincount", "train", *words, "runs=runs"],
                cwd=folder,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started: set[int] = {self.main.pid}

    @property
    def run(self) -> Path:
        return self.folder / "runs/default/run"

    @property
    def told(self) -> str:
        """What it has printed."""
        return self._out.read_text()

    @property
    def log(self) -> list[str]:
        """The lines of log.txt, without time and level."""
        lines = (self.run / "log.txt").read_text().splitlines()
        return [line.split(" ", 3)[3] for line in lines]

    def family(self) -> list[Process]:
        """All processes that it started and that run, itself first."""
        processes = table()
        found = [self.main.pid]
        for pid in found:
            found += [each.pid for each in processes.values() if each.parent == pid]
        self._started |= set(found)
        return [processes[pid] for pid in found if pid in processes]

    def ranks(self) -> list[int]:
        """The pids of the ranks, in turn."""
        return [each.pid for each in self.family() if each.parent == self.main.pid]

    def workers(self, rank: int) -> list[int]:
        """The pids of a rank's loader workers."""
        return [each.pid for each in self.family() if each.parent == self.ranks()[rank]]

    def wait_for(self, holds: Callable[[], bool], seconds: float = 90) -> None:
        """Wait for something while it trains."""

        def held() -> bool:
            self.family()
            assert self.main.poll() is None, self.told
            return holds()

        wait_until(held, seconds)

    def wait_for_steps(self, saved: int = 1) -> None:
        """Wait until checkpoints were saved, the last ``saved`` times."""
        seen: set[int] = set()

        def saved_often() -> bool:
            with suppress(OSError):
                seen.add((self.run / "checkpoints/last.ckpt").stat().st_mtime_ns)
            return len(seen) >= saved

        self.wait_for(saved_often)

    def end(self, seconds: float = 60) -> tuple[int, float]:
        """Wait for its end; gives the exit code, and the seconds until all that it started was gone."""
        start = time.monotonic()
        code = self.main.wait(seconds)
        wait_until(lambda: not self.left(), 30)
        return code, time.monotonic() - start

    def left(self) -> list[Process]:
        """Those of its processes that still run."""
        self._started |= {each.pid for each in self.family()}
        return [each for pid, each in table().items() if pid in self._started and each.state != "Z"]

    def kill(self) -> None:
        """Leave nothing behind, whatever went wrong."""
        for each in self.left():
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
        self.main.wait()


@contextmanager
def training(folder: Path, *words: str, command: list[str] | None = None) -> Iterator[Training]:
    """Starts it, and ends it if it is still there."""
    started = Training(folder, list(words), command)
    try:
        yield started
    finally:
        started.kill()


@contextmanager
def held_elsewhere(lock: Path) -> Iterator[None]:
    """Another process keeps the lock (`storage.alone`) meanwhile."""
    hold = "import sys, pathlib, bincount.storage as s\nwith s.alone(pathlib.Path(sys.argv[1]), ''):\n"
    hold += "    print('held', flush=True)\n    sys.stdin.read()"
    words = [sys.executable, "-c", hold, str(lock)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.stdin.close()
