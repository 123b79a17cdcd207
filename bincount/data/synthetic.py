"""Drawn bins: photos of a known number of items, for trying everything without downloading anything.

A photo is a function of the arguments of `draw_bin` alone, so any worker of any process draws the same
bytes. Only the items tell the count: light, colours, camera, webbing, labels and stains are chosen without
looking at it. Items get smaller as there are more, so that the covered area tells little: knowing it exactly
finds the count of one photo in three of those with 1 to 5 items, where guessing finds one in five.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count as forever

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from bincount.data.drawing import (
    KINDS,
    Colour,
    Item,
    Paint,
    Pen,
    Points,
    Random,
    hue,
    lighter,
    mix,
    polygon_area,
    rectangle,
)

OVERSAMPLE = 2  # Pillow draws polygons without antialiasing
TRIES = 8  # places tried for an item before the scene starts again with smaller items
FRAME = 255  # in the mask while placing: hidden behind the frame of the bin

Mask = npt.NDArray[np.uint8]
Photo = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """A drawn bin and what is in it."""

    photo: Photo  # (height, width, 3) RGB
    items: Mask  # (height, width): 0 where no item is seen, else the number of the item, from 1
    visible: tuple[float, ...]  # for each item the share of its silhouette that is seen, 0..1


@dataclass(frozen=True)
class Bin:
    """The empty bin: where its parts are (in photo heights) and its colour."""

    opening: Points  # outline of what is seen through the front
    left: float
    top: float
    right: float
    bottom: float
    floor: float  # y where the back wall meets the floor
    wall: Colour

    @property
    def area(self) -> float:
        """Area of the opening in square photo heights."""
        return (self.right - self.left) * (self.bottom - self.top)


def draw_bin(
    seed: int,
    index: int,
    count: int,
    difficulty: float,
    width: int,
    height: int,
) -> Photo:
    """Draw photo number `index` with `count` items: uint8 (height, width, 3) RGB.

    `difficulty` goes from 0 (clear) to 1 (as bad as the worst real photos): more overlap, webbing, clutter,
    blur and noise, and less light.
    """
    return draw_scene(seed, index, count, difficulty, width, height).photo


def draw_scene(
    seed: int,
    index: int,
    count: int,
    difficulty: float,
    width: int,
    height: int,
) -> Scene:
    """Draw as `draw_bin` does, and tell where each item is."""
    if not 0 <= count < FRAME or not 0 <= difficulty <= 1 or min(width, height) < 16:
        raise ValueError(f"cannot draw {count} items at difficulty {difficulty} on {width} x {height} pixels")
    random = np.random.default_rng((seed, index, 0))
    place = _choose_bin(random, width / height)
    # Its own generator, so that the number of draws for the items does not move anything else.
    items, mask = _place_items(
        np.random.default_rng((seed, index, 1)), place, count, difficulty, width, height
    )
    pen = Pen(width * OVERSAMPLE, height * OVERSAMPLE, place.wall)
    _paint_inside(pen, random, place, difficulty)
    depth = random.uniform(0.3, 1.0)
    for item in items:
        pen.shade(item.outline, depth, 0.12)
        for patch in item.patches:
            pen.paint(patch)
    _paint_webbing(pen, random, place, difficulty)
    _paint_frame(pen, random, place, width / height)
    photo = _expose(pen.image.reduce(OVERSAMPLE), random, difficulty)
    sizes = [polygon_area(item.outline) * height**2 for item in items]
    seen = np.bincount(mask.ravel(), minlength=count + 1)[1 : count + 1]
    return Scene(photo, mask, tuple(min(1.0, float(n / size)) for n, size in zip(seen, sizes, strict=True)))


def minimum_visible(difficulty: float) -> float:
    """Return the share of each item's silhouette that is always seen: 0.95 when clear, never below 0.3."""
    return 0.95 - 0.65 * difficulty


def counts_to_draw(photos: int, max_count: int, seed: int) -> list[int]:
    """Return `photos` counts, spread as evenly over 0..max_count as possible, in an order set by `seed`."""
    counts = np.arange(photos) % (max_count + 1)
    return [int(n) for n in np.random.default_rng(seed).permutation(counts)]


def _choose_bin(random: Random, aspect: float) -> Bin:
    """Choose the bin's colour, and how the camera stands before it."""
    x, y = random.normal(0, 0.02, 2)
    left, right = aspect * random.uniform(0.02, 0.07) + x, aspect * random.uniform(0.93, 0.98) + x
    top, bottom = random.uniform(0.04, 0.12) + y, random.uniform(0.86, 0.94) + y
    sag = random.uniform(0, 0.03)
    along = np.linspace(0, 1, 7)
    lip = np.stack([right + (left - right) * along, bottom + sag * np.sin(np.pi * along)], axis=1)
    opening = np.concatenate([[[left, top], [right, top]], lip])
    floor = bottom - random.uniform(0.08, 0.24)
    wall = mix((186, 166, 104), hue(random, 0.4, random.uniform(0.3, 0.85)), random.uniform(0, 0.7))
    return Bin(opening, left, top, right, bottom, floor, lighter(wall, random.uniform(-0.35, 0.2)))


