"""What a photo is like, in a few numbers: of the camera, and what the model tells of the bin.

All photos are measured alike: as they are stored for training, and but for their sides at MEASURED pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bincount.data.images import Pixels
from bincount.data.pixels import fit

#: Height and width at which light, colour and sharpness are measured, so that they hang on no size.
MEASURED = (224, 224)

#: How bright red, green and blue look (ITU-R BT.601).
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trait:
    """What is told of photos that have ``more`` or ``less`` of it."""

    more: str
    less: str


CAMERA = {
    "brightness": Trait("brighter", "darker"),
    "contrast": Trait("richer in contrast", "poorer in contrast"),
    "sharpness": Trait("sharper", "more blurred"),
    "red": Trait("redder", "less red"),
    "blue": Trait("bluer", "less blue"),
    "width": Trait("wider", "narrower"),
    "height": Trait("higher", "lower"),
    "aspect": Trait("wider for their height", "narrower for their height"),
}

BINS = {
    "count": Trait("more items are told", "fewer items are told"),
    "certainty": Trait("the model is surer", "the model is less sure"),
}

TRAITS = {**CAMERA, **BINS}

#: How each trait is measured.
MEASURES = {
    "Cameras": "Brightness is 0 to 1; contrast its deviation / its mean; sharpness the variance of the "
    "Laplacian / the variance of the brightness; red and blue are shares of the light; width and height are "
    "pixels as stored, aspect is width / height.",
    "Bins, as the model tells them": "Certainty is the probability of the most probable count.",
}


def camera_traits(photo: Pixels) -> dict[str, float]:
    """The traits CAMERA of one photo, uint8 (height, width, 3)."""
    height, width = photo.shape[:2]
    light = fit(photo, MEASURED).numpy().astype(np.float32)
    sums = light.sum(axis=(1, 2), dtype=np.float64)
    grey = np.tensordot(LUMA, light, axes=1)
    mean, variance = float(grey.mean()), float(grey.var())
    return {
        "brightness": mean / 255,
        "contrast": variance**0.5 / mean if mean else 0.0,
        # A darker photo has a smaller Laplacian, too, and is not blurred for that.
        "sharpness": float(_laplacian(grey).var()) / variance if variance else 0.0,
        "red": float(sums[0] / sums.sum()) if sums.any() else 1 / 3,
        "blue": float(sums[2] / sums.sum()) if sums.any() else 1 / 3,
        "width": float(width),
        "height": float(height),
        "aspect": width / height,
    }


def _laplacian(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The sum of the differences to the four neighbours, of all pixels but those at the edge."""
    middle: npt.NDArray[np.float32] = grey[1:-1, 1:-1]
    return grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle


def columns(rows: Sequence[Mapping[str, float]]) -> dict[str, Values]:
    """The values of each trait, float64 (photos,), of the traits of each photo."""
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]} if rows else {}
