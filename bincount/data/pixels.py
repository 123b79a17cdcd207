"""Photos as tensors: what the model sees. uint8 on the workers, floats on the device."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bincount.data.images import Pixels

#: Mean and standard deviation of ImageNet's RGB values in 0..1, which pretrained weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

#: Random numbers that the augmentation of one photo takes.
DRAWS = 13


@dataclass(frozen=True)
class Augmentation:
    """How far a training photo may be changed. Nothing here cuts away more than its border.

    ``flip`` and ``upside_down``: probability of mirroring left and right, and top and bottom. ``shift``: part
    of the width and height. ``zoom``: only outwards, 0.1 shows the photo at 0.9 of its size or more.
    ``rotate``: degrees to either side. ``stretch``: part by which it gets wider and lower, or narrower and
    higher. ``light`` and ``contrast``: part by which brightness and contrast go up or down; ``color``: the
    same for saturation, and three tenths of it for each of red, green and blue.
    """

    flip: float
    upside_down: float
    shift: float
    zoom: float
    rotate: float
    stretch: float
    light: float
    contrast: float
    color: float


def empty_batch(photos: int, image_size: tuple[int, int]) -> Tensor:
    """Room for photos of ``image_size`` (height, width): uint8 (photos, 3, height, width), channels last."""
    shape = (photos, 3, *image_size)
    return torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)


def fit_into(room: Tensor, photo: Pixels) -> None:
    """Resize the whole photo to its ``room`` in a batch: uint8 (1, 3, height, width), channels last.

    The photo is squashed, not cropped: a crop could cut items away.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)[None]
    if pixels.shape == room.shape:
        room.copy_(pixels)
        return
    # What F.interpolate(mode="bilinear", antialias=True) does. Written where it belongs, it saves a copy and
    # the change of layout, which took a third of the time.
    size = list(room.shape[2:])
    torch.ops.aten._upsample_bilinear2d_aa.out(pixels, size, False, None, None, out=room)


def fit(photo: Pixels, image_size: tuple[int, int]) -> Tensor:
    """The whole photo at ``image_size`` (height, width): uint8 (3, height, width)."""
    room = empty_batch(1, image_size)
    fit_into(room, photo)
    return room[0]


def thumbnail(photo: Pixels, side: int) -> Pixels:
    """The photo with ``side`` pixels along its longer side; a smaller one stays as it is."""
    height, width = photo.shape[:2]
    scale = min(1.0, side / max(height, width))
    small = fit(photo, (max(1, round(height * scale)), max(1, round(width * scale))))
    pixels: Pixels = small.permute(1, 2, 0).numpy()
    return pixels


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) to float32 of mean 0 and deviation 1 over ImageNet, in channels-last memory."""
    mean = torch.tensor(MEAN, device=pixels.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(STD, device=pixels.device).view(1, 3, 1, 1) * 255
    return ((pixels.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def draws(seed: int, epoch: int, rows: npt.NDArray[np.int64]) -> Tensor:
    """The random numbers that augment ``rows`` in an epoch: float32 (rows, DRAWS), in 0..1.

    They depend on nothing else, so a photo is augmented alike on any rank, worker or resumed run.
    A masked place (row -1) gets row 0's.
    """
    numbers = [np.random.default_rng([seed, epoch, max(int(row), 0)]).random(DRAWS) for row in rows]
    return torch.tensor(np.asarray(numbers, dtype=np.float32).reshape(len(rows), DRAWS))


def augment(pixels: Tensor, draws: Tensor, by: Augmentation) -> Tensor:
    """Change each photo by its own random numbers, all of a batch at once on the device.

    ``pixels``: float (B, 3, H, W), normalised. ``draws``: float (B, DRAWS) in 0..1. Same shape back.
    """
    grid = F.affine_grid(_places(pixels, draws, by), list(pixels.shape), align_corners=False)
    # What comes in at a side goes on from the border: a mirror image there would show items twice.
    moved = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)

    strength = 2 * draws[:, 4:6, None, None] - 1
    contrast = torch.exp(strength[:, :1] * math.log1p(by.contrast))
    # One standard deviation of a photo is about 0.225 of full brightness.
    light = strength[:, 1:] * by.light / STD[1]
    return _coloured(moved, draws, by.color) * contrast + light


def _places(pixels: Tensor, draws: Tensor, by: Augmentation) -> Tensor:
    """Which place of the photo comes to which of the result: float (B, 2, 3), as affine_grid takes it."""
    across = torch.where(draws[:, 0] < by.flip, -1.0, 1.0)
    down = torch.where(draws[:, 6] < by.upside_down, -1.0, 1.0)
    zoom = 1 / (1 - by.zoom * draws[:, 3])
    stretch = torch.exp((2 * draws[:, 7] - 1) * math.log1p(by.stretch))
    angle = (2 * draws[:, 8] - 1) * math.radians(by.rotate)
    height, width = pixels.shape[2:]
    theta = pixels.new_zeros(len(pixels), 2, 3)
    theta[:, 0, 0] = across * zoom * stretch * angle.cos()
    theta[:, 0, 1] = -down * zoom / stretch * angle.sin() * height / width
    theta[:, 1, 0] = across * zoom * stretch * angle.sin() * width / height
    theta[:, 1, 1] = down * zoom / stretch * angle.cos()
    theta[:, :, 2] = 2 * by.shift * (2 * draws[:, 1:3] - 1)
    return theta


def _coloured(pixels: Tensor, draws: Tensor, color: float) -> Tensor:
    """The photos (B, 3, H, W) with more or less saturation, and of red, green and blue."""
    if not color:
        return pixels
    grey = pixels.mean(dim=1, keepdim=True)
    saturation = 1 + color * (2 * draws[:, 9, None, None, None] - 1)
    gain = 1 + 0.3 * color * (2 * draws[:, 10:13, None, None] - 1)
    # Of a normalised photo, black is not 0.
    black = pixels.new_tensor(MEAN).div(pixels.new_tensor(STD))[:, None, None]
    return (grey + (pixels - grey) * saturation) * gain + (gain - 1) * black
