"""Collages: bins that are put together from photos, items cut out of one laid into another.

They look like photos, there are as many as are wanted, and their counts are sums: that of the photo which the
items are laid into, and those of the photos that they were cut out of, which hold one or two. Only training
photos are cut up.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bincount.data.cutting import MOST_ITEMS, Cuttings, Floats
from bincount.data.drawing import Random
from bincount.data.images import Pixels
from bincount.data.synthetic import draw_bin

#: Items that are cut out together at most: who cuts out more cuts out what nobody can count.
MOST_TOGETHER = 2

#: Shares of a photo that items may cover: to be cut out (below that, they are not seen) and laid beside.
CUT_OUT, ROOM = (0.04, 0.6), 0.75

#: Places that are tried for what is laid in, and how far to the side, as a share of the width.
TRIES, ASIDE = 6, 0.25

#: How much of what was cut out has to be in the picture.
SHOWING = 0.85


@dataclass(frozen=True)
class Layer:
    """A photo, float32 (height, width, 3), and where its items are, float32 (height, width) from 0 to 1."""

    photo: Floats
    items: Floats


def make_collage(seed: int, index: int, count: int, difficulty: float, cuttings: Cuttings) -> Pixels:
    """Collage number ``index`` with ``count`` items: uint8 (height, width, 3), as large as the cuttings.

    The same arguments give the same bytes. ``difficulty``: from 0, where items hide one another as little as
    can be, to 1, where they lie anywhere.
    """
    random = np.random.default_rng((seed, index, 2))
    made, there = _begun(random, seed, index, count, difficulty, cuttings)
    left = count - there
    while left > 0:
        together = MOST_TOGETHER if left >= MOST_TOGETHER and random.random() < 0.3 else 1
        donors = cuttings.with_count(together, CUT_OUT)
        if not len(donors):
            together, donors = 1, cuttings.with_count(1, CUT_OUT)
        made = _laid_in(random, made, cuttings, donors, difficulty)
        left -= together
    return np.clip(made.photo, 0, 255).astype(np.uint8)


def _begun(
    random: Random, seed: int, index: int, count: int, difficulty: float, cuttings: Cuttings
) -> tuple[Layer, int]:
    """What items are laid into, and how many it holds; where no photo is of an empty bin one is drawn."""
    most = min(MOST_ITEMS, max(count - 1, 0))
    there = int(random.integers(most + 1))
    fitting = cuttings.with_count(there, (0, ROOM))
    if len(fitting):
        return _layer(random, cuttings, int(random.choice(fitting))), there
    height, width = cuttings.items.shape[1:]
    drawn = draw_bin(seed, index, 0, difficulty, width, height)
    return Layer(drawn.astype(np.float32), np.zeros((height, width), np.float32)), 0


def _laid_in(
    random: Random, made: Layer, cuttings: Cuttings, donors: npt.NDArray[np.int64], difficulty: float
) -> Layer:
    """What was made with the items of one more photo before it, where they hide the least."""
    best, least = None, np.inf
    for _ in range(TRIES):
        layer = _layer(random, cuttings, int(random.choice(donors)))
        width = layer.items.shape[1]
        moved = _moved(layer, int(random.integers(-int(ASIDE * width), int(ASIDE * width) + 1)))
        lost = moved.items.sum() < SHOWING * layer.items.sum()
        hidden = (made.items * moved.items).sum() / max(min(made.items.sum(), moved.items.sum()), 1.0)
        score = (1 - difficulty) * hidden + difficulty * random.random() + (10 if lost else 0)
        if score < least:
            best, least = moved, score
    assert best is not None
    # The same light falls on both: that of what neither photo's items cover.
    bare = (1 - made.items) * (1 - best.items)
    light = ((made.photo.mean(axis=2) * bare).sum() + 5) / ((best.photo.mean(axis=2) * bare).sum() + 5)
    over = best.items[..., None]
    photo = made.photo * (1 - over) + best.photo * np.float32(np.clip(light, 0.6, 1.6)) * over
    return Layer(photo, np.maximum(made.items, best.items))


def _layer(random: Random, cuttings: Cuttings, row: int) -> Layer:
    """A photo or its mirror image."""
    turn = slice(None, None, -1 if random.random() < 0.5 else 1)
    items = cuttings.items[row][:, turn].astype(np.float32) / 255
    return Layer(cuttings.photos[row][:, turn].astype(np.float32), items)


def _moved(layer: Layer, right: int) -> Layer:
    """A layer moved aside; what comes in is no item."""
    items = np.zeros_like(layer.items)
    width = items.shape[1]
    to, of = (slice(max(0, side), width + min(0, side)) for side in (right, -right))
    items[:, to] = layer.items[:, of]
    return Layer(np.roll(layer.photo, right, axis=1), items)
