"""status, logs and stop of a job that was sent."""

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aws_stand_in import REGION, Answers, Aws, answering_aws, aws_account, moto_server  # noqa: F401

from bincount.errors import BadInput
from launch import aws, instances, jobs, requests, submit

NAME = "bincount-default-20261121-120000-ab12"
START = datetime(2026, 11, 21, 12, tzinfo=UTC)

FACTS: dict[str, Any] = {
    "TrainingJobStatus": "Completed",
    "SecondaryStatus": "Completed",
    "ResourceConfig": {"InstanceType": "ml.p4d.24xlarge", "InstanceCount": 2, "VolumeSizeInGB": 100},
    "EnableManagedSpotTraining": True,
    "TrainingStartTime": START,
    "TrainingEndTime": START + timedelta(hours=2),
    "TrainingTimeInSeconds": 7200,
    "BillableTimeInSeconds": 2160,
    "InputDataConfig": [
        {
            "ChannelName": "config",
            "DataSource": {
                "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://mine/jobs/{NAME}/config/"}
            },
        }
    ],
    "ModelArtifacts": {"S3ModelArtifacts": f"s3://mine/jobs/{NAME}/output/model.tar.gz"},
    "Environment": {requests.STEPS: "40"},
}

PROCESSING: dict[str, Any] = {
    "ProcessingJobStatus": "InProgress",
    "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.c7i.4xlarge", "InstanceCount": 8}},
    "ProcessingStartTime": START,
    "ProcessingInputs": [{"InputName": "config", "S3Input": {"S3Uri": "s3://mine/jobs/x/config/"}}],
}

EPOCHS = [
    "run runs/default/x",
    "epoch 1 of 3  loss 2.048  val loss 1.838  accuracy 0.071  RMSE 2.854  2 s  35 photos/s",
    "epoch 2 of 3  loss 1.900  val loss 1.700  accuracy 0.200  RMSE 2.500  1 s  132 photos/s",
    "stopped by SIGTERM",
    "epoch 2 of 3  loss 1.900  val loss 1.700  accuracy 0.200  RMSE 2.500  1 s  132 photos/s",
    "epoch 3 of 3  loss 1.800  val loss 1.600  accuracy 0.300  RMSE 2.400  1 s  132 photos/s",
]


class Body:
    def read(self) -> bytes:
        return b"experiment: mine\nseed: 0\n"


UNKNOWN = aws.Refused("Requested resource not found.", "ValidationException", {})


