"""Photos as bytes and as arrays. Training, preparing and counting treat a photo by the same functions.

Arrays are uint8 of shape (height, width, 3), RGB.
"""

import io

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]

#: File names that are taken for photos.
SUFFIXES = (".jpg", ".jpeg", ".png")

#: A photo above this many pixels is refused before it is decoded: it is a mistake or an attack.
MOST_PIXELS = 100_000_000


class UnreadablePhoto(ValueError):
    """A photo that cannot be decoded whole; the message is the reason."""


def read_photo(encoded: bytes) -> Pixels:
    """Decode a JPEG or PNG of any colour mode to upright RGB. Raises UnreadablePhoto."""
    if not encoded:
        raise UnreadablePhoto("the file is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UnreadablePhoto(f"{image.width}x{image.height} pixels are too many")
            return np.array(
                ImageOps.exif_transpose(image).convert("RGB")
            )  # a copy, so that it can be written to
    except UnidentifiedImageError:
        raise UnreadablePhoto("not a JPEG or PNG") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UnreadablePhoto):
            raise
        raise UnreadablePhoto(_one_line(error)) from None


def decode_jpeg(encoded: bytes) -> Pixels:
    """Decode a JPEG that `prepare` wrote, several times faster than :func:`read_photo`."""
    try:
        photo: Pixels = simplejpeg.decode_jpeg(encoded, colorspace="RGB")
    except ValueError as error:
        raise UnreadablePhoto(_one_line(error)) from None
    return photo


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
    scale = shortest_side / min(height, width)
    size = (max(shortest_side, round(width * scale)), max(shortest_side, round(height * scale)))
    return np.array(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))


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
    """Whether a decoder that knows no EXIF and no colour profiles shows the same photo."""
    with Image.open(io.BytesIO(encoded)) as image:
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        return image.format == "JPEG" and image.mode in ("RGB", "L") and upright


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
