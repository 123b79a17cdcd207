"""Photos as bytes and as arrays. Training, preparing and counting treat a photo by the same functions.

Arrays are uint8 of shape (height, width, 3), RGB.
"""

import io
import warnings

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image

from bincount.errors import one_line

Pixels = npt.NDArray[np.uint8]

#: File names that are taken for photos.
SUFFIXES = (".jpg", ".jpeg", ".png")

#: A photo above this many pixels is refused before it is decoded: it is a mistake or an attack.
MOST_PIXELS = 80_000_000

#: The longest side that a JPEG can have.
MOST_SIDE = 65_500

#: How to turn a photo upright, by the orientation that its camera noted.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadablePhoto(ValueError):
    """A photo that cannot be decoded whole; the message is the reason."""


def read_photo(encoded: bytes) -> Pixels:
    """Decode a JPEG or PNG of any colour mode to upright RGB. Raises UnreadablePhoto."""
    if not encoded:
        raise UnreadablePhoto("the file is empty (0 bytes)")
    if encoded.startswith(b"\xff\xd8"):
        return decode_jpeg(encoded)
    if encoded.startswith(b"\x89PNG"):
        return _decode_png(encoded)
    raise UnreadablePhoto("not a JPEG or PNG")


def decode_jpeg(encoded: bytes) -> Pixels:
    """Decode a JPEG to upright RGB. Raises UnreadablePhoto, also where it is damaged in the middle."""
    jpeg_size(encoded)
    try:
        photo: Pixels = simplejpeg.decode_jpeg(encoded, colorspace="RGB")
    except ValueError as error:
        raise UnreadablePhoto(f"damaged or truncated: {one_line(error)}") from None
    turn = TURNS.get(_orientation(encoded))
    return photo if turn is None else np.array(Image.fromarray(photo).transpose(turn))


def jpeg_size(encoded: bytes) -> tuple[int, int]:
    """Width and height that a JPEG declares, without decoding it. Raises UnreadablePhoto."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        raise UnreadablePhoto("its JPEG header is damaged or truncated") from None
    _check_size(width, height)
    return width, height


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS or max(width, height) > MOST_SIDE:
        raise UnreadablePhoto(f"{width}x{height} pixels are too many")


def _decode_png(encoded: bytes) -> Pixels:
    try:
        # Pillow warns about sizes that are refused below, and about transparency, which is dropped.
        with warnings.catch_warnings(action="ignore"), _opened(encoded, "PNG") as image:
            _check_size(*image.size)
            if image.mode.startswith("I"):  # 16 bits of grey, which convert() would cut off at 255
                return np.array(Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB"))
            return np.array(image.convert("RGB"))  # a copy, so that it can be written to
    except UnreadablePhoto:
        raise
    except Exception as error:
        # Pillow tells damage in many ways: OSError, SyntaxError, ValueError, struct.error, zlib.error …
        raise UnreadablePhoto(f"a damaged PNG: {one_line(error)}") from None


def _orientation(encoded: bytes) -> int:
    """The orientation that a JPEG's camera noted, 1 to 8; 1, upright, where it did not."""
    if b"Exif\x00\x00" not in encoded[: 64 << 10]:
        return 1
    try:
        with warnings.catch_warnings(action="ignore"), _opened(encoded, "JPEG") as image:
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        # A broken note is no reason to lose a photo, and Pillow tells damage in many ways.
        return 1


def _opened(encoded: bytes, format: str) -> Image.Image:
    return Image.open(io.BytesIO(encoded), formats=(format,))


def encode_jpeg(photo: Pixels, quality: int) -> bytes:
    """Encode as baseline JPEG with halved colour resolution (4:2:0), ``quality`` 1 to 100."""
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(photo), quality=quality, colorspace="RGB", colorsubsampling="420"
    )
    return encoded


def shrink(photo: Pixels, shortest_side: int | None) -> Pixels:
    """Resize so that the shorter side has ``shortest_side`` pixels; smaller photos stay as they are."""
    height, width = photo.shape[:2]
    if shortest_side is None or min(height, width) <= shortest_side:
        return photo
    import torch  # here, since it takes a second that a photo which is small enough need not wait for

    scale = shortest_side / min(height, width)
    size = [max(shortest_side, round(height * scale)), max(shortest_side, round(width * scale))]
    pixels = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)[None]
    small = np.empty((*size, 3), dtype=np.uint8)
    room = torch.from_numpy(small).permute(2, 0, 1)[None]
    # Over all pixels that are merged, as Pillow does it: F.interpolate(mode="bicubic", antialias=True).
    torch.ops.aten._upsample_bicubic2d_aa.out(pixels, size, False, None, None, out=room)
    return small


def stored_jpeg(encoded: bytes, shortest_side: int | None, quality: int) -> tuple[bytes, int, int]:
    """The JPEG to keep of a photo, with its width and height: no side shorter than need be.

    A JPEG that is upright, in plain colours and no larger than asked for keeps its very bytes.
    Raises UnreadablePhoto.
    """
    photo = read_photo(encoded)
    small = shrink(photo, shortest_side)
    height, width = small.shape[:2]
    if small is photo and _is_plain_jpeg(encoded):
        return encoded, width, height
    return encode_jpeg(small, quality), width, height


def _is_plain_jpeg(encoded: bytes) -> bool:
    """Whether a decoder that knows no EXIF and no print colours shows the same photo."""
    if not encoded.startswith(b"\xff\xd8"):
        return False
    colours = simplejpeg.decode_jpeg_header(encoded)[2]
    return colours in ("YCbCr", "RGB", "Gray") and _orientation(encoded) == 1
