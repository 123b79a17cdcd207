"""Primitives of the drawn bins: a pen, and one function for each kind of item.

Lengths are in photo heights: y runs from 0 (top of the photo) to 1, x from 0 to width / height, so that
a scene looks the same at any size. Pure functions of a numpy Generator and a few numbers.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Colour: TypeAlias = tuple[int, int, int]
Points: TypeAlias = npt.NDArray[np.float64]  # (corners, 2) as x, y in photo heights
Random: TypeAlias = np.random.Generator


@dataclass(frozen=True)
class Patch:
    """One polygon, or one polyline when `width` (in photo heights) is not 0."""

    points: Points
    colour: Colour
    alpha: int = 255
    width: float = 0.0

    def through(self, change: Callable[[Points], Points]) -> Patch:
        """Return the patch with its points changed."""
        return replace(self, points=change(self.points))


@dataclass(frozen=True)
class Item:
    """One thing in the bin: its silhouette, and the patches that paint it from back to front."""

    outline: Points
    patches: tuple[Patch, ...]

    def through(self, change: Callable[[Points], Points]) -> Item:
        """Return the item with all its points changed."""
        return Item(change(self.outline), tuple(patch.through(change) for patch in self.patches))

    def turned(self, angle: float) -> Item:
        """Return the item turned by `angle` radians about the origin."""
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, sin], [-sin, cos]])
        return self.through(lambda points: points @ turn)

    def standing_at(self, x: float, y: float) -> Item:
        """Return the item with the middle of its lowest edge at (x, y)."""
        low, high = self.outline.min(axis=0), self.outline.max(axis=0)
        shift = np.array([x - (low[0] + high[0]) / 2, y - high[1]])
        return self.through(lambda points: points + shift)

    def scaled_to(self, area: float) -> Item:
        """Return the item with a silhouette of `area` square photo heights."""
        factor = float(np.sqrt(area / polygon_area(self.outline)))
        return self.through(lambda points: points * factor)


class Pen:
    """Paints patches on a canvas of (height, width) pixels."""

    def __init__(self, width: int, height: int, colour: Colour) -> None:
        self.image = Image.new("RGB", (width, height), colour)
        self.unit = height
        self._draw = ImageDraw.Draw(self.image, "RGBA")

    def paint(self, patch: Patch) -> None:
        """Blend one patch over what is there."""
        corners = (patch.points * self.unit).ravel().tolist()
        fill = (*patch.colour, patch.alpha)
        if patch.width:
            self._draw.line(corners, fill, max(1, round(patch.width * self.unit)), joint="curve")
        else:
            self._draw.polygon(corners, fill)

    def polygon(self, points: npt.ArrayLike, colour: Colour, alpha: int = 255) -> None:
        """Fill a polygon."""
        self.paint(Patch(np.asarray(points, dtype=np.float64), colour, alpha))

    def line(self, points: npt.ArrayLike, colour: Colour, width: float, alpha: int = 255) -> None:
        """Draw a polyline `width` photo heights thick."""
        self.paint(Patch(np.asarray(points, dtype=np.float64), colour, alpha, width))

    def text(self, x: float, y: float, words: str, size: float, colour: Colour) -> None:
        """Write `words` with their middle at (x, y), `size` photo heights tall."""
        place = (x * self.unit, y * self.unit)
        self._draw.text(place, words, colour, _font(max(4, round(size * self.unit))), anchor="mm")

    def shade(self, outline: Points, depth: float, spread: float) -> None:
        """Darken softly around and below `outline`: nested faint silhouettes instead of a slow blur."""
        middle = outline.mean(axis=0)
        for step in (1.0, 0.66, 0.33):
            grown = middle + (outline - middle) * (1 + spread * step)
            self.polygon(grown + spread * np.array([0.08, 0.05]), (12, 9, 6), round(70 * depth))


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def polygon_area(points: Points) -> float:
    """Return the area of a simple polygon (shoelace formula)."""
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    """Return the four corners of an upright rectangle."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return `first` with `share` (0..1) of `second` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def lighter(colour: Colour, amount: float) -> Colour:
    """Return the colour moved towards white, or towards black when `amount` is below 0."""
    return mix(colour, (255, 255, 255) if amount > 0 else (0, 0, 0), abs(amount))


