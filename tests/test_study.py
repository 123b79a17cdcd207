"""What a sweep tries next: nothing twice, nothing left out, and the same when it is stopped and continued."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bincount import ranking, space
from bincount.compose import compose
from bincount.config import RandomSweep, Sweep, TPESweep
from bincount.errors import BadInput
from bincount.space import Choice, Interval, Range, Space, parse
from bincount.study import FIGURES, Goal, State, Study, Trial

ACCURACY = Goal("accuracy", "max")
GRID = Sweep(name="grid", jobs=1)
TPE = TPESweep(name="tpe", jobs=1, trials=12, startup=4)

SEARCHED = parse(
    ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "model=a,b", "x=int(interval(1,9))", "y=range(0.1,0.5,0.1)"]
)


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Without waiting for the disk: no power is lost here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@contextmanager
def opened(
    folder: str | Path, searched: Space, how: Sweep, goal: Goal = ACCURACY, seed: int = 0
) -> Iterator[Study]:
    with closing(Study(Path(folder) / "study.log", searched, how, seed, goal)) as study:
        yield study


def figures(accuracy: float) -> dict[str, float]:
    return {figure: accuracy if figure == "accuracy" else 1 - accuracy for figure in FIGURES}


def made_up(trial: Trial) -> dict[str, float]:
    """Figures that hang on the values alone."""
    return figures(sum(len(text) * place for place, text in enumerate(trial.values.values(), 1)) % 17 / 17)


# --- from words to a space -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "parameter", "texts"),
    [
        ("a=1,2", Choice("a", ("1", "2")), ["1", "2"]),
        ("a=choice(x,y)", Choice("a", ("x", "y")), ["x", "y"]),
        ("a=null,true,'b,c'", Choice("a", ("null", "true", "'b,c'")), ["null", "true", "'b,c'"]),
        ("a=[32,48],64", Choice("a", ("[32,48]", "64")), ["[32,48]", "64"]),
        ("a=range(1,4)", Range("a", 1, 3, 1), ["1", "2", "3"]),
        ("a=range(4,1,-2)", Range("a", 2, 4, 2), ["2", "4"]),
        ("a=range(0.1,0.45,0.1)", Range("a", 0.1, 0.4, 0.1), ["0.1", "0.2", "0.3", "0.4"]),
        ("a=interval(1,5)", Interval("a", 1.0, 5.0, False), ["1", "2.528", "5"]),
        ("a=int(interval(1,100))", Interval("a", 1, 100, False), ["1", "39", "100"]),
        ("a=tag(log,interval(1e-4,1e-1))", Interval("a", 1e-4, 1e-1, True), ["0.0001", "0.03826", "0.1"]),
        (
            "model.weights=choice(null,'/a,b')",
            Choice("model.weights", ("null", "'/a,b'")),
            ["null", "'/a,b'"],
        ),
    ],
)
def test_words_with_several_values_become_parameters(
    word: str, parameter: space.Parameter, texts: list[str]
) -> None:
    found = parse(["seed=1", word])
    assert found == Space(("seed=1",), (parameter,))
    assert [each[parameter.key] for each in found.samples()] == texts


def test_a_path_is_one_value_unless_choice_is_written() -> None:
    assert parse(["data.root=a,b"]).parameters == ()
    weights = [
        compose("train", words).model.weights for words in _words("model.weights=choice(null,'/a,(b)',c)")
    ]
    assert weights == [None, "/a,(b)", "c"]


def _words(word: str) -> list[list[str]]:
    found = parse([word])
    return [found.words(each) for each in found.grid()]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a=1,1.0,2,1"], "a=1,1.0,2,1: 1 is there twice"),
        (["a=1,2", "a=3,4"], "a is given twice"),
        (["a=1,2", "a=3"], "a is given twice"),
        (["a=interval(5,1)"], "write the lower end first"),
        (["a=tag(log,interval(0,1))"], "a logarithm needs an interval above 0"),
        (["a=tag(lgo,interval(1,2))"], "the one tag there is is that of an interval"),
        (["a=range(5,1)"], "there is no number in this range"),
        (["a=range(1,5,0)"], "there is no number in this range"),
        (["model=glob(*)"], "write the values out, as in model=a,b"),
        (["model.weights=choice(a"], None),
        (["model.weights=choice(a,(b)"], "quote the paths"),
    ],
)
def test_values_that_cannot_be_tried_are_refused(words: list[str], told: str | None) -> None:
    if told is None:
        assert parse(words).parameters == ()
        return
    with pytest.raises(BadInput) as error:
        parse(words)
    assert told in str(error.value)


def test_a_grid_has_no_whole_interval() -> None:
    with pytest.raises(BadInput, match=r"optimizer\.lr: no grid has a whole interval: write sweep=tpe"):
        SEARCHED.grid()
    assert SEARCHED.size is None


def test_samples_have_each_value_once_at_least() -> None:
    found = parse(["a=1,2,3,4,5", "b=x,y", "c=interval(0,1)"])
    seen = {(key, text) for each in found.samples() for key, text in each.items()}
    assert seen == {(each.key, text) for each in found.parameters for text in each.texts}
    assert len(found.samples()) == 5


def test_names_are_short_where_that_is_clear() -> None:
    names = space.short_names(["optimizer.lr", "model", "data.a.name", "model.name"])
    assert list(names.values()) == ["lr", "model", "data.a.name", "model.name"]


# --- what is tried ---------------------------------------------------------------------------------------

AXES = st.lists(st.integers(1, 3), min_size=1, max_size=3)


@settings(max_examples=25)
@given(axes=AXES, data=st.data())
def test_a_grid_is_tried_once_each_also_when_stopped_and_continued(
    axes: list[int], data: st.DataObject
) -> None:
    searched = Space((), tuple(Choice(f"k{n}", tuple(map(str, range(size)))) for n, size in enumerate(axes)))
    ended = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(100):
            with opened(folder, searched, GRID) as study:
                running = study.begun()
                for _ in range(data.draw(st.integers(1, 8))):
                    if len(running) < 3 and (trial := study.next()):
                        running.append(trial)
                    elif running:
                        trial = running.pop(data.draw(st.integers(0, len(running) - 1)))
                        ended.append(trial)
                        if data.draw(st.booleans()):
                            study.done(trial, made_up(trial), 1.0)
                        else:
                            study.failed(trial, "no luck", 1.0)
                if study.over:
                    break
    assert sorted(each.number for each in ended) == list(range(len(searched.grid())))
    tried = [tuple(each.values.values()) for each in sorted(ended, key=lambda each: each.number)]
    assert tried == list(itertools.product(*(map(str, range(size)) for size in axes)))


def all_of(study: Study, stop_after: int = 1000) -> None:
    """Make one trial after the other; the one after ``stop_after`` is begun, and not ended."""
    running = study.begun()
    for _ in range(stop_after):
        trial = running.pop() if running else study.next()
        if trial is None:
            return
        study.done(trial, made_up(trial), 1.0)
    study.next()


@pytest.mark.parametrize(
    "how", [GRID, RandomSweep(name="random", jobs=1, trials=12), TPE], ids=lambda each: each.name
)
def test_stopped_and_continued_it_tries_the_same(how: Sweep, tmp_path: Path) -> None:
    searched = parse(["a=1,2,3,4", "b=x,y,z"]) if how is GRID else SEARCHED
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    with opened(tmp_path / "one", searched, how) as study:
        all_of(study)
        whole = study.ranked()
    for stop_after in (1, 4, 3, 1000):
        with opened(tmp_path / "other", searched, how) as study:
            all_of(study, stop_after)
            ranked = study.ranked()
    assert ranked == whole
    assert len(whole) == 12
    with opened(tmp_path / "one", searched, how) as study:
        assert study.over
        assert study.next() is None


def test_another_seed_tries_something_else(tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        with opened(tmp_path / str(seed), SEARCHED, TPE, seed=seed) as study:
            trial = study.next()
            assert trial is not None
            found.append(trial.values)
    assert found[0] != found[1]


def test_what_is_drawn_lies_in_the_space_and_reads_well(tmp_path: Path) -> None:
    with opened(tmp_path, SEARCHED, TPE) as study:
        all_of(study)
        for trial in study.ranked():
            values = trial.values
            assert 1e-4 <= float(values["optimizer.lr"]) <= 1e-1
            assert len(values["optimizer.lr"]) <= 9
            assert values["model"] in ("a", "b")
            assert int(values["x"]) in range(1, 10)
            assert values["y"] in ("0.1", "0.2", "0.3", "0.4")


def test_tpe_comes_nearer_than_chance(tmp_path: Path) -> None:
    searched = parse(["a=interval(0,1)", "b=interval(0,1)"])
    best = {}
    for how in (
        TPESweep(name="tpe", jobs=1, trials=40, startup=8),
        RandomSweep(name="random", jobs=1, trials=40),
    ):
        (tmp_path / how.name).mkdir()
        with opened(tmp_path / how.name, searched, how) as study:
            while trial := study.next():
                a, b = map(float, trial.values.values())
                study.done(trial, figures(1 - (a - 0.3) ** 2 - (b - 0.8) ** 2), 1.0)
            found = study.best()
            assert found is not None
            best[how.name] = found.figures["accuracy"]
    assert best["tpe"] > best["random"]
    assert best["tpe"] > 0.998


@pytest.mark.slow
@settings(max_examples=25)
@given(part=st.floats(0, 1))
def test_a_journal_that_was_cut_off_goes_on(part: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with opened(folder, SEARCHED, TPE) as study:
            all_of(study, 6)
        path = Path(folder) / "study.log"
        path.write_bytes(path.read_bytes()[: round(part * path.stat().st_size)])
        path.with_name("study.log.lock").symlink_to(path)  # of Optuna, killed while it wrote
        with opened(folder, SEARCHED, TPE) as study:
            all_of(study)
            assert study.over
        with opened(folder, SEARCHED, TPE) as study:
            assert [trial.number for trial in sorted(study.ranked(), key=lambda each: each.number)] == list(
                range(12)
            )
            assert all(set(trial.values) == set(SEARCHED.keys) for trial in study.ranked())


def test_more_trials_can_be_asked_for(tmp_path: Path) -> None:
    for trials in (2, 5):
        how = RandomSweep(name="random", jobs=1, trials=trials)
        with opened(tmp_path, SEARCHED, how) as study:
            all_of(study)
            assert len(study.ranked()) == study.total == trials


def test_a_study_is_of_one_process_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path, SEARCHED, TPE), pytest.raises(BadInput, match="this sweep is running already"):
        Study(tmp_path / "study.log", SEARCHED, TPE, 0, ACCURACY)
    with opened(tmp_path, SEARCHED, TPE):
        pass


# --- how trials rank -------------------------------------------------------------------------------------

SCORES = st.lists(st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=8)


@settings(max_examples=25)
@given(scores=SCORES, best=st.sampled_from(["max", "min"]))
def test_the_best_is_first_and_those_that_failed_last(scores: list[float | None], best: str) -> None:
    searched = parse(["a=" + ",".join(map(str, range(8)))])
    with (
        tempfile.TemporaryDirectory() as folder,
        opened(folder, searched, GRID, Goal("rmse", best)) as study,
    ):
        for score in scores:
            trial = study.next()
            assert trial is not None
            if score is None:
                study.failed(trial, "no luck", 2.0)
            else:
                study.done(trial, {**figures(0.5), "rmse": score}, 2.0)
        ranked = study.ranked()
    sign = -1 if best == "max" else 1
    done = sorted((sign * score, number) for number, score in enumerate(scores) if score is not None)
    failed = [number for number, score in enumerate(scores) if score is None]
    assert [each.number for each in ranked] == [*(number for _, number in done), *failed]
    assert [each.state for each in ranked] == [State.DONE] * len(done) + [State.FAILED] * len(failed)
    assert all(each.seconds == 2.0 for each in ranked)


RANKED = [
    Trial(3, {"optimizer.lr": "0.003162", "model": "resnet34"}, State.DONE, figures(0.43), 12.4),
    Trial(0, {"optimizer.lr": "0.001", "model": "resnet18"}, State.DONE, figures(0.4), 9.6),
    Trial(1, {"optimizer.lr": "10", "model": "resnet18"}, State.FAILED, {}, 3.0, "diverged, it did"),
    Trial(2, {"optimizer.lr": "0.1"}),
]
TWO = parse(["optimizer.lr=0.001,10", "model=resnet18,resnet34"])


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal(width: int) -> None:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(ranking.table(RANKED, TWO, ACCURACY, width))
    lines = [line.split() for line in capture.get().splitlines() if line.strip()]
    shown = capture.get()
    assert max(map(len, shown.splitlines())) <= width
    assert lines[1][:3] == ["trial", "lr", "model"]
    assert lines[3][:5] == ["1", "003", "0.003162", "resnet34", "43.0%"]
    assert lines[5] == ["001", "10", "resnet18", "failed", "3"]
    assert ("NLL" in shown) == (width == 120)


def test_many_trials_are_shown_in_part() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(ranking.table([RANKED[0]] * 30, TWO, ACCURACY, 100))
    assert capture.get().count("resnet34") == ranking.SHOWN
    assert "and 10 more in trials.csv" in capture.get()


def test_the_csv_has_all_that_is_known() -> None:
    assert ranking.as_csv(RANKED, TWO).splitlines() == [
        "rank,trial,state,optimizer.lr,model,accuracy,rmse,mae,nll,seconds,reason",
        "1,003,done,0.003162,resnet34,0.43,0.5700000000000001,0.5700000000000001,0.5700000000000001,12.4,",
        "2,000,done,0.001,resnet18,0.4,0.6,0.6,0.6,9.6,",
        ',001,failed,10,resnet18,,,,,3.0,"diverged, it did"',
        ",002,unfinished,0.1,,,,,,0.0,",
    ]
