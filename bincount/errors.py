"""The two ways a command ends badly. Both are told to people in one line, without a traceback."""

import difflib
import signal
from collections.abc import Iterable

#: Words that an error lists one by one; of more it names only the nearest.
FEW = 30


class BincountError(Exception):
    """Something failed that the user did not get wrong (exit code 1)."""

    exit_code = 1


class BadInput(BincountError):
    """What the user gave cannot be used as it is (exit code 2).

    The message is one line: what is wrong, where, and what to do about it.
    """

    exit_code = 2


class Stopped(BincountError):
    """A signal ended the work (exit code 128 and the signal's number, as shells have it)."""

    def __init__(self, received: signal.Signals, how: str = ""):
        by = "the keyboard" if received is signal.SIGINT else received.name
        super().__init__(f"stopped by {by}{how}")
        self.exit_code = 128 + received


class Denied(BadInput):
    """Who asks a store may not do so, or not any more."""


def install(extra: str) -> str:
    """What brings an extra. Not by the project's name: in the public package index it is another's."""
    return f"pip install -e '.[{extra}]' in the checkout"


def complaint(error: BaseException) -> str:
    """The one line in which people are told of an error."""
    if isinstance(error, BincountError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "stopped by the keyboard"
    return f"{type(error).__name__}: {one_line(error)} (BINCOUNT_DEBUG=1 shows where)"


def exit_code(error: BaseException) -> int:
    """What a command ends with that an error ended."""
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return error.exit_code if isinstance(error, BincountError) else 1


def retold(line: str, code: int) -> BincountError:
    """What :func:`complaint` and :func:`exit_code` told of another process's error, as an error again."""
    if code > 128:
        received = signal.Signals(code - 128)
        return Stopped(received, line.removeprefix(str(Stopped(received))))
    return BadInput(line) if code == BadInput.exit_code else BincountError(line)


def one_line(error: BaseException) -> str:
    """What a library says of its failure, on one line of bounded length."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def near(word: str, words: Iterable[str]) -> str | None:
    """The one of ``words`` that is most like ``word``, in whatever case; None where none is like it."""
    known = {each.lower(): each for each in words}
    found = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    return known[found[0]] if found else None


def nearest(word: str, words: Iterable[str]) -> str:
    """``did you mean X?``, or the words there are: the end of an error about a word that is none of them."""
    known = sorted(words)
    if meant := near(word, known):
        return f"did you mean {meant}?"
    if len(known) > FEW:
        return f"none of the {len(known)} there are is like it"
    return f"there is {', '.join(known)}" if known else "there is none yet"
