"""Objects in S3, or in memory, as a store. obstore talks; what went wrong is told, and tried again, here."""

import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import MemoryStore, S3Store

if TYPE_CHECKING:
    from obstore import GetOptions

from bincount.errors import BadInput, BincountError, one_line
from bincount.storage import aws
from bincount.storage.store import NotThere, Store

#: Requests in flight at once in :meth:`Objects.read_many`.
IN_FLIGHT = 64

#: A request is tried so often, with pauses that double from the first to at most the last; in seconds.
TRIES, FIRST_PAUSE, LONGEST_PAUSE = 9, 0.1, 10.0

#: Seconds for one request with its answer, and seconds of silence within an answer.
SECONDS, SILENCE = 60.0, 15.0

#: Seconds for sending one object.
SENDING = 600.0

_WHO_ASKS = (
    "check AWS_PROFILE or AWS_ACCESS_KEY_ID and what they may do; AWS_SKIP_SIGNATURE=true asks as nobody, "
    "which public buckets allow"
)


def in_s3(bucket: str, anonymous: bool) -> S3Store:
    """The bucket, with endpoint, region and credentials as :mod:`bincount.storage.aws` finds them."""
    return S3Store(
        bucket,
        **aws.settings(bucket, anonymous),
        client_options={
            "allow_http": True,
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=SILENCE),
            "timeout": timedelta(seconds=SENDING),
        },
        retry_config={"max_retries": 0},
    )


T = TypeVar("T")


@cache
def in_memory(name: str) -> MemoryStore:
    """Memory of this process; the same for the same name."""
    return MemoryStore()


class _Broken(Exception):
    """An answer that ended too early."""


def _what_failed(error: Exception) -> str:
    """The error without the inner workings that obstore appends."""
    return one_line(Exception(str(error).partition("Debug source:")[0]))


def _raise_what_stays(place: str, root: str, error: Exception) -> None:
    """Raise where asking again would give the same answer."""
    told = str(error)  # of a refused list only the text tells why
    if "NoSuchBucket" in told:
        raise BadInput(f"{place}: there is no bucket {root}") from None
    if isinstance(error, FileNotFoundError):
        raise NotThere(f"there is no {place}") from None
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or "403 Forbidden" in told:
        raise BadInput(f"{place}: access denied: {_WHO_ASKS}") from None
    if "301 Moved" in told or "PermanentRedirect" in told or "without LOCATION" in told:
        raise BadInput(f"{place}: the bucket is in another region: set AWS_REGION to its own") from None
    if isinstance(error, PreconditionError):
        raise BincountError(f"{place} was changed while it was read: start again") from None


class Objects(Store):
    """Objects below ``prefix`` of an obstore store that people call ``root``."""

    def __init__(self, root: str, opened: Any, prefix: str):
        self._root, self._opened, self._prefix = root, opened, prefix
        self.address = f"{root}/{prefix}" if prefix else root

    def below(self, folder: str) -> "Objects":
        return Objects(self._root, self._opened, self._key(folder).strip("/"))

    def held(self) -> set[str]:
        found = self._tried("", lambda: obstore.list_with_delimiter(self._opened, self._prefix))
        paths = [*found["common_prefixes"], *(each["path"] for each in found["objects"])]
        return {self._name(path).rstrip("/") for path in paths}

    def names(self, *, deep: bool = False) -> list[str]:
        seen = (name for name in map(self._name, self._keys()) if "/." not in f"/{name}")
        return sorted(name for name in seen if deep or "/" not in name)

    def has(self, name: str) -> bool:
        try:
            self._tried(name, lambda: obstore.head(self._opened, self._key(name)))
        except NotThere:
            return False
        return True

    def read(self, name: str) -> bytes:
        return self._read(name, 0, None)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return self._read(name, offset, length) if length else b""

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | str]:
        waiting: deque[Future[bytes | str]] = deque()
        pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="bincount-read")
        try:
            for name in names:
                waiting.append(pool.submit(self._read_or_reason, name))
                if len(waiting) >= 2 * IN_FLIGHT:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def write(self, name: str, content: bytes) -> None:
        self._tried(name, lambda: obstore.put(self._opened, self._key(name), content, use_multipart=False))

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
        """The keys of all objects here and below."""

        def listed() -> list[str]:
            pages = obstore.list(self._opened, self._prefix or None, chunk_size=1000)
            return [each["path"] for page in pages for each in page]

        return self._tried("", listed)

    def _read_or_reason(self, name: str) -> bytes | str:
        try:
            return self._read(name, 0, None)
        except NotThere:
            return "is not there"

    def _read(self, name: str, offset: int, length: int | None) -> bytes:
        """Read on where a broken answer ended, as long as it is the same object."""
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
            found = obstore.get(self._opened, self._key(name), options=options)
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
            except (BaseError, FileNotFoundError, _Broken) as error:
                failure = _what_failed(error)
                _raise_what_stays(place, self._root, error)
            if tries < TRIES:
                time.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tries - 1)) * random.uniform(0.5, 1.0))
        raise BincountError(f"{place}: no whole answer in {TRIES} tries: {failure}")

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix and name else self._prefix or name

    def _name(self, key: str) -> str:
        return key.removeprefix(f"{self._prefix}/") if self._prefix else key
