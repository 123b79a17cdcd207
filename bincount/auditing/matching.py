"""Answers meet expected quantities in DuckDB, which goes to disk where memory does not do."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from bincount import storage
from bincount.data.index import Counts
from bincount.data.skipped import Skipped
from bincount.errors import BadInput

#: Bins that are judged together.
TOGETHER = 65_536

#: What DuckDB may take of the memory.
MEMORY = "512MB"


def most_judged(counts: Counts) -> int:
    """The highest expected quantity that a run can judge."""
    return 2**62 if counts.more else counts.max_count


class Bins:
    """The bins of one audit: of each its answer and what it is expected to hold.

    ``answers``: Parquet files with id, p_0, p_1 … and perhaps photo; ``expected``: id and expected; each id
    stands once in either. ``skipped``: what was left out before, to which those are added that cannot be
    judged. ``draft``: a folder for what does not fit in memory.
    """

    def __init__(
        self,
        answers: Sequence[Path],
        expected: pa.Table,
        skipped: Iterable[Skipped],
        counts: Counts,
        draft: Path,
    ) -> None:
        self._judged = draft / "judged.parquet"
        self._data = duckdb.connect()
        self._data.execute(f"SET memory_limit = '{MEMORY}'")
        self._data.execute("SET temp_directory = $folder", {"folder": str(draft / "sorting")})
        self._data.register("expected", expected)
        self._data.register("known", _table(skipped))
        if answers:
            self._data.read_parquet([str(path) for path in answers]).create_view("answers")
        else:
            self._data.execute("CREATE TABLE answers (id VARCHAR)")
        if twice := self._data.sql(
            "SELECT id FROM answers GROUP BY id HAVING count(*) > 1 LIMIT 1"
        ).fetchall():
            raise BadInput(f"predictions: the id {twice[0][0]} stands there twice or more: keep one")
        most = most_judged(counts)
        self._data.execute(
            f"""
            CREATE TABLE skipped AS
            FROM known
            UNION ALL
            SELECT id, '', 'the photo has no expected quantity' FROM answers ANTI JOIN expected USING (id)
            WHERE id NOT IN (SELECT id FROM known)
            UNION ALL
            SELECT id, '', 'the bin has no photo' FROM expected ANTI JOIN answers USING (id)
            WHERE expected <= {most} AND id NOT IN (SELECT id FROM known)
            UNION ALL
            SELECT id, '', 'not judged, as the run counts to {counts.max_count}: it is expected to hold '
                || expected FROM expected WHERE expected > {most}
            """
        )
        self._data.execute(
            f"CREATE VIEW bins AS FROM answers JOIN expected USING (id) WHERE expected <= {most}"
        )

    def __len__(self) -> int:
        return int(self._data.sql("SELECT count(*) FROM bins").fetchall()[0][0])

    def judge(self, judged: Callable[[pa.Table], pa.Table]) -> None:
        """Let ``judged`` make of some bins a table with the column ``ratio``, until all are judged."""
        writer: pq.ParquetWriter | None = None
        for batch in self._data.sql("FROM bins").to_arrow_reader(TOGETHER):
            table = judged(pa.Table.from_batches([batch]))
            writer = writer or pq.ParquetWriter(self._judged, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is not None:
            writer.close()
        self._data.read_parquet(str(self._judged)).create_view("judged")

    def write(self, path: Path, columns: Sequence[str], flagged: int, error_rate: float) -> None:
        """Write the judged bins as CSV: their rank, the ``columns``, p_wrong and whether they are flagged."""
        self._copy(
            f"SELECT {', '.join(columns)} FROM ({self._ranked(flagged, error_rate)}) ORDER BY rank", path
        )

    def first(self, number: int, flagged: int, error_rate: float) -> list[dict[str, Any]]:
        """The ``number`` most suspicious bins."""
        query = f"{self._ranked(flagged, error_rate)} ORDER BY rank LIMIT {number}"
        found: list[dict[str, Any]] = self._data.sql(query).to_arrow_table().to_pylist()
        return found

    def write_left_out(self, path: Path) -> None:
        """Write what is not judged, and why, as CSV."""
        self._copy("FROM skipped ORDER BY reason, id", path)

    def left_out(self) -> dict[str, int]:
        """How many are not judged for each reason, the commonest first; without the detail behind a colon."""
        query = (
            "SELECT split_part(reason, ':', 1) AS why, count(*) FROM skipped GROUP BY why ORDER BY 2 DESC, 1"
        )
        return dict(self._data.sql(query).fetchall())

    def _ranked(self, flagged: int, error_rate: float) -> str:
        odds = f"({error_rate!r} * ratio)"
        return f"""
            SELECT *, rank <= {flagged} AS flagged,
                round({odds} / ({1 - error_rate!r} + {odds}), 6) AS p_wrong
            FROM (SELECT *, row_number() OVER (ORDER BY ratio DESC, id) AS rank FROM judged)
        """

    def _copy(self, query: str, path: Path) -> None:
        with storage.written_whole(path) as partial:
            name = str(partial).replace("'", "''")
            self._data.execute(f"COPY ({query}) TO '{name}' (FORMAT csv, HEADER)")


def _table(skipped: Iterable[Skipped]) -> pa.Table:
    """The rows as texts; what is no Unicode, as a file name may be, is escaped."""
    cells = [[text.encode(errors="backslashreplace").decode() for text in row] for row in skipped]
    columns = [*zip(*cells, strict=True)] or [()] * len(Skipped._fields)
    return pa.table([pa.array(column, pa.string()) for column in columns], names=list(Skipped._fields))
