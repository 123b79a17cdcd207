"""Pictures of results, drawn with matplotlib into PNG files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

mpl.use("Agg")  # no screen is needed, nor looked for
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator, PercentFormatter
from PIL import Image

from bincount import storage
from bincount.data.images import Pixels
from bincount.model.metrics import ECE_BINS

RIGHT, WRONG = "#1a7f37", "#cf222e"

#: Ours, what it is held against, and chance.
ORDERED = ("#0969da", "#bf8700", "#8c959f")

#: Numbers that span so many times their least are shown by their logarithm.
SPANNED = 20

#: Values up to which each is written below its own place.
FEW = 6


@dataclass(frozen=True)
class Example:
    """A photo, uint8 (height, width, 3), its true count, the count told, by name, and its probability."""

    photo: Pixels
    count: str
    told: str
    probability: float


def confusion(path: Path, matrix: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    """Draw the confusion matrix: a row a true count, shaded by share of the row, with photos written in."""
    photos = np.asarray(matrix)
    share = photos / np.maximum(photos.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(5, 4.6))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(photos):
        axes.text(
            column,
            row,
            f"{number:,}",
            ha="center",
            va="center",
            color="white" if share[row, column] > 0.5 else "black",
        )
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("items told")
    axes.set_ylabel("items in the record")
    _save(figure, path)


@dataclass(frozen=True)
class Sureness:
    """Photos whose likeliest count has a probability above ``low``, up to ``high``.

    ``mean``: the mean of these probabilities; ``right``: the share of the photos whose likeliest count is it.
    """

    low: float
    high: float
    photos: int
    mean: float
    right: float


def sureness(counts: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]) -> list[Sureness]:
    """The photos by the probability of their likeliest count; where there are none there is nothing.

    ``counts`` (photos,), ``probabilities`` (photos, classes).
    """
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == counts
    place = np.clip(np.ceil(sure * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    found = []
    for each in np.unique(place):
        here = place == each
        low, high = float(each) / ECE_BINS, float(each + 1) / ECE_BINS
        found.append(
            Sureness(low, high, int(here.sum()), float(sure[here].mean()), float(right[here].mean()))
        )
    return found


def reliability(path: Path, counts: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]) -> None:
    """Draw how often the most probable count is right, over its probability; below, for how many photos.

    ``counts`` (photos,), ``probabilities`` (photos, classes). On the diagonal they mean what they say.
    """
    found = sureness(counts, probabilities)
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(4.6, 5), sharex=True, gridspec_kw={"height_ratios": [3, 1]}
    )
    above.plot([0, 1], [0, 1], color="gray", linestyle="--")
    across, up = [each.mean for each in found], [each.right for each in found]
    most = max((each.photos for each in found), default=1)
    above.plot(across, up, alpha=0.5)
    above.scatter(across, up, s=[8 + 90 * each.photos / most for each in found], clip_on=False, zorder=3)
    above.set_ylabel("share that is right")
    above.set_ylim(0, 1)
    above.grid(alpha=0.3)
    middles = [(each.low + each.high) / 2 for each in found]
    below.bar(middles, [each.photos for each in found], width=0.9 / ECE_BINS)
    below.set_ylabel("photos")
    below.set_xlabel("probability of the count")
    below.set_xlim(0, 1)
    _save(figure, path)


def counts(path: Path, names: Sequence[str], figures: Sequence[Mapping[str, Any]]) -> None:
    """Draw accuracy and RMSE over the recorded count; ``figures`` are those of results.json's per_count."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    for place, key, title in zip(axes, ("accuracy", "rmse"), ("accuracy", "RMSE, items"), strict=True):
        values = [each[key] or 0 for each in figures]
        bars = place.bar(names, values, color="#0969da")
        labels = [
            "" if each[key] is None else f"{each[key]:.0%}" if key == "accuracy" else f"{each[key]:.2f}"
            for each in figures
        ]
        place.bar_label(bars, labels, fontsize=9)
        place.set_title(title)
        place.set_xlabel("items in the record")
        place.margins(y=0.12)
        place.grid(axis="y", alpha=0.3)
    axes[0].set_ylim(0, 1.12)
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _save(figure, path)


def examples(path: Path, shown: Sequence[Example]) -> None:
    """Draw photos with the count told, and the true one where it was wrong."""
    columns = min(6, len(shown))
    rows = -(-len(shown) // columns)
    height, width = shown[0].photo.shape[:2]
    size = (2 * columns, (2 * height / width + 0.35) * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for place in axes.flat:
        place.axis("off")
    for place, example in zip(axes.flat, shown, strict=False):
        place.imshow(example.photo)
        right = example.told == example.count
        title = example.told if right else f"{example.told}, not {example.count}"
        title = f"{title} ({example.probability:.0%})"
        place.set_title(title, color=RIGHT if right else WRONG, fontsize=11)
    _save(figure, path)


def heated(photo: Pixels, heat: npt.NDArray[np.float32]) -> Pixels:
    """The photo in grey with a heat map (h, w), 0 to 1, glowing over it: uint8 (height, width, 3)."""
    size = (photo.shape[1], photo.shape[0])
    spread = Image.fromarray(heat).resize(size, Image.Resampling.BICUBIC)
    glow = np.clip(np.asarray(spread, dtype=np.float32), 0, 1)
    colour = np.asarray(mpl.colormaps["inferno"](glow)[..., :3] * 255, dtype=np.float32)
    grey = photo.mean(axis=2, keepdims=True, dtype=np.float32)
    share = (0.15 + 0.55 * glow)[..., None]
    return np.asarray((1 - share) * grey + share * colour, dtype=np.uint8)


def curves(path: Path, rows: Sequence[dict[str, Any]]) -> bool:
    """Draw loss, accuracy and RMSE over the steps of a run; False where there is nothing to draw yet."""
    panels = {"loss": ("train/loss", "val/loss"), "accuracy": ("val/accuracy",), "RMSE": ("val/rmse",)}
    if not any(row.get(name) for row in rows for names in panels.values() for name in names):
        return False
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 3.2))
    for place, (title, names) in zip(axes, panels.items(), strict=True):
        for name in names:
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            if points:
                place.plot(
                    *zip(*points, strict=True), label=name, marker="." if name.startswith("val") else None
                )
        place.set_title(title)
        place.set_xlabel("step")
        place.grid(alpha=0.3)
        if place.lines:
            place.legend(frameon=False)
    _save(figure, path)
    return True


