"""Where in photos of bins the items are, learnt from which bins are empty: nobody has to outline them.

How a small piece of a photo looks tells whether it may be part of an empty bin: its colours, how they change
to the side and downwards, and where in the photo it is. A linear model of random cosines of these (Rahimi and
Recht 2007, "Random Features for Large-Scale Kernel Machines") learns it from pixels of empty bins and of full
ones, although some of the latter show no item.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bincount import progress
from bincount.data.images import Pixels, UnreadablePhoto, decode_jpeg
from bincount.data.index import Index, SplitTable
from bincount.errors import BincountError
from bincount.storage import Range

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

#: Pixels of both sides of a map of items, before it is enlarged to its photo.
MAP_SIZE = 72

#: Items in a photo that is cut up at most: those of fuller bins border on one another.
MOST_ITEMS = 3

#: Photos of each count that are cut up at most.
MOST_CUT = 1000

#: Emptiest and fullest bins that are learnt from at most, and pixels of each.
LEARNT_FROM, PIXELS = 400, 64

#: Pixels of both sides of the pieces that are looked at, in a map.
PIECES = (3, 9)

#: Cosines, and how much small weights are preferred to a better fit.
COSINES, RIDGE = 256, 30.0

#: Of a map's height: the rim above and below, where the bins' labels are.
RIM = 0.1


@dataclass(frozen=True)
class Cuttings:
    """Photos to cut up, uint8 (photos, height, width, 3); where the items of each are, uint8 (photos, height,
    width) from 0 (the bin) to 255 (an item); and its count, int64 (photos).
    """

    photos: Bytes
    items: Bytes
    count: Rows

    @cached_property
    def covered(self) -> Floats:
        """The share of each photo that its items cover: float32 (photos)."""
        return np.asarray(self.items.mean(axis=(1, 2), dtype=np.float32) / 255)

    def with_count(self, count: int, covered: tuple[float, float]) -> Rows:
        """Which photos have this count, and items that cover a share from one number to another.

        All with this count where none has such items; none where no photo has the count.
        """
        least, most = covered
        having = np.flatnonzero(self.count == count)
        fitting = having[(self.covered[having] >= least) & (self.covered[having] <= most)]
        return fitting if len(fitting) else having

    def save(self, folder: Path) -> None:
        """Write them into a folder, from which all processes of this machine share them."""
        for name in PARTS:
            np.save(folder / f"{name}.npy", getattr(self, name))


#: What cuttings are made of: a file each where they are saved.
PARTS = ("photos", "items", "count")


@lru_cache(maxsize=1)
def shared(folder: Path) -> Cuttings:
    """What was saved there; read from the disk where it is looked at, and held once for all processes."""
    return Cuttings(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in PARTS))


def cut_up(address: str, width: int, height: int) -> Cuttings:
    """Training photos of the data set at ``address``, evenly chosen, and where their items are.

    Photos that cannot be read are left out. Raises BincountError where none of them can.
    """
    index = Index.open(address)
    table = index.split("train")
    known = index.counts.classes(table.count)
    full = np.flatnonzero(known >= max(known.max() - 1, 1))
    examples = (
        _read(table, _some(rows, LEARNT_FROM), width, height)[0]
        for rows in (np.flatnonzero(known == known.min()), full)
    )
    items_of = learn_items(*examples)
    few = (np.flatnonzero(table.count == count) for count in range(MOST_ITEMS + 1))
    photos, rows = _read(table, np.concatenate([_some(each, MOST_CUT) for each in few]), width, height)
    each = progress.track(photos, "finding items", len(photos))
    items = np.stack([items_of(photo) for photo in each])
    return Cuttings(photos, items, table.count[rows].astype(np.int64))


def learn_items(empty: Bytes, full: Bytes) -> Callable[[Pixels], Bytes]:
    """What tells where items are in a photo, learnt from the emptiest bins held against the fullest.

    ``empty`` and ``full``: uint8 (photos, height, width, 3). What is returned takes a photo, uint8 (height,
    width, 3), and gives uint8 (height, width), from 0 (the bin) to 255 (an item).
    """
    random = np.random.default_rng(0)
    is_item = _learnt(random, *(_some_pieces(random, photos) for photos in (empty, full)))

    def items_of(photo: Pixels) -> Bytes:
        height, width = photo.shape[:2]
        return _smooth(is_item(_looks(photo)), width, height)

    return items_of


def _some_pieces(random: np.random.Generator, photos: Bytes) -> Floats:
    """How some pieces of photos look: float32 (pieces, looks)."""
    places = random.integers(MAP_SIZE // 8, MAP_SIZE - MAP_SIZE // 8, (len(photos), 2, PIXELS))
    return np.concatenate([_looks(photo)[tuple(at)] for photo, at in zip(photos, places, strict=True)])


def _learnt(random: np.random.Generator, bare: Floats, items: Floats) -> Callable[[Floats], Floats]:
    """What tells pieces of bare bins (about 0) from those of items (about 1), by their looks (..., looks)."""
    seen = np.concatenate([bare, items])
    middle, spread = seen.mean(axis=0), seen.std(axis=0) + 1e-6
    looks = seen.shape[1]
    turns = random.normal(0, looks**-0.5, (looks, COSINES)).astype(np.float32)
    offsets = random.uniform(0, 2 * np.pi, COSINES).astype(np.float32)

    def cosines(pieces: Floats) -> Floats:
        return np.asarray(np.cos((pieces - middle) / spread @ turns + offsets), dtype=np.float32)

    known = np.concatenate([cosines(seen), np.ones((len(seen), 1), np.float32)], axis=1)
    told = np.repeat([0.0, 1.0], [len(bare), len(items)])
    # Both weigh the same, however many there are of each.
    weight = np.repeat([0.5 / len(bare), 0.5 / len(items)], [len(bare), len(items)]) * len(seen)
    normal = known.T @ (weight[:, None] * known) + RIDGE * np.eye(COSINES + 1)
    model = np.linalg.solve(normal, known.T @ (weight * told)).astype(np.float32)
    return lambda pieces: np.asarray(cosines(pieces) @ model[:-1] + model[-1])


def _looks(photo: Pixels) -> Floats:
    """How each piece of a photo looks: float32 (MAP_SIZE, MAP_SIZE, looks)."""
    image = Image.fromarray(np.ascontiguousarray(photo)).resize((MAP_SIZE, MAP_SIZE), Image.Resampling.BOX)
    seen = np.asarray(image, dtype=np.float32)
    light = seen.mean(axis=2)
    share = seen / (seen.sum(axis=2, keepdims=True) + 15)
    colour = np.stack([share[..., 0] - share[..., 1], share[..., 1] - share[..., 2]], axis=2)
    aside, down = np.diff(light, axis=1, append=light[:, -1:]), np.diff(light, axis=0, append=light[-1:])
    change = np.log1p(np.abs(np.stack([aside, down], axis=2)))
    parts = [colour, (light / (light.mean() + 1))[..., None]]
    for side in PIECES:
        mean, of_squares = np.moveaxis(_mean(np.stack([light, light * light], axis=2), side), 2, 0)
        spread = np.sqrt(np.maximum(of_squares - mean**2, 0))
        parts += [_mean(np.concatenate([colour, change], axis=2), side), np.log1p(spread)[..., None]]
    height = np.broadcast_to(np.linspace(-1, 1, MAP_SIZE)[:, None, None], (MAP_SIZE, MAP_SIZE, 1))
    return np.concatenate([*parts, height, height**2], axis=2).astype(np.float32)


def _mean(maps: Floats, side: int) -> Floats:
    """The mean over squares of ``side`` pixels, an odd number, of (height, width, maps)."""
    half = side // 2
    wide = np.pad(maps, ((half + 1, half), (half + 1, half), (0, 0)), mode="edge").astype(np.float64)
    wide[0], wide[:, 0] = 0, 0
    sums = wide.cumsum(axis=0).cumsum(axis=1)
    squares = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return np.asarray(squares / side**2, dtype=np.float32)


def _smooth(told: Floats, width: int, height: int) -> Bytes:
    """What was told of each piece as a map from 0 to 255, without its rim, at the photo's size."""
    sure = np.clip((_mean(told[..., None], 3)[..., 0] - 0.35) / 0.3, 0, 1)
    from_rim = 0.5 - np.abs(np.linspace(-0.5, 0.5, MAP_SIZE)) - RIM
    inside = np.clip(from_rim / 0.06, 0, 1)[:, None]
    image = Image.fromarray((255 * sure * inside).astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _some(rows: Rows, most: int) -> Rows:
    chosen: Rows = rows[np.unique(np.linspace(0, len(rows) - 1, most).astype(int))] if len(rows) else rows
    return chosen


def _read(table: SplitTable, rows: Rows, width: int, height: int) -> tuple[Bytes, Rows]:
    """Those of the photos that can be read, resized, and their rows."""
    photos = np.zeros((len(rows), height, width, 3), dtype=np.uint8)
    places = (
        Range(table.shards[table.shard[row]], int(table.jpeg_offset[row]), int(table.jpeg_length[row]))
        for row in rows
    )
    readable: list[int] = []
    for place, jpeg in enumerate(table.store.read_ranges(places)):
        try:
            image = Image.fromarray(decode_jpeg(jpeg if isinstance(jpeg, bytes) else b""))
        except UnreadablePhoto:
            continue
        photos[len(readable)] = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
        readable.append(place)
    if not readable:
        raise BincountError(f"{table.store.address}: none of {len(rows):,} training photos can be read")
    return photos[: len(readable)], rows[readable]
