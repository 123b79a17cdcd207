"""What every store can do."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bincount.errors import BincountError


class Range(NamedTuple):
    """``length`` bytes of ``name`` from ``offset``."""

    name: str
    offset: int
    length: int


class NotThere(BincountError):
    """Nothing has this name."""


class RangeReader(ABC):
    """What ranges can be read from."""

    @abstractmethod
    def read_ranges(self, ranges: Iterable[Range]) -> Iterator[bytes | str]:
        """The bytes of each range, in order, a bounded number of them read ahead.

        Fewer bytes only where a name ends before. In place of bytes, the reason why they cannot be read: it
        ends a sentence, such as "is not there". It concerns one name alone; a store that fails raises.
        """


class Store(RangeReader):
    """Bytes by name. A name is a relative path with forward slashes, such as ``train/bins-000000.tar``.

    What cannot be read or written raises BincountError, in one line that names the place: NotThere for a name
    that is not there, BadInput where access is denied.
    """

    #: How people call this store.
    address: str

    def place(self, name: str) -> str:
        """The full address of ``name``."""
        return f"{self.address}/{name}"

    @abstractmethod
    def below(self, folder: str) -> "Store":
        """The store of what lies in ``folder``."""

    @abstractmethod
    def held(self) -> set[str]:
        """Names of the files and folders at the top; empty where there is nothing at all."""

    @abstractmethod
    def names(self, *, deep: bool = False) -> list[str]:
        """Names of the files at the top, or with ``deep`` of all below, too; sorted, hidden ones left out."""

    @abstractmethod
    def first(self) -> str | None:
        """The name of a file at the top or below, none hidden, without listing all; None: there is none."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether ``name`` is there."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """All its bytes."""

    @abstractmethod
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only where it ends before."""

    @abstractmethod
    def read_many(self, names: Iterable[str]) -> Iterator[bytes | str]:
        """The bytes of each name, in order, few held at a time; or the reason why one cannot be read.

        A reason ends a sentence: "is not there". It concerns one name alone; a store that fails raises.
        """

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Put ``content`` there, whole or not at all."""

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Take the names away; what is not there already is fine."""

    @abstractmethod
    def clear(self) -> None:
        """Take away all that is there."""

    @abstractmethod
    def restore(self) -> None:
        """Undo what a killed :meth:`publish` left half done."""

    @abstractmethod
    def draft(self) -> "Store":
        """Where to write what nobody may take for whole yet; the same place after a killed command."""

    @abstractmethod
    def publish(self, draft: "Store") -> None:
        """Let the draft take the place of this store."""
