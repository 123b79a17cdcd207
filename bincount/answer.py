"""What is told of one photo, by whatever counts it. Needs nothing but Python."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What a run tells of one photo.

    ``count``: the number of items. ``probabilities``: that of each count, so ``probabilities[3]`` is that of
    three items. With ``more`` the last of them, and a ``count`` that is its place, stands for so many items
    or more (``overflow=class`` of `bincount prepare`).
    """

    count: int
    probabilities: tuple[float, ...]
    more: bool = False

    @property
    def expected(self) -> float:
        """The expected number of items, which need not be whole."""
        return sum(count * share for count, share in enumerate(self.probabilities))
