"""`bincount evaluate`: figures that follow from the predictions, beside baselines and published ones."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from making import write_data
from rich.console import Console

from bincount import cli, comparison, run
from bincount.config import EvaluationData
from bincount.counter import load
from bincount.data.index import Index
from bincount.evaluate import _examples, _probabilities, calibrate
from bincount.model.decoding import decode
from bincount.model.metrics import score
from bincount.model.published import PUBLISHED


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    """A run of one's own, named runs/default/<its name>."""
    return shutil.copytree(small_run, tmp_path / "runs" / "default" / small_run.name)


def test_results_have_the_promised_keys_and_follow_from_the_predictions(small_run: Path) -> None:
    where = small_run / "evaluation/test"
    results = json.loads((where / "results.json").read_bytes())
    keys = "split samples accuracy rmse mae within_one nll ece per_count confusion baselines"
    assert set(keys.split()) <= set(results)
    assert set(results["per_count"][0]) == {"count", "samples", "accuracy", "rmse"}
    assert set(results["baselines"]) == {"random", "majority", "prior"}

    table = pq.read_table(where / "predictions.parquet")
    assert table.column_names == ["id", "count", "predicted", *(f"p_{n}" for n in range(6)), "expected"]
    probabilities = np.stack([table[f"p_{n}"].to_numpy() for n in range(6)], axis=1)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    told = decode(torch.from_numpy(probabilities), results["decode"]).numpy()
    np.testing.assert_array_equal(table["predicted"], told)
    np.testing.assert_allclose(table["expected"], probabilities @ np.arange(6), atol=1e-4)
    assert results["accuracy"] == pytest.approx(
        np.mean(table["count"].to_numpy() == table["predicted"].to_numpy())
    )
    again = score(table["count"].to_numpy(), probabilities, results["decode"])
    assert {key: results[key] for key in again} == again


def test_a_run_is_calibrated_on_validation(small_run: Path) -> None:
    found = json.loads((small_run / "calibration.json").read_bytes())
    results = json.loads((small_run / "evaluation/test/results.json").read_bytes())
    assert (found["temperature"], found["decode"]) == (results["temperature"], results["decode"])
    assert found["samples"] == 14
    assert found["nll"]["after"] <= found["nll"]["before"]
    counter = load(small_run)
    assert (counter.temperature, counter.decoding) == (found["temperature"], found["decode"])
    # Figures on validation are then those that were found.
    index = Index.open(run.saved_config(small_run).data.root)
    config = EvaluationData(root=None, batch_size=5, workers=0)
    probabilities, _, _ = _probabilities(counter, index, "val", config)
    again = score(counter.counts.classes(index.split("val").count), probabilities)
    assert again["nll"] == pytest.approx(found["nll"]["after"], rel=1e-5)
    assert again["decodings"] == found["decodings"]


@pytest.mark.slow
def test_another_decoding_can_be_asked_for(run_copy: Path) -> None:
    for how in ("mode", "median", "mean"):
        assert cli.main(["evaluate", f"run={run_copy}", f"decode={how}", "data.workers=0"]) == 0
        results = json.loads((run_copy / "evaluation/test/results.json").read_bytes())
        assert results["decode"] == how
        assert results["accuracy"] == results["decodings"][how]["accuracy"]


def test_predictions_are_of_every_photo_of_the_split(small_run: Path, small_data: Path) -> None:
    predicted = pq.read_table(small_run / "evaluation/test/predictions.parquet")
    split = Index.open(str(small_data)).split("test")
    assert predicted["id"].to_pylist() == split.id.to_pylist()
    np.testing.assert_array_equal(predicted["count"], split.count)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [3, 64])
