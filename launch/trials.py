"""`train -m`: each trial of a sweep is a training job, some at the same time; then the same ranked table.

What to try next, and how trials rank, is that of `bincount train -m`; here is how a trial is a job. A sweep
that is stopped leaves its jobs alone, and goes on with them.
"""

import logging
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bincount import storage, sweep
from bincount.config import RandomSweep
from bincount.errors import BadInput, BincountError
from bincount.study import Trial
from bincount.sweep import SweepPlan
from bincount.trials import Ended
from launch import aws, checks, instances, jobs, preflight, preview, requests, start
from launch.job import Job, bucket_of
from launch.overrides import sending

log = logging.getLogger("bincount.launch")

#: Which job a trial is, in its folder.
JOB = "job.txt"

#: Where a trial's figures are, in its folder and in the job's.
SCORE = "evaluation/val/results.json"

#: What every trial has, beside its own words.
ALL = ["trainer.evaluate=val"]

#: Seconds between two looks at the jobs.
LOOK = 20.0


def train(words: list[str]) -> None:
    """Preview a sweep of jobs, or carry it out."""
    wanted = sending(words)
    if wanted:
        folder = sweep.sweep(words, Jobs())
        print(f"each trial is a job, named in its {JOB}; what it learnt, with NAME and its own folder:")
        print(f"  aws s3 cp s3://…/NAME/output/model.tar.gz - | tar -xz -C {folder}/000")
        return
    if any(word.startswith("resume=") for word in words):
        raise BadInput("resume: a sweep that goes on has been previewed: add submit=true")
    plan = sweep.planned(words, Path.cwd())
    sweep.compose_all(plan)
    listed = jobs_of(plan)
    print(told(plan, listed))
    print(preview.ending(checks.missing(listed[0], checks.GIVEN)))


def jobs_of(plan: SweepPlan, name: str | None = None) -> list[Job]:
    """The jobs of a few combinations, each value once. Raises BadInput where one would fail."""
    listed = []
    for combination in plan.space.samples()[: sweep.COMPOSED]:
        job, _ = start.composed("train", [*plan.space.words(combination), *ALL], name)
        checks.run_checks(job, checks.CHECKS)
        if job.data and "val" not in job.data.photos.splits:
            raise BadInput(f"{job.config.data.root} has no split 'val', on which trials are scored")  # type: ignore[union-attr]
        if job.checkpoints is None:
            raise BadInput("launcher.checkpoints=none: a trial's figures come back beside its checkpoints")
        listed.append(job)
    return listed


def number(plan: SweepPlan) -> int:
    """How many trials there will be."""
    settings = plan.first.sweep
    return settings.trials if isinstance(settings, RandomSweep) else len(plan.space.grid())


def told(plan: SweepPlan, listed: Sequence[Job]) -> str:
    """The text of a preview. ``listed``: jobs of a few trials."""
    job, total, settings = listed[0], number(plan), plan.first.sweep
    runs = {
        "trials": f"{total} jobs (sweep={settings.name}), {settings.jobs} at the same time (sweep.jobs)",
        "tried": ", ".join(plan.space.keys),
        "ranked by": f"{plan.first.trainer.monitor} on val",
    }
    return preview.sections(
        [
            ("sweep", preview.lines(runs)),
            ("price", preview.lines(cost(total, listed))),
            (f"request {requests.operation(job)} of the first trial", requests.shown(requests.request(job))),
        ]
    )


def cost(trials: int, listed: Sequence[Job]) -> dict[str, str]:
    """What so many trials cost at most, by the dearest of a few."""
    prices = [(each, _price(each)) for each in listed]
    most = max(preview.ceiling(each, price) for each, price in prices)
    source = prices[0][1].source
    return {"at most": f"{trials * most:,.2f} USD = {trials} x {most:,.2f} USD", "prices from": source}


def _price(job: Job) -> instances.Price:
    assert job.instance is not None
    return instances.price(job.instance, job.launcher.region, "Training")


