"""`bincount evaluate predictions=FILE`: answers made elsewhere, held against labels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bincount import cli, pictures, storage
from bincount.data.index import Index
from bincount.data.predictions import read_predictions

#: id: count recorded, count told, probabilities of 0 to 2
ANSWERS = {
    "1": (0, 0, (0.8, 0.1, 0.1)),
    "00001": (1, 2, (0.1, 0.2, 0.7)),
    "b-2": (2, 2, (0.0, 0.1, 0.9)),
    "é3": (2, 1, (0.2, 0.5, 0.3)),
}


def labels(path: Path) -> Path:
    rows = "".join(f"{id},{count}\n" for id, (count, _, _) in ANSWERS.items())
    path.write_text(f"id,count\n{rows}", encoding="utf-8")
    return path


def as_csv(path: Path, sure: bool = True) -> Path:
    head = "id,count,p_0,p_1,p_2\n" if sure else "count,id\n"
    rows = (
        f"{id},{told},{','.join(map(str, shares))}\n" if sure else f"{told}.0,{id}\n"
        for id, (_, told, shares) in reversed(ANSWERS.items())
    )
    path.write_text(head + "".join(rows), encoding="utf-8-sig")
    return path


def as_parquet(path: Path) -> Path:
    columns: dict[str, Any] = {
        "id": list(ANSWERS),
        "count": [count for count, _, _ in ANSWERS.values()],
        "predicted": [told for _, told, _ in ANSWERS.values()],
    }
    columns |= {f"p_{n}": [shares[n] for *_, shares in ANSWERS.values()] for n in range(3)}
    pq.write_table(pa.table(columns), path)
    return path


def as_json(path: Path) -> Path:
    rows = [
        json.dumps({"photo": f"s3://bins/{id}.jpg", "count": told, "probabilities": shares})
        for id, (_, told, shares) in ANSWERS.items()
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def as_json_without_counts(path: Path) -> Path:
    rows = [{"id": id, "probabilities": shares} for id, (_, _, shares) in ANSWERS.items()]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def as_transform(path: Path) -> Path:
    """What a batch transform makes of photos in several folders."""
    for number, (id, (_, told, shares)) in enumerate(ANSWERS.items()):
        place = path / f"bins/{number % 2}/{id}.jpg.out"
        place.parent.mkdir(parents=True, exist_ok=True)
        answer = {"count": told, "probabilities": dict(zip("012", shares, strict=True))}
        place.write_text(json.dumps({"run": "default/a", "answers": [answer]}))
    (path / "readme.txt").write_text("no answer")
    return path


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_bytes())
    return found


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (as_csv, "told.csv"),
        (as_parquet, "told.parquet"),
        (as_json, "told.jsonl"),
        (as_json_without_counts, "told.json"),
        (as_transform, "told"),
    ],
)
def test_every_format_gives_the_same_figures_and_a_report(
    write: Any, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / name)
    assert cli.main(["evaluate", f"predictions={file}", f"labels={labels(tmp_path / 'labels.csv')}"]) == 0
    out = tmp_path / "told.evaluation"
    found = results(out)
    assert (found["samples"], found["accuracy"], found["mae"]) == (4, 0.5, 0.5)
    assert found["rmse"] == pytest.approx(np.sqrt(0.5))
    assert found["within_one"] == 1
    assert found["confusion"] == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]
    assert found["nll"] == pytest.approx(-np.mean(np.log([0.8, 0.2, 0.9, 0.3])), rel=1e-5)
    gaps = abs((1 - 0.8) + (1 - 0.9) - 0.7 - 0.5)
    assert 0 < found["ece"] <= gaps
    assert found["baselines"]["majority"] == {
        "accuracy": 0.5,
        "rmse": pytest.approx(np.sqrt(1.25)),
        "count": 2,
    }
    assert [each["samples"] for each in found["per_count"]] == [1, 1, 2]
    told = pq.read_table(out / "predictions.parquet").to_pylist()
    assert [(row["id"], row["count"], row["predicted"]) for row in told] == [
        (id, count, answer) for id, (count, answer, _) in ANSWERS.items()
    ]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "In short" in page
    assert "50.0%" in page
    assert f"report: {out / 'report.html'}" in capsys.readouterr().out


def test_without_probabilities_nll_and_ece_are_not_known(tmp_path: Path) -> None:
    file, out = as_csv(tmp_path / "told.csv", sure=False), tmp_path / "elsewhere"
    words = [f"predictions={file}", f"labels={labels(tmp_path / 'labels.csv')}", f"out={out}"]
    assert cli.main(["evaluate", *words]) == 0
    found = results(out)
    assert (found["accuracy"], found["nll"], found["ece"], found["decodings"]) == (0.5, None, None, {})
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "NLL and ECE are not known" in page
    assert not (out / "reliability.png").exists()


def test_a_runs_own_predictions_have_its_own_figures(
    small_run: Path, small_data: Path, tmp_path: Path
) -> None:
    file = small_run / "evaluation/test/predictions.parquet"
    words = [f"predictions={file}", f"data.root={small_data}", "split=test", f"out={tmp_path}/out"]
    assert cli.main(["evaluate", *words]) == 0
    again, before = results(tmp_path / "out"), results(small_run / "evaluation/test")
    same = (
        "samples",
        "accuracy",
        "rmse",
        "mae",
        "within_one",
        "per_count",
        "confusion",
        "baselines",
        "names",
    )
    assert {key: again[key] for key in same} == {key: before[key] for key in same}
    assert again["nll"] == pytest.approx(before["nll"], rel=1e-5)
    assert again["index_digest"] == before["index_digest"]
    shown = json.loads((tmp_path / "out/gallery.json").read_bytes())
    assert any((tmp_path / "out/gallery").glob("*.jpg"))
    assert all(each["looked"] is None for of in shown.values() for each in of)


def test_what_lies_in_the_folder_out_stays(small_data: Path, tmp_path: Path) -> None:
    split = Index.open(str(small_data)).split("test")
    ids = split.id.to_pylist()
    file = tmp_path / "all.csv"
    file.write_text("id,count\n" + "".join(f"{id},1\n" for id in ids))
    for name in ("photos", "gallery"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.jpg").write_text("mine")
    words = [f"predictions={file}", f"data.root={small_data}", f"out={tmp_path}"]
    for _ in range(2):
        assert cli.main(["evaluate", *words]) == 0
    assert {path.name for path in (tmp_path / "photos").iterdir()} == {"mine.jpg"}
    assert {path.name for path in (tmp_path / "gallery").iterdir()} == {
        "mine.jpg",
        *(f"{id}.jpg" for id in ids),
    }


def test_a_runs_folder_is_not_written_over(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = as_csv(tmp_path / "told.csv")
    words = [f"predictions={file}", f"labels={labels(tmp_path / 'labels.csv')}", f"out={small_run}"]
    before = (small_run / "report.html").read_bytes()
    assert cli.main(["evaluate", *words]) == 2
    assert "is a run's folder: choose another" in capsys.readouterr().err
    assert (small_run / "report.html").read_bytes() == before


def test_answers_to_photos_of_other_splits_are_left_alone(small_data: Path, tmp_path: Path) -> None:
    rows = Index.open(str(small_data)).rows().to_pylist()
    file = tmp_path / "all.csv"
    file.write_text("id,count\n" + "".join(f"{row['id']},{row['count']}\n" for row in rows))
    assert cli.main(["evaluate", f"predictions={file}", f"data.root={small_data}", "split=val"]) == 0
    found = results(tmp_path / "all.evaluation")
    assert (found["split"], found["samples"], found["accuracy"], found["missing"]) == ("val", 14, 1.0, 0)


def test_photos_without_an_answer_are_left_out_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "few.csv"
    file.write_text("id,count\n1,0\nb-2,2\n")
    words = ["evaluate", f"predictions={file}", f"labels={labels(tmp_path / 'labels.csv')}"]
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert "2 of 4 photos" in told
    assert "have no answer, such as 00001, é3: missing=skip leaves them out" in told
    assert cli.main([*words, "missing=skip"]) == 0
    assert "left out of all figures: 2 photos without an answer\n" in capsys.readouterr().out
    found = results(tmp_path / "few.evaluation")
    assert (found["samples"], found["missing"], found["accuracy"]) == (2, 2, 1.0)
    assert "2 photos without an answer" in (tmp_path / "few.evaluation/report.html").read_text()


def test_answers_to_unknown_photos_are_left_out_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = as_csv(tmp_path / "told.csv", sure=False)
    file.write_text(file.read_text(encoding="utf-8-sig") + "1,01\n", encoding="utf-8")
    words = ["evaluate", f"predictions={file}", f"labels={labels(tmp_path / 'labels.csv')}"]
    assert cli.main(words) == 2
    assert "has 1 ids that" in capsys.readouterr().err
    assert cli.main([*words, "missing=skip"]) == 0
    assert "left out of all figures: 1 answers to photos without a count\n" in capsys.readouterr().out
    found = results(tmp_path / "told.evaluation")
    assert (found["samples"], found["missing"], found["unknown"]) == (4, 0, 1)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "there is no answer in it"),
        ("id,count\n", "there is no answer in it"),
        ("id,count\n1,0\n1,1\n", "bad.csv:3: the id 1 stands there twice, as in bad.csv:2"),
        ("name,count\n1,0\n", "bad.csv:2: there is no id, but name, count"),
        ("id,told\n1,0\n", "bad.csv:2: the count is missing"),
        ("id,count\n1,2.7\n", "the count is 2.7, no whole number"),
        ("id,count\n1,-1\n", "the count is -1, no whole number"),
        ("id,count\n1,nan\n", "the count is nan, no whole number"),
        ("id,count\n1,0,3\n", "bad.csv:2: 3 cells, and the header has 2"),
        ("id,count,count\n1,0,0\n", "names the column count twice"),
        ("id,count\n2,0\n", "has 1 ids that"),
        ("id,count\n01,0\n", "ids must be equal to the letter"),
        ("id,count\n1,3\n00001,1\nb-2,1\né3,1\n", "1 has the count 3, and the counts are 0 to 2"),
        ("id,count,p_0,p_1\n1,0,0.9,0.9\n", "bad.csv:2: the probabilities are not 2 shares that add up to 1"),
        ("id,count,p_0,p_1\n1,0,nan,1\n", "are not 2 shares that add up to 1"),
        ("id,count,p_0,p_1\n1,0,x,1\n", "a probability is no number"),
        ("id,count,p_0,p_1\n1,0,1,0\n00001,1,0,1\nb-2,1,0,1\né3,1,0,1\n", "and the predictions go to 1 only"),
        ('{"id": 1, "count": 0}', "bad.csv:1: the id 1 is a number"),
        ('{"id": "1", "count": 0}\n{"id": ', "bad.csv:2: invalid JSON"),
        ('["1", "2"]', "bad.csv:1: no object with id and count"),
        ('id,count\n"1,0\n', "is no valid CSV"),
    ],
)
def test_a_file_that_cannot_be_scored_is_told_in_one_line(
    content: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(content, encoding="utf-8")
    assert cli.main(["evaluate", f"predictions={file}", f"labels={labels(tmp_path / 'labels.csv')}"]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "bad.evaluation").exists()


def test_a_folder_that_no_transform_has_filled_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", f"predictions={tmp_path / 'told'}", f"labels={labels(tmp_path / 'labels.csv')}"]
    (tmp_path / "told").mkdir()
    assert cli.main(words) == 2
    assert "there is no answer in it" in capsys.readouterr().err
    (tmp_path / "told/1.jpg.out").write_text('{"error": "the photo cannot be read"}')
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert "1.jpg.out: this is no answer of bincount: the photo cannot be read" in err
    assert err.count("\n") == 1


def test_the_answers_of_a_transform_are_read_from_s3_too() -> None:
    store = storage.open_store("memory://transformed/out")
    answer = {"count": 3, "probabilities": {"0": 0.1, "1": 0.1, "2": 0.1, "more": 0.7}}
    store.write("a/b.c.png.out", json.dumps({"run": "a", "answers": [answer]}).encode())
    for address in ("memory://transformed/out", "memory://transformed/out/"):
        read = read_predictions(address)
        assert (read.id, read.told, read.names) == (["b.c"], ["more"], ["0", "1", "2", "more"])


def test_ids_that_are_numbers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"id": [1], "count": [0]}), tmp_path / "bad.parquet")
    words = [f"predictions={tmp_path}/bad.parquet", f"labels={labels(tmp_path / 'labels.csv')}"]
    assert cli.main(["evaluate", *words]) == 2
    assert "write ids as texts, as 1 and 00001 differ" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["predictions=told.csv"], "say what they are scored against"),
        (["predictions=told.csv", "labels=a.csv", "data.root=b"], "say what they are scored against"),
        (["predictions=none.csv", "labels=labels.csv"], "predictions=none.csv: there is no"),
        (["predictions=told.csv", "labels=none.csv"], "cannot read the labels"),
        (["predictions=s3://b/told.csv", "labels=labels.csv"], "out is not given: add out=FOLDER"),
        (["labels=labels.csv"], "add predictions=FILE"),
        (["predictions=told.csv", "labels=labels.csv", "missing=ignore"], "must be one of error, skip"),
        (["predictions=damaged.parquet", "labels=labels.csv"], "is a damaged Parquet file"),
        (["predictions=told.csv", "labels=twice.csv"], "1 rows cannot be used, the first twice.csv:3"),
    ],
)
def test_words_that_do_not_fit_are_told_in_one_line(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    as_csv(Path("told.csv"))
    labels(Path("labels.csv"))
    Path("damaged.parquet").write_bytes(b"PAR1 and no more")
    Path("twice.csv").write_text("id,count\n1,0\n1,0\n")
    assert cli.main(["evaluate", *words]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_what_predict_wrote_is_read_with_its_class_more(tmp_path: Path) -> None:
    file = tmp_path / "counts.csv"
    file.write_text("id,count,p_0,p_1,p_more\na,more,0.1,0.2,0.7\nb,0,0.9,0.1,0.0\n")
    read = read_predictions(str(file))
    assert (read.names, read.told) == (["0", "1", "more"], ["more", "0"])
    (tmp_path / "labels.csv").write_text("id,count\na,17\nb,1\n")
    assert cli.main(["evaluate", f"predictions={file}", f"labels={tmp_path}/labels.csv"]) == 0
    found = results(tmp_path / "counts.evaluation")
    assert found["names"] == ["0", "1", "more"]
    assert found["confusion"] == [[0, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_rounded_probabilities_are_made_to_add_up(tmp_path: Path) -> None:
    file = tmp_path / "told.csv"
    file.write_text("id,count,p_0,p_1,p_2\na,0,0.333,0.333,0.333\n")
    read = read_predictions(str(file))
    assert read.probabilities is not None
    assert read.probabilities.sum() == pytest.approx(1, abs=1e-12)


def test_ten_classes_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "told.csv"
    names = ["10", "9", "2", "1", "0", "3", "4", "5", "6", "7", "8"]
    head = ",".join(f"p_{name}" for name in names)
    file.write_text(f"id,{head}\na,1{',0' * 10}\n")
    read = read_predictions(str(file))
    assert read.names == [str(count) for count in range(11)]
    assert read.told == ["10"]


def test_figures_are_there_only_with_all_that_they_are_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = as_csv(tmp_path / "told.csv")
    words = [f"predictions={file}", f"labels={labels(tmp_path / 'labels.csv')}"]
    assert cli.main(["evaluate", *words]) == 0
    figures = tmp_path / "told.evaluation/results.json"
    before = figures.read_bytes()

    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "confusion", failing)
        assert cli.main(["evaluate", *words]) == 1
    assert not figures.exists()
    assert cli.main(["evaluate", *words]) == 0
    assert figures.read_bytes() == before