def test_the_figures_do_not_depend_on_batches_or_workers(
    run_copy: Path, batch: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((run_copy / "evaluation/test/results.json").read_bytes())
    assert cli.main(["evaluate", f"run={run_copy}", f"data.batch_size={batch}", "data.workers=1"]) == 0
    after = json.loads((run_copy / "evaluation/test/results.json").read_bytes())
    assert after["confusion"] == before["confusion"]
    assert after["nll"] == pytest.approx(before["nll"], rel=1e-5)


@pytest.mark.slow
def test_another_split_stands_beside_the_first(run_copy: Path) -> None:
    assert cli.main(["evaluate", f"run={run_copy}", "split=val", "data.workers=0"]) == 0
    assert {path.name for path in (run_copy / "evaluation").iterdir()} == {"test", "val", "curves.png"}
    report = (run_copy / "report.html").read_text()
    assert "Split test" in report
    assert "Split val" in report


@pytest.mark.slow
def test_the_table_shows_baselines_and_published_figures(
    run_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", f"run={run_copy}", "data.workers=0"]) == 0
    out = capsys.readouterr().out
    for told in ("guessing at random", "commonest count, ", "ResNet34, SGD *", "55.7%", "0.930", "97.7%"):
        assert told in out
    assert "published on other splits" in out


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_table_fits_the_terminal(small_run: Path, width: int) -> None:
    results = json.loads((small_run / "evaluation/test/results.json").read_bytes())
    terminal = Console(width=width, file=io.StringIO())
    terminal.print(comparison.table({small_run.name: results}, "test", width))
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown
    assert all(name in shown for name in (small_run.name, "ResNet50, frozen *", "RMSE", "55.7%"))


@pytest.mark.slow
def test_two_runs_are_compared_side_by_side(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = shutil.copytree(run_copy, run_copy.with_name("other"))
    assert cli.main(["evaluate", f"run=[{run_copy},{other}]", "data.workers=0"]) == 0
    out = capsys.readouterr().out
    assert f"default/{run_copy.name}" in out
    assert "default/other" in out


def test_the_report_is_one_file_with_pictures_and_published_figures(small_run: Path) -> None:
    report = (small_run / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 4
    assert 'src="http' not in report
    assert all(each.name in report for each in PUBLISHED)


def test_an_unknown_split_names_those_there_are(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", f"run={run_copy}", "split=tset"]) == 2
    assert "has no photos in split 'tset': it has train, val, test" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_told(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = run_copy / "checkpoints/best.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100_000])
    assert cli.main(["evaluate", f"run={run_copy}"]) == 2
    assert "best.ckpt cannot be read, it may be damaged" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_is_told(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run_copy / "checkpoints")
    assert cli.main(["evaluate", f"run={run_copy}"]) == 2
    assert "has no checkpoint yet" in capsys.readouterr().err


def test_a_bin_of_the_class_more_is_right_when_more_is_told(tmp_path: Path) -> None:
    table = write_data(tmp_path, {"a": 9, "b": 2}, more=True).split("train")
    probabilities = np.eye(7, dtype=np.float32)[[6, 3]]
    names = [*"012345", "more"]
    shown = _examples(table, np.array([6, 2]), probabilities.argmax(axis=1), probabilities, names)
    assert [(each.count, each.told) for each in shown] == [("more", "more"), ("2", "3")]


@pytest.fixture
def damaged(small_data: Path, tmp_path: Path) -> Path:
    """The data set of the run, with an unreadable photo in val and in test."""
    data = shutil.copytree(small_data, tmp_path / "data")
    for name in ("val", "test"):
        split = Index.open(str(data)).split(name)
        shard = data / split.shards[0]
        content = bytearray(shard.read_bytes())
        content[split.jpeg_offset[0] : split.jpeg_offset[0] + 20] = bytes(20)
        shard.write_bytes(content)
    return data


def test_a_photo_that_cannot_be_read_fails_the_evaluation_and_keeps_the_old_figures(
    run_copy: Path, damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run_copy / "evaluation/test/results.json").read_bytes()
    assert cli.main(["evaluate", f"run={run_copy}", f"data.root={damaged}", "data.workers=0"]) == 1
    assert "1 of 14 photos of test could not be counted" in capsys.readouterr().err
    assert (run_copy / "evaluation/test/results.json").read_bytes() == before


def test_a_photo_that_cannot_be_read_does_not_keep_a_run_from_being_calibrated(
    run_copy: Path, damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calibrate(run_copy, Index.open(str(damaged)), EvaluationData(root=None, batch_size=5, workers=0))
    assert json.loads((run_copy / "calibration.json").read_bytes())["samples"] == 13
    assert pq.read_table(run_copy / "calibration.parquet").num_rows == 13
    assert "calibrated on the other photos: 1 of 14 photos of val could not be counted" in caplog.text


def test_photos_without_a_label_are_not_evaluated(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", f"run={run_copy}", "split=unlabelled"]) == 2
    assert "its photos have no count to compare with" in capsys.readouterr().err


def test_a_run_that_diverged_is_told(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_copy / "checkpoints/best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["model.fc.bias"][:] = float("nan")
    torch.save(checkpoint, path)
    assert cli.main(["evaluate", f"run={run_copy}", "data.workers=0"]) == 1
    assert "the run's weights have diverged (NaN)" in capsys.readouterr().err


def test_data_with_other_counts_is_refused(
    run_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "source.photos=12",
        "source.width=32",
        "source.height=32",
        "max_count=3",
        f"out={tmp_path}/three",
    ]
    assert cli.main(["prepare", *words]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", f"run={run_copy}", f"data.root={tmp_path}/three"]) == 2
    assert "has the counts 0, 1, 2, 3, and the run" in capsys.readouterr().err
