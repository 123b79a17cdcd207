"""What a sweep tries: words with several values become parameters, and a combination becomes words again.

The words are those of Hydra's grammar: `a,b`, `choice(a,b)`, `range(1,5)`, `interval(0.1,0.9)`, and around
these `int(…)` and `tag(log,…)`. Nothing here knows what a word means.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from bincount.compose import quoted
from bincount.config import TrainConfig, path_keys
from bincount.errors import BadInput

#: The value of each parameter, as it stands behind the `=` of a word.
Combination = Mapping[str, str]

#: Where between its ends an interval is looked into: a whole number hardly ever lies there.
BETWEEN = 0.382


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    key: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """A number from ``low`` to ``high``, in equal steps from ``low`` on."""

    key: str
    low: int | float
    high: int | float
    step: int | float

    @property
    def texts(self) -> tuple[str, ...]:
        steps = round((self.high - self.low) / self.step)
        return tuple(self.text(self.low + step * self.step) for step in range(steps + 1))

    def text(self, value: float) -> str:
        return _text(value, 12)


@dataclass(frozen=True)
class Interval:
    """A number from ``low`` to ``high``; ``log``: each power of ten is as likely as the next."""

    key: str
    low: int | float
    high: int | float
    log: bool

    @property
    def texts(self) -> tuple[str, ...]:
        """Its ends, and a value between them."""
        between = self.low + BETWEEN * (self.high - self.low)
        whole = isinstance(self.low, int)
        return tuple(map(self.text, (self.low, round(between) if whole else between, self.high)))

    def text(self, value: float) -> str:
        """Four digits: finer makes no difference, and could not be read in a table."""
        short = _text(value, 4)
        return short if self.low <= float(short) <= self.high else _text(value, 12)


Parameter = Choice | Range | Interval


@dataclass(frozen=True)
class Space:
    """The parameters, and the words that every trial has."""

    fixed: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    def grid(self) -> list[Combination]:
        """Every combination, the last parameter changing fastest. Raises BadInput where they are endless."""
        for each in self.parameters:
            if isinstance(each, Interval):
                raise BadInput(f"{each.key}: no grid has a whole interval: write sweep=tpe or sweep=random")
        values = itertools.product(*(each.texts for each in self.parameters))
        return [dict(zip(self.keys, each, strict=True)) for each in values]

    def samples(self) -> list[Combination]:
        """A few combinations that have each value of each parameter once, and of intervals three."""
        number = max((len(each.texts) for each in self.parameters), default=1)
        return [
            {each.key: each.texts[place % len(each.texts)] for each in self.parameters}
            for place in range(number)
        ]

    @property
    def keys(self) -> list[str]:
        return [each.key for each in self.parameters]

    @property
    def size(self) -> int | None:
        """How many combinations there are; None: endless."""
        if any(isinstance(each, Interval) for each in self.parameters):
            return None
        return math.prod(len(each.texts) for each in self.parameters)

    def words(self, combination: Combination) -> list[str]:
        """The words of one trial."""
        return [*self.fixed, *(f"{key}={text}" for key, text in combination.items())]


def parse(words: Sequence[str]) -> Space:
    """Tell the words with several values from the others. Raises BadInput for values that cannot be tried.

    A word that cannot be read is left to whoever reads the words of a trial.
    """
    paths, parser = path_keys(TrainConfig), OverridesParser.create()
    fixed: list[str] = []
    found: dict[str, Parameter] = {}
    for word in words:
        key, _, value = word.partition("=")
        several = key in paths and value.startswith("choice(") and value.endswith(")")
        try:
            # A path is taken literally, commas and all; Hydra's choice does not take null.
            read = f"{key}={value[7:-1]}" if several else quoted(word, paths)
            override = parser.parse_override(read)
        except HydraException:
            if several:
                raise BadInput(f"{word}: quote the paths, as in {key}=choice('a','b')") from None
            fixed.append(word)
            continue
        if not override.is_sweep_override():
            fixed.append(read if several else word)
        elif key in found:
            raise BadInput(f"{key} is given twice")
        else:
            found[key] = _parameter(key, word, override)
    for key in {word.partition("=")[0] for word in fixed} & set(found):
        raise BadInput(f"{key} is given twice")
    return Space(tuple(fixed), tuple(found.values()))


def _text(value: float, digits: int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.{digits}g}"


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key where that tells it from the others, else the whole key."""
    ends = [key.rpartition(".")[2] for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}


def _parameter(key: str, word: str, override: Override) -> Parameter:
    value = override.value()
    tags: set[str] = getattr(value, "tags", set())
    if tags - {"log"} or (tags and not isinstance(value, IntervalSweep)):
        raise BadInput(f"{word}: the one tag there is is that of an interval: tag(log,interval(0.001,0.1))")
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        if not value.start < value.end:
            raise BadInput(f"{word}: write the lower end first, as in interval(0.001,0.1)")
        if tags and value.start <= 0:
            raise BadInput(f"{word}: a logarithm needs an interval above 0")
        return Interval(key, value.start, value.end, bool(tags))
    if isinstance(value, RangeSweep):
        return _range(key, word, value)
    if not override.is_discrete_sweep() or not hasattr(value, "list"):
        raise BadInput(f"{word}: write the values out, as in {key}=a,b")
    texts = [{"True": "true", "False": "false"}.get(text, text) for text in override.sweep_string_iterator()]
    if twice := next((text for text in texts if texts.count(text) > 1), None):
        raise BadInput(f"{word}: {twice} is there twice")
    return Choice(key, tuple(texts))


def _range(key: str, word: str, value: RangeSweep) -> Range:
    start, stop, step = value.start, value.stop, value.step
    assert start is not None
    assert stop is not None
    steps = math.ceil(round((stop - start) / step, 9)) if step else 0
    if steps < 1:
        raise BadInput(f"{word}: there is no number in this range")
    first, last = sorted((start, start + (steps - 1) * step))
    return Range(key, first, last if isinstance(last, int) else float(f"{last:.12g}"), abs(step))