def _place_items(
    random: Random, place: Bin, count: int, difficulty: float, width: int, height: int
) -> tuple[list[Item], Mask]:
    """Place items from back to front so that each stays visible; the mask is (height, width) of numbers."""
    covered = random.uniform(0.14, 0.32) * place.area
    liked = random.dirichlet(np.ones(len(KINDS)))
    paint = Paint(place.wall, 110 * (1 - difficulty))
    for attempt in forever():
        # With a power of 1 area would tell nothing, but five items would be too small to learn quickly.
        share = covered * 0.8**attempt / max(count, 1) ** 0.75
        mask = _outline_mask(place.opening, width, height, 0, FRAME)
        items: list[Item] = []
        for near in np.sort(random.random(count)):
            item = KINDS[random.choice(len(KINDS), p=liked)](random, paint)
            area = min(share * float(np.exp(random.normal(0, 0.2))), 0.4 * place.area)
            found = _place_item(random, place, item.scaled_to(area), float(near), items, mask, difficulty)
            if found is None:
                break
            items.append(found)
        if len(items) == count:
            mask[mask == FRAME] = 0
            return items, mask
    raise AssertionError("unreachable")


def _place_item(
    random: Random, place: Bin, item: Item, near: float, others: list[Item], mask: Mask, difficulty: float
) -> Item | None:
    """Find a place for an item before the others and enter it in the mask; None when there is none."""
    height, width = mask.shape
    needed = minimum_visible(difficulty)
    sizes = np.array([polygon_area(other.outline) * height**2 for other in others])
    seen = np.bincount(mask.ravel(), minlength=256)[1 : len(others) + 1]
    for _ in range(TRIES):
        tilt = random.normal(0, 0.05 if random.random() < 0.6 else 0.35)
        base = place.floor + near * (place.bottom - place.floor)
        x = random.uniform(place.left, place.right)
        if others and random.random() < 0.25:  # on top of another one
            under = others[random.integers(len(others))].outline
            base, x = under[:, 1].min() + 0.03, random.uniform(under[:, 0].min(), under[:, 0].max())
        new = item.turned(tilt).standing_at(x, base)
        inside = _outline_mask(new.outline, width, height, 1, 0).view(bool)
        under_it = np.bincount(mask[inside], minlength=256)
        own = inside.sum() - under_it[FRAME]
        left = (seen - under_it[1 : len(others) + 1]) / np.maximum(sizes, 1)
        if own >= max(needed * polygon_area(new.outline) * height**2, 4) and (left >= needed).all():
            mask[inside & (mask != FRAME)] = len(others) + 1
            return new
    return None


def _outline_mask(outline: Points, width: int, height: int, fill: int, ground: int) -> Mask:
    """Return a (height, width) mask: `fill` inside the outline, `ground` elsewhere."""
    mask = Image.new("L", (width, height), ground)
    ImageDraw.Draw(mask).polygon((outline * height).ravel().tolist(), fill)
    return np.array(mask)


def _paint_inside(pen: Pen, random: Random, place: Bin, difficulty: float) -> None:
    """Paint back wall, side walls, floor, and what lies there without being an item."""
    left, top, right, bottom, floor = place.left, place.top, place.right, place.bottom, place.floor
    inset = random.uniform(0.03, 0.09, 2) * (1, -1) + (left, right)
    pen.polygon([(left, top), (inset[0], top), (inset[0], floor), (left, bottom)], lighter(place.wall, -0.25))
    pen.polygon(
        [(right, top), (inset[1], top), (inset[1], floor), (right, bottom)], lighter(place.wall, -0.15)
    )
    ground = lighter(place.wall, random.uniform(-0.4, 0.15))
    pen.polygon([(inset[0], floor), (inset[1], floor), (right, bottom + 0.05), (left, bottom + 0.05)], ground)
    for _ in range(random.integers(2, 7)):  # folds of the fabric
        x, lean, broad = random.uniform(left, right), random.normal(0, 0.1), random.uniform(0.01, 0.08)
        shade = lighter(place.wall, random.choice([-0.5, 0.4]))
        for part in (1.0, 0.6, 0.3):
            side = broad * part
            pen.polygon(
                [(x - side, top), (x + side, top), (x + lean + side, floor), (x + lean - side, floor)],
                shade,
                22,
            )
    for _ in range(random.integers(0, 2 + round(3 * difficulty))):  # stains and cast shadows
        middle = (random.uniform(left, right), random.uniform(top, bottom))
        stain = _blob(random, 0.04 + 0.16 * random.random() ** 2) + middle
        pen.shade(stain, random.uniform(0.1, 0.7), 0.5)
    for _ in range(random.integers(0, 2 + round(2 * difficulty))):  # labels and tape left on the wall
        x, y = random.uniform(left, right - 0.15), random.uniform(top, floor - 0.1)
        across, down = random.uniform(0.05, 0.2), random.uniform(0.02, 0.06)
        colour = mix(Paint(place.wall, 0).colour(random), place.wall, random.uniform(0.2, 0.6))
        pen.polygon(rectangle(x, y, x + across, y + down), colour, 200)


