"""`python launch/submit.py train -m`: each trial is a training job, and they rank as those here do."""

import csv
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aws_stand_in import IMAGE, ROLE, Aws, aws_account, moto_server  # noqa: F401

from launch import start, submit, trials
from launch.job import Job

WORDS = ["launcher=sagemaker", "data.root=s3://mine/bins", "data.batch_size=4", f"launcher.role={ROLE}"]
WORDS += [f"launcher.image={IMAGE}:2.9.0-gpu-py312", "launcher.output=s3://mine/jobs", "launcher.max_hours=2"]
TRIED = ["optimizer.lr=0.001,0.01,0.1", "sweep.jobs=2"]


@pytest.fixture
def account(
    aws_account: Aws,  # noqa: F811
    small_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Aws:
    """An account whose jobs end at once, and leave figures; best at a rate of 0.01."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trials, "LOOK", 0.0)
    aws_account.bucket("mine")
    aws_account.upload(small_data.glob("index.*"), "mine", "bins")
    aws_account.repository("2.9.0-gpu-py312")
    real = start.create

    def create(job: Job, data_told: str) -> None:
        real(job, data_told)
        assert job.train is not None
        accuracy = 1 / (1 + (math.log10(job.train.optimizer.lr) + 2) ** 2)
        figures = {"accuracy": accuracy, "rmse": 1 - accuracy, "mae": 1 - accuracy, "nll": 1.0}
        key = f"jobs/{job.name}/checkpoints/runs/default/{job.name}/evaluation/val/results.json"
        aws_account.client("s3").put_object(Bucket="mine", Key=key, Body=json.dumps(figures).encode())

    monkeypatch.setattr(start, "create", create)
    return aws_account


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def swept() -> Path:
    (folder,) = Path("runs/default").glob("*-sweep")
    return folder


@pytest.mark.slow
def test_a_sweep_is_previewed_with_its_ceiling(account: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.main(["train", "-m", *WORDS, *TRIED]) == 0
    told = capsys.readouterr().out
    assert "3 jobs (sweep=grid), 2 at the same time" in told
    assert "at most      42.66 USD = 3 x 14.22 USD" in told
    assert "nothing was sent" in told
    assert account.training_jobs() == []
    assert not Path("runs").exists()


@pytest.mark.slow
def test_trials_are_jobs_and_end_in_a_ranked_table(account: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.main(["train", "-m", *WORDS, *TRIED, "submit=true"]) == 0
    out = capsys.readouterr().out
    assert "3 trials, ranked by accuracy on val" in out
    found = rows(swept())
    assert [row["optimizer.lr"] for row in found] == ["0.01", "0.001", "0.1"]
    assert [row["accuracy"] for row in found] == ["1.0", "0.5", "0.5"]
    names = {(swept() / f"{n:03d}/job.txt").read_text().strip() for n in range(3)}
    assert names == set(account.training_jobs())
    key = f"jobs/{min(names)}/config/config.yaml"
    content = account.client("s3").get_object(Bucket="mine", Key=key)["Body"].read().decode()
    assert "evaluate: val" in content


@pytest.mark.slow
def test_a_job_that_fails_is_told_and_takes_no_other_along(
    account: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real: Callable[[Job], dict[str, Any] | None] = trials._facts

    def facts(job: Job) -> dict[str, Any] | None:
        assert job.train is not None
        if job.train.optimizer.lr == 0.1:
            return {"TrainingJobStatus": "Failed", "FailureReason": "AlgorithmError:\nit has diverged"}
        return real(job)

    monkeypatch.setattr(trials, "_facts", facts)
    assert submit.main(["train", "-m", *WORDS, *TRIED, "submit=true"]) == 0
    found = rows(swept())
    assert [row["state"] for row in found] == ["done", "done", "failed"]
    assert found[2]["reason"] == "AlgorithmError: it has diverged"


@pytest.mark.slow
def test_a_sweep_that_is_stopped_leaves_its_jobs_alone_and_goes_on_with_them(
    account: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:

        def facts(job: Job) -> dict[str, Any]:
            os.kill(os.getpid(), signal.SIGTERM)
            return {"TrainingJobStatus": "InProgress"}

        patch.setattr(trials, "_facts", facts)
        assert submit.main(["train", "-m", *WORDS, *TRIED, "submit=true"]) == 128 + signal.SIGTERM
    told = capsys.readouterr().err
    assert f"`python launch/submit.py train submit=true -m resume={swept()}` goes on" in told
    begun = account.training_jobs()
    assert len(begun) == 2
    assert submit.main(["train", "submit=true", "-m", f"resume={swept()}"]) == 0
    assert set(begun) < set(account.training_jobs())
    assert len(account.training_jobs()) == 3
    assert [row["state"] for row in rows(swept())] == ["done"] * 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["optimizer.lr=0.1"], "-m: give a word several values"),
        (["optimizer.lr=0.1,0.2", "launcher=local"], "give launcher=sagemaker"),
        (["optimizer.lr=0.1,0.2", "launcher.checkpoints=none"], "launcher.checkpoints=none: a trial's"),
        (["data.batch_size=4,1000"], "data.batch_size=1000: a step of 4 ranks takes 4,000 photos"),
        (["resume=x"], "add submit=true"),
    ],
)
def test_mistakes_are_told_in_a_line(
    words: list[str], told: str, account: Aws, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        word for word in WORDS if word.partition("=")[0] not in {each.partition("=")[0] for each in words}
    ]
    if "launcher=local" in words:
        given = [word for word in given if not word.startswith("launcher")]
    assert submit.main(["train", "-m", *given, *words]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
