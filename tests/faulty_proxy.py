"""A proxy before an S3 server that injects faults, the same ones for the same requests each time."""

import asyncio
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

#: kind: (status, code) of the errors that the proxy answers itself, without asking the server
ERRORS = {
    "503": ("503 Service Unavailable", "SlowDown"),
    "500": ("500 Internal Server Error", "InternalError"),
    "denied": ("403 Forbidden", "AccessDenied"),
}
#: Every kind of fault: the errors; a reset of the connection instead of asking the server; and, after asking,
#: half of the answer's body and then a reset, or an ordinary close, or the body byte by byte for a while.
#: An answer without a body (to PUT, HEAD) has no half: there the last three close the connection unanswered.
KINDS = (*ERRORS, "refuse", "reset", "truncated", "drip")


class Request(NamedTuple):
    """What a client asked for."""

    method: str
    path: str  #: with its query, but without the IDs of uploads, which are random
    range: str  #: the header, or ""
    nth: int  #: how often ``same`` was asked for, from 1

    @property
    def same(self) -> tuple[str, str, str]:
        """What a second try has in common with the first: of the range its end, as it may be resumed."""
        return self.method, self.path, self.range.rpartition("-")[2]


#: Chooses a kind of fault for a request, or None for an honest answer; called in the proxy's thread.
Choose = Callable[[Request], str | None]


@dataclass(frozen=True)
class Faults:
    """Draws faults for a share of the requests, from each alone: it does not matter which comes first.

    Nothing fails more than ``at_most`` times in a row, so that a client with retries always gets through
    (but a get of a whole object twice as often, if the client then asks for its rest).
    """

    seed: int = 0
    rate: float = 0.2
    kinds: tuple[str, ...] = ("503", "reset", "truncated", "drip")
    at_most: int = 2

    def __call__(self, request: Request) -> str | None:
        method, path, end = request.same
        below = path.lstrip("/").partition("/")[2]  # the bucket's name tells how many tests came before
        drawn = Random(f"{self.seed} {method} {below} {end} {request.nth}")
        if drawn.random() >= self.rate or request.nth % (self.at_most + 1) == 0:
            return None
        return drawn.choice(self.kinds)


@dataclass
class Proxy:
    """A running proxy, and what it has seen and done."""

    endpoint: str
    server: str  #: host:port
    choose: Choose
    drip_seconds: float
    injected: Counter[str] = field(default_factory=Counter)
    seen: list[Request] = field(default_factory=list)
    asked: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        return len(self.seen)

    async def serve(self, listener: socket.socket, end: asyncio.Event) -> None:
        """Take connections until ``end``; the runner then cancels what is still open."""
        connections: set[asyncio.Task[None]] = set()  # asyncio alone would let its tasks be collected

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.add(task := asyncio.create_task(self.connection(reader, writer)))
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(connected, sock=listener)
        await end.wait()
        server.close()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a connection's requests until it ends."""
        writer.transport.set_write_buffer_limits(0)  # so that drain() waits until the kernel has it all
        try:
            while await self.answer(reader, writer):
                pass
        except (OSError, EOFError):
            return  # the client has gone, or the server
        finally:
            writer.transport.abort()  # close() would wait for a client that reads no more

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; gives whether the connection stays open for another."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        stays = header(head, "connection").lower() != "close"  # says a proxy before this one
        if header(head, "expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await body_of(reader, head)
        kind = self.fault(method, path, header(head, "range"))
        if kind == "refuse":
            return reset(writer)
        if kind in ERRORS:
            writer.write(error(*ERRORS[kind], with_body=method != "HEAD"))
            await writer.drain()
            return stays
        # A connection for each request: its end is the answer's end, also where no length is given.
        server_reader, server = await asyncio.open_connection(*self.server.split(":"))
        try:
            server.write(without(head, "connection", "expect")[:-2] + b"Connection: close\r\n\r\n" + body)
            await server.drain()
            head = await server_reader.readuntil(b"\r\n\r\n")
            if header(head, "content-range"):  # rclone 1.75 answers 200, at which clients refuse the part
                head = head.replace(b"200 OK", b"206 Partial Content", 1)
            if length := header(head, "content-length"):
                head = without(head, "connection")
            stays = stays and bool(length)
            if kind is None:
                sent = await relay(head, server_reader, writer)
                return stays and (method == "HEAD" or sent == int(length))
            body = await server_reader.read()
        finally:
            server.transport.abort()
        if kind == "drip" and body:
            writer.write(head)
            await drip(body, writer, self.drip_seconds)
            return stays
        if body:
            writer.write(head + body[: len(body) // 2])
            await writer.drain()
        if kind == "reset":
            await asyncio.sleep(0.05)  # a reset takes back what the client has not read
            return reset(writer)
        return False

    def fault(self, method: str, path: str, range_: str) -> str | None:
        """Note a request, and choose its fault."""
        request = Request(method, re.sub("(?<=uploadId=)[^&]+", "", path), range_, 1)
        self.asked[request.same] += 1
        request = request._replace(nth=self.asked[request.same])
        self.seen.append(request)
        kind = self.choose(request)
        if kind is not None:
            assert kind in KINDS, kind
            self.injected[kind] += 1
        return kind


async def body_of(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body of a request, as it was sent."""
    if not header(head, "transfer-encoding"):
        return await reader.readexactly(int(header(head, "content-length") or 0))
    body, size = bytearray(), 1
    while size:
        line = await reader.readline()
        size = int(line.partition(b";")[0], 16)
        body += line + await reader.readexactly(size + 2)
    return bytes(body)


async def relay(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """Send an answer as it comes; gives the length of its body."""
    writer.write(head)
    sent = 0
    while piece := await reader.read(1 << 16):
        writer.write(piece)
        await writer.drain()
        sent += len(piece)
    await writer.drain()
    return sent


async def drip(body: bytes, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Send a byte each 0.05 s, and after so many seconds the rest."""
    slow = min(len(body), int(seconds / 0.05))
    for at in range(slow):
        writer.write(body[at : at + 1])
        await writer.drain()
        await asyncio.sleep(0.05)
    writer.write(body[slow:])
    await writer.drain()


def reset(writer: asyncio.StreamWriter) -> bool:
    """Make the closing of a connection a reset; gives that it does not stay open."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def header(head: bytes, name: str) -> str:
    """The value of a header, or ""."""
    found = re.search(rb"\r\n%s:[ \t]*([^\r]*)" % name.encode(), head, re.IGNORECASE)
    return found[1].decode("latin-1").strip() if found else ""


def without(head: bytes, *names: str) -> bytes:
    """A head without some of its headers."""
    return re.sub(rb"\r\n(?:%s):[^\r]*" % "|".join(names).encode(), b"", head, flags=re.IGNORECASE)


def error(status: str, code: str, with_body: bool) -> bytes:
    """An answer with an error as S3 writes it."""
    body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>"
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body * with_body).encode()


@contextmanager
def faulty(endpoint: str, choose: Choose = lambda _: None, drip_seconds: float = 5) -> Iterator[Proxy]:
    """Stand before ``endpoint`` for as long as the block runs; without ``choose``, only pass on."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    # asyncio does it only for sockets it made; else each answer waits 40 ms for the client's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    proxy = Proxy(address, endpoint.removeprefix("http://"), choose, drip_seconds)
    loop, end = asyncio.new_event_loop(), asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(proxy.serve(listener, end))

    thread = threading.Thread(target=run, name="faulty proxy", daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(10)
