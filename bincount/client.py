"""A client of `bincount serve`, on its address or behind a SageMaker endpoint. Needs nothing but Python.

from bincount.client import Client

Client("http://127.0.0.1:8080").count("photo.jpg")
"""

import contextlib
import http.client
import json
import os
import random
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias, overload
from urllib.parse import urlsplit

from bincount.answer import Answer
from bincount.errors import BadInput, BincountError, install, one_line

#: A path of a JPEG or PNG, or its bytes.
Photo: TypeAlias = str | os.PathLike[str] | bytes

#: How photos begin, and what they are then.
TYPES = {b"\xff\xd8": "image/jpeg", b"\x89PNG": "image/png"}

#: HTTP statuses of a server, or of what stands before it, that has no room now.
BUSY = {408, 429, 502, 503, 504}

#: Seconds before the second attempt, doubled for each further one, and the most that is ever waited.
FIRST_PAUSE, MOST_PAUSE = 0.2, 60.0


class Unavailable(BincountError):
    """No answer, but perhaps later. ``retry_after``: seconds that the server asks to wait, or None."""

    def __init__(self, told: str, retry_after: float | None = None):
        super().__init__(told)
        self.retry_after = retry_after


class Transport(Protocol):
    """How a photo gets to the server and its answer back; used by several threads at once."""

    def ask(self, photo: bytes, kind: str, name: str) -> bytes:
        """The body of the answer about a photo of the MIME type ``kind``.

        Raises Unavailable where it is worth asking again; BadInput where the photo, called ``name``, is
        refused; BincountError for all else.
        """

    def close(self) -> None:
        """Let go of connections."""


class Client:
    """Counts photos on a server. May be used by several threads; ``with Client(…) as client`` closes it.

    ``address``: ``http://HOST:PORT`` or ``https://…`` of `bincount serve`, or ``sagemaker://ENDPOINT``, for
    which ``region`` None is that of the environment. ``timeout``: seconds until a connection, and until an
    answer on it. ``retries``: how often a photo is sent again where the server is busy or gone. ``parallel``:
    photos that are under way at the same time. ``headers``: sent with each photo, over HTTP.
    Raises BadInput for an address of another kind.
    """

    def __init__(
        self,
        address: str,
        *,
        region: str | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        parallel: int = 8,
        headers: Mapping[str, str] | None = None,
    ):
        if parallel < 1 or retries < 0 or timeout <= 0:
            raise BadInput("parallel must be 1 or above, retries 0 or above, timeout above 0")
        self._retries, self._parallel = retries, parallel
        self._transport: Transport
        if address.startswith("sagemaker://"):
            self._transport = _SageMaker(address, region, timeout, parallel)
        else:
            self._transport = _Http(address, timeout, headers or {})

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    @overload
    def count(self, photo: Photo, /) -> Answer: ...  # type: ignore[overload-overlap]  # a str is also many

    @overload
    def count(self, photo: Iterable[Photo], /) -> list[Answer]: ...

    def count(self, photo: Photo | Iterable[Photo], /) -> Answer | list[Answer]:
        """Count a photo, or several: the answer, or a list of the answers in their order.

        A photo is the path of a JPEG or PNG, or its bytes. Raises BadInput for a photo that is none or that
        the server refuses, and BincountError where the server gives no answer; both in one line.
        """
        if isinstance(photo, str | os.PathLike | bytes) or not isinstance(photo, Iterable):
            return self._one(photo, "the photo", threading.Event())
        return list(self.each(photo))

    def each(self, photos: Iterable[Photo]) -> Iterator[Answer]:
        """The answers of any number of photos, in their order, as they come; few are held at a time."""
        under_way: deque[Future[Answer]] = deque()
        stop = threading.Event()
        with ThreadPoolExecutor(self._parallel, "bincount-client") as threads:
            try:
                for n, photo in enumerate(photos, start=1):
                    under_way.append(threads.submit(self._one, photo, f"photo {n}", stop))
                    if len(under_way) >= 2 * self._parallel:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:
                stop.set()
                for future in under_way:
                    future.cancel()

    def _one(self, photo: Photo, name: str, stop: threading.Event) -> Answer:
        name, content = _read(photo, name)
        kind = next((kind for start, kind in TYPES.items() if content.startswith(start)), None)
        if kind is None:
            raise BadInput(f"{name}: {'not a JPEG or PNG' if content else 'the file is empty (0 bytes)'}")
        for attempt in range(self._retries + 1):
            try:
                return answer_of(self._transport.ask(content, kind, name))
            except Unavailable as problem:
                pause = _pause(attempt, problem.retry_after)
                if attempt == self._retries or stop.wait(pause):
                    times = f" ({attempt + 1} attempts)" if attempt else ""
                    raise BincountError(f"{problem}{times}") from None
        raise AssertionError


