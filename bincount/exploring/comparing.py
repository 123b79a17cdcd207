"""Photos compared with those of a run: what has changed, cameras or bins, in words, figures and pictures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from bincount.comparison import percent
from bincount.exploring import drawing
from bincount.exploring.change import LEAST, Change, changes
from bincount.exploring.known import Known, Traits
from bincount.exploring.sections import Drawn, Section
from bincount.exploring.traits import BINS, CAMERA, MEASURES, TRAITS, Trait, Values

#: The share of samples of one distribution in which any trait exceeds its bound: half for each kind of trait.
ALPHA = 0.02

SEED = 0

#: Bounds above this are worth a word: few photos show only large changes.
WIDE = 0.25


@dataclass(frozen=True)
class Finding:
    """How photos differ from those of a run.

    ``cameras`` and ``bins``: each trait of CAMERA and BINS. ``following``: traits of cameras in which photos
    of equal counts do not differ, or less than half as much: the model's counts are not all right.
    """

    cameras: Mapping[str, Change]
    bins: Mapping[str, Change]
    following: frozenset[str]

    @property
    def cameras_changed(self) -> list[str]:
        """The traits by which the cameras, or the light, have changed."""
        return [name for name, each in self.cameras.items() if each.changed and name not in self.following]

    @property
    def bins_changed(self) -> list[str]:
        """The traits by which what the model tells has changed."""
        return [name for name, each in self.bins.items() if each.changed]

    @property
    def changed(self) -> bool:
        return bool(self.cameras_changed or self.bins_changed)


def compare(known: Known, now: Traits) -> Finding:
    """Compare photos with those of a run."""
    cameras = changes(_only(known.trained, CAMERA), _only(now, CAMERA), alpha=ALPHA / 2, seed=SEED)
    bins = changes(_only(known.told, BINS), _only(now, BINS), alpha=ALPHA / 2, seed=SEED)
    following: frozenset[str] = frozenset()
    # Of its training photos a model tells other counts than of like ones: they are no fair partners.
    if bins["count"].changed and known.held_out != "train":
        counts = known.told.values["count"], now.values["count"]
        alike = changes(
            _only(known.told, CAMERA), _only(now, CAMERA), alpha=ALPHA / 2, seed=SEED, equal=counts
        )
        following = frozenset(
            name
            for name, each in alike.items()
            if not each.changed or each.distance < cameras[name].distance / 2
        )
    return Finding(cameras, bins, following)


def _only(traits: Traits, names: Mapping[str, Trait]) -> dict[str, Values]:
    return {name: traits.values[name] for name in names}


def verdict(finding: Finding) -> str:
    """What has changed, in one or two sentences."""
    cameras = ", ".join(_how(name, finding.cameras[name]) for name in finding.cameras_changed)
    bins = ", ".join(_how(name, finding.bins[name]) for name in finding.bins_changed)
    if cameras:
        seen = f"The cameras or the light have changed: the photos are {cameras}."
        if not bins:
            return f"{seen} What the model tells of the bins has not."
        told = "which may be due to that: look at the photos before you trust the counts"
        return f"{seen} What the model tells has changed, too ({bins}), {told}."
    if "count" in finding.bins_changed:
        return f"The bins have changed: {bins}. The cameras have not, as far as photos of equal counts tell."
    if bins:
        return f"Something has changed, neither the counts nor what is measured of the cameras: {bins}."
    return "No change: the photos are like those that the run was trained on."


def sections(known: Known, now: Traits, finding: Finding) -> Iterator[Section]:
    """The verdict, and each trait of both."""
    yield Section("Have the photos changed?", list(_lines(known, now, finding)))
    yield _table("Cameras", CAMERA, finding.cameras, finding.following, known.trained, now)
    yield _table("Bins, as the model tells them", BINS, finding.bins, frozenset(), known.told, now)


def _lines(known: Known, now: Traits, finding: Finding) -> Iterator[str]:
    yield verdict(finding)
    yield (
        f"Compared: {len(now):,} photos, with {len(known.trained):,} training photos of {known.data} "
        f"(cameras), and what the model tells of them with what it tells of {len(known.told):,} photos of "
        f"{known.held_out} (bins)."
    )
    if now.unreadable:
        yield f"Left out, as they cannot be read: {now.unreadable:,}."
    for name in (*finding.cameras_changed, *finding.bins_changed):
        yield _where(name, {**finding.cameras, **finding.bins}[name])
    if followed := [
        name for name, each in finding.cameras.items() if each.changed and name in finding.following
    ]:
        yield f"Other as the counts are, and no other among photos of equal counts: {', '.join(followed)}."
    if finding.bins_changed and known.held_out == "train":
        yield (
            "The run has no photos that it did not learn from; of new photos it is less sure, changed or not."
        )
    bounds = [next(iter(each.values())).bound for each in (finding.cameras, finding.bins)]
    few = ": with so few photos only a large change shows" if max(bounds) > WIDE else ""
    yield (
        f"By chance a distance above {bounds[0]:.2f} (cameras) or {bounds[1]:.2f} (bins) comes in "
        f"{percent(ALPHA, 0)} of all samples{few}. Below {LEAST:g} it is not called a change."
    )


def _how(name: str, change: Change) -> str:
    return TRAITS[name].more if change.more else TRAITS[name].less


def _where(name: str, change: Change) -> str:
    how = _how(name, change)
    return (
        f"{how[0].upper()}{how[1:]}: the {name} is {change.at:.3g} or less in "
        f"{percent(change.share_now)} of these photos, and in {percent(change.share_before)} of the run's."
    )


def _table(
    title: str,
    traits: Mapping[str, Trait],
    found: Mapping[str, Change],
    following: frozenset[str],
    before: Traits,
    now: Traits,
) -> Section:
    rows = [
        [
            name,
            f"{np.median(before.values[name]):.3g}",
            f"{np.median(now.values[name]):.3g}",
            f"{found[name].distance:.2f}",
            _word(name, found[name], following),
        ]
        for name in traits
    ]
    pairs = {name: (before.values[name].tolist(), now.values[name].tolist()) for name in traits}
    draw = partial(drawing.overlaid, pairs=pairs, names=("the run's", "these"), whole=["count"])
    told = ", ".join(f"{row[0]} {row[1]} and {row[2]}" for row in rows)
    alt = f"distributions of the run's photos and of these; medians: {told}"
    return Section(
        title, [MEASURES[title]], ["", "median, the run's", "these", "distance", ""], rows, Drawn(draw, alt)
    )


def _word(name: str, change: Change, following: frozenset[str]) -> str:
    if not change.changed:
        return "a little" if change.distance > change.bound else "no change"
    return "as the counts" if name in following else _how(name, change)
