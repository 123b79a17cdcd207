"""A photo as a program has it: a path, bytes, an image of Pillow, or an array."""

import os
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from bincount import storage
from bincount.data.images import Pixels, UnreadablePhoto, read_photo
from bincount.errors import BadInput, one_line

#: A path or an address of a JPEG or PNG, its bytes, an image, or uint8 (height, width, 3) RGB.
Photo: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | Pixels

#: What is one photo, and no collection of them.
ONE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)


def pixels_of(photo: Photo, name: str) -> Pixels:
    """The photo as upright RGB, uint8 (height, width, 3).

    ``name``: how to call it where it is no file. Raises UnreadablePhoto, which names it, where it cannot be
    decoded; BadInput where it is something else; NotThere or BincountError where its file cannot be read.
    """
    if isinstance(photo, str | os.PathLike):
        name = os.fspath(photo)
        photo = storage.read(name)
    try:
        if isinstance(photo, bytes | bytearray | memoryview):
            return read_photo(bytes(photo))
        if isinstance(photo, Image.Image):
            return _of_image(photo)
    except UnreadablePhoto as problem:
        raise UnreadablePhoto(f"{name}: {problem}") from None
    return _checked(photo, name)


def _of_image(image: Image.Image) -> Pixels:
    """An image in any mode, turned as its camera noted."""
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits of grey, which convert() would cut off at 255
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        return np.array(upright.convert("RGB"))
    except Exception as error:
        # An image is read only now, and Pillow tells damage in many ways.
        raise UnreadablePhoto(f"a damaged image: {one_line(error)}") from None


def _checked(photo: Any, name: str) -> Pixels:
    if not isinstance(photo, np.ndarray):
        told = "give a path, bytes, an image of Pillow or an array, or a list of these"
        raise BadInput(f"{name} is of type {type(photo).__name__}: {told}")
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
        told = f"{photo.dtype} of shape {photo.shape}"
        raise BadInput(f"{name} is an array {told}: it must be uint8 of (height, width, 3), RGB")
    return photo
