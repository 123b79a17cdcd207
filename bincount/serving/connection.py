"""A connection of the HTTP server, with a limit that uvicorn lacks: headers that take too long."""

import asyncio
import logging

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from bincount.serving.logs import tell

_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def limited(seconds: float) -> type[H11Protocol]:
    """uvicorn's connection, closed where headers are not there ``seconds`` after they might have begun.

    That is after the connection was made, or their first byte came. Between requests, as long as nothing
    comes, uvicorn's own limit holds.
    """

    class Limited(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
            super().connection_made(transport)
            self._timer = self.loop.call_later(seconds, self._late)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._look()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._look()  # what came before the answer was sent may be the beginning of further headers

        def _look(self) -> None:
            if not self._begun:
                self._stop()
            elif self._timer is None:
                self._timer = self.loop.call_later(seconds, self._late)

        @property
        def _begun(self) -> bool:
            """Whether there is a part of some headers, and no more."""
            return self.conn.their_state is h11.IDLE and self.conn.trailing_data[0] != b""

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            if self._begun:
                self.transport.write(_LATE)
                tell(logging.INFO, "headers took too long", seconds=seconds)
            self.transport.close()

    return Limited
