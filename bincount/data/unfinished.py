"""A data set that is being made: which of its pieces are whole.

A piece is the list of records, a part of the tables, the catalogue, or a shard. Once it lies in the draft, a
note of it ``.prepare/<piece>.parquet`` tells so, with its rows and what it left out. A killed `prepare` goes
on with the pieces that are missing, and several machines can make pieces of one draft. Every piece has the
same bytes whoever makes it, so nobody has to wait for anybody.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bincount.data.parquet import table_in
from bincount.data.skipped import Skipped
from bincount.errors import BadInput, BincountError
from bincount.storage import NotThere, Store

#: The folder in a draft that is there as long as it is one, and the file that is the last to go.
FOLDER = ".prepare"
ARGUMENTS = f"{FOLDER}/arguments.json"

_NOTES = b"bincount"


@dataclass(frozen=True)
class Piece:
    """What is noted of a piece: its rows, what it left out, and of a shard its SHA-256 in hexadecimal."""

    rows: pa.Table
    skipped: Sequence[Skipped]
    sha256: str | None = None


class Unfinished:
    """The pieces in ``store``, a draft."""

    def __init__(self, store: Store):
        self.store = store

    def begin(self, arguments: dict[str, Any]) -> bool:
        """Take up the draft for ``arguments``; tells whether it was begun before.

        Raises BadInput where it was begun with others.
        """
        if not self.store.has(ARGUMENTS):
            self.store.write(ARGUMENTS, orjson.dumps(arguments, option=orjson.OPT_INDENT_2))
            return False
        begun = self.arguments()
        for key in sorted({*begun, *arguments}):
            if begun.get(key) != arguments.get(key):
                was, now = json.dumps(begun.get(key)), json.dumps(arguments.get(key))
                raise BadInput(
                    f"{self.store.address} is half a data set that was begun with {key}={was}, not {now}: "
                    "go on with that, or add overwrite=true to begin anew"
                )
        return True

    def arguments(self) -> dict[str, Any]:
        """What the draft was begun with; empty where it was not, or not by this program."""
        try:
            found = orjson.loads(self.store.read(ARGUMENTS))
        except (NotThere, orjson.JSONDecodeError):
            found = None
        return found if isinstance(found, dict) else {}

    def whole(self) -> set[str]:
        """Names of the pieces that are whole."""
        names = self.store.below(FOLDER).names(deep=True)
        return {name.removesuffix(".parquet") for name in names if name.endswith(".parquet")}

    def has(self, name: str) -> bool:
        """Whether the piece is whole."""
        return self.store.has(_note(name))

    def finish(self, name: str, piece: Piece) -> None:
        """Note that the piece is whole; to be called when all else of it is written."""
        skipped = [[_plain(text) for text in each] for each in piece.skipped]
        notes = {_NOTES: orjson.dumps({"skipped": skipped, "sha256": piece.sha256})}
        sink = pa.BufferOutputStream()
        pq.write_table(piece.rows.replace_schema_metadata(notes), sink, compression="zstd")
        self.store.write(_note(name), sink.getvalue().to_pybytes())

    def read(self, names: Sequence[str]) -> Iterator[Piece]:
        """The pieces, which must be whole, in this order."""
        for name, note in zip(names, self.store.read_many(map(_note, names)), strict=True):
            if isinstance(note, str):
                raise BincountError(f"{self.store.place(_note(name))} {note}")
            rows = table_in(note)
            notes = orjson.loads(rows.schema.metadata[_NOTES])
            skipped = [Skipped(*each) for each in notes["skipped"]]
            yield Piece(rows.replace_schema_metadata(None), skipped, notes["sha256"])

    def clear(self) -> None:
        """Take the draft away; last what it was begun with, lest a half of it is taken for another's."""
        self.store.delete(["index.json", *map(_note, self.whole())])
        self.store.delete(self.store.names(deep=True))
        self.store.clear()

    def forget(self, names: Iterable[str]) -> None:
        """Take the notes on these pieces away, now that the data set has its index."""
        self.store.delete(map(_note, names))


def _note(name: str) -> str:
    return f"{FOLDER}/{name}.parquet"


def _plain(text: str) -> str:
    """What is no Unicode, as a file name may be, is escaped, as in `skipped.csv`."""
    return text.encode("utf-8", errors="backslashreplace").decode()
