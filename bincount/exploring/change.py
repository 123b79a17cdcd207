"""Whether two samples come from one distribution. Pure.

For each trait the distance of Kolmogorov and Smirnov: the largest difference, over all values, between the
shares of both samples that lie at or below a value. A trait has changed where the distance is more than
chance makes of one distribution, and at least LEAST.

- What chance makes is found by dealing the photos anew into two samples of the same sizes: the bound is the
  distance that the largest of all traits' exceeds in a share ``alpha`` of the deals (Westfall and Young 1993,
  Resampling-Based Multiple Testing). So all traits together cry wolf that often, however they depend on each
  other, and whatever ties there are; it is exact at any sample size.
- LEAST keeps a difference that is real and does not matter from being called a change: with many photos every
  difference is more than chance.

Rabanser, Günnemann and Lipton (2019, Failing Loudly: An Empirical Study of Methods for Detecting Dataset
Shift) find one such test for each of a few numbers a photo, what a classifier tells among them, to detect
shifts best.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: The least distance that counts as a change: a tenth of the photos have moved to the other side of a value.
LEAST = 0.1

#: How often the photos are dealt anew.
DEALS = 1000


@dataclass(frozen=True)
class Change:
    """One trait in two samples, of those ``before`` and those ``now``.

    ``distance`` 0 to 1; ``bound``: what chance makes of it; ``at``: the value where they differ most, with
    the share of each at or below it.
    """

    distance: float
    bound: float
    at: float
    share_before: float
    share_now: float

    @property
    def changed(self) -> bool:
        return self.distance > self.bound and self.distance >= LEAST

    @property
    def more(self) -> bool:
        """Whether there is more of the trait now than before, where they differ most."""
        return self.share_now < self.share_before


def changes(
    before: Mapping[str, Values],
    now: Mapping[str, Values],
    *,
    alpha: float,
    seed: int,
    equal: tuple[Values, Values] | None = None,
) -> dict[str, Change]:
    """Compare each trait, float64 (photos,) of both samples, which have at least one photo each.

    ``alpha``: the share of deals of one distribution in which any of the traits exceeds its bound.
    ``equal``: a value of each photo of both; photos are then compared with those of the same value only, and
    those of before weigh as if each value were as frequent as now. What has no counterpart is left out; where
    nothing has one the answer is empty.
    """
    n, m = (len(next(iter(each.values()))) for each in (before, now))
    is_now = np.arange(n + m) >= n
    parts = _parts(is_now, np.zeros(n + m) if equal is None else np.concatenate(equal))
    if not parts:
        return {}
    used = np.concatenate(parts)
    weight = _weights(is_now, parts)
    pooled = {name: _Pooled(np.concatenate([before[name], now[name]]), used) for name in before}
    rng = np.random.default_rng(seed)
    largest = []
    for _ in range(DEALS):
        dealt = is_now.copy()
        for part in parts:
            dealt[part] = rng.permutation(is_now[part])
        largest.append(max(each.distance(dealt, weight) for each in pooled.values()))
    # The sample itself is one of the deals, here taken for the worst.
    bound = float(np.quantile([*largest, 1.0], 1 - alpha, method="higher"))
    return {name: each.change(is_now, weight, bound) for name, each in pooled.items()}


def _parts(is_now: Mask, equal: Values) -> list[npt.NDArray[np.int64]]:
    """The places of the photos of each value that both samples have."""
    parts = [np.flatnonzero(equal == value) for value in np.unique(equal)]
    return [part for part in parts if is_now[part].any() and not is_now[part].all()]


def _weights(is_now: Mask, parts: list[npt.NDArray[np.int64]]) -> tuple[Values, Values]:
    """What a photo weighs that is dealt to before, and to now; float64 (photos,) each."""
    before, now = np.zeros(len(is_now)), np.zeros(len(is_now))
    photos = sum(int(is_now[part].sum()) for part in parts)
    for part in parts:
        of_now = int(is_now[part].sum())
        before[part] = of_now / (len(part) - of_now) / photos
        now[part] = 1 / photos
    return before, now


class _Pooled:
    """The values of both samples in their order; a cut lies behind each that is the last of its like."""

    def __init__(self, values: Values, used: npt.NDArray[np.int64]):
        self._order = used[np.argsort(values[used], kind="stable")]
        self._values = values[self._order]
        self._cuts = np.flatnonzero(np.append(np.diff(self._values) > 0, True))

    def distance(self, is_now: Mask, weight: tuple[Values, Values]) -> float:
        before, now = self._shares(is_now, weight)
        return float(np.abs(now - before).max())

    def change(self, is_now: Mask, weight: tuple[Values, Values], bound: float) -> Change:
        before, now = self._shares(is_now, weight)
        cut = int(np.abs(now - before).argmax())
        distance, at = float(abs(now[cut] - before[cut])), float(self._values[self._cuts[cut]])
        return Change(distance, bound, at, float(before[cut]), float(now[cut]))

    def _shares(self, is_now: Mask, weight: tuple[Values, Values]) -> tuple[Values, Values]:
        """The share at or below each cut, of before and of now."""
        dealt = is_now[self._order]
        before = np.where(dealt, 0, weight[0][self._order]).cumsum()
        now = np.where(dealt, weight[1][self._order], 0).cumsum()
        return before[self._cuts], now[self._cuts]
