"""Objects in S3, or in memory, as a store. obstore talks; what went wrong is told, and tried again, here."""

import contextlib
import os
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import MemoryStore, S3Store

if TYPE_CHECKING:
    from obstore import GetOptions

from bincount import storage
from bincount.errors import BadInput, BincountError, Denied, one_line
from bincount.storage import aws
from bincount.storage.store import NotThere, Range, Store

#: Requests in flight at once in :meth:`Objects.read_many`.
IN_FLIGHT = 64

#: Bytes that :meth:`Objects.read_ranges` holds or has asked for, at the most.
AHEAD = 32 << 20

#: A request is tried so often, with pauses that double from the first to at most the last, in seconds: a
#: server may be gone for 22 s at the least, and for 34 s mostly.
TRIES, FIRST_PAUSE, LONGEST_PAUSE = 11, 0.1, 10.0

#: Seconds for one request with its answer, and seconds of silence within an answer.
SECONDS, SILENCE = 60.0, 15.0

#: Seconds for sending one object.
SENDING = 600.0

_WHO_ASKS = (
    "check AWS_PROFILE or AWS_ACCESS_KEY_ID and what they may do; AWS_SKIP_SIGNATURE=true asks as nobody, "
    "which public buckets allow"
)

#: How a refusal shows where the error's type does not: of a list, or of single keys of a delete.
_DENIED = re.compile(
    r"403 Forbidden|401 Unauthorized|(<Code>|code: )(AccessDenied|ExpiredToken|InvalidToken)\b"
)

#: How it shows that there is nothing from an offset on.
_BEYOND = re.compile(r"416 Range Not Satisfiable|Wanted range starting at \d+, but object was only")

#: A name and a password in an address.
_WHO_IN_URL = re.compile(r"//[^/@\s]+@")

#: What stands before the reason where boto3 has no credentials after all.
_NO_CREDENTIALS = "External AWS credential provider: "


def in_s3(bucket: str, anonymous: bool) -> tuple[S3Store, S3Store]:
    """The bucket, with endpoint, region and credentials as :mod:`bincount.storage.aws` finds them.

    Twice: the second is for sending, as silence counts from the request's start, and sending takes its time.
    """
    settings = aws.settings(bucket, anonymous)

    def opened(silence: float) -> S3Store:
        return S3Store(
            bucket,
            **settings,
            client_options={
                "allow_http": True,
                "connect_timeout": timedelta(seconds=5),
                "read_timeout": timedelta(seconds=silence),
                "timeout": timedelta(seconds=SENDING),
            },
            retry_config={"max_retries": 0},
        )

    try:
        return opened(SILENCE), opened(SENDING)
    except BaseError as error:  # half of a pair of keys, an endpoint that is no URL
        raise BadInput(f"s3://{bucket}: {_what_failed(error)}") from None


T = TypeVar("T")


@cache
def in_memory(name: str) -> MemoryStore:
    """Memory of this process; the same for the same name."""
    return MemoryStore()


class _Broken(Exception):
    """An answer that ended too early."""


def _what_failed(error: Exception) -> str:
    """The error without the inner workings that obstore appends, and without an address's password."""
    return one_line(Exception(_WHO_IN_URL.sub("//", str(error).partition("Debug source:")[0])))


def _raise_what_stays(place: str, root: str, error: Exception) -> None:
    """Raise where asking again would give the same answer."""
    told = str(error)  # of a refused list only the text tells why
    if "NoSuchBucket" in told:
        raise BadInput(f"{place}: there is no bucket {root}") from None
    if isinstance(error, FileNotFoundError):
        raise NotThere(f"there is no {place}") from None
    if _NO_CREDENTIALS in told:
        why = _what_failed(error).partition(_NO_CREDENTIALS)[2]
        raise Denied(f"{place}: AWS credentials: {why}") from None
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _DENIED.search(told):
        raise Denied(f"{place}: access denied: {_WHO_ASKS}") from None
    if "301 Moved" in told or "PermanentRedirect" in told or "without LOCATION" in told:
        raise BadInput(f"{place}: the bucket is in another region: set AWS_REGION to its own") from None
    if isinstance(error, PreconditionError):
        raise BincountError(f"{place} was changed while it was read: start again") from None
    if isinstance(error, InvalidPathError | ValueError):
        raise BadInput(f"{place}: {_what_failed(error)}") from None


def _aws_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def _reopened(address: str, environment: dict[str, str]) -> Store:
    for name in _aws_environment().keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    return storage.open_store(address)