def test_status_tells_seconds_billed_spot_saving_and_cost(
    aws_answers: Callable[[Answers], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    aws_answers({"describe_training_job": FACTS, "get_object": {"Body": Body()}})
    assert submit.main(["status", f"job={NAME}"]) == 0
    told = capsys.readouterr().out
    # 2160 s of two instances at 25.25 USD an hour.
    assert "2 x ml.p4d.24xlarge: 7,200 s, 2,160 s billed\n30.30 USD so far, saved by spot: 70%" in told
    kept = json.loads(Path(f"runs/mine/{NAME}/cost.json").read_bytes())
    assert (kept["usd"], kept["seconds_billed"], kept["spot_saving"]) == (30.3, 2160, 0.7)


def test_what_a_running_job_costs_so_far(aws_answers: Callable[[Answers], list[str]]) -> None:
    running = {
        key: value
        for key, value in FACTS.items()
        if key not in ("TrainingEndTime", "TrainingTimeInSeconds", "BillableTimeInSeconds")
    }
    sent = jobs.Sent(NAME, "Training", REGION, {**running, "TrainingJobStatus": "InProgress"})
    told = jobs.cost(sent, START + timedelta(minutes=30))
    assert (told["seconds_billed"], told["spot_saving"], told["usd"]) == (1800, 0.0, 25.25)
    waiting = jobs.Sent(NAME, "Training", REGION, {**sent.facts, "TrainingStartTime": None})
    assert jobs.cost(waiting, START)["usd"] == 0


def test_a_processing_job_has_its_status_too(
    aws_answers: Callable[[Answers], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {"describe_training_job": UNKNOWN, "describe_processing_job": PROCESSING}
    asked = aws_answers({**answers, "get_object": {"Body": Body()}, "stop_processing_job": {}})
    assert submit.main(["status", f"job={NAME}"]) == 0
    assert "8 x ml.c7i.4xlarge" in capsys.readouterr().out
    assert submit.main(["stop", f"job={NAME}"]) == 0
    assert asked[-1] == "sagemaker:stop_processing_job"


def test_a_transform_has_its_status_and_is_stopped(
    aws_answers: Callable[[Answers], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {
        "TransformJobStatus": "InProgress",
        "TransformResources": {"InstanceType": "ml.c5.4xlarge", "InstanceCount": 2},
        "TransformStartTime": START,
        "TransformEndTime": START + timedelta(hours=1),
    }
    answers = {"describe_training_job": UNKNOWN, "describe_processing_job": UNKNOWN}
    asked = aws_answers({**answers, "describe_transform_job": facts, "stop_transform_job": {}})
    assert submit.main(["status", f"job={NAME}"]) == 0
    assert "2 x ml.c5.4xlarge: 3,600 s, 3,600 s billed\n1.63 USD so far" in capsys.readouterr().out
    assert Path(f"runs/transform/{NAME}/cost.json").exists()
    assert submit.main(["stop", f"job={NAME}"]) == 0
    assert asked[-1] == "sagemaker:stop_transform_job"
    assert "checkpoint" not in capsys.readouterr().out


def test_stop(aws_answers: Callable[[Answers], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    facts = {**FACTS, "TrainingJobStatus": "InProgress"}
    asked = aws_answers({"describe_training_job": facts, "stop_training_job": {}})
    assert submit.main(["stop", f"job={NAME}"]) == 0
    assert asked == ["sagemaker:describe_training_job", "sagemaker:stop_training_job"]
    asked = aws_answers({"describe_training_job": FACTS})
    assert submit.main(["stop", f"job={NAME}"]) == 0
    assert "has ended already: Completed" in capsys.readouterr().out


def test_the_pricing_api_is_taken_where_it_answers(aws_answers: Callable[[Answers], list[str]]) -> None:
    def line(component: str, usd: str) -> str:
        terms = {"a": {"priceDimensions": {"b": {"pricePerUnit": {"USD": usd}}}}}
        attributes = {"instanceName": "ml.g5.12xlarge", "component": component}
        return json.dumps({"product": {"attributes": attributes}, "terms": {"OnDemand": terms}})

    instance = instances.types()["ml.g5.12xlarge"]
    aws_answers({"get_products": {"PriceList": [line("Hosting", "9.9"), line("Training", "7.5")]}})
    assert instances.price(instance, "eu-west-1", "Training").usd_hour == 7.09
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aws, "has_credentials", lambda: True)
        found = instances.price(instance, "eu-west-1", "Training")
        assert (found.usd_hour, "Pricing API, for eu-west-1" in found.source) == (7.5, True)
        aws_answers({"get_products": aws.Refused("no", "AccessDenied", {})})
        assert instances.price(instance, "eu-west-1", "Training").usd_hour == 7.09


@pytest.mark.slow
def test_logs_bring_figures_and_pictures_from_cloudwatch(
    aws_account: Aws,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "found", lambda *_: jobs.Sent(NAME, "Training", REGION, FACTS))
    aws_account.bucket("mine")
    aws_account.client("s3").put_object(
        Bucket="mine", Key=f"jobs/{NAME}/config/config.yaml", Body=Body().read()
    )
    assert submit.main(["logs", f"job={NAME}"]) == 2
    assert "it has said nothing yet" in capsys.readouterr().err

    logs, group = aws_account.client("logs"), "/aws/sagemaker/TrainingJobs"
    logs.create_log_group(logGroupName=group)
    now = int(datetime.now(UTC).timestamp() * 1000) - 60_000
    for host, said in (("algo-1", EPOCHS), ("algo-2", ["algo-2 of algo-1, algo-2"])):
        stream = f"{NAME}/{host}-1700000000"
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        events = [{"timestamp": now + number, "message": line} for number, line in enumerate(said)]
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    assert submit.main(["logs", f"job={NAME}"]) == 0
    assert f"7 lines in runs/mine/{NAME}/log.txt" in capsys.readouterr().out
    folder = Path(f"runs/mine/{NAME}")
    assert "algo-1: epoch 3 of 3" in (folder / "log.txt").read_text()
    assert (folder / "evaluation/curves.png").stat().st_size > 1000
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["epoch"], row["val/accuracy"]) for row in rows] == [
        ("39", "0", "0.071"),
        ("79", "1", "0.2"),
        ("119", "2", "0.3"),
    ]


def test_metrics_are_those_of_a_local_run(small_run: Path, tmp_path: Path) -> None:
    lines = (small_run / "log.txt").read_text().splitlines()
    assert jobs.write_metrics(tmp_path, lines, steps=68 // 8)
    with (
        (small_run / "metrics.csv").open(newline="") as here,
        (tmp_path / "metrics.csv").open(newline="") as there,
    ):
        local = [row for row in csv.DictReader(here) if row["val/accuracy"]]
        for mine, row in zip(local, csv.DictReader(there), strict=True):
            assert (mine["step"], mine["epoch"]) == (row["step"], row["epoch"])
            for name in ("val/loss", "val/accuracy", "val/rmse"):
                assert float(mine[name]) == pytest.approx(float(row[name]), abs=5.1e-4)


def test_no_such_job(aws_answers: Callable[[Answers], list[str]]) -> None:
    aws_answers({f"describe_{kind}_job": UNKNOWN for kind in ("training", "processing", "transform")})
    with pytest.raises(BadInput, match="there is no such job in us-east-1"):
        jobs.find("bincount-x", REGION)
    aws_answers(
        {
            "list_training_jobs": {"TrainingJobSummaries": []},
            "list_processing_jobs": {"ProcessingJobSummaries": []},
            "list_transform_jobs": {"TransformJobSummaries": []},
        }
    )
    assert jobs.newest(REGION, "runs") is None
    training = [{"CreationTime": START, "TrainingJobName": "a"}]
    processing = [{"CreationTime": START + timedelta(hours=1), "ProcessingJobName": "b"}]
    aws_answers(
        {
            "list_training_jobs": {"TrainingJobSummaries": training},
            "list_processing_jobs": {"ProcessingJobSummaries": processing},
            "list_transform_jobs": {"TransformJobSummaries": []},
        }
    )
    assert jobs.newest(REGION, "runs") == (START + timedelta(hours=1), "b")
