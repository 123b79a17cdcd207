"""Signals that ask a run to stop: between two steps while it trains, at once while it does anything else."""

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import lightning as L

from bincount.errors import Stopped

#: From the system or a spot interruption, from the keyboard, and from a terminal that was closed.
HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: A keyboard interrupt this many seconds after the first is of someone who will not wait.
IMPATIENT = 2.0


class Signals:
    """What this process was asked: as a context it raises Stopped; within ``noted()`` it only notes it."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        """The first signal that was noted."""
        self._noting = False
        self._at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Signals":
        self._before = {each: signal.getsignal(each) for each in HEEDED}
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def install(self) -> None:
        """Handle the signals, also where something else took them over since."""
        for each in HEEDED:
            signal.signal(each, self._heed)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Leave it to who asks for :attr:`received` to stop."""
        self._noting = True
        try:
            yield
        finally:
            self._noting = False

    def note(self, received: signal.Signals) -> None:
        """Note a signal, or what is as good as one."""
        if self.received is None:
            self.received, self._at = received, time.monotonic()

    def _heed(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if not self._noting:
            raise Stopped(received)
        if self.received and received is signal.SIGINT and time.monotonic() - self._at > IMPATIENT:
            raise KeyboardInterrupt
        self.note(received)


def leave_signals_alone(trainer: L.Trainer) -> None:
    """Keep Lightning 2.6 from handling SIGTERM.

    It broadcasts within its handler and before each batch: with a signal to one rank all hang.
    """
    connector, loop = trainer._signal_connector, trainer.fit_loop.epoch_loop
    connector.register_signal_handlers = _do_nothing  # type: ignore[method-assign]
    loop._broadcast_sigterm_tensor = _do_nothing  # type: ignore[method-assign]


def _do_nothing() -> None:
    pass