def trials(
    path: Path, drawn: Mapping[str, Sequence[str]], scores: Sequence[float], best: int, title: str
) -> None:
    """Draw the score of each trial over each parameter: ``drawn`` has a parameter's value in each trial.

    ``best``: the place of the best trial, which is marked; ``title``: what the score is, a share if accuracy.
    """
    columns = min(4, len(drawn))
    rows = -(-len(drawn) // columns)
    size = (3.1 * columns + 0.6, 2.9 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=True)
    for place in axes.flat[len(drawn) :]:
        place.axis("off")
    for place, (name, texts) in zip(axes.flat, drawn.items(), strict=False):
        across = _across(place, texts)
        place.scatter(across, scores, s=26, color="#0969da", alpha=0.55, linewidths=0)
        if len(set(across)) <= FEW < len(across):
            for value in set(across):
                of_value = [score for at, score in zip(across, scores, strict=True) if at == value]
                place.scatter(value, np.median(of_value), s=500, marker="_", color="gray")
        place.scatter(across[best], scores[best], s=150, marker="*", color=RIGHT, zorder=3)
        place.margins(0.12, 0.08)
        place.set_xlabel(name)
        place.grid(alpha=0.3)
    for place in axes[:, 0]:
        place.set_ylabel(f"{title} on val")
        if title == "accuracy":
            place.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    figure.suptitle(f"{len(scores):,} trials; a star is the best, a dash the median of a value", fontsize=10)
    _save(figure, path)


def checking(path: Path, wrong: npt.NDArray[np.float64], flagged: int, rate: float) -> None:
    """Draw how many wrong records are expected among the first bins, ``wrong`` float64 (bins,).

    Beside it what checking at random would find, where the share ``rate`` of all records is wrong.
    """
    shown = min(len(wrong), max(4 * flagged, 100))
    bins = np.arange(1, shown + 1)
    figure, axes = plt.subplots(figsize=(6, 3.6))
    axes.plot(bins, wrong[:shown], label="in the order of the audit")
    axes.plot(bins, rate * bins, color="gray", linestyle="--", label="at random")
    if flagged:
        axes.axvspan(0, flagged, color=WRONG, alpha=0.08, label="flagged")
    axes.set_xlim(0, shown)
    axes.set_ylim(0)
    axes.set_xlabel("bins checked")
    axes.set_ylabel("wrong records expected")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _save(figure, path)


def plantings(path: Path, kinds: Sequence[str], found: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Draw the average precision of each order of bins, with its spread, by the kind of the errors planted.

    ``found``: for each order, by name, the mean and the standard deviation for each of ``kinds``.
    """
    figure, axes = plt.subplots(figsize=(7, 3.6))
    width = 0.8 / len(found)
    for place, (order, of_kinds) in enumerate(found.items()):
        across = np.arange(len(kinds)) + (place - (len(found) - 1) / 2) * width
        means, spreads = zip(*of_kinds, strict=True)
        axes.bar(across, means, 0.92 * width, yerr=spreads, label=order, color=ORDERED[place], capsize=2)
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_xlabel("errors planted")
    axes.set_ylabel("average precision")
    axes.grid(alpha=0.3, axis="y")
    axes.legend(frameon=False)
    _save(figure, path)


def _across(place: Axes, texts: Sequence[str]) -> list[float]:
    """Set up the axis for these values, and give the place of each on it."""
    try:
        across = [float(text) for text in texts]
    except ValueError:
        names = sorted(set(texts))
        place.set_xticks(range(len(names)), names)
        place.set_xlim(-0.5, len(names) - 0.5)
        if max(map(len, names)) * len(names) > 30:
            place.tick_params("x", labelrotation=20)
        return [names.index(text) for text in texts]
    if min(across) > 0 and max(across) >= SPANNED * min(across):
        place.set_xscale("log")
    ticks = dict(sorted(zip(across, texts, strict=True)))
    if len(ticks) <= FEW:
        place.set_xticks(list(ticks), list(ticks.values()))
        place.xaxis.set_minor_locator(NullLocator())
        shown = place.transData.transform([(value, 0) for value in ticks])[:, 0]
        if len(ticks) > 1 and np.diff(shown).min() < 0.12 * np.ptp(shown):
            place.tick_params("x", labelrotation=45)
    else:
        place.xaxis.set_minor_formatter(NullFormatter())
    return across


def _save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    with storage.written_whole(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
    plt.close(figure)