def hue(random: Random, saturation: float, value: float) -> Colour:
    """Return a colour of any hue."""
    red, green, blue = colorsys.hsv_to_rgb(random.random(), saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


@dataclass(frozen=True)
class Paint:
    """Chooses the colours of items: at least `contrast` (0..255, in some channel) away from the wall's."""

    wall: Colour
    contrast: float

    def colour(self, random: Random) -> Colour:
        """Return the colour of a wrapping."""
        for _ in range(20):  # a wall may leave no such colour: then take the last
            colour = _wrapping(random)
            if max(abs(a - b) for a, b in zip(colour, self.wall, strict=True)) >= self.contrast:
                break
        return colour


def _wrapping(random: Random) -> Colour:
    """Return cardboard, white, black, or print of any hue."""
    choice = random.random()
    if choice < 0.25:
        return lighter((176, 132, 88), random.uniform(-0.3, 0.2))
    if choice < 0.37:
        return lighter((226, 224, 216), random.uniform(-0.2, 0.2))
    if choice < 0.52:
        return lighter((40, 38, 42), random.uniform(-0.2, 0.15))
    return hue(random, random.uniform(0.35, 0.9), random.uniform(0.3, 0.95))


def box(random: Random, paint: Paint) -> Item:
    """Return a box: a printed front, and a top and a side face that are lit differently."""
    width, height = float(np.exp(random.normal(0.1, 0.35))), 1.0
    colour = paint.colour(random)
    away = np.array([random.choice([-1, 1]) * random.uniform(0.08, 0.3), -random.uniform(0.08, 0.28)])
    front = rectangle(0, -height, width, 0)
    side = 1 if away[0] > 0 else 0
    near = front[[side, 3 - side]]  # top and bottom corner of the edge that the side face starts at
    top = np.array([front[0], front[1], front[1] + away, front[0] + away])
    flank = np.array([near[0], near[0] + away, near[1] + away, near[1]])
    far = front[1 - side]  # the front's other top corner
    outline = np.array([far, far + away, near[0] + away, near[1] + away, near[1], front[2 + side]])
    edge = lighter(colour, -0.45)
    patches = [
        Patch(flank, lighter(colour, -0.32)),
        Patch(top, lighter(colour, 0.22)),
        Patch(front, colour),
        *_print_on(random, width, height, colour),
        *(Patch(np.array(line), edge, 190, 0.004) for line in ((*front, front[0]), (*outline, outline[0]))),
    ]
    if random.random() < 0.4:  # a strip of tape over the front and on over the top
        left = random.uniform(0.3, 0.55) * width
        tape = lighter(colour, random.choice([-0.2, 0.35]))
        strip = [(left, 0), (left, -height), (left + away[0], away[1] - height)]
        strip += [(x + 0.1 * width, y) for x, y in reversed(strip)]
        patches.append(Patch(np.array(strip, dtype=np.float64), tape, 130))
    return Item(outline, tuple(patches))


def bag(random: Random, paint: Paint) -> Item:
    """Return a bag: a soft outline, half seen through, with gloss and wrinkles."""
    corners = 16
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    power = random.uniform(0.45, 0.9)  # towards 0 more like a rectangle
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    outline = np.sign(circle) * np.abs(circle) ** power * (np.exp(random.normal(0.1, 0.25)), 1.0)
    outline = outline * random.uniform(0.86, 1.08, (corners, 1))
    colour = paint.colour(random)
    gloss = lighter(colour, 0.6)
    patches = [Patch(outline, colour, round(random.uniform(205, 255)))]
    patches.append(Patch(outline * 0.8 + (0.08, 0.12), lighter(colour, -0.3), 90))
    for _ in range(random.integers(5, 11)):
        middle = outline[random.integers(corners)] * random.uniform(0.1, 0.8)
        run = random.normal(0, 0.3, 2)
        bend = middle + random.normal(0, 0.08, 2)
        shine = random.random() < 0.6
        ridge = np.array([middle - run, bend, middle + run])
        ridge = ridge * min(1.0, 0.8 / float(np.abs(ridge / np.abs(outline).max(axis=0)).max()))
        patches.append(
            Patch(ridge, gloss if shine else lighter(colour, -0.5), 120, random.uniform(0.004, 0.014))
        )
    if random.random() < 0.5:
        patches += [patch.through(lambda p: p * 0.5 + 0.2) for patch in _label(random, 0, -1, 1, 0)]
    patches.append(Patch(np.array([*outline, outline[0]]), lighter(colour, -0.4), 200, 0.006))
    return Item(outline, tuple(patches))


def book(random: Random, paint: Paint) -> Item:
    """Return a book seen edge on: a spine or the pages between two covers, standing or lying."""
    length, thick = 1.0, random.uniform(0.16, 0.34)
    colour = paint.colour(random)
    body = rectangle(0, -thick, length, 0)
    away = np.array([random.uniform(-0.12, 0.12), -random.uniform(0.02, 0.08)])
    top = np.array([body[0], body[0] + away, body[1] + away, body[1]])
    outline = np.array([*top, body[2], body[3]])
    patches = [Patch(top, lighter(colour, 0.25)), Patch(body, colour)]
    if random.random() < 0.5:
        paper, rule = (228, 221, 200), (150, 140, 120)
        patches.append(Patch(rectangle(0.02, -thick * 0.84, length, -thick * 0.16), paper))
        for level in np.linspace(0.25, 0.75, 4) * -thick:
            patches.append(Patch(np.array([[0.02, level], [length, level]]), rule, 150, 0.003))
    else:
        ink = lighter(colour, 0.7 if sum(colour) < 380 else -0.7)
        for left, right in ((0.05, 0.09), (0.2, random.uniform(0.5, 0.7)), (0.8, 0.86)):
            patches.append(Patch(rectangle(left, -thick * 0.72, right, -thick * 0.28), ink, 200))
    patches.append(Patch(np.array([*outline, outline[0]]), lighter(colour, -0.5), 210, 0.005))
    standing = random.random() < 0.6
    return Item(outline, tuple(patches)).turned(random.choice([-1, 1]) * np.pi / 2 if standing else 0.0)


KINDS: tuple[Callable[[Random, Paint], Item], ...] = (box, bag, book)


def _print_on(random: Random, width: float, height: float, colour: Colour) -> list[Patch]:
    """Return what is printed on the front of a box: bands, rows of text, a label with a bar code."""
    ink = lighter(colour, 0.75 if sum(colour) < 380 else -0.6)
    patches = []
    if random.random() < 0.4:
        top = random.uniform(0.1, 0.7) * height
        patches.append(Patch(rectangle(0, -top - 0.15 * height, width, -top), hue(random, 0.5, 0.7), 210))
    if random.random() < 0.6:
        for row in range(random.integers(1, 4)):
            y, right = -height * (0.85 - 0.12 * row), width * random.uniform(0.4, 0.9)
            patches.append(Patch(rectangle(width * 0.1, y, right, y + 0.06 * height), ink, 190))
    if random.random() < 0.5:
        left, top = random.uniform(0.1, 0.5) * width, -random.uniform(0.4, 0.6) * height
        patches += _label(random, left, top, left + 0.4 * width, top + 0.3 * height)
    return patches


def _label(random: Random, left: float, top: float, right: float, bottom: float) -> list[Patch]:
    """Return a white sticker with a bar code."""
    width, height = right - left, bottom - top
    patches = [Patch(rectangle(left, top, right, bottom), (235, 233, 226))]
    for x in left + width * np.sort(random.uniform(0.08, 0.9, 9)):
        bar = rectangle(x, top + 0.2 * height, x + 0.045 * width, top + 0.75 * height)
        patches.append(Patch(bar, (30, 30, 30)))
    return patches
