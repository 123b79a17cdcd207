"""`python launch/submit.py tune`: the request of SageMaker's own tuner, and what its jobs run.

`BINCOUNT_GOLDEN=write pytest tests/test_tune.py` writes the golden files anew.
"""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aws_stand_in import IMAGE, ROLE, Aws, aws_account, moto_server  # noqa: F401
from rehearsal import Host, image_entry, stage

from bincount import container
from bincount.checks import Photos
from bincount.errors import BadInput
from launch import aws, requests, service_model, start, submit, tune
from launch.job import DataSet

GOLDEN = Path(__file__).parent / "golden/tune"
GPU = f"{IMAGE}:2.9.0-gpu-py312"
NAME = "bincount-261121-120000-ab12"
WORDS = ["launcher=sagemaker", "data.root=s3://mine/bins", f"launcher.image={GPU}", "launcher.max_hours=2"]
WORDS += [f"launcher.role={ROLE}", "launcher.output=s3://mine/jobs"]

REQUESTS = {
    "tune": [*WORDS, "sweep.trials=30", "sweep.jobs=3"],
    "tune_other_values": [
        *WORDS,
        *("sweep=random", "trainer.monitor=val/rmse", "trainer.max_epochs=5", "data.batch_size=16,32"),
        *("optimizer.lr=0.01", "optimizer.weight_decay=interval(0,0.1)", "launcher.nodes=2"),
    ],
}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set that need not be read."""
    data = DataSet(Photos(("train", "val", "test"), 4200, ("0", "1")), 0.05)
    monkeypatch.setattr(start, "read_data", lambda job: (replace(job, data=data), ""))


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_are_the_golden_ones_and_what_aws_takes(name: str, known: None) -> None:
    made = tune.made(tune.composed(REQUESTS[name], NAME))
    for operation, request in made.items():
        service_model.check("sagemaker", operation, request)
    path = GOLDEN / f"{name}.json"
    if os.environ.get("BINCOUNT_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(made, indent=2) + "\n")
    assert json.loads(path.read_text()) == made


def test_golden_files_are_of_requests() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(REQUESTS)


def test_new_names_are_short_enough_for_a_tuner(known: None) -> None:
    tuning = tune.composed(WORDS)
    service_model.check("sagemaker", *next(iter(tune.made(tuning).items())))
    assert len(tuning.name) <= 32


def test_a_preview_tells_what_is_tried_and_its_ceiling(
    known: None, no_aws: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_aws.setattr(aws, "ask", None)
    assert submit.main(["tune", *REQUESTS["tune"]]) == 0
    told = capsys.readouterr().out
    assert "30 jobs, 3 at the same time" in told
    assert re.search(r"optimizer\.lr +0\.001 to 0\.1, each power of ten", told)
    assert "426.55 USD = 30 x 14.22 USD" in told
    assert "submit=true sends it" in told


WRONG = {
    "no_spot": (["launcher.spot=true", "launcher.max_wait_hours=4"], "a tuner's jobs keep no checkpoints"),
    "objective_is_told": (["trainer.monitor=val/mae"], "trainer.monitor=val/mae: the tuner reads it"),
    "values_are_tried": (["model=resnet18,resnet34"], "model: a tuner tries values, no groups"),
    "few_values": (["data.batch_size=range(1,32)"], "data.batch_size: 31 values, and the tuner takes 30"),
    "within_limits": (["sweep.trials=751"], "751 trials: the tuner takes 750"),
}


def test_every_check_is_in_the_table() -> None:
    assert set(WRONG) == set(tune.RULES.checks)


@pytest.mark.slow
@pytest.mark.parametrize("check", WRONG)
def test_what_is_wrong_is_told_before_anything_is_asked_and_nothing_else_would_tell_it(
    check: str, known: None, no_aws: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_aws.setattr(aws, "ask", None)
    words, told = WRONG[check]
    assert submit.main(["tune", *WORDS, *words]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    no_aws.delitem(tune.RULES.checks, check)
    if check != "objective_is_told":
        assert submit.main(["tune", *WORDS, *words]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["launcher.image=null"], "the tuner starts the image as it is"),
        (["launcher.role=null"], "launcher.role is not given"),
    ],
)
def test_what_lacks_stops_sending(
    words: list[str],
    told: str,
    known: None,
    no_aws: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    no_aws.setattr(aws, "ask", None)
    assert submit.main(["tune", *WORDS, *words]) == 0
    out = capsys.readouterr().out
    assert told in out[out.index("\nfirst: ") :]
    assert submit.main(["tune", *WORDS, *words, "submit=true"]) == 2
    assert told in capsys.readouterr().err


def test_a_trial_that_could_not_run_is_found(known: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.main(["tune", *WORDS, "data.batch_size=int(interval(32,2000))"]) == 2
    assert "data.batch_size=2000: a step of 4 ranks takes 8,000" in capsys.readouterr().err


@pytest.mark.slow
def test_it_is_sent(
    aws_account: Aws,  # noqa: F811
    small_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    aws_account.bucket("mine")
    aws_account.upload(small_data.glob("index.*"), "mine", "bins")
    aws_account.repository("2.9.0-gpu-py312")
    small = ["data.batch_size=int(interval(2,8))", "sweep.trials=4"]
    assert submit.main(["tune", *WORDS, *small, "submit=true"]) == 0
    told = re.search(r"sent (\S+)", capsys.readouterr().out)
    assert told is not None
    (found,) = aws_account.client("sagemaker").list_hyper_parameter_tuning_jobs()[
        "HyperParameterTuningJobSummaries"
    ]
    assert found["HyperParameterTuningJobName"] == told[1]
    key = f"jobs/{told[1]}/config/config.yaml"
    assert aws_account.client("s3").get_object(Bucket="mine", Key=key)


# --- its containers -----------------------------------------------------------------------------------

SMALL = ["launcher=sagemaker", "model=resnet18", "data.image_size=32", "data.workers=1", "launcher.nodes=2"]
SMALL += ["launcher.accelerator=cpu", "launcher.devices=1", "launcher.precision=32-true"]
SMALL += ["data.root=s3://mine/bins", "launcher.input=File", "launcher.output=s3://mine/jobs"]
SMALL += ["launcher.instance_type=ml.c5.9xlarge", f"launcher.image={IMAGE}:2.9.0-cpu-py312"]
SMALL += ["data.batch_size=int(interval(4,8))", "trainer.max_epochs=int(interval(1,3))"]


def tried(ranges: dict[str, Any]) -> dict[str, str]:
    """What the tuner may try in a job, by the request, and a word of its own."""
    found = {each["Name"]: each["MinValue"] for each in ranges["ContinuousParameterRanges"]}
    found |= {each["Name"]: each["MaxValue"] for each in ranges["IntegerParameterRanges"]}
    return {**found, "_tuning_objective_metric": "val:accuracy"}


@pytest.mark.slow
def test_a_tuners_job_on_two_hosts_trains_with_what_is_tried(small_data: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        data = DataSet(Photos(("train", "val", "test"), 68, ("0", "1")), 0.01)
        patch.setattr(start, "read_data", lambda job: (replace(job, data=data), ""))
        tuning = tune.composed(SMALL, NAME)
    (request,) = tune.made(tuning).values()
    service_model.check("sagemaker", "CreateHyperParameterTuningJob", request)
    for address, content in requests.uploads(tuning.first).items():
        place = tmp_path / address.removeprefix("s3://")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    # As SageMaker makes a training job of the definition: with a name, and without an entry of its own.
    job = {"TrainingJobName": f"{NAME}-001-5c0ffee5", **request["TrainingJobDefinition"]}
    values = tried(request["HyperParameterTuningJobConfig"]["ParameterRanges"])
    held = {"s3://mine": tmp_path / "mine", "s3://mine/bins": small_data}
    more: dict[str, Any] = {"command": [*image_entry(), "train"], "hyperparameters": values}
    with stage():
        hosts = [Host.from_request(job, held, tmp_path / name, name, **more) for name in ("algo-1", "algo-2")]
        try:
            ends = [host.end(240) for host in hosts]
        finally:
            for host in hosts:
                host.kill()
    told = "\n".join(host.told for host in hosts)
    assert [code for code, _ in ends] == [0, 0], told
    model = hosts[0].ml / "model"
    config = (model / "config.yaml").read_text()
    assert all(line in config for line in ("lr: 0.001", "batch_size: 8", "max_epochs: 3"))
    assert (model / "evaluation/val/results.json").exists()
    objective = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
    metrics = {each["Name"]: each["Regex"] for each in job["AlgorithmSpecification"]["MetricDefinitions"]}
    assert len(re.findall(metrics[objective], hosts[0].told)) == 3


def test_a_hyperparameter_that_is_no_key_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: None
) -> None:
    monkeypatch.setattr(container, "ML", tmp_path)
    for place, content in {
        "input/data/config/config.yaml": requests.config_yaml(tune.composed(WORDS, NAME).first),
        "input/config/hyperparameters.json": json.dumps({"optimizer.lrate": "1", "sagemaker_program": "x"}),
    }.items():
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(content)
    with pytest.raises(BadInput, match=r"hyperparameter optimizer.lrate: .* did you mean optimizer.lr\?"):
        container._train_config("job", 1)
    (tmp_path / "input/config/hyperparameters.json").write_text('{"optimizer.lr": "fast"}')
    with pytest.raises(BadInput, match=r"optimizer\.lr=fast: must be a number"):
        container._train_config("job", 1)
