"""status, logs and stop of what is no job of SageMaker by itself: tuning jobs, tables; and the newest of all.

What becomes of jobs is in test_jobs.py, of pipelines in test_pipeline.py.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aws_stand_in import Answers, answering_aws  # noqa: F401

from launch import aws, follow, submit

Asking = Callable[[Answers], list[str]]

UNKNOWN = aws.Refused("not found", "ValidationException", {})
JOBS: Answers = {f"describe_{kind}_job": UNKNOWN for kind in ("training", "processing", "transform")}
THEN = datetime(2026, 11, 21, 12, tzinfo=UTC)

TUNING = "bincount-261121-120000-ab12"
FACTS: dict[str, Any] = {
    "HyperParameterTuningJobStatus": "InProgress",
    "HyperParameterTuningJobConfig": {"ResourceLimits": {"MaxNumberOfTrainingJobs": 30}},
    "TrainingJobStatusCounters": {"Completed": 4, "InProgress": 3, "NonRetryableError": 1, "Stopped": 0},
    "BestTrainingJob": {
        "TrainingJobName": f"{TUNING}-003-0a1b",
        "TunedHyperParameters": {"optimizer.lr": "0.01", "data.batch_size": "64"},
        "FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": "val:accuracy", "Value": 0.51234},
    },
}
A_TUNING: Answers = {
    **JOBS,
    "list_pipeline_executions": UNKNOWN,
    "describe_hyper_parameter_tuning_job": FACTS,
}


def told(capsys: pytest.CaptureFixture[str], verb: str, job: str, code: int = 0) -> str:
    capsys.readouterr()
    assert submit.main([verb, f"job={job}"]) == code
    out, err = capsys.readouterr()
    assert (err == "") == (code == 0)
    return out if code == 0 else err


def test_a_tuning_job_tells_how_its_trials_stand_and_which_is_best(
    aws_answers: Asking,
    capsys: pytest.CaptureFixture[str],
) -> None:
    aws_answers(A_TUNING)
    assert told(capsys, "status", TUNING).splitlines() == [
        f"{TUNING}: InProgress",
        "4 trials completed, 3 running, 1 failed, 0 stopped, of 30",
        f"best: val:accuracy 0.5123 with optimizer.lr=0.01, data.batch_size=64, job {TUNING}-003-0a1b",
    ]
    facts = {key: value for key, value in FACTS.items() if key != "BestTrainingJob"}
    facts |= {"HyperParameterTuningJobStatus": "Failed", "FailureReason": "all\nfailed"}
    aws_answers({**A_TUNING, "describe_hyper_parameter_tuning_job": facts})
    assert told(capsys, "status", TUNING).splitlines()[-1] == "reason: all failed"


def test_a_tuning_job_is_stopped_once(
    aws_answers: Asking,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = aws_answers({**A_TUNING, "stop_hyper_parameter_tuning_job": {}})
    assert "is stopping" in told(capsys, "stop", TUNING)
    assert asked[-1] == "sagemaker:stop_hyper_parameter_tuning_job"
    ended = {**FACTS, "HyperParameterTuningJobStatus": "Completed"}
    asked = aws_answers({**A_TUNING, "describe_hyper_parameter_tuning_job": ended})
    assert "has ended already: Completed" in told(capsys, "stop", TUNING)


def test_logs_of_a_tuning_job_are_those_of_its_trials(
    aws_answers: Asking,
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed = "list_training_jobs_for_hyper_parameter_tuning_job"
    trials = [{"TrainingJobName": f"{TUNING}-{number:03}-0a1b"} for number in (1, 2)]
    aws_answers({**A_TUNING, listed: {"TrainingJobSummaries": trials}})
    assert told(capsys, "logs", TUNING).splitlines()[1:] == [
        f"  logs job={TUNING}-001-0a1b",
        f"  logs job={TUNING}-002-0a1b",
    ]
    aws_answers({**A_TUNING, listed: {"TrainingJobSummaries": []}})
    assert "none of its trials has begun yet" in told(capsys, "logs", TUNING, 2)


def test_the_latest_is_the_newest_of_all_kinds(
    aws_answers: Asking,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    none: Answers = {
        **{f"list_{kind.lower()}_jobs": {f"{kind}JobSummaries": []} for kind in ("Training", "Processing")},
        "list_transform_jobs": {"TransformJobSummaries": []},
        "list_pipelines": {"PipelineSummaries": []},
        "list_hyper_parameter_tuning_jobs": {"HyperParameterTuningJobSummaries": []},
    }
    aws_answers(none)
    assert "there is no job of bincount in us-east-1 yet" in told(capsys, "status", "latest", 2)
    tuning = {"CreationTime": THEN, "HyperParameterTuningJobName": TUNING}
    tunings = {"list_hyper_parameter_tuning_jobs": {"HyperParameterTuningJobSummaries": [tuning]}}
    never = {"PipelineName": "bincount-never"}
    pipelines = {"list_pipelines": {"PipelineSummaries": [never]}}
    aws_answers({**none, **tunings, **pipelines, **A_TUNING})
    assert told(capsys, "status", "latest").startswith(f"{TUNING}: InProgress")
    later = {"PipelineName": "bincount-default", "LastExecutionTime": THEN + timedelta(hours=1)}
    execution = {"PipelineExecutionArn": "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/abc"}
    answers = {
        **none,
        **tunings,
        **JOBS,
        "list_pipelines": {"PipelineSummaries": [never, later]},
        "list_pipeline_executions": {"PipelineExecutionSummaries": [execution]},
        "describe_pipeline_execution": {"PipelineExecutionStatus": "Executing"},
        "list_pipeline_execution_steps": {"PipelineExecutionSteps": []},
    }
    aws_answers(answers)
    assert told(capsys, "status", "latest").startswith("bincount-default: Executing, execution abc")
    making(tmp_path, "athena", region="eu-west-1")
    assert told(capsys, "status", "latest").startswith("bincount-default")
    name = making(tmp_path, "athena", queries={"database": "1"})
    done = {"QueryExecution": {"Status": {"State": "RUNNING"}}}
    aws_answers({**answers, "get_query_execution": done, "stop_query_execution": {}})
    assert f"{name} is stopping" in told(capsys, "stop", "latest")


def making(place: Path, engine: str, **state: Any) -> str:
    """Tables that were sent from this folder."""
    name = f"bincount-tables-{len(list(place.glob('runs/tables/*')))}"
    path = place / "runs/tables" / name / "tables.json"
    path.parent.mkdir(parents=True)
    facts = {
        "engine": engine,
        "region": "us-east-1",
        "output": "s3://mine/jobs",
        "run": "jr_1",
        "queries": {},
    }
    path.write_text(json.dumps({**facts, "records": "s3://mine/m", "out": "s3://mine/t", **state}))
    return name


def test_a_job_of_glue_tells_what_it_said_and_is_stopped(
    aws_answers: Asking,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    name = making(tmp_path, "spark")
    event = {"logStreamName": "jr_1", "timestamp": 1, "message": "3 records\n"}
    asked = aws_answers({"filter_log_events": {"events": [event]}, "batch_stop_job_run": {}})
    assert "3 records" in told(capsys, "logs", name)
    assert (tmp_path / f"runs/tables/{name}/log.txt").read_text() == "3 records\n3 records\n"  # of two groups
    assert f"{name} is stopping" in told(capsys, "stop", name)
    assert asked == ["logs:filter_log_events", "logs:filter_log_events", "glue:batch_stop_job_run"]
    gone = aws.Refused("no such group", "ResourceNotFoundException", {})
    problem = {"ErrorDetail": {"ErrorMessage": "it has\nended"}}
    aws_answers({"filter_log_events": gone, "batch_stop_job_run": {"Errors": [problem]}})
    assert "it has said nothing yet" in told(capsys, "logs", name, 2)
    assert f"{name} is not stopped: it has ended" in told(capsys, "stop", name)


def test_athenas_last_query_is_stopped_and_says_nothing(
    aws_answers: Asking,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    name = making(tmp_path, "athena", queries={"database": "1", "records": "2"})
    ended = {"QueryExecution": {"Status": {"State": "SUCCEEDED"}}}
    asked = aws_answers({"get_query_execution": ended})
    assert "no query runs" in told(capsys, "stop", name)
    assert asked == ["athena:get_query_execution"]
    assert "Athena's queries say nothing" in told(capsys, "logs", name, 2)


def test_every_kind_can_be_followed_in_the_same_ways() -> None:
    for kind in follow.KINDS:
        assert all(callable(getattr(kind, verb)) for verb in ("found", "newest", "status", "logs", "stop"))


def test_what_nobody_knows_is_told_in_a_line(
    aws_answers: Asking,
    capsys: pytest.CaptureFixture[str],
) -> None:
    aws_answers({**A_TUNING, "describe_hyper_parameter_tuning_job": UNKNOWN})
    assert "job=bincount-x: there is no such job in us-east-1" in told(capsys, "status", "bincount-x", 2)