class Objects(Store):
    """Objects below ``prefix`` of an obstore store that people call ``root``.

    ``sending``: the store that takes what is written, where that is another one.
    """

    def __init__(self, root: str, opened: Any, prefix: str, sending: Any = None):
        self._root, self._opened, self._prefix, self._sending = root, opened, prefix, sending or opened
        self.address = f"{root}/{prefix}" if prefix else root

    def __reduce__(self) -> Any:
        # For another process, which opens its own: connections and threads cannot go along. Its environment
        # may be of an earlier time: a fork server keeps that in which it was started.
        return _reopened, (self.address, _aws_environment())

    def below(self, folder: str) -> "Objects":
        return Objects(self._root, self._opened, self._key(folder).strip("/"), self._sending)

    def held(self) -> set[str]:
        found = self._tried("", lambda: obstore.list_with_delimiter(self._opened, self._prefix))
        paths = [*found["common_prefixes"], *(each["path"] for each in found["objects"])]
        return {self._name(path).rstrip("/") for path in paths if path != self._prefix}

    def names(self, *, deep: bool = False) -> list[str]:
        seen = (name for name in map(self._name, self._keys()) if "/." not in f"/{name}")
        return sorted(name for name in seen if deep or "/" not in name)

    def first(self) -> str | None:
        def found() -> str | None:
            pages = obstore.list(self._opened, self._prefix or None, chunk_size=1000)
            keys = (each["path"] for page in pages for each in page if each["path"] != self._prefix)
            return next((name for name in map(self._name, keys) if "/." not in f"/{name}"), None)

        return self._tried("", found)

    def has(self, name: str) -> bool:
        try:
            self._tried(name, lambda: obstore.head(self._opened, self._key(name)))
        except NotThere:
            return False
        return True

    def read(self, name: str) -> bytes:
        return self._read(name, 0, None)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return self._read(name, offset, length)

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | str]:
        return self._ahead((((name, 0, None), 1) for name in names), 2 * IN_FLIGHT)

    def read_ranges(self, ranges: Iterable[Range]) -> Iterator[bytes | str]:
        return self._ahead(((each, each.length) for each in ranges), AHEAD)

    def write(self, name: str, content: bytes) -> None:
        self._tried(name, lambda: obstore.put(self._sending, self._key(name), content, use_multipart=False))

    def delete(self, names: Iterable[str]) -> None:
        keys = [self._key(name) for name in names]
        if keys:
            with contextlib.suppress(NotThere):
                self._tried("", lambda: obstore.delete(self._opened, keys))

    def clear(self) -> None:
        self.delete(map(self._name, self._keys()))

    def restore(self) -> None:
        pass

    def draft(self) -> "Objects":
        """This very place: objects cannot be renamed, so what is written last tells that all is there."""
        return self

    def publish(self, draft: Store) -> None:
        pass

    def _keys(self) -> list[str]:
        """The keys of all objects here and below, without the mark that S3's console makes of a folder."""

        def listed() -> list[str]:
            keys: dict[str, None] = {}
            for page in obstore.list(self._opened, self._prefix or None, chunk_size=1000):
                known = len(keys)
                keys.update(dict.fromkeys(each["path"] for each in page))
                if len(keys) == known:  # a server that loses its place sends the same page for ever
                    raise BincountError(f"{self.address}: its list of objects goes round in circles")
            keys.pop(self._prefix, None)
            return list(keys)

        return self._tried("", listed)

    def _ahead(
        self, reads: Iterable[tuple[tuple[str, int, int | None], int]], most: int
    ) -> Iterator[bytes | str]:
        """Read in order and ahead, for as long as what is read or asked for costs less than ``most``."""
        waiting: deque[tuple[Future[bytes | str], int]] = deque()
        held = 0
        pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="bincount-read")
        try:
            for read, cost in reads:
                while waiting and held + cost > most:
                    first, its_cost = waiting.popleft()
                    yield first.result()
                    held -= its_cost
                waiting.append((pool.submit(self._read_or_reason, *read), cost))
                held += cost
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read_or_reason(self, name: str, offset: int, length: int | None) -> bytes | str:
        try:
            return self._read(name, offset, length)
        except NotThere:
            return "is not there"

    def _read(self, name: str, offset: int, length: int | None) -> bytes:
        """Read on where a broken answer ended, as long as it is the same object."""
        if length == 0:  # which no request can ask for
            return b""
        content = bytearray()
        tag: str | None = None

        def read_on() -> bytes:
            nonlocal tag
            start = offset + len(content)
            options: GetOptions = {}
            if length is not None:
                options["range"] = (start, offset + length)
            elif start:
                options["range"] = {"offset": start}
            if tag:
                options["if_match"] = tag
            try:
                found = obstore.get(self._opened, self._key(name), options=options)
            except BaseError as error:
                if _BEYOND.search(str(error)):
                    return bytes(content)
                raise
            tag = found.meta["e_tag"]
            until = time.monotonic() + SECONDS
            for piece in found.stream(min_chunk_size=1):
                content.extend(memoryview(piece))
                if time.monotonic() > until and offset + len(content) < found.range[1]:
                    raise _Broken(f"only {len(content):,} bytes came in {SECONDS:g} s")
            if offset + len(content) < found.range[1]:
                raise _Broken(f"the answer ended after {len(content):,} bytes")
            return bytes(content)

        return self._tried(name, read_on)

    def _tried(self, name: str, request: Callable[[], T]) -> T:
        """Ask again, after a pause, where the answer was a failure that may pass."""
        place = f"{self._root}/{self._key(name)}"
        for tries in range(1, TRIES + 1):
            try:
                return request()
            except (BaseError, FileNotFoundError, ValueError, _Broken) as error:
                failure = _what_failed(error)
                _raise_what_stays(place, self._root, error)
            if tries < TRIES:
                time.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tries - 1)) * random.uniform(0.5, 1.0))
        raise BincountError(f"{place}: no whole answer in {TRIES} tries: {failure}")

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix and name else self._prefix or name

    def _name(self, key: str) -> str:
        return key.removeprefix(f"{self._prefix}/") if self._prefix else key
