"""Trials, wherever they run; and on this machine: each is a command of its own, and takes no other along when
it fails.
"""

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bincount import machine
from bincount.errors import BincountError
from bincount.study import Trial

log = logging.getLogger(__name__)

#: What a trial prints, in its folder.
OUTPUT = Path("output.txt")

#: Seconds that a trial has to save itself and end, and between two looks at one.
SAVING, LOOK = 90.0, 0.1


@dataclass
class Running:
    """A trial that runs in the ``slot``, since ``start``; it prints from ``offset`` of its output on."""

    trial: Trial
    slot: int
    offset: int
    process: "subprocess.Popen[bytes]"
    start: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long the trial has taken, in this start of the sweep and before."""
        return self.trial.seconds + time.monotonic() - self.start


@dataclass(frozen=True)
class Ended:
    """A trial that ended with ``code``, and the last line it said; one that was ``stopped`` can go on."""

    trial: Trial
    seconds: float
    code: int
    said: str

    @property
    def stopped(self) -> bool:
        asked = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        return self.code in {code for each in asked for code in (-each, 128 + each)}


class Runner(Protocol):
    """What runs trials, some at the same time."""

    @property
    def running(self) -> Sequence[object]:
        """Those that run now."""

    @property
    def free(self) -> bool:
        """Whether one more trial can start."""

    def settle(self, trials: Sequence[Trial]) -> None:
        """Wait until ``trials``, which a sweep before had begun, can be started."""

    def start(self, trial: Trial) -> None:
        """Start a trial, or go on with it where it has begun."""

    def ended(self) -> list[Ended]:
        """The trials that have ended since the last look."""

    def stop(self, received: signal.Signals) -> list[Ended]:
        """Let go of all trials, so that they can be gone on with."""

    def kill(self) -> None:
        """Leave nothing behind on this machine, whatever went wrong."""


class Here:
    """Runs the ``command`` of each trial, in the folder ``where``, as many at a time as there are ``slots``.

    A slot is what the environment of its trials has beside ours. What a trial prints is kept in a folder of
    its own below ``folder``, which ``BINCOUNT_RUN_ID`` names to it.
    """

    def __init__(
        self,
        folder: Path,
        command: Callable[[Trial], list[str]],
        slots: Sequence[dict[str, str]],
        where: Path,
    ):
        self._folder, self._command, self._slots, self._where = folder.resolve(), command, slots, where
        self.running: list[Running] = []

    @property
    def free(self) -> bool:
        """Whether one more trial can start."""
        return len(self.running) < len(self._slots)

    def settle(self, trials: Sequence[Trial]) -> None:
        """Wait for what a killed sweep left of its trials: they notice, save themselves and end.

        Raises BincountError where one does not.
        """
        until = time.monotonic() + SAVING
        for trial in trials:
            told = False
            while _in_use(self._folder / trial.name / OUTPUT):
                if time.monotonic() > until:
                    raise BincountError(
                        f"trial {trial.name} still runs since the sweep was killed: end it first"
                    )
                if not told:
                    log.info("trial %s saves itself since the sweep was killed: waiting for it", trial.name)
                told = True
                time.sleep(LOOK)

    def start(self, trial: Trial) -> None:
        """Start a trial."""
        folder = self._folder / trial.name
        folder.mkdir(exist_ok=True)
        slot = min(set(range(len(self._slots))) - {each.slot for each in self.running})
        told = {"BINCOUNT_RUN_ID": str(folder), machine.PARENT: str(os.getpid())}
        with (folder / OUTPUT).open("ab") as output:
            fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as long as a process of the trial lives
            offset = output.seek(0, os.SEEK_END)
            process = subprocess.Popen(
                self._command(trial),
                cwd=self._where,
                env={**os.environ, **self._slots[slot], **told},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal signals us, and we pass it on
            )
        self.running.append(Running(trial, slot, offset, process))

    def ended(self) -> list[Ended]:
        """The trials that have ended since the last look."""
        found = [each for each in self.running if each.process.poll() is not None]
        self.running = [each for each in self.running if each not in found]
        return [self._end(each) for each in found]

    def stop(self, received: signal.Signals) -> list[Ended]:
        """Ask all trials to stop, and wait until they have saved themselves."""
        for each in self.running:
            each.process.send_signal(received)
        until = time.monotonic() + SAVING
        found = self.ended()
        while self.running and time.monotonic() < until:
            time.sleep(LOOK)
            found += self.ended()
        return found

    def kill(self) -> None:
        """Leave no process behind, whatever went wrong."""
        for each in self.running:
            _kill_group(each.process)
            each.process.wait()
        self.running = []

    def _end(self, running: Running) -> Ended:
        _kill_group(running.process)  # what it left behind
        code = running.process.returncode
        with (self._folder / running.trial.name / OUTPUT).open("rb") as output:
            output.seek(running.offset)
            lines = [line for line in output.read().decode(errors="replace").splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if line.startswith("bincount: ")), None)
        said = said or (lines[-1] if lines else "it said nothing")
        said = said.removeprefix("bincount: ").strip()[:300]
        if code < 0:
            said = f"killed by {signal.Signals(-code).name}"
        return Ended(running.trial, running.seconds, code, said)


def slots(jobs: int, devices: int, gpus: Sequence[str] | None) -> list[dict[str, str]]:
    """What tells the trials of each slot their share of the machine: ``devices`` of the ``gpus``, or cores.

    ``gpus`` None: they train on the CPU.
    """
    found: list[dict[str, str]] = []
    for slot in range(jobs):
        share: dict[str, str] = {}
        if jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
            share["OMP_NUM_THREADS"] = str(max(1, machine.processors() // (jobs * devices)))
        if gpus is not None:
            share["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[slot * devices : (slot + 1) * devices])
        found.append(share)
    return found


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _in_use(output: Path) -> bool:
    """Whether a process of an earlier start has this for its output."""
    try:
        with output.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:  # it never started
        return False
    return False
