"""Around every request: its id, its line in the log, its metrics; and no error gets out."""

import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bincount.serving.logs import tell
from bincount.serving.service import Service

ID = "X-Request-Id"

#: Ids that are taken over from a request; any other is replaced by one of ours.
_GIVEN = re.compile(r"[A-Za-z0-9._:-]{1,128}")

#: Methods that are told apart in the metrics.
_METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"}

#: Bytes of the headers of a request.
MOST_HEADERS = 32 << 10

#: What is told of an error inside.
FAILED = "the service failed; its log says more"

#: What the log says of a client that went away.
GONE = 499


@dataclass
class Seen:
    """What is known of a request. ``whole``: its body was read to its end; ``told``: for the log."""

    id: str
    whole: bool = False
    told: dict[str, Any] = field(default_factory=dict)


def seen(request: Request) -> Seen:
    """What is known of a request that is watched."""
    found: Seen = request.scope["bincount"]
    return found


class Watched:
    """The app inside, watched. ``paths``: those that are told apart in the metrics."""

    def __init__(self, app: ASGIApp, service: Service, paths: frozenset[str]):
        self.app, self.service, self.paths = app, service, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; other messages go through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(ID, "")
        id = given if _GIVEN.fullmatch(given) else secrets.token_hex(8)
        scope["bincount"] = seen = Seen(id)
        start, status, failure = time.perf_counter(), 0, None

        async def receiving() -> Message:
            message = await receive()
            seen.whole = seen.whole or not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[ID] = id
                headers["X-Content-Type-Options"] = "nosniff"
                if self.service.closed:
                    headers["Connection"] = "close"
            await send(message)

        try:
            # The HTTP server's own limit holds only for headers that come in pieces.
            if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADERS:
                await _refuse(sending, id, 431, f"the headers are larger than {MOST_HEADERS >> 10} KiB")
            else:
                await self.app(scope, receiving, sending)
        except Exception as error:
            failure = error
            if not status:
                await _refuse(sending, id, 500, FAILED)
        self._note(scope, seen, status or GONE, time.perf_counter() - start, failure)

    def _note(self, scope: Scope, seen: Seen, status: int, seconds: float, failure: Exception | None) -> None:
        path = scope["path"] if scope["path"] in self.paths else "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.service.metrics.requests.labels(path, method, str(status)).inc()
        self.service.metrics.seconds.labels(path).observe(seconds)
        level = logging.ERROR if failure or status == 500 else logging.INFO
        told = {"method": scope["method"][:20], "path": scope["path"][:200], "status": status}
        tell(level, "request", failure=failure, id=seen.id, **told, **seen.told, ms=round(seconds * 1000, 1))


async def _refuse(send: Send, id: str, status: int, line: str) -> None:
    body = orjson.dumps({"error": line, "request": id})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