def _read(photo: Photo, name: str) -> tuple[str, bytes]:
    """What a photo is called, and its bytes."""
    if isinstance(photo, bytes):
        return name, photo
    if not isinstance(photo, str | os.PathLike):
        raise BadInput(f"{name} is of type {type(photo).__name__}: give a path, bytes, or a list of these")
    path = Path(photo)
    try:
        return str(path), path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or 'cannot be read'}") from None


def _pause(attempt: int, asked: float | None) -> float:
    """Seconds to wait: never less than was asked for, and not all clients alike."""
    longest = FIRST_PAUSE * 2.0**attempt
    return min(MOST_PAUSE, (asked or 0.0) + random.uniform(longest / 2, longest))


def answer_of(body: bytes) -> Answer:
    """The answer in what `bincount serve` says of one photo. Raises BincountError where it says none."""
    try:
        told = json.loads(body)
        (told,) = told["answers"]
        shares = told["probabilities"]
        answer = Answer(told["count"], tuple(float(share) for share in shares.values()), "more" in shares)
        if type(answer.count) is not int or not 0 <= answer.count < len(answer.probabilities):
            raise ValueError("its count is none of those")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise BincountError(f"this is no answer of bincount: {_start(body)}") from None
    return answer


def _start(body: bytes) -> str:
    """The beginning of a body, on one line; of an error in JSON what it says."""
    text = body[:4000].decode(errors="replace")
    try:
        told = json.loads(text)
        text = next(str(told[key]) for key in ("error", "detail", "message") if key in told)
    except (StopIteration, TypeError, ValueError):
        pass
    return " ".join(text.split())[:200] or "nothing"


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for, as seconds or as a date; None where it asks for nothing."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _refused(status: int, body: bytes, where: str, name: str, retry_after: str | None) -> BincountError:
    """The error for a status that is not 200."""
    if status in BUSY:
        return Unavailable(f"{where} is busy ({status}): {_start(body)}", _seconds(retry_after))
    if status in (400, 406, 413, 415, 422):
        return BadInput(f"{name} is refused by {where} ({status}): {_start(body)}")
    return BincountError(f"{where} answers {status}: {_start(body)}")


# --- over HTTP ----------------------------------------------------------------------------------------


