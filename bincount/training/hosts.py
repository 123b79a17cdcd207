"""The hosts of one job: they begin together, and what ends one of them ends all, told in the same line.

The first host keeps a store of torch's, which torchrun uses too. Ranks watch over each other by themselves
(:mod:`bincount.training.heartbeat`); this is for what comes before them, and for why they ended.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from bincount.errors import BincountError, Stopped, complaint, exit_code, retold

#: Where the first host listens: torchrun's usual port.
PORT = 29400

#: Seconds in which all hosts must be there: one pulls its image minutes after another.
ARRIVAL = 900.0

#: Seconds between two looks, for one request, and for the other hosts to hear how it ends.
EVERY, REQUEST, GOODBYE = 1.0, 10.0, 10.0

#: Seconds that ranks have to find out by themselves that others are gone, and to tell who, before they are
#: ended from outside. Those that wait for others before the first step would not for half an hour.
GRACE = 20.0


@dataclass(frozen=True)
class Hosts:
    """The names of all hosts, sorted, and which of them this one is. ``job`` is the same on all."""

    names: tuple[str, ...]
    own: str
    job: str

    @property
    def first(self) -> str:
        """The host that has the run folder, and rank 0."""
        return self.names[0]

    @property
    def is_first(self) -> bool:
        return self.own == self.first


class Meeting:
    """Where several hosts meet, as a context. What ends it on one host ends it on all.

    It is left with the error of the host that failed first, whatever this one's own was.
    """

    def __init__(self, hosts: Hosts):
        self.hosts = hosts
        self._over = threading.Event()
        self._heard: BincountError | None = None
        self._watcher = threading.Thread(target=self._watch, name="bincount-hosts", daemon=True)

    def __enter__(self) -> "Meeting":
        if not self.hosts.is_first:
            _wait_for(self.hosts.first)
        store = TCPStore(
            self.hosts.first,
            PORT,
            is_master=self.hosts.is_first,
            timeout=timedelta(seconds=REQUEST),
            wait_for_workers=False,
        )
        self._store = PrefixStore("bincount/hosts", store)
        self._watcher.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        first = self.ended(error) if error else None
        self._over.set()
        with _store_may_be_gone():
            self._store.add("left", 1)
            until = time.monotonic() + GOODBYE
            while self.hosts.is_first and self._store.add("left", 0) < len(self.hosts.names):
                if time.monotonic() > until:
                    break
                time.sleep(EVERY / 10)
        if first:
            raise first from error

    def announce(self, what: dict[str, str | None]) -> None:
        """On the first host: tell the others what to run."""
        self._store.set("announced", json.dumps(what))

    def announced(self) -> dict[str, str | None]:
        """On the others: wait for that. Raises what ended the first host before."""
        while not self._store.check(["announced"]):
            if error := self._told():
                raise error
            time.sleep(EVERY / 10)
        told: dict[str, str | None] = json.loads(self._store.get("announced"))
        return told

    def ended(self, error: BaseException) -> BincountError:
        """Tell the others what ended this host; gives what ended the first of all."""
        mine = retold(complaint(error), exit_code(error))
        told = json.dumps({"host": self.hosts.own, "line": str(mine), "code": mine.exit_code})
        try:
            self._store.compare_set("ended", "", told)
            self._heard = self._told()
        except RuntimeError:  # the store is gone, with the first host
            if self._heard is None and not isinstance(error, Stopped):
                return BincountError(f"{self.hosts.first}, the first host, does not answer: it was killed")
        return self._heard or mine

    def _told(self) -> BincountError | None:
        """What ended the first host that ended, if any did."""
        if not self._store.check(["ended"]):
            return None
        told = json.loads(self._store.get("ended"))
        return retold(told["line"], told["code"])

    def _watch(self) -> None:
        with _store_may_be_gone():
            while not self._over.wait(EVERY):
                if told := self._told():
                    self._heard = told  # the store may be gone when it is to be told
                    if not self._over.wait(GRACE):
                        os.kill(os.getpid(), signal.SIGTERM)
                    return


def _wait_for(host: str) -> None:
    """Wait until the host listens. Raises BincountError."""
    until = time.monotonic() + ARRIVAL
    while True:
        try:
            socket.create_connection((host, PORT), REQUEST).close()
        except OSError as error:
            if time.monotonic() > until:
                raise BincountError(
                    f"{host}, the first host, cannot be reached on port {PORT}: {error.strerror or error}: "
                    "let the hosts of a job reach each other (a security group that allows itself)"
                ) from None
            time.sleep(EVERY)
        else:
            return


@contextlib.contextmanager
def _store_may_be_gone() -> Iterator[None]:
    """Pass over what the store raises where the first host has ended."""
    with contextlib.suppress(RuntimeError):
        yield
