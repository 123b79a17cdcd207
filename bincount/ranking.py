"""What came of the trials of a sweep: a line each as they end, trials.csv, a ranked table, and trials.png."""

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from bincount import pictures, progress, run, storage
from bincount.comparison import WIDE, number, percent
from bincount.errors import BadInput, BincountError
from bincount.space import Space, short_names
from bincount.study import FIGURES, Goal, State, Study, Trial
from bincount.trials import Ended

log = logging.getLogger(__name__)

#: Where a trial's figures are, in its folder.
SCORE = Path("evaluation/val/results.json")

#: So many trials that fail, and none that does not, end the sweep.
HOPELESS = 3

#: Trials that the table shows; the CSV has all.
SHOWN = 20

TITLES = {"accuracy": "accuracy", "rmse": "RMSE", "mae": "MAE", "nll": "NLL"}


class Ranking:
    """The trials of the sweep in ``folder``: told as they end, kept in trials.csv, and ranked."""

    def __init__(self, folder: Path, searched: Space, study: Study, goal: Goal):
        self._folder, self._space, self._study, self._goal = folder, searched, study, goal
        self._failures: list[BincountError] = []

    def note(self, ended: Ended, stopping: bool) -> None:
        """Keep what came of a trial, and tell it. Raises BincountError where all have failed so far.

        ``stopping``: a trial that a signal stopped goes on with the sweep.
        """
        trial, seconds = ended.trial, ended.seconds
        if stopping and ended.stopped:
            self._study.interrupted(trial, seconds)
            self._write()
            return
        figures = self._figures(trial)
        if ended.code == 0 and figures is not None:
            self._study.done(trial, figures, seconds)
            log.info("%s in %.0f s; %s", self._told(trial, figures), seconds, self._best_told())
        else:
            reason = ended.said if ended.code else f"it wrote no {SCORE}"
            self._study.failed(trial, reason, seconds)
            log.info("trial %s: %s failed: %s", trial.name, self._values(trial), reason)
            kind = BadInput if ended.code == BadInput.exit_code else BincountError
            self._failures.append(kind(f"no trial came to its end; {trial.name} failed: {reason}"))
        self._write()
        if len(self._failures) == HOPELESS and self._study.best() is None:
            raise self._failures[-1]

    def tell(self) -> None:
        """Print the ranked table, draw the picture, and point `latest` to the best."""
        ranked, best = self._study.ranked(), self._study.best()
        self._write()
        out = progress.out
        out.print(table(ranked, self._space, self._goal, out.width))
        if best is None:
            raise self._failures[-1] if self._failures else BincountError("no trial came to its end")
        done = [trial for trial in ranked if trial.figures]
        names = short_names(self._space.keys)
        drawn = {name: [trial.values[key] for trial in done] for key, name in names.items()}
        scores = [trial.figures[self._goal.figure] for trial in done]
        title = TITLES[self._goal.figure]
        pictures.trials(self._folder / "trials.png", drawn, scores, done.index(best), title)
        whole = self._folder.resolve()
        run.point_latest(whole.parents[1], whole / best.name)
        log.info("all trials: %s, and trials.png beside it", self._folder / "trials.csv")
        log.info("the best, once on test: `bincount evaluate run=%s`", self._folder / best.name)

    def _figures(self, trial: Trial) -> Mapping[str, float] | None:
        path = self._folder / trial.name / SCORE
        if not path.exists():
            return None
        found: Mapping[str, float] = json.loads(path.read_bytes())
        return found

    def _told(self, trial: Trial, figures: Mapping[str, float]) -> str:
        figure = self._goal.figure
        return f"trial {trial.name}: {self._values(trial)}: {TITLES[figure]} {told(figure, figures[figure])}"

    def _best_told(self) -> str:
        best, figure = self._study.best(), self._goal.figure
        assert best is not None
        return f"best {told(figure, best.figures[figure])} (trial {best.name})"

    def _values(self, trial: Trial) -> str:
        names = short_names(self._space.keys)
        return " ".join(f"{names[key]}={text}" for key, text in trial.values.items())

    def _write(self) -> None:
        storage.write_text(self._folder / "trials.csv", as_csv(self._study.ranked(), self._space))


def table(trials: Sequence[Trial], space: Space, goal: Goal, width: int) -> Table:
    """The ranked trials for a terminal of ``width`` columns; a narrow one is shown fewer figures."""
    figures = [each for each in FIGURES if width >= WIDE or each in (goal.figure, "accuracy", "rmse")]
    shown = Table("", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    shown.title_justify = shown.caption_justify = "left"
    shown.title = f"{len(trials):,} trials, ranked by {TITLES[goal.figure]} on val"
    shown.add_column("trial", justify="right", no_wrap=True)
    for name in short_names(space.keys).values():
        shown.add_column(name, overflow="fold")
    for title in [*(TITLES[each] for each in figures), "seconds"]:
        shown.add_column(title, justify="right", no_wrap=True)
    for rank, trial in enumerate(trials[:SHOWN], start=1):
        done = trial.state is State.DONE
        cells = [told(each, trial.figures[each]) if done else "" for each in figures]
        if not done:
            cells[0] = trial.state.value
        values = [trial.values.get(key, "") for key in space.keys]
        style = ("bold" if rank == 1 else "") if done else "dim"
        shown.add_row(
            str(rank) if done else "", trial.name, *values, *cells, f"{trial.seconds:.0f}", style=style
        )
    if len(trials) > SHOWN:
        shown.caption = f"and {len(trials) - SHOWN:,} more in trials.csv"
    return shown


def as_csv(trials: Sequence[Trial], space: Space) -> str:
    """The ranked trials, one a line; those without a rank failed, or are not done."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "trial", "state", *space.keys, *FIGURES, "seconds", "reason"])
    for rank, trial in enumerate(trials, start=1):
        done = trial.state is State.DONE
        values = [trial.values.get(key, "") for key in space.keys]
        figures = [trial.figures[each] if done else "" for each in FIGURES]
        seconds = f"{trial.seconds:.1f}"
        writer.writerow(
            [rank if done else "", trial.name, trial.state.value, *values, *figures, seconds, trial.reason]
        )
    return text.getvalue()


def told(figure: str, value: float) -> str:
    """A figure as people read it."""
    return percent(value) if figure == "accuracy" else number(value)