class Jobs:
    """SageMaker, as the venue of a sweep's trials."""

    program = "python launch/submit.py train submit=true -m"

    def check(self, plan: SweepPlan) -> None:
        listed = jobs_of(plan)
        checks.run_checks(listed[0], checks.GIVEN)
        preflight.preflight(listed[0])

    def runner(self, folder: Path, plan: SweepPlan) -> "There":
        return There(folder, plan)


@dataclass(frozen=True)
class Running:
    """A trial, and the job that it is."""

    trial: Trial
    job: Job


class There:
    """Runs trials as jobs of SageMaker, as many at a time as ``sweep.jobs`` says."""

    def __init__(self, folder: Path, plan: SweepPlan):
        self._folder, self._plan = folder.resolve(), plan
        self.running: list[Running] = []
        self._unsent: list[Ended] = []
        self._looked = 0.0

    @property
    def free(self) -> bool:
        return len(self.running) + len(self._unsent) < self._plan.first.sweep.jobs

    def settle(self, trials: Sequence[Trial]) -> None:
        """Nothing to wait for: a job goes on without us."""

    def start(self, trial: Trial) -> None:
        """Send the trial's job; or find the one that it has."""
        folder = self._folder / trial.name
        folder.mkdir(exist_ok=True)
        name = (folder / JOB).read_text().strip() if (folder / JOB).exists() else None
        job, data_told = start.composed("train", [*self._plan.space.words(trial.values), *ALL], name)
        self.running.append(Running(trial, job))
        if name is not None and _facts(job) is not None:
            log.info("trial %s is %s", trial.name, name)
            return
        try:
            storage.write_text(folder / JOB, f"{job.name}\n")
            storage.write_text(folder / "config.yaml", requests.config_yaml(job))
            start.create(job, data_told)
        except BincountError as error:
            (folder / JOB).unlink()
            self.running.pop()
            self._unsent.append(Ended(trial, 0.0, error.exit_code, str(error)))
        else:
            log.info("trial %s is %s", trial.name, job.name)

    def ended(self) -> list[Ended]:
        found, self._unsent = self._unsent, []
        if time.monotonic() - self._looked < LOOK:
            return found
        self._looked = time.monotonic()
        for each in list(self.running):
            facts = _facts(each.job)
            if facts is None or facts["TrainingJobStatus"] in jobs.ENDED:
                self.running.remove(each)
                found.append(self._end(each, facts or {"TrainingJobStatus": "unknown to AWS"}))
        return found

    def stop(self, received: signal.Signals) -> list[Ended]:
        """Leave the jobs alone: they go on, and so will the sweep."""
        left, self.running = self.running, []
        for each in left:
            log.info("trial %s goes on: %s", each.trial.name, each.job.name)
        return [Ended(each.trial, 0.0, 128 + received, "") for each in left]

    def kill(self) -> None:
        self.running = []

    def _end(self, running: Running, facts: dict[str, Any]) -> Ended:
        """What came of a job; its figures are brought into the trial's folder."""
        seconds, state = float(facts.get("TrainingTimeInSeconds") or 0), facts["TrainingJobStatus"]
        if state != "Completed":
            said = " ".join(str(facts.get("FailureReason") or f"the job is {state}").split())[:300]
            return Ended(running.trial, seconds, 1, said)
        if (content := _figures(running.job)) is not None:
            score = self._folder / running.trial.name / SCORE
            score.parent.mkdir(parents=True, exist_ok=True)
            storage.write_text(score, content.decode())
        return Ended(running.trial, seconds, 0, "")


def _facts(job: Job) -> dict[str, Any] | None:
    """What AWS tells of a job; None where it does not know it."""
    with aws.UnknownAllowed():
        return aws.ask("sagemaker", "describe_training_job", job.launcher.region, TrainingJobName=job.name)
    return None


def _figures(job: Job) -> bytes | None:
    """results.json of the run that a job made, which SageMaker keeps with its checkpoints."""
    assert job.train is not None
    bucket, key = bucket_of(f"{job.checkpoints}/runs/{job.train.experiment}/{job.name}/{SCORE}")
    try:
        found: bytes = aws.ask("s3", "get_object", job.launcher.region, Bucket=bucket, Key=key)["Body"].read()
    except aws.Refused as error:
        if error.code != "NoSuchKey":
            raise
        return None
    return found
