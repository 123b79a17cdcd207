"""What a service keeps of what it saw: which photos, in which files, and what `explore kept=…` reads."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import jpeg

from bincount import cli
from bincount.answer import Answer
from bincount.counter import Counter, load
from bincount.data.index import Counts
from bincount.errors import BadInput
from bincount.exploring import kept, known
from bincount.exploring.kept import Seen
from bincount.exploring.traits import CAMERA, TRAITS
from bincount.serving import keeping
from bincount.serving.keeping import Keeper

NOW = datetime(2026, 11, 21, 23, 59, 58, tzinfo=UTC)

Start = Callable[..., Keeper]


@pytest.fixture(scope="module")
def counter(small_run: Path) -> Counter:
    return load(small_run, device="cpu")


@pytest.fixture
def start(counter: Counter, tmp_path: Path) -> Iterator[Start]:
    started: list[Keeper] = []

    def make(**given: Any) -> Keeper:
        settings = {"share": 1.0, "most": 10**9, **given}
        started.append(Keeper(counter, "default/it", tmp_path / "kept", **settings))
        return started[-1]

    yield make
    for each in started:
        each.close()


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("kept-*")) for row in pq.read_table(path).to_pylist()]


def answer(n: int = 2) -> Answer:
    return Answer(n, tuple(0.75 if count == n else 0.05 for count in range(6)))


def see(keeper: Keeper, requests: int) -> None:
    for n in range(requests):
        keeper.saw(f"request-{n}", [jpeg(seed=n)], [answer(n % 6)], [None])


def seen(n: int = 0, time: datetime = NOW) -> Seen:
    return Seen(time, f"request-{n}", 1, dict.fromkeys(CAMERA, n / 10), answer(n % 6), None)


def test_a_row_tells_what_a_photo_was_like_and_what_was_told_of_it(start: Start, counter: Counter) -> None:
    keeper = start()
    photos = [jpeg(400, 300, seed=seed) for seed in range(3)]
    before = datetime.now(UTC)
    keeper.saw("some-id", photos, [answer(n) for n in (4, 0, 5)], [3, None, 5])
    keeper.close()
    (path,) = keeper.folder.iterdir()
    rows = pq.read_table(path).to_pylist()
    measured = known.measure(counter, photos, 3, "these")
    for place, row in enumerate(rows):
        for name in CAMERA:
            assert row[name] == pytest.approx(measured.values[name][place])
        assert (row["request"], row["photo"], row["run"]) == ("some-id", place + 1, "default/it")
        assert before <= row["time"] <= datetime.now(UTC)
    assert [row["count"] for row in rows] == [4, 0, 5]
    assert [row["expected"] for row in rows] == [3, None, 5]
    assert [row["certainty"] for row in rows] == [0.75] * 3
    assert [round(rows[0][f"p_{n}"], 6) for n in range(6)] == [0.05] * 4 + [0.75, 0.05]
    assert path.stat().st_size < sum(map(len, photos)) + 20_000
    assert not any(photo[200:260] in path.read_bytes() for photo in photos)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_that_share_of_the_photos_leaves_a_row(
    start: Start, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "camera_traits", lambda photo: dict.fromkeys(CAMERA, 1.0))
    keeper = start(share=share, chance=random.Random(1))
    photo = jpeg()
    for n in range(100):
        keeper.saw(str(n), [photo] * 10, [answer()] * 10, [None] * 10)
    keeper.close()
    rows = rows_of(keeper.folder)
    assert abs(len(rows) - 1000 * share) < 4 * (1000 * share * (1 - share)) ** 0.5
    assert {row["photo"] for row in rows} == set(range(1, 11)), "photo by photo, not request by request"


def test_requests_do_not_wait_for_it(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    let = threading.Event()

    def slow(*_: Any) -> Any:
        assert let.wait(30)
        return dict.fromkeys(CAMERA, 1.0)

    monkeypatch.setattr(keeping, "camera_traits", slow)
    keeper = start()
    begun = time.perf_counter()
    keeper.saw("id", [jpeg()] * 50, [answer()] * 50, [None] * 50)
    assert time.perf_counter() - begun < 0.5
    let.set()
    keeper.close()
    assert len(rows_of(keeper.folder)) == 50


def test_files_are_whole_bounded_and_of_one_worker_each(start: Start) -> None:
    keepers = [start(rows=4), start(rows=4)]
    for keeper in keepers:
        see(keeper, 9)
    for keeper in keepers:
        keeper.close()
    files = list(keepers[0].folder.iterdir())
    assert sorted(len(pq.read_table(path)) for path in files) == [1, 1, 4, 4, 4, 4]
    assert all(path.name.startswith("kept-20") and path.suffix == ".parquet" for path in files)


def test_a_few_rows_are_written_after_a_while(start: Start) -> None:
    keeper = start(every=0.2)
    see(keeper, 2)
    until = time.monotonic() + 30
    while not (keeper.folder.is_dir() and len(rows_of(keeper.folder)) == 2):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_more_photos_than_can_wait_leave_no_rows_and_that_is_told(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    photo, let = jpeg(), threading.Event()
    monkeypatch.setattr(keeping, "WAITING", 3 * len(photo))
    monkeypatch.setattr(keeping, "camera_traits", lambda _: let.wait(30) and dict.fromkeys(CAMERA, 1.0))
    keeper = start()
    keeper.saw("id", [photo] * 20, [answer()] * 20, [None] * 20)
    let.set()
    keeper.close()
    rows = len(rows_of(keeper.folder))
    assert 3 <= rows <= 4  # one may be at work already
    assert keeper.missed == 20 - rows
    assert "photos left no row" in caplog.text


def test_what_cannot_be_kept_is_told_and_harms_nobody(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kept").write_text("a file where the folder should be")
    keeper = start(rows=1)
    see(keeper, 2)
    keeper.close()
    assert caplog.text.count("rows are not kept") == 2


def test_the_oldest_files_make_room(tmp_path: Path, counter: Counter) -> None:
    (tmp_path / "mine.parquet").write_bytes(bytes(10**6))
    hours = [NOW.replace(hour=hour) for hour in (7, 3, 12)]
    paths = [kept.write(tmp_path, [seen(time=hour)], "a", "m", counter.counts) for hour in hours]
    size = paths[0].stat().st_size
    kept.bound(tmp_path, 3 * size + 100)
    assert all(path.exists() for path in paths)
    kept.bound(tmp_path, 2 * size + 100)
    assert [path.exists() for path in paths] == [True, False, True]
    kept.bound(tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.parquet"]


def test_counts_or_more_are_kept_and_read(tmp_path: Path) -> None:
    told = Answer(6, (0.1,) * 6 + (0.4,), more=True)
    row = Seen(NOW, "id", 1, dict.fromkeys(CAMERA, 0.5), told, None)
    path = kept.write(tmp_path, [row], "a", "m", Counts(5, True))
    assert pq.read_table(path)["p_more"].to_pylist() == [pytest.approx(0.4)]
    assert kept.read([path], "m", 10, 0).values["count"].tolist() == [6]


def test_only_what_this_model_counted_is_compared_and_no_more_than_the_sample(tmp_path: Path) -> None:
    counts = Counts(5)
    for model, numbers in (("mine", range(30)), ("other", range(50, 60))):
        kept.write(tmp_path, [seen(n) for n in numbers], "a", model, counts)
    files = kept.find(str(tmp_path))
    found = kept.read(files, "mine", 1000, 0)
    assert set(found.values) == set(TRAITS)
    assert sorted(found.values["brightness"]) == pytest.approx([n / 10 for n in range(30)])
    assert {values.dtype for values in found.values.values()} == {np.dtype(np.float64)}
    assert len(kept.read(files, "mine", 7, 0)) == 7
    with pytest.raises(
        BadInput, match="of the 40 photos that were kept none was counted by this run as it is"
    ):
        kept.read(files, "a third", 1000, 0)


def test_a_day_is_named_by_a_glob(tmp_path: Path) -> None:
    for day in (19, 20, 20):
        kept.write(tmp_path, [seen(time=NOW.replace(day=day))], "a", "m", Counts(5))
    assert len(kept.find(str(tmp_path))) == 3
    assert len(kept.find(f"{tmp_path}/kept-20261120-*")) == 2
    assert len(kept.find(str(next(tmp_path.iterdir())))) == 1
    with pytest.raises(
        BadInput, match=r"there is nothing that a service kept \(kept-\*.parquet; see serve.keep"
    ):
        kept.find(f"{tmp_path}/kept-20261122-*")


def test_other_files_are_refused(tmp_path: Path) -> None:
    torn, other = tmp_path / "kept-a.parquet", tmp_path / "kept-b.parquet"
    torn.write_bytes(b"PAR1 and no more")
    pq.write_table(pa.table({"model": ["m"]}), other)
    for path in (torn, other):
        with pytest.raises(BadInput, match=str(path)):
            kept.read([path], "m", 10, 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["explore", "kept=x"], "kept=…: against=RUN tells what they are compared with"),
        (["explore", "kept=x", "photos=y", "against=latest"], "give one of them"),
        (["serve", "serve.keep=1.5"], "serve.keep=1.5: must be from 0 to 1"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    assert told in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    words = ["serve.keep=0.1", f"serve.keep_in={tmp_path}/file/kept"]
    assert cli.main(["serve", f"run={small_run}", *words]) == 2
    assert "file/kept: nothing can be written there: Not a directory" in capsys.readouterr().err
