"""`bincount audit`: findings in order, what is left out, stopping and going on, and errors planted."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Bucket
from making import jpeg, write_photos, write_records
from processes import held_elsewhere

from bincount import cli
from bincount.auditing import answers
from bincount.counter import Counter

COUNTS = {f"{n:05d}": n % 6 for n in range(24)}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_expected(path: Path, quantities: dict[str, int]) -> None:
    path.write_text("id,count\n" + "".join(f"{id},{count}\n" for id, count in quantities.items()))


def predictions(ids: list[str], counts: list[int], sureness: float = 0.9) -> pa.Table:
    """Answers that are sure of these counts."""
    shares = np.full((len(ids), 6), (1 - sureness) / 5, dtype=np.float32)
    shares[np.arange(len(ids)), counts] = sureness
    return pa.table([ids, *shares.T], names=["id", *(f"p_{n}" for n in range(6))])


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_photos(tmp_path / "photos", list(COUNTS))


def test_photos_are_ranked_by_how_little_their_record_fits(small_run: Path, photos: Path) -> None:
    write_expected(Path("expected.csv"), COUNTS)
    words = [f"run={small_run}", f"photos={photos}", "expected=expected.csv", "out=new/findings.csv"]
    assert cli.main(["audit", *words, "audit.budget=5"]) == 0
    rows = read(Path("new/findings.csv"))
    names = ["rank", "id", "expected", "likely", "p_wrong", "flagged", "photo"]
    assert list(rows[0]) == [*names, *(f"p_{n}" for n in range(6))]
    assert {row["id"]: int(row["expected"]) for row in rows} == COUNTS
    assert [int(row["rank"]) for row in rows] == list(range(1, 25))
    sure = [float(row["p_wrong"]) for row in rows]
    assert sure == sorted(sure, reverse=True)
    assert [row["flagged"] for row in rows] == ["true"] * 5 + ["false"] * 19
    assert all(row["likely"] != row["expected"] for row in rows)
    assert all(Path(row["photo"]).stem == row["id"] for row in rows)
    page = Path("new/findings.html").read_text()
    assert "24 bins were judged, and 5 are flagged." in page
    assert page.count("data:image/jpeg") == 10 + 10  # ten photos, and where the run looked
    assert "http" not in page.replace("http-equiv", "")
    assert sorted(path.name for path in Path("new").iterdir()) == [
        "findings.csv",
        "findings.html",
        "findings.skipped.csv",
    ]


@pytest.mark.slow
def test_photos_and_records_in_s3_are_audited_as_those_in_folders(
    small_run: Path, photos: Path, bucket: Bucket
) -> None:
    write_expected(Path("expected.csv"), COUNTS)
    shutil.copytree(photos, bucket.folder / "photos")
    shutil.copy("expected.csv", bucket.folder)
    found = {}
    for place in (str(photos.parent), bucket.address):
        words = [f"photos={place}/photos", f"expected={place}/expected.csv", "out=findings.csv"]
        assert cli.main(["audit", f"run={small_run}", *words, "audit.budget=5"]) == 0
        found[place] = read(Path("findings.csv"))
        for row in found[place]:
            assert row.pop("photo") == f"{place}/photos/{row['id']}.jpg"
        assert Path("findings.html").read_text().count("data:image/jpeg") == 10 + 10
    assert found[bucket.address] == found[str(photos.parent)]


@pytest.mark.slow
def test_what_cannot_be_judged_is_listed(
    small_run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "torn.jpg").write_bytes(jpeg()[:-200])
    (photos / "unexpected.jpg").write_bytes(jpeg())
    (photos / "twice.jpg").write_bytes(jpeg())
    (photos / "twice.png").write_bytes(jpeg())
    write_expected(
        Path("expected.csv"), {**COUNTS, "torn": 1, "twice": 1, "gone": 2, "00003": 6, "00004": 88}
    )
    words = [f"run={small_run}", f"photos={photos}", "expected=expected.csv", "audit.budget=3"]
    assert cli.main(["audit", *words]) == 0
    assert len(read(Path("findings.csv"))) == 22
    reasons = {row["id"]: row["reason"] for row in read(Path("findings.skipped.csv"))}
    assert set(reasons) == {"torn", "twice", "unexpected", "gone", "00003", "00004"}
    assert "truncated" in reasons["torn"]
    assert reasons["twice"].startswith("2 files have this id")
    assert reasons["unexpected"] == "the photo has no expected quantity"
    assert reasons["gone"] == "the bin has no photo"
    assert reasons["00004"] == "not judged, as the run counts to 5: it is expected to hold 88"
    assert "left out: 2, not judged, as the run counts to 5" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["records", "tables", "parquet"])
def test_expected_quantities_come_from_records_tables_and_parquet_too(
    kind: str, small_run: Path, photos: Path
) -> None:
    expected = write_records(Path("records"), COUNTS)
    if kind == "tables":
        assert (
            cli.main(
                ["prepare", "source=folder", "source.images=null", "source.metadata=records", "out=data"]
            )
            == 0
        )
        expected = Path("data")
    elif kind == "parquet":
        expected = Path("stock.parquet")
        columns = {"id": list(COUNTS), "expected_quantity": list(COUNTS.values())}
        pq.write_table(pa.table(columns), expected)
    words = [f"run={small_run}", f"photos={photos}", f"expected={expected}", "audit.budget=3"]
    assert cli.main(["audit", *words]) == 0
    assert {row["id"]: int(row["expected"]) for row in read(Path("findings.csv"))} == COUNTS


@pytest.mark.slow
def test_answers_made_before_need_no_photos(small_run: Path, photos: Path) -> None:
    told = dict(COUNTS)
    told["00007"], told["00009"] = 5, 0
    pq.write_table(predictions(list(told), list(told.values())), "told.parquet")
    write_expected(Path("expected.csv"), COUNTS)
    words = [f"run={small_run}", "predictions=told.parquet", "expected=expected.csv", "audit.budget=2"]
    assert cli.main(["audit", *words, "audit.error_rate=0.1"]) == 0
    rows = read(Path("findings.csv"))
    assert {row["id"] for row in rows[:2]} == {"00007", "00009"}
    assert {row["likely"] for row in rows[:2]} == {"5", "0"}
    assert "photo" not in rows[0]
    # The same answers as a CSV, whose ids are texts although they look like numbers.
    pa.csv.write_csv(pq.read_table("told.parquet"), "told.csv")
    assert cli.main(["audit", *words, "predictions=told.csv", "out=again.csv", "audit.error_rate=0.1"]) == 0
    assert [row["id"] for row in read(Path("again.csv"))] == [row["id"] for row in rows]


def test_ids_as_pandas_and_polars_write_them_are_texts_too(small_run: Path, photos: Path) -> None:
    told = predictions(list(COUNTS), list(COUNTS.values()))
    pq.write_table(told.set_column(0, "id", told["id"].cast(pa.large_string())), "told.parquet")
    stock = {"id": pa.array(COUNTS, pa.large_string()), "expected": list(COUNTS.values())}
    pq.write_table(pa.table(stock), "stock.parquet")
    words = [f"run={small_run}", "predictions=told.parquet", "expected=stock.parquet", "audit.budget=2"]
    assert cli.main(["audit", *words]) == 0
    assert len(read(Path("findings.csv"))) == 24


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda rows: [*rows, rows[0]], "the id 00000 stands there twice or more"),
        (lambda rows: [rows[0].replace("0.9", "nan"), *rows[1:]], "the probabilities of 00000 are no shares"),
        (lambda rows: [rows[0].replace("0.9", "0.3"), *rows[1:]], "the probabilities of 00000 are no shares"),
        (
            lambda rows: [rows[0].replace("0.9", "-0.9"), *rows[1:]],
            "the probabilities of 00000 are no shares",
        ),
        (lambda rows: [rows[0].replace("0.9", "much"), *rows[1:]], "cannot be read"),
        (lambda rows: [], "no bin can be judged: the bin has no photo (24)"),
    ],
)
def test_answers_that_cannot_be_are_refused(
    spoil: Callable[[list[str]], list[str]],
    told: str,
    small_run: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_expected(Path("expected.csv"), COUNTS)
    rows = [
        f"{id}," + ",".join("0.9" if n == count else "0.02" for n in range(6)) for id, count in COUNTS.items()
    ]
    Path("told.csv").write_text("\n".join(["id,p_0,p_1,p_2,p_3,p_4,p_5", *spoil(rows)]) + "\n")
    words = [f"run={small_run}", "predictions=told.csv", "expected=expected.csv", "audit.budget=2"]
    assert cli.main(["audit", *words]) == 2
    assert told in capsys.readouterr().err
    assert not list(Path().glob("findings*"))


@pytest.mark.slow
def test_false_alarms_are_measured_on_validation(
    small_run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_expected(Path("expected.csv"), COUNTS)
    words = [f"run={small_run}", f"photos={photos}", "expected=expected.csv"]
    flagged = []
    for share in ("0", "0.3", "1"):
        assert cli.main(["audit", *words, f"audit.false_alarms={share}"]) == 0
        flagged.append(sum(row["flagged"] == "true" for row in read(Path("findings.csv"))))
    assert flagged == sorted(flagged)
    assert flagged[-1] == 24
    assert "of the validation photos" in capsys.readouterr().out


@pytest.mark.slow
def test_a_stopped_audit_goes_on_where_it_was(
    small_run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_expected(Path("expected.csv"), COUNTS)
    words = [
        f"run={small_run}",
        f"photos={photos}",
        "expected=expected.csv",
        "audit.budget=3",
        "batch_size=4",
    ]
    monkeypatch.setattr(answers, "PART", 8)
    seen: list[int] = []
    real = Counter.probabilities

    def stopping(self: Counter, pixels: torch.Tensor) -> torch.Tensor:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(Counter, "probabilities", stopping)
    assert cli.main(["audit", *words]) != 0
    assert not Path("findings.csv").exists()
    assert Path(".findings.csv.partial").is_dir()
    seen.append(0)  # so that it does not stop again
    assert cli.main(["audit", *words]) == 0
    assert sum(seen) == 12 + 16  # of the first part none was counted again
    assert not Path(".findings.csv.partial").exists()
    first = Path("findings.csv").read_bytes()
    monkeypatch.setattr(Counter, "probabilities", real)
    assert cli.main(["audit", *words, "out=whole.csv"]) == 0
    assert Path("whole.csv").read_bytes() == first


@pytest.mark.slow
def test_what_was_counted_of_other_photos_is_not_taken(small_run: Path, photos: Path) -> None:
    write_expected(Path("expected.csv"), COUNTS)
    words = [f"run={small_run}", f"photos={photos}", "expected=expected.csv", "audit.budget=3"]
    draft = Path(".findings.csv.partial")
    draft.mkdir()
    (draft / "facts.json").write_text("of another audit")
    pq.write_table(predictions(["other"], [1]), draft / "000000.parquet")
    assert cli.main(["audit", *words]) == 0
    assert {row["id"] for row in read(Path("findings.csv"))} == set(COUNTS)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["expected=expected.csv"], "photos=DIR, or predictions=FILE"),
        (["photos=photos"], "expected is not given"),
        (["photos=photos", "expected=nowhere.csv"], "nowhere.csv"),
        (["photos=photos", "expected=empty"], "there are no expected quantities"),
        (["photos=photos", "expected=numbers.parquet"], "ids must be texts, not int64"),
        (["photos=photos", "expected=other.parquet"], "id and one of expected, expected_quantity, count"),
        (
            ["photos=photos", "expected=others.csv"],
            "no bin can be judged: the photo has no expected quantity (24); ",
        ),
        (["predictions=bare.csv", "expected=expected.csv"], "lacks the column p_0"),
        (
            ["photos=photos", "expected=expected.csv", "audit.error_rate=0"],
            "audit.error_rate=0.0: must be above 0",
        ),
        (["planted.times=3", "planted.split=train"], "the run was not evaluated on train"),
        (["photos=photos", "expected=expected.csv", "out=photos"], "out=photos: the findings are a CSV"),
        (["photos=photos", "expected=expected.csv", "out=a.html"], "out=a.html: the findings are a CSV"),
    ],
)
def test_bad_input_is_told_in_a_line_and_nothing_is_written(
    words: list[str], told: str, small_run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_expected(Path("expected.csv"), COUNTS)
    write_expected(Path("others.csv"), {"elsewhere": 1})
    Path("empty").mkdir()
    Path("bare.csv").write_text("id,count\n00001,1\n")
    pq.write_table(pa.table({"id": [1], "count": [1]}), "numbers.parquet")
    pq.write_table(pa.table({"id": ["1"], "stock": [1]}), "other.parquet")
    assert cli.main(["audit", f"run={small_run}", *words]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("bincount: ")
    assert told in error
    assert not list(Path().glob("findings*"))


def test_two_audits_do_not_write_to_one_place(
    small_run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_expected(Path("expected.csv"), COUNTS)
    words = ["audit", f"run={small_run}", "photos=photos", "expected=expected.csv", "audit.budget=2"]
    with held_elsewhere(Path(".findings.csv.lock").absolute()):
        assert cli.main(words) == 2
    assert "out=findings.csv: another audit writes there" in capsys.readouterr().err
    Path("findings.png").write_bytes(b"mine")
    assert cli.main(words) == 0
    assert Path("findings.png").read_bytes() == b"mine"
    assert sorted(Path().glob(".findings*")) == []


def test_the_class_more_may_come_late_in_answers_made_before(tmp_path: Path) -> None:
    lines = [f"{n:07d},1,0.25,0.5,0.25\n" for n in range(60_000)]
    (tmp_path / "told.csv").write_text("id,count,p_0,p_1,p_more\n" + "".join(lines) + "last,more,0,0,1\n")
    (given,) = answers.given_answers(tmp_path / "told.csv", ["0", "1", "more"], tmp_path / "draft")
    assert pq.read_table(given)["id"].to_pylist()[-1] == "last"


@pytest.mark.slow
def test_planted_errors_are_found_better_than_by_chance(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where, page = small_run / "evaluation" / "test", (small_run / "report.html").read_bytes()
    before = {path.name for path in where.iterdir()}
    try:
        assert cli.main(["audit", f"run={small_run}", "planted.times=5", "planted.rate=0.2"]) == 0
        found = json.loads((where / "audit.json").read_bytes())
        assert (where / "audit.png").stat().st_size > 1000
        assert "finding wrong records" in (small_run / "report.html").read_text()
    finally:
        for path in where.iterdir():
            if path.name not in before:
                path.unlink()
        (small_run / "report.html").write_bytes(page)
    assert [kind["kind"] for kind in found["kinds"]] == ["one", "two", "bin", "all"]
    assert all(kind["times"] == 5 for kind in found["kinds"])
    assert all(set(kind["orders"]) == {"audit", "differs", "random"} for kind in found["kinds"])
    assert "AP" in capsys.readouterr().out


@pytest.mark.slow
def test_a_million_bins_fit_in_bounded_memory(small_run: Path, tmp_path: Path) -> None:
    """Beyond what an audit of few takes, a bin takes no more than 0.5 kB."""
    import subprocess
    import sys

    program = (
        "import resource, sys; from bincount import cli; code = cli.main(sys.argv[1:]);"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    peaks = []
    for number in (1_000, 1_000_000):
        generator = np.random.default_rng(0)
        counts = generator.integers(0, 6, number)
        ids = [f"{n:07d}" for n in range(number)]
        pq.write_table(predictions(ids, counts.tolist(), 0.5), tmp_path / "told.parquet")
        wrong = generator.random(number) < 0.05
        expected = np.where(wrong, generator.integers(0, 6, number), counts)
        pq.write_table(pa.table({"id": ids, "count": expected}), tmp_path / "expected.parquet")
        words = [f"run={small_run}", f"predictions={tmp_path}/told.parquet", f"out={tmp_path}/found.csv"]
        words += [f"expected={tmp_path}/expected.parquet", "audit.budget=1000"]
        done = subprocess.run(
            [sys.executable, "-c", program, "audit", *words], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.rsplit("peak ", 1)[1]))
        rows = read(tmp_path / "found.csv")
        assert len(rows) == number
        assert all(row["expected"] != str(counts[int(row["id"])]) for row in rows[: min(1_000, number // 50)])
    assert (peaks[1] - peaks[0]) * 1024 < 500 * 1_000_000
