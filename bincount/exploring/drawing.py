"""The pictures of a page: bars, histograms, and two distributions one over the other, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

mpl.use("Agg")  # no screen is needed, nor looked for
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

OURS, OTHERS = "#0969da", "#bc4c00"

#: The colours of series beside each other.
COLOURS = (OURS, "#54aeff", "#b6e3ff", "#8c959f")

#: Values of a histogram that span so many times their least are shown by their logarithm.
SPANNED = 50

#: How whole numbers and shares are written along an axis.
WHOLE = FuncFormatter(lambda value, _: f"{value:,.0f}")
SHARE = FuncFormatter(lambda value, _: f"{100 * value:g}%")

#: Bars of a histogram, at the most.
BARS = 40


def bars(path: Path, series: Mapping[str, Mapping[str, int]], across: str, up: str) -> None:
    """Draw numbers by name, a bar each; with several ``series`` side by side, as shares of each series."""
    names = list(next(iter(series.values())))
    figure, axes = plt.subplots(figsize=(max(5.0, 0.32 * len(names) + 2), 3))
    width = 0.8 / len(series)
    for place, (name, numbers) in enumerate(series.items()):
        whole = max(1, sum(numbers.values())) if len(series) > 1 else 1
        at = np.arange(len(names)) + (place - (len(series) - 1) / 2) * width
        colour = COLOURS[place % len(COLOURS)]
        axes.bar(at, [numbers[each] / whole for each in names], width, label=name, color=colour)
    axes.set_xticks(range(len(names)), [name.replace(" or more", "+") for name in names])
    axes.yaxis.set_major_formatter(WHOLE)
    if len(series) > 1:
        axes.yaxis.set_major_formatter(SHARE)
        axes.legend(frameon=False)
    _finish(figure, axes, across, up)
    _save(figure, path)


def histograms(path: Path, values: Mapping[str, Sequence[float]], up: str) -> None:
    """Draw a histogram of the values of each name, beside each other."""
    figure, places = plt.subplots(1, len(values), figsize=(3 * len(values) + 0.6, 2.6), squeeze=False)
    for axes, (name, of_name) in zip(places[0], values.items(), strict=True):
        edges = _edges(axes, of_name, len(of_name))
        axes.hist(of_name, bins=edges, color=OURS)
        axes.yaxis.set_major_formatter(WHOLE)
        _finish(figure, axes, name, up if axes is places[0][0] else "")
    _save(figure, path)


def overlaid(
    path: Path,
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    names: tuple[str, str],
    whole: Sequence[str],
) -> None:
    """Draw two distributions of each trait one over the other, as shares; ``whole``: traits in whole numbers.

    ``names``: what the first and the second of each pair are of.
    """
    columns = 3
    rows = -(-len(pairs) // columns)
    figure, places = plt.subplots(rows, columns, figsize=(3.5 * columns, 2.5 * rows + 0.3), squeeze=False)
    for axes in places.flat[len(pairs) :]:
        axes.axis("off")
    for axes, (trait, pair) in zip(places.flat, pairs.items(), strict=False):
        both = [*pair[0], *pair[1]]
        edges = (
            np.arange(min(both), max(both) + 2) - 0.5
            if trait in whole
            else _edges(axes, both, min(map(len, pair)))
        )
        for values, colour, name in zip(pair, (OURS, OTHERS), names, strict=True):
            share = np.full(len(values), 1 / max(1, len(values)))
            axes.hist(values, bins=edges, weights=share, color=colour, alpha=0.25)
            axes.hist(values, bins=edges, weights=share, color=colour, histtype="step", label=name)
        axes.yaxis.set_major_formatter(SHARE)
        _finish(figure, axes, trait, "")
    figure.legend(*places[0][0].get_legend_handles_labels(), loc="upper center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.25 / (2.5 * rows + 0.3)))
    _save(figure, path)


def _edges(axes: Axes, values: Sequence[float], smaller: int) -> npt.NDArray[np.float64]:
    """Where the bars of a histogram begin and end, at equal distances, of logarithms if need be.

    ``smaller``: how many values the smaller distribution has; of few there are fewer bars.
    """
    number = int(np.clip(2 * np.sqrt(smaller), 8, BARS))
    least, most = min(values), max(values)
    if least > 0 and most >= SPANNED * least:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        return np.geomspace(least, most, number + 1)
    if least == most:
        return np.array([least - 0.5, least + 0.5])
    return np.linspace(least, most, number + 1)


def _finish(figure: Figure, axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", dpi=110)
    plt.close(figure)
