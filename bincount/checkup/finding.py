"""What a check finds, and how one that itself fails is told."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from bincount.errors import complaint


class Mark(Enum):
    """``OK``; ``HINT``, which stops nobody; ``BAD``, which somebody has to mend."""

    OK = "ok"
    HINT = "hint"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """A line of a check-up: ``what`` was looked at, what is to be told of it, and what a person can do."""

    mark: Mark
    what: str
    told: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """Looks at ``what``. It imports what it needs when it is called, so that none fails for another."""

    what: str
    look: Callable[[], Iterable[Finding]]

    def findings(self) -> Iterator[Finding]:
        """What it finds; where it fails in a way that it does not know, that is one more finding."""
        try:
            yield from self.look()
        except Exception as error:
            # A check-up is called where anything may be broken: whatever breaks is what it is to tell.
            yield Finding(Mark.BAD, self.what, complaint(error))
