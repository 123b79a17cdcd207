"""Ranks that watch over each other, so that a dead or stalled one ends the others and is named.

Each rank tells through torchrun's TCPStore, once a second, that it lives and how far it has come, and looks
at the next rank, in a ring: as long as one rank lives, the dead one that follows it is found. That takes a
few small requests a second and no collective, which a dead rank would hang.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import lightning as L
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from bincount.errors import BincountError

log = logging.getLogger(__name__)

#: Seconds between two beats, for one request, and without any beat until a rank is given up.
EVERY, REQUEST, SILENT = 1.0, 10.0, 20.0

#: Added to what a rank tells that is at its end: it keeps nobody waiting.
ENDED = 1 << 40

#: Seconds that the others have to read why they end, and that ranks have to stop once torchrun is gone.
LAST_WORDS, ALONE = 2.0, 30.0


class Beat(NamedTuple):
    """What a rank tells: the number of the beat, how many collectives it came to, its machine and process."""

    number: int
    passed: int
    machine: str
    pid: int = 0


class Watch:
    """What one rank knows of another, and when it gives it up.

    ``stalled_after``: seconds that it waits in a collective for one that lives and does not come.
    """

    def __init__(self, stalled_after: float, now: float):
        self._stalled_after = stalled_after
        self._beat: Beat | None = None
        self._passed = 0
        self._alive = self._moved = now

    def problem(self, beat: Beat | None, passed: int, now: float) -> str | None:
        """What is wrong with the other rank after one more look; ``passed`` is how far this one has come."""
        before = self._beat
        if beat != before:
            self._alive = now
        if beat is None or before is None or (beat.passed, passed) != (before.passed, self._passed):
            self._moved = now
        self._beat, self._passed = beat, passed
        if now - self._alive > SILENT:
            return f"has not answered for {now - self._alive:.0f} s: it was killed or stopped, or hangs"
        lives = now - self._alive < 3 * EVERY
        if lives and beat and beat.passed < passed and now - self._moved > self._stalled_after:
            return f"lives, but the others have waited for it for {now - self._moved:.0f} s"
        return None


class Heartbeat(L.Callback):
    """A thread that beats for this rank and watches over the next one. What ranks warn of, rank 0 logs.

    ``lost`` is called once torchrun is gone, or its store cannot be reached; ``ending`` with why this process
    ends, right before it does.
    """

    def __init__(
        self, stalled_after: float, lost: Callable[[], None], ending: Callable[[BincountError], object]
    ):
        self._stalled_after, self._lost, self._ending = stalled_after, lost, ending
        self._parent = os.getppid()
        self._passed = 0
        self._at_end = False
        self._heard = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bincount-heartbeat", daemon=True)
        self._voice = _Voice(self._say)

    def passed(self) -> None:
        """This rank has come to a collective, in which it may have to wait for others."""
        self._passed += 1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # By now torch's process group is there.
        self._rank, self._ranks = trainer.global_rank, trainer.world_size
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, None, False, timedelta(seconds=REQUEST))
        # A group that torchrun restarts finds nothing of the one before.
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = PrefixStore(f"bincount/{start}", store)
        self._thread.start()
        if self._rank:
            logging.getLogger("bincount").addHandler(self._voice)

    def close(self) -> None:
        """End, when all ranks have come to their ends."""
        logging.getLogger("bincount").removeHandler(self._voice)
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
            self._listen()

    def silent(self) -> str | None:
        """The other ranks that do not beat any more, in words; None if all do. Takes some seconds."""
        if not self._thread.is_alive():
            return None
        others = [rank for rank in range(self._ranks) if rank != self._rank]
        self._at_end = True
        try:
            before = {rank: self._beat(rank) for rank in others}
            time.sleep(4 * EVERY)
            dead = [_named(rank, before[rank]) for rank in others if self._beat(rank) == before[rank]]
        except RuntimeError:  # of the store
            return "torchrun, which started the ranks,"
        return ", ".join(dead) or None

    def _say(self, line: str) -> None:
        """Let rank 0 log a line."""
        self._store.set(f"said/{self._store.add('said', 1)}", f"rank {self._rank}: {line}")

    def _run(self) -> None:
        try:
            self._watch()
        except RuntimeError:  # the store's is one of several kinds of it
            log.warning("torchrun, which started the ranks, cannot be reached any more")
            self._lost()
            if not self._over.wait(ALONE):
                self._end("torchrun is gone, and the other ranks did not come along to stop together")

    def _watch(self) -> None:
        following = (self._rank + 1) % self._ranks
        watch, number = Watch(self._stalled_after, time.monotonic()), 0
        while not self._over.wait(EVERY):
            if os.getppid() != self._parent:  # where rank 0 has the store itself, that lives on
                raise RuntimeError("torchrun is gone")
            number, passed = number + 1, self._passed
            told = passed + (ENDED if self._at_end else 0)
            self._store.set(f"beat/{self._rank}", f"{number} {told} {socket.gethostname()} {os.getpid()}")
            self._listen()
            if self._store.check(["failed"]):
                self._end(self._store.get("failed").decode())
            beat = self._beat(following)
            if problem := watch.problem(beat, passed, time.monotonic()):
                reason = f"{_named(following, beat)} {problem}"
                self._store.set("failed", reason)
                self._over.wait(LAST_WORDS)
                if beat:
                    kill_beside(beat, self._parent)
                self._end(reason)

    def _beat(self, rank: int) -> Beat | None:
        key = f"beat/{rank}"
        if not self._store.check([key]):
            return None
        number, passed, machine, pid = self._store.get(key).decode().split()
        return Beat(int(number), int(passed), machine, int(pid))

    def _listen(self) -> None:
        """On rank 0, log what the others said."""
        if self._rank == 0:
            said = self._store.add("said", 0)
            for number in range(self._heard + 1, said + 1):
                log.warning("%s", self._store.get(f"said/{number}").decode())
            self._heard = said

    def _end(self, reason: str) -> None:
        if not self._over.is_set():
            self._ending(BincountError(reason))
            for worker in multiprocessing.active_children():
                worker.kill()
            # The main thread hangs in a collective, which nothing in this process can end.
            os._exit(1)


class _Voice(logging.Handler):
    """Hands warnings on."""

    def __init__(self, say: Callable[[str], None]):
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._say(record.getMessage())
        except RuntimeError:  # the store is gone
            print(record.getMessage(), file=sys.stderr, flush=True)


def kill_beside(beat: Beat, parent: int) -> None:
    """Kill a rank that was given up, where ``parent``, a torchrun on this machine, started it.

    One that is stopped heeds no SIGTERM, and torchrun would wait for it for half a minute.
    """
    if beat.machine == socket.gethostname() and _parent_of(beat.pid) == parent:
        with contextlib.suppress(ProcessLookupError):
            os.kill(beat.pid, signal.SIGKILL)


def _parent_of(pid: int) -> int | None:
    """The process that started another one; None where there is none any more, or no /proc that tells."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:")), None)


def _named(rank: int, beat: Beat | None) -> str:
    return f"rank {rank} on {beat.machine}" if beat else f"rank {rank}"
