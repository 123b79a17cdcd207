"""The processes that serve: one, or several on the same port, and how they end."""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

import uvicorn

from bincount import machine, progress
from bincount.config import Serve
from bincount.errors import BadInput, BincountError
from bincount.serving.logs import log_as_json, tell
from bincount.serving.metrics import SHARED

#: Bytes of a block in which Pillow holds pixels. glibc gives more than 32 MB back as soon as it is freed; of
#: Pillow's own 16 MB it keeps hundreds of MB for good, once many have sent photos of 50 million pixels.
BLOCK = 64 << 20

#: Connections of a process; more are answered 503.
MOST_CONNECTIONS = 1000

#: Seconds for which an idle connection stays: longer than load balancers keep theirs.
IDLE = 65

#: Seconds for which a service that has nothing left to do still says so, to clients that come meanwhile.
LINGER = 0.5

#: Workers that may end by themselves in so many seconds, before it is given up.
DEATHS, WITHIN = 5, 60.0


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, for one process or several. Raises BadInput where that cannot be."""
    listening = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With the protocol told asyncio sends at once; else an answer waits 40 ms for the asker's receipt.
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        if listening is not None:
            listening.close()
        told = error.strerror or str(error)
        raise BadInput(f"serve.host={host} serve.port={port}: cannot listen there: {told}") from None
    listening.listen(2048)
    listening.setblocking(False)
    return listening


def serve(folder: Path, limits: Serve, decoding: str | None, listening: socket.socket) -> None:
    """Serve the run until a signal, and then until what was accepted is answered."""
    log_as_json()
    host, port = listening.getsockname()[:2]
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def ready() -> None:
        tell(logging.INFO, "listening", url=where, run=str(folder), workers=limits.workers, pid=os.getpid())

    progress.out.print(f"serving {folder} at {where}; Ctrl-C ends it", soft_wrap=True)
    if limits.workers == 1:
        _one(folder, limits, decoding, listening, ready)
    else:
        _several(folder, limits, decoding, listening, ready)


class _Server(uvicorn.Server):
    """Ends by draining: a first signal lets accepted requests be answered, a further Ctrl-C ends at once.

    Ctrl-C reaches workers from the terminal, and then as SIGTERM from their parent, which must not hurry.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], "asyncio.Future[None]"], grace: float):
        super().__init__(config)
        self._drain, self._grace = drain, grace
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does; until a signal."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came; it is not raised again at the end, as it did what it was sent for."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._end, sig)

    def _end(self, sig: int) -> None:
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drained())
        elif sig == signal.SIGINT:
            self.should_exit = self.force_exit = True

    async def _drained(self) -> None:
        tell(logging.INFO, "ending", grace=self._grace, pid=os.getpid())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                await self._drain()
                await asyncio.sleep(LINGER)
        self.should_exit = True


def _one(
    folder: Path, limits: Serve, decoding: str | None, listening: socket.socket, ready: Callable[[], None]
) -> None:
    from PIL import Image

    from bincount.serving.app import build
    from bincount.serving.connection import limited
    from bincount.serving.service import open_service
    from bincount.serving.watching import MOST_HEADERS

    Image.core.set_block_size(BLOCK)  # type: ignore[attr-defined]  # documented, and not typed
    service = open_service(folder, limits, decoding)
    config = uvicorn.Config(
        build(service),
        http=limited(limits.body_timeout),
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=MOST_HEADERS,
    )
    server = _Server(config, lambda: asyncio.ensure_future(service.drain()), limits.grace)
    ready()
    server.run(sockets=[listening])
    tell(logging.INFO, "ended", pid=os.getpid())
    if service.left_working:  # Python would wait for its thread
        os._exit(1)


# --- several workers ----------------------------------------------------------------------------------


def _several(
    folder: Path, limits: Serve, decoding: str | None, listening: socket.socket, ready: Callable[[], None]
) -> None:
    with tempfile.TemporaryDirectory(prefix="bincount-metrics-") as shared:
        os.environ[SHARED] = shared
        ending: list[int] = []
        before = {each: signal.signal(each, lambda sig, _: ending.append(sig)) for each in _ENDING}
        context = multiprocessing.get_context("spawn")

        def start() -> BaseProcess:
            worker = context.Process(
                target=_worker, args=(folder, limits, decoding, listening, os.getpid()), name="worker"
            )
            worker.start()
            return worker

        workers = [start() for _ in range(limits.workers)]
        ready()
        try:
            _supervise(workers, start, ending)
        finally:
            for each in workers:
                each.terminate()
            until = time.monotonic() + limits.grace + 5
            for each in workers:
                each.join(max(0.0, until - time.monotonic()))
                each.kill()
                each.join()
            for each_signal, handler in before.items():
                signal.signal(each_signal, handler)
            del os.environ[SHARED]


_ENDING = (signal.SIGTERM, signal.SIGINT)


def _supervise(workers: list[BaseProcess], start: Callable[[], BaseProcess], ending: list[int]) -> None:
    """Replace workers that end by themselves, until a signal came. Raises BincountError if many do."""
    from prometheus_client.multiprocess import mark_process_dead

    deaths: list[float] = []
    while not ending:
        time.sleep(0.1)
        for place, worker in enumerate(workers):
            if worker.is_alive() or ending:
                continue
            tell(logging.ERROR, "a worker ended by itself", pid=worker.pid, exit_code=worker.exitcode)
            mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
            deaths = [each for each in deaths if time.monotonic() - each < WITHIN] + [time.monotonic()]
            if len(deaths) >= DEATHS:
                raise BincountError(f"{DEATHS} workers ended by themselves within {WITHIN:g} seconds")
            workers[place] = start()


def _worker(folder: Path, limits: Serve, decoding: str | None, listening: socket.socket, parent: int) -> None:
    log_as_json()
    machine.end_without(parent)
    _one(folder, limits, decoding, listening, lambda: tell(logging.INFO, "worker", pid=os.getpid()))
