"""Photos of an evaluation to look at: the surest and the most mistaken answers, and where the network looked.

evaluation/<split>/gallery.json  gallery/ID.jpg  gallery/ID.heat.jpg
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from bincount import storage
from bincount.counter import Counter
from bincount.data.images import Pixels, decode_jpeg, encode_jpeg
from bincount.data.index import SplitTable
from bincount.data.pixels import thumbnail
from bincount.errors import BincountError
from bincount.heatmap import heat_maps
from bincount.page import heading, image, line
from bincount.pictures import heated
from bincount.report.scored import Scored

#: Which photos are in the galleries, in an evaluation's folder.
LISTED = "gallery.json"

#: Pixels of the longer side of a photo in the page, and its JPEG quality.
SIDE, QUALITY = 160, 70

#: Photos of a gallery, and of each count.
PHOTOS, OF_COUNT = 12, 4

CERTAIN_RIGHT, CERTAIN_WRONG = "Most certain, and right", "Most certain, and wrong"
FURTHEST, RANDOM, BY_COUNT = "Furthest off", "Drawn at random", "By recorded count"

#: What each gallery is good for.
EXPLAINED = {
    CERTAIN_RIGHT: f"What it finds easy; {OF_COUNT} of a count at most.",
    CERTAIN_WRONG: "Look here first: either it is mistaken, or the record is.",
    FURTHEST: "The largest errors.",
    RANDOM: "What is typical.",
    BY_COUNT: "From the emptiest bins to the fullest, drawn at random.",
}


@dataclass(frozen=True)
class Shown:
    """A photo of a gallery, by its id: the names of the recorded and the told count, and the probability of
    the latter. ``looked``: in which part of the photo most of the evidence lies. None: not known.
    """

    id: str
    count: str
    told: str
    probability: float | None
    looked: str | None


Rows = npt.NDArray[np.int64]


def choose(scored: Scored) -> dict[str, Rows]:
    """The rows of the photos of each gallery that has any."""
    rows, certainty = np.arange(len(scored.told)), scored.certainty
    right = scored.told == scored.count
    draw = np.random.default_rng(0)
    found = {}
    if certainty is not None:
        order = np.argsort(-certainty, kind="stable")
        found[CERTAIN_WRONG] = order[~right[order]][:PHOTOS]
        found[CERTAIN_RIGHT] = _mixed(order[right[order]], scored.told)
    else:
        off = np.argsort(-abs(scored.told - scored.count), kind="stable")
        found[FURTHEST] = off[~right[off]][:PHOTOS]
    found[RANDOM] = np.sort(draw.permutation(rows)[:PHOTOS])
    of_count = [draw.permutation(rows[scored.count == each])[:OF_COUNT] for each in range(len(scored.names))]
    found[BY_COUNT] = np.concatenate(of_count)
    return {name: chosen for name, chosen in found.items() if len(chosen)}


def _mixed(rows: Rows, told: Rows) -> Rows:
    """The first rows, but no more than OF_COUNT of each count told, so that not all are empty bins."""
    seen = dict.fromkeys(told.tolist(), 0)
    taken: list[int] = []
    for row in rows.tolist():
        seen[told[row]] += 1
        if seen[told[row]] <= OF_COUNT and len(taken) < PHOTOS:
            taken.append(row)
    return np.array(taken, dtype=np.int64)


def write(scored: Scored, table: SplitTable, counter: Counter | None = None) -> None:
    """Write the photos to look at into the evaluation's folder; with a ``counter`` where it looked, too.

    The rows of ``table`` are those of the evaluation.
    """
    chosen = choose(scored)
    rows = np.unique(np.concatenate(list(chosen.values()))) if chosen else np.zeros(0, np.int64)
    jpegs = [table.jpeg(int(row)) for row in rows]
    heats = _heats(counter, jpegs, scored.told[rows]) if counter is not None and len(rows) else None
    folder = scored.folder / "gallery"
    _remove(scored.folder)
    looked: dict[int, str | None] = dict.fromkeys(rows.tolist())
    for place, row in enumerate(rows.tolist()):
        photo = thumbnail(decode_jpeg(jpegs[place]), SIDE)
        _write(folder / f"{scored.id[row]}.jpg", photo)
        if heats is not None:
            _write(folder / f"{scored.id[row]}.heat.jpg", heated(photo, heats[place].numpy()))
            looked[row] = _where(heats[place])
    shown = {
        name: [asdict(_shown(scored, row, looked[row])) for row in of.tolist()] for name, of in chosen.items()
    }
    storage.write_text(scored.folder / LISTED, json.dumps(shown, indent=2) + "\n")


def _remove(folder: Path) -> None:
    """Remove the photos of an earlier evaluation, and nothing else that may lie in a folder of the user's."""
    listed = folder / LISTED
    before = json.loads(listed.read_bytes()) if listed.exists() else {}
    for each in (each for shown in before.values() for each in shown):
        for ending in (".jpg", ".heat.jpg"):
            (folder / "gallery" / f"{each['id']}{ending}").unlink(missing_ok=True)


