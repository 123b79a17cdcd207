"""Collages: drawn bins whose items wear pieces of real photos, and some of which stand in a real empty bin.

They teach what drawings alone do not: to tell items apart that are printed, wrapped and lit like real ones.
How many there are is known, and no photo has to be labelled for it. Only training photos are cut up.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from bincount.data.drawing import Random
from bincount.data.images import Pixels, decode_jpeg
from bincount.data.index import Index, SplitTable
from bincount.data.synthetic import FULL, Mask, draw_scene

Floats = npt.NDArray[np.float32]

#: Photos that collages are cut from at most: as many as each process holds, 30 MB.
MOST_CUT = 800

#: Pixels of both sides of a photo that is cut up.
CUT_SIZE = 112


@dataclass(frozen=True)
class Cuttings:
    """Photos to cut from: of bins with items and of empty ones, uint8 (photos, CUT_SIZE, CUT_SIZE, 3)."""

    filled: npt.NDArray[np.uint8]
    empty: npt.NDArray[np.uint8]


@lru_cache(maxsize=1)
def cuttings_of(address: str) -> Cuttings:
    """What to cut up of the data set at ``address``: training photos, evenly chosen. Kept for the process."""
    table = Index.open(address).split("train")
    filled, empty = np.flatnonzero(table.count > 0), np.flatnonzero(table.count == 0)
    return Cuttings(*(_read(table, _some(rows)) for rows in (filled, empty)))


def _some(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return rows[np.unique(np.linspace(0, len(rows) - 1, MOST_CUT).astype(int))] if len(rows) else rows


def _read(table: SplitTable, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    photos = np.zeros((len(rows), CUT_SIZE, CUT_SIZE, 3), dtype=np.uint8)
    for photo, row in zip(photos, rows, strict=True):
        shard = table.shards[table.shard[row]]
        jpeg = table.store.read_range(shard, int(table.jpeg_offset[row]), int(table.jpeg_length[row]))
        photo[:] = _resized(decode_jpeg(jpeg), CUT_SIZE, CUT_SIZE).round()
    return photos


def draw_collage(
    seed: int, index: int, count: int, difficulty: float, width: int, height: int, cuttings: Cuttings
) -> Pixels:
    """Collage number ``index`` with ``count`` items: uint8 (height, width, 3).

    The same arguments give the same bytes. ``difficulty``: of bins on average, 0 (clear) to 1; see
    :func:`bincount.data.synthetic.draw_bin`.
    """
    random = np.random.default_rng((seed, index, 2))
    own = min(1.0, difficulty * random.uniform(0.5, 1.5))
    scene = draw_scene(seed, index, count, own, width, height, FULL)
    drawn = scene.photo.astype(np.float32)
    light = drawn.mean(axis=2, keepdims=True)
    shown = drawn.copy()
    if len(cuttings.empty) and random.random() < 0.6:
        wall = _mirrored(random, cuttings.empty[random.integers(len(cuttings.empty))])
        shown = _resized(wall, width, height) * np.float32(random.uniform(0.7, 1.2))
    for number in range(1, count + 1):
        if random.random() < 0.85:
            _dress(random, shown, light, scene.items == number, cuttings)
        else:
            shown = np.where((scene.items == number)[..., None], drawn, shown)
    shown = np.where(_edges(scene.items)[..., None], shown * np.float32(random.uniform(0.45, 0.95)), shown)
    photo = Image.fromarray(np.clip(shown, 0, 255).astype(np.uint8))
    if random.random() < 0.5:
        photo = photo.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 0.9) * height / 128))
    return np.asarray(photo)


def _dress(
    random: Random, shown: Floats, light: Floats, item: npt.NDArray[np.bool_], cuttings: Cuttings
) -> None:
    """Give an item the surface of a piece of a photo, under the light of the drawing."""
    rows, columns = np.nonzero(item)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    inside = item[box][..., None]
    height, width = inside.shape[:2]
    photo = cuttings.filled[random.integers(len(cuttings.filled))]
    side = int(random.uniform(0.25, 0.7) * CUT_SIZE)
    # Not from the rim, where the label of the bin is.
    top, left = random.integers(8, CUT_SIZE - side - 7), random.integers(4, CUT_SIZE - side - 3)
    piece = np.rot90(photo[top : top + side, left : left + side], int(random.integers(4)))
    surface = _resized(_mirrored(random, piece), width, height) * np.float32(random.uniform(0.6, 1.4))
    surface += random.normal(0, 14, 3).astype(np.float32)
    lit = np.clip(light[box] / max(float(light[box][inside].mean()), 1.0), 0.55, 1.5)
    shown[box] = np.where(inside, surface * (0.5 + 0.5 * lit), shown[box])


def _edges(items: Mask) -> npt.NDArray[np.bool_]:
    """Where an item borders on another one or on the bin."""
    edges = np.zeros(items.shape, dtype=np.bool_)
    edges[1:] |= items[1:] != items[:-1]
    edges[:, 1:] |= items[:, 1:] != items[:, :-1]
    return edges


def _mirrored(random: Random, photo: Pixels) -> Pixels:
    return photo[:, ::-1] if random.random() < 0.5 else photo


def _resized(photo: Pixels, width: int, height: int) -> Floats:
    image = Image.fromarray(np.ascontiguousarray(photo))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