def _blob(random: Random, radius: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    reach = radius * random.uniform(0.7, 1.3, 12) * random.uniform(0.5, 1.0)
    return np.stack([np.cos(angle) * reach * random.uniform(1, 2), np.sin(angle) * reach], axis=1)


def _paint_webbing(pen: Pen, random: Random, place: Bin, difficulty: float) -> None:
    """Paint the elastic threads that hold the items back: level bands, sometimes a crossed net."""
    tall = place.bottom - place.top
    thread = lighter((196, 184, 176), random.uniform(-0.3, 0.3))
    alpha = round(random.uniform(60, 110) + 70 * difficulty)
    along = np.linspace(0, 1, 6)
    across = place.left + (place.right - place.left) * along
    for _ in range(random.integers(1, 2 + round(2.4 * difficulty))):
        start, pitch = place.top + tall * random.uniform(0.05, 0.8), random.uniform(0.014, 0.024)
        tilt, sag, wave = random.normal(0, 0.02), random.normal(0, 0.02), random.uniform(0, 0.004)
        for row in range(random.integers(4, 8 + round(8 * difficulty))):
            level = (
                start + row * pitch + tilt * along + sag * np.sin(np.pi * along) + random.normal(0, wave, 6)
            )
            pen.line(np.stack([across, level], axis=1), thread, 0.005, alpha)
    if random.random() < 0.05 + 0.4 * difficulty:
        pitch, lean = random.uniform(0.12, 0.3), random.uniform(0.4, 1.2)
        for x in np.arange(place.left - lean, place.right + lean, pitch):
            for way in (-lean, lean):
                pen.line([(x, place.top), (x + way, place.bottom)], thread, 0.008, alpha)


def _paint_frame(pen: Pen, random: Random, place: Bin, aspect: float) -> None:
    """Paint the fabric around the opening, and the label strips above and below it."""
    colour = lighter(place.wall, random.uniform(0.05, 0.3))
    rim = [(-1, -1), (aspect + 1, -1), (aspect + 1, 2), (-1, 2), (-1, -1)]
    pen.polygon([*rim, *place.opening, place.opening[0]], colour)
    pen.line([*place.opening, place.opening[0]], lighter(colour, -0.35), 0.008, 160)
    words = f"{random.integers(1, 4)}{random.choice(list('ABCDEFGHJK'))}"
    for middle in (place.top - 0.02, place.bottom + 0.065):
        x, wide, tall = (
            random.uniform(0.3, 0.7) * aspect,
            random.uniform(0.26, 0.36),
            random.uniform(0.07, 0.09),
        )
        back = hue(random, random.uniform(0.3, 0.8), random.uniform(0.3, 0.8))
        pen.polygon(
            rectangle(x - wide / 2, middle - tall / 2, x + wide / 2, middle + tall / 2), (228, 226, 220)
        )
        pen.polygon(
            rectangle(x - wide * 0.46, middle - tall * 0.4, x + wide * 0.1, middle + tall * 0.4), back
        )
        pen.text(x - wide * 0.18, middle, words, tall * 0.75, (20, 20, 24))
        for row, column in np.argwhere(random.random((5, 5)) < 0.5) * tall * 0.15:
            corner = (x + wide * 0.18 + column, middle - tall * 0.38 + row)
            pen.polygon(rectangle(*corner, corner[0] + tall * 0.15, corner[1] + tall * 0.15), (24, 24, 24))


def _expose(image: Image.Image, random: Random, difficulty: float) -> Photo:
    """Turn the painted scene into what a camera makes of it: light, blur and noise."""
    width, height = image.size
    blur = difficulty * random.uniform(0.3, 1.4) * height / 128
    if blur > 0.15:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    lamp = Image.fromarray(random.uniform(0.75, 1.2, (3, 4)).astype(np.float32))
    light = np.asarray(lamp.resize(image.size, Image.Resampling.BICUBIC))[..., None]
    gain = np.exp(random.normal(0, 0.2)) * (1 - 0.55 * difficulty * random.random())
    tint = (gain * random.uniform(0.92, 1.08, 3)).astype(np.float32)
    haze = np.float32(difficulty * random.uniform(0, 40))
    strength = np.float32(2 + 10 * difficulty * random.random())
    noise = random.standard_normal((height, width, 1), dtype=np.float32) * strength
    photo = np.asarray(image, dtype=np.float32) * (light * tint) * (1 - haze / 160) + (haze + noise)
    exposed: Photo = np.clip(photo, 0, 255).astype(np.uint8)
    return exposed