def _heats(counter: Counter, jpegs: list[bytes], told: npt.NDArray[np.int64]) -> Tensor | None:
    pixels = torch.stack([counter.pixels(jpeg) for jpeg in jpegs])
    try:
        return heat_maps(counter, pixels, torch.from_numpy(told))
    except BincountError:  # a network whose features have no place
        return None


def _write(path: Path, photo: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(photo, QUALITY))


def _where(heat: Tensor) -> str | None:
    """In which ninth of the photo most of the evidence lies."""
    if not heat.any():
        return None
    row, column = divmod(int(F.adaptive_avg_pool2d(heat[None], 3).argmax()), 3)
    if (row, column) == (1, 1):
        return "in the middle"
    words = ("top", "", "bottom")[row], ("left", "", "right")[column]
    return f"at the {' '.join(filter(None, words))}"


def _shown(scored: Scored, row: int, looked: str | None) -> Shown:
    sure = scored.certainty
    probability = None if sure is None else float(sure[row])
    return Shown(
        scored.id[row], scored.names[scored.count[row]], scored.names[scored.told[row]], probability, looked
    )


def sections(scored: Scored) -> list[str]:
    """The galleries as a page shows them."""
    path = scored.folder / LISTED
    if not path.exists():
        return []
    parts = [heading(3, f"{scored.title}: photos")]
    if any(scored.folder.glob("gallery/*.heat.jpg")):
        parts.append(
            line(
                "Each photo is shown twice: as it is, and in grey with the places glowing that speak for the "
                "count told (HiResCAM, Draelos and Carin 2020), as far as the network keeps track of places."
            )
        )
    for name, shown in json.loads(path.read_bytes()).items():
        told = EXPLAINED[name]
        parts += [f"<h4>{escape(name)}</h4>", line(told)]
        parts.append(_gallery(scored.folder / "gallery", [Shown(**each) for each in shown]))
    return parts


def _gallery(folder: Path, shown: Iterable[Shown]) -> str:
    return f'<ul class="photos">{"".join(_item(folder, each) for each in shown)}</ul>'


def _item(folder: Path, shown: Shown) -> str:
    sure = "" if shown.probability is None else f" ({shown.probability:.0%})"
    words = f"told {shown.told}{sure}" + (
        ", right" if shown.told == shown.count else f", recorded {shown.count}"
    )
    pictures = image(folder / f"{shown.id}.jpg", f"Photo {shown.id}: {words}")
    heat = folder / f"{shown.id}.heat.jpg"
    if heat.exists():
        told = f"most of the evidence lies {shown.looked}" if shown.looked else "nothing speaks for it"
        pictures += image(heat, f"Where it looked in {shown.id}: {told}")
    mark = "✓" if shown.told == shown.count else "✗"
    return f"<li><div>{pictures}</div><p>{mark} {escape(words)}<br>{escape(shown.id)}</p></li>"
