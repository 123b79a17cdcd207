"""What a request asks: its body as photos and the quantities expected of them, within limits."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson
import simplejpeg
from starlette.types import Receive

from bincount.config import Serve
from bincount.data.images import UnreadablePhoto
from bincount.serving.refusal import Refusal

#: The types of bodies that are one photo, and how such a photo begins.
IMAGES = {"image/jpeg": b"\xff\xd8", "image/png": b"\x89PNG"}

JSON = "application/json"

#: Of a body that is not wanted so many bytes, and so many seconds, are still read.
DISCARDED, DISCARDING = 64 << 20, 5.0

#: The highest quantity that a record may say.
MOST = 10**9

_KEYS = {"photo", "photos", "expected"}


@dataclass(frozen=True)
class Asked:
    """Encoded photos, and for each the quantity that its record says, or None."""

    photos: list[bytes]
    expected: list[int | None]


class Held:
    """The bytes of bodies that are held at the same time: ``most`` of them."""

    def __init__(self, most: int):
        self.most, self.now = most, 0

    @contextmanager
    def by_request(self) -> Iterator["Holding"]:
        """What one request holds, until it is answered."""
        holding = Holding(self)
        try:
            yield holding
        finally:
            self.now -= holding.size


class Holding:
    """The bytes that one request holds."""

    def __init__(self, held: Held):
        self._held, self.size = held, 0

    def grow(self, size: int) -> None:
        """Hold so many bytes, or what is held already. Raises Refusal where there is no room for them."""
        more = max(0, size - self.size)
        if self._held.now + more > self._held.most:
            raise Refusal(503, "too many bytes are being sent at the same time: try again soon", 1)
        self._held.now += more
        self.size += more


async def read_body(
    pieces: AsyncIterator[bytes], length: str | None, limits: Serve, holding: Holding
) -> bytes:
    """The body. ``length``: the Content-Length header. Raises Refusal."""
    most = int(limits.body_mb * 1e6)
    declared = _declared_length(length)
    if declared > most:
        raise _too_large(limits)
    # Room for what is declared is taken at once, so that many bodies do not stop half-way.
    holding.grow(declared)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_timeout):
            async for piece in pieces:
                body += piece
                if len(body) > most:
                    raise _too_large(limits)
                holding.grow(len(body))
    except TimeoutError:
        raise Refusal(408, f"the body took longer than {limits.body_timeout:g} seconds") from None
    return bytes(body)


async def discard(receive: Receive, length: str | None) -> bool:
    """Read an unwanted body to its end, as its sender may see no answer before; False: it is too long."""
    size = 0
    if _declared_length(length) > DISCARDED:
        return False
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARDING):
            while size <= DISCARDED:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return True
    return False


def _declared_length(length: str | None) -> int:
    return int(length) if length is not None and length.isdecimal() else 0


def _too_large(limits: Serve) -> Refusal:
    return Refusal(413, f"the body is larger than {limits.body_mb:g} MB (serve.body_mb)")


def asked(body: bytes, kind: str, expected: int | None, limits: Serve) -> Asked:
    """The photos of a body of this Content-Type, and what is expected. Raises Refusal."""
    kind = kind.partition(";")[0].strip().lower()
    if kind not in (JSON, *IMAGES):
        given = f"{kind[:80]!r} is" if kind else "there is no Content-Type; it is"
        raise Refusal(415, f"{given} not {', '.join(IMAGES)} or {JSON}")
    if not body:
        raise Refusal(422, "the body is empty")
    if kind in IMAGES:
        if not body.startswith(IMAGES[kind]):
            raise Refusal(422, f"the body is not {kind}")
        return Asked([body], _expected(expected, 1))
    return _from_json(body, expected, limits.photos)


def _from_json(body: bytes, expected: int | None, most: int) -> Asked:
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(422, f"the body is no JSON: {error}") from None
    if not isinstance(given, dict) or ("photo" in given) == ("photos" in given):
        raise Refusal(422, 'write {"photo": "<base64>"} or {"photos": ["<base64>", …]}')
    if unknown := sorted(set(given) - _KEYS):
        raise Refusal(422, f"{unknown[0][:80]!r}: there is no such key; there are {', '.join(sorted(_KEYS))}")
    texts = [given["photo"]] if "photo" in given else given["photos"]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Refusal(422, "photos are a list of texts, each a photo in base64")
    if len(texts) > most:
        raise Refusal(413, f"{len(texts):,} photos are more than {most:,} (serve.photos)")
    photos = [_decoded(text, _name(n, len(texts))) for n, text in enumerate(texts)]
    return Asked(photos, _expected(given.get("expected", expected), len(photos)))


def _decoded(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(422, f"{name} is no base64") from None


def _expected(given: Any, photos: int) -> list[int | None]:
    quantities = given if isinstance(given, list) else [given] * photos
    if len(quantities) != photos:
        raise Refusal(422, f"expected has {len(quantities):,} quantities for {photos:,} photos")
    if not all(each is None or (type(each) is int and 0 <= each <= MOST) for each in quantities):
        raise Refusal(422, f"expected is a whole number from 0 to {MOST:,}, null, or a list of these")
    return quantities


def check_size(encoded: bytes, name: str, megapixels: float) -> None:
    """Raise Refusal for a photo that declares more pixels than these, before it is decoded."""
    try:
        width, height = _declared(encoded)
    except UnreadablePhoto as problem:
        raise Refusal(422, f"{name} cannot be read: {problem}") from None
    if width * height > megapixels * 1e6:
        told = f"{width}x{height} pixels are more than {megapixels:g} million (serve.megapixels)"
        raise Refusal(413, f"{name}: {told}")


def _declared(encoded: bytes) -> tuple[int, int]:
    """Width and height in the header of a JPEG or PNG. Raises UnreadablePhoto."""
    if encoded.startswith(b"\x89PNG"):
        if len(encoded) < 33 or encoded[12:16] != b"IHDR":
            raise UnreadablePhoto("its PNG header is damaged or truncated")
        return int.from_bytes(encoded[16:20]), int.from_bytes(encoded[20:24])
    if not encoded.startswith(b"\xff\xd8"):
        raise UnreadablePhoto("not a JPEG or PNG" if encoded else "the file is empty (0 bytes)")
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        raise UnreadablePhoto("its JPEG header is damaged or truncated") from None
    return width, height


def _name(n: int, of: int) -> str:
    """What a photo of a request is called in messages."""
    return "the photo" if of == 1 else f"photo {n + 1}"


def names(asked: Asked) -> list[str]:
    """What the photos of a request are called in messages."""
    return [_name(n, len(asked.photos)) for n in range(len(asked.photos))]
