"""metrics.csv: what is logged is there in the end, and a resumed run goes on with it."""

import csv
from pathlib import Path

import pytest

from bincount.training.loggers import MetricsFile


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_is_there_in_the_end_with_a_column_for_each_figure(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.csv")
    for step in range(100):
        metrics.log_metrics({"train/loss": step / 2, "epoch": 0}, step)
        metrics.save()
    metrics.log_metrics({"val/loss": 7.0}, 99)
    metrics.finalize("success")
    written = rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in written] == [str(step) for step in range(100)]
    assert list(written[0]) == ["step", "epoch", "train/loss", "val/loss"]
    assert (written[99]["train/loss"], written[99]["val/loss"]) == ("49.5", "7.0")


def test_a_resumed_run_forgets_the_rows_behind_its_step(tmp_path: Path) -> None:
    first = MetricsFile(tmp_path / "metrics.csv")
    for step in (9, 19, 29):
        first.log_metrics({"train/loss": 1.0}, step)
    first.finalize("failed")
    again = MetricsFile(tmp_path / "metrics.csv")
    again.log_metrics({"train/loss": 2.0}, 15)
    again.finalize("success")
    assert [(row["step"], row["train/loss"]) for row in rows(tmp_path / "metrics.csv")] == [
        ("9", "1.0"),
        ("15", "2.0"),
    ]


def test_what_cannot_be_written_is_told_once_and_kept_for_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").write_bytes(b"")
    metrics = MetricsFile(tmp_path / "run" / "metrics.csv")
    for step in (9, 19):
        metrics.log_metrics({"train/loss": 1.0}, step)
        metrics.write()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    (tmp_path / "run").unlink()
    metrics.finalize("success")
    assert [row["step"] for row in rows(tmp_path / "run" / "metrics.csv")] == ["9", "19"]