class _Http:
    """Connections that are kept open between photos, no more than there are photos at the same time."""

    def __init__(self, address: str, timeout: float, headers: Mapping[str, str]):
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        try:
            url = urlsplit(address)
            host, port = url.hostname, url.port
        except ValueError:
            url, host, port = urlsplit(""), None, None
        if url.scheme not in ("http", "https") or not host:
            raise BadInput(f"{address} is no address: write http://HOST:PORT or sagemaker://ENDPOINT")
        self._address, self._timeout, self._headers = address, timeout, dict(headers)
        self._host, self._port = host, port
        self._path = url.path.rstrip("/").removesuffix("/invocations") + "/invocations"
        self._context = ssl.create_default_context() if url.scheme == "https" else None

    def ask(self, photo: bytes, kind: str, name: str) -> bytes:
        headers = {**self._headers, "Content-Type": kind, "Accept": "application/json"}
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        try:
            try:
                response, body = self._exchange(idle or self._connection(), photo, headers)
            except ConnectionError:
                if idle is None:
                    raise
                # The server has closed what lay idle, which says nothing of whether it is there.
                response, body = self._exchange(self._connection(), photo, headers)
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from None
        if response.status != 200:
            raise _refused(response.status, body, self._address, name, response.getheader("Retry-After"))
        return body

    def _exchange(
        self, connection: http.client.HTTPConnection, photo: bytes, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        try:
            # A server that refuses a photo may answer, and hang up, before it has read all of it.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", self._path, photo, headers)
            response = connection.getresponse()
            body = response.read()
        except BaseException as error:
            connection.close()
            if isinstance(error, http.client.ResponseNotReady):  # it hung up before it was asked
                raise ConnectionResetError(error) from None
            raise
        with self._lock:
            self._idle.append(connection)
        return response, body

    def close(self) -> None:
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    def __del__(self) -> None:
        self.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout, context=self._context
        )

    def _failed(self, error: Exception) -> BincountError:
        if isinstance(error, TimeoutError):
            return Unavailable(f"{self._address} gave no answer within {self._timeout:g} seconds")
        if isinstance(error, ssl.SSLCertVerificationError):
            return BincountError(f"{self._address}: {error.verify_message}")
        if isinstance(error, socket.gaierror):
            return BincountError(f"{self._address}: there is no such host ({error.strerror})")
        told = getattr(error, "strerror", None) or one_line(error)
        return Unavailable(f"{self._address} cannot be reached: {told}")


# --- behind a SageMaker endpoint ----------------------------------------------------------------------


class _SageMaker:
    """``sagemaker://ENDPOINT``, through boto3, which finds who asks in its usual places."""

    def __init__(self, address: str, region: str | None, timeout: float, parallel: int):
        self._address, self._endpoint = address, address.removeprefix("sagemaker://").strip("/")
        if not self._endpoint or "/" in self._endpoint:
            raise BadInput(f"{address} is no address: write sagemaker://ENDPOINT")
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise BadInput(f"{address}: boto3 is not installed: {install('aws')}") from None
        self._errors = (BotoCoreError, ClientError)
        settings = Config(
            region_name=region,
            connect_timeout=timeout,
            read_timeout=timeout,
            max_pool_connections=parallel,
            retries={"total_max_attempts": 1},  # this client asks again by itself
        )
        try:
            self.runtime = boto3.session.Session().client("sagemaker-runtime", config=settings)
        except BotoCoreError as error:
            raise BadInput(f"{address}: {one_line(error)}") from None

    def ask(self, photo: bytes, kind: str, name: str) -> bytes:
        try:
            answer = self.runtime.invoke_endpoint(
                EndpointName=self._endpoint, ContentType=kind, Accept="application/json", Body=photo
            )
            body: bytes = answer["Body"].read()
        except self._errors as error:
            raise self._failed(error, name) from None
        return body

    def close(self) -> None:
        self.runtime.close()

    def _failed(self, error: Any, name: str) -> BincountError:
        response = getattr(error, "response", None)
        if response is None:  # no answer at all
            kind = type(error).__name__
            if "Timeout" in kind or "Connection" in kind:
                return Unavailable(f"{self._address} cannot be reached: {one_line(error)}")
            return BadInput(f"{self._address}: {one_line(error)}")
        about = response.get("Error", {})
        code, told = about.get("Code", ""), about.get("Message", "")
        if "OriginalStatusCode" in response:  # what the container answered
            content = str(response.get("OriginalMessage", told)).encode()
            return _refused(int(response["OriginalStatusCode"]), content, self._address, name, None)
        line = f"{self._address}: {code}: {' '.join(str(told).split())[:300]}"
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if "Throttling" in code or code in ("ServiceUnavailable", "ModelNotReadyException") or status in BUSY:
            return Unavailable(line)
        return BincountError(line)
