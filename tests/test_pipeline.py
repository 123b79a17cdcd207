"""`python launch/submit.py pipeline`: its definition, what is refused, and its life on AWS's stand-in.

`BINCOUNT_GOLDEN=write pytest tests/test_pipeline.py` writes the golden files anew.
"""

import io
import json
import os
import re
import shlex
import tarfile
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aws_stand_in import (  # noqa: F401
    ACCOUNT,
    IMAGE,
    REGION,
    ROLE,
    Aws,
    Stubbed,
    aws_account,
    moto_server,
    stubbed,
)
from rehearsal import Host, stage

from bincount import container
from bincount.config import WATCHED
from bincount.data.index import Index
from bincount.errors import BadInput
from launch import (
    aws,
    cleanup,
    deploy,
    pipeline,
    pipeline_checks,
    promote,
    requests,
    service_model,
    start,
    steps,
    submit,
)

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden/pipeline"
GPU = f"{IMAGE}:2.9.0-gpu-py312"
CONTROL = f"arn:aws:iam::{ACCOUNT}:role/bincount-pipeline"
NAME = "bincount-default"
TOKEN = "0" * 32
SOURCE = ["source=s3", "source.bucket=s3://aft-vbi-pds", "out=s3://mine/bins"]
GIVEN = [f"launcher.image={GPU}", "launcher.output=s3://mine/jobs", f"launcher.role={ROLE}"]
GIVEN += [f"pipeline_role={CONTROL}", "launcher.max_hours=4"]

REQUESTS = {
    "pipeline": [*SOURCE, *GIVEN, "prepare.nodes=8", "prepare.max_hours=2", "seed=3"],
    "pipeline_of_prepared_data_on_spot": [
        *(
            "data.root=s3://mine/bins",
            "launcher.input=File",
            "trainer.monitor=val/rmse",
            "name=bincount-mine",
        ),
        *(*GIVEN, "launcher.spot=true", "launcher.max_wait_hours=8", "deploy.instances=2"),
        *("evaluate.prepare_instance_type=ml.c7i.8xlarge", "experiment=abid2018"),
    ],
    "pipeline_without_endpoint": ["data.root=s3://mine/bins", *GIVEN, "deploy=false"],
}


def composed(words: list[str]) -> steps.Pipeline:
    return pipeline.composed(list(words), TOKEN)


def definition(words: list[str]) -> dict[str, Any]:
    return steps.definition(composed(words))


def step(told: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [each for each in told["Steps"] if each["Name"] == name]
    return dict(found)


@pytest.fixture(autouse=True)
def _no_aws(no_aws: pytest.MonkeyPatch) -> None:
    """The data set is not looked at, unless a test has an account."""


@pytest.mark.parametrize("name", REQUESTS)
def test_the_definition_is_the_golden_one_and_its_requests_are_what_aws_takes(name: str) -> None:
    order = composed(REQUESTS[name])
    for operation, request in pipeline.made(order).items():
        service_model.check("sagemaker", operation, request)
    service_model.check("lambda", "CreateFunction", pipeline.function_request(order))
    told = steps.definition(order)
    asked = list(steps.job_requests(told, pipeline.ANY))
    for operation, request in asked:
        service_model.check("sagemaker", operation, request)
    assert len(asked) == len([each for each in told["Steps"] if each["Type"] != "Lambda"])
    assert json.loads(pipeline.made(order)["CreatePipeline"]["PipelineDefinition"]) == told
    # A step's address tells its configuration, which has every default in it.
    told = json.loads(re.sub(r"/(prepare|train|evaluate)-[0-9a-f]{12}/", r"/\1-DIGEST/", json.dumps(told)))
    path = GOLDEN / f"{name}.json"
    if os.environ.get("BINCOUNT_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(told, indent=2) + "\n")
    assert json.loads(path.read_text()) == told


@pytest.mark.slow
def test_another_configuration_has_another_address() -> None:
    one, same, other = (composed([*REQUESTS["pipeline"], *more]) for more in ([], [], ["optimizer.lr=0.5"]))
    assert one.train.name == same.train.name != other.train.name
    addresses = [order.prepare.name if order.prepare else None for order in (one, same, other)]
    assert addresses[0] == addresses[1] == addresses[2] is not None


def test_golden_files_are_of_requests() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(REQUESTS)


def test_a_step_is_the_request_of_the_same_job_alone() -> None:
    order = composed(REQUESTS["pipeline"])
    told = steps.definition(order)
    for name, job in order.jobs.items():
        alone, within = requests.request(job), step(told, name)["Arguments"]
        own = {"Prepare": {"Environment"}, "Train": {"OutputDataConfig", "CheckpointConfig"}}
        own["Evaluate"] = {"ProcessingInputs", "ProcessingOutputConfig"}
        differing = {key for key in {*alone, *within} if alone.get(key) != within.get(key)}
        assert differing == own[name] | {"Tags", "TrainingJobName" if job.train else "ProcessingJobName"}


def test_what_one_step_leaves_the_next_finds() -> None:
    told = definition(REQUESTS["pipeline"])
    names = [each["Name"] for each in told["Steps"]]
    assert names == ["Prepare", "Train", "Evaluate", "Register", "Deploy"]
    for each in told["Steps"]:
        asked = json.dumps(each["Arguments"])
        before = names[: names.index(each["Name"])]
        assert set(each.get("DependsOn", [])) <= set(before)
        assert all(f'"Steps.{name}.' not in asked for name in names if name not in before)
    evaluate = step(told, "Evaluate")
    (file,) = evaluate["PropertyFiles"]
    (output,) = evaluate["Arguments"]["ProcessingOutputConfig"]["Outputs"]
    assert file["OutputName"] == output["OutputName"]
    place = steps.filled_in(output["S3Output"]["S3Uri"], pipeline.ANY)
    assert place == f"s3://mine/jobs/{NAME}/0123456789ab/figures"
    quality = step(told, "Register")["Arguments"]["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    assert steps.filled_in(quality, pipeline.ANY) == f"{place}/{file['FilePath']}"
    kept = step(told, "Train")["Arguments"]["CheckpointConfig"]["S3Uri"]
    assert steps.filled_in(kept, pipeline.ANY) == f"s3://mine/jobs/{NAME}/0123456789ab/checkpoints"


@pytest.mark.slow
def test_the_address_of_a_configuration_changes_with_it() -> None:
    """Or SageMaker would take what an earlier execution prepared with another one."""

    def prepared(*words: str) -> str:
        arguments = step(definition([*REQUESTS["pipeline"], *words]), "Prepare")["Arguments"]
        return str(arguments["ProcessingInputs"][0]["S3Input"]["S3Uri"])

    first = prepared()
    assert first == prepared("trainer.max_epochs=9")
    assert first != prepared("shortest_side=128")


def test_each_word_goes_where_it_belongs() -> None:
    order = composed([*REQUESTS["pipeline"], "launcher.nodes=2", "deploy.instance_type=ml.c5.2xlarge"])
    assert order.prepare is not None
    assert order.endpoint is not None
    assert [job.launcher.nodes for job in order.jobs.values()] == [8, 2, 1]
    assert [job.launcher.max_hours for job in order.jobs.values()] == [2, 4, 2]
    assert order.endpoint.kind == "ml.c5.2xlarge"
    prepared, trained = order.prepare.prepare, order.train.train
    assert prepared is not None
    assert trained is not None
    assert (prepared.seed, trained.seed) == (3, 3)
    assert trained.data.root == prepared.out == "s3://mine/bins"
    assert trained.trainer.evaluate == "val"
    spot = composed(REQUESTS["pipeline_of_prepared_data_on_spot"])
    assert [job.launcher.spot for job in spot.jobs.values()] == [True, False]


def test_figures_that_decide_are_those_that_training_watches() -> None:
    assert set(steps.CALLED) == set(WATCHED)
    for watched, figure in steps.CALLED.items():
        assert promote.MORE_IS_BETTER[figure] == (WATCHED[watched] == "max")


@pytest.mark.slow
def test_the_function_is_one_file_that_needs_nothing_of_ours(tmp_path: Path) -> None:
    held = pipeline.function_request(composed(REQUESTS["pipeline"]))
    with zipfile.ZipFile(io.BytesIO(held["Code"]["ZipFile"])) as archive:
        (member,) = archive.namelist()
        source = archive.read(member).decode()
    module, _, function = held["Handler"].partition(".")
    assert member == f"{module}.py"
    assert f"def {function}(event" in source
    assert "import bincount" not in source.replace("from bincount", "import bincount")
    assert "launch" not in [
        line.split()[1] for line in source.splitlines() if line.startswith(("from", "import"))
    ]
    assert pipeline.function_request(composed(REQUESTS["pipeline"])) == held


# --- previews, and what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            REQUESTS["pipeline"],
            ["44.21 USD = 14.02 Prepare + 28.44 Train + 1.75 Evaluate", "148.92 USD where nobody cleans up"],
        ),
        (REQUESTS["pipeline"], ["Prepare   8 x ml.c7i.4xlarge", "if accuracy on `test` is higher"]),
        (REQUESTS["pipeline"], [f"`cleanup run={NAME}` ends it", "submit=true sends it"]),
        (REQUESTS["pipeline_of_prepared_data_on_spot"], ["rmse on `test` is lower", "2 x ml.c5.xlarge"]),
        (SOURCE, ["first: pipeline_role is not given", "first: launcher.image is not given"]),
        (SOURCE, ["first: launcher.role is not given", "first: launcher.output is not given"]),
    ],
)
def test_a_preview_tells_steps_and_price_and_sends_nothing(
    words: list[str], told: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(aws, "ask", None)
    assert submit.main(["pipeline", *words]) == 0
    out = capsys.readouterr().out
    assert all(each in out for each in [*told, "[definition]", "nothing was sent"])


def test_without_an_endpoint_nothing_is_deployed(capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.main(["pipeline", *REQUESTS["pipeline_without_endpoint"]]) == 0
    out = capsys.readouterr().out
    assert "Deploy" not in out
    assert "of the endpoint" not in out


WRONG = {
    "no_wheel": (["launcher.code=a.whl"], "a model's container installs nothing"),
    "pipeline_role_is_an_arn": (["pipeline_role=me"], "pipeline_role=me is no role"),
    "jobs_have_another_role": ([f"pipeline_role={ROLE}"], "that is launcher.role, whose jobs could then"),
    "checkpoints_are_of_one_execution": (
        ["launcher.checkpoints=s3://mine/jobs/a/checkpoints"],
        "every execution would go on with the same run",
    ),
    "one_instance_evaluates": (["evaluate.nodes=2"], "evaluate.nodes=2: one instance evaluates"),
    # Of each of the parts, one that only this part gets wrong.
    "prepares_into_s3": (["out=data/new"], "out=data/new: that folder ends with the job"),
    "instance_has_devices": (["launcher.devices=8"], "ml.g5.12xlarge has 4 GPUs"),
    "cpus_not_paid_as_gpus": (["evaluate.prepare_instance_type=ml.g5.xlarge"], "would be paid for"),
    "one_gpu_is_used": (["deploy.instance_type=ml.g5.12xlarge"], "it has 4 GPUs, and a model counts on one"),
}


def line_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert submit.main(["pipeline", *words]) == 2, words
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


def test_every_check_of_its_own_is_in_the_table() -> None:
    own = [name for name in vars(pipeline_checks) if name in pipeline_checks.RULES.checks]
    assert set(own) <= set(WRONG)
    of_parts = {*start.checks.CHECKS, *deploy.hosting_checks.ENDPOINTS.checks}
    assert of_parts <= set(pipeline_checks.RULES.checks)


@pytest.mark.slow
@pytest.mark.parametrize("check", WRONG)
def test_what_is_wrong_is_told_before_anything_is_asked_and_nothing_else_would_tell_it(
    check: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(aws, "ask", None)
    added, told = WRONG[check]
    words = [*REQUESTS["pipeline"], *added]
    if check == "no_wheel":  # nor is there such a wheel
        monkeypatch.delitem(pipeline_checks.RULES.checks, "code_is_a_wheel")
    assert told in line_of(words, capsys)
    assert told in line_of([*words, "submit=true"], capsys)
    monkeypatch.delitem(pipeline_checks.RULES.checks, check)
    if check not in ("pipeline_role_is_an_arn", "no_wheel"):  # no ARN of a function follows; no code to send
        assert submit.main(["pipeline", *words]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*SOURCE, "data.root=s3://mine/a"], "data.root=s3://mine/a: with source=… a data set is prepared"),
        ([*SOURCE, "outt=s3://a"], "outt: there is no such key in `pipeline`: did you mean out?"),
        ([*SOURCE, "prepare.nods=2"], "launcher.nods: there is no such key"),
        ([*SOURCE, "deploy.memry=2"], "memry: there is no such key in `deploy`: did you mean memory?"),
        ([*SOURCE, "deploy.name=bincount-a"], "deploy.name=bincount-a: the pipeline deploys its own model"),
        ([*SOURCE, "deploy=perhaps"], "deploy=perhaps: must be of type bool"),
        (["data.root=s3://mine/a", "prepare.nodes=2"], "prepare.nodes=2: this pipeline has no such step"),
        ([*SOURCE, "deploy=false", "deploy.memory=2048"], "deploy.memory=2048: this pipeline has no such"),
        ([*SOURCE, "name=mine"], "name=mine: must be bincount-…"),
        ([*SOURCE, "launcher=local"], "launcher=local: that runs here, not on SageMaker"),
        ([*SOURCE, "evaluate.max_hours=-1"], "launcher.max_hours=-1"),
    ],
)
def test_mistakes_are_told_in_a_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in line_of(words, capsys)


# --- its life on AWS's stand-in -----------------------------------------------------------------------

PIPELINE_TRUST = (ROOT / "launch/pipeline-trust.json").read_text()


@pytest.fixture
def account(aws_account: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Aws:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    aws_account.bucket("mine")
    aws_account.repository("2.9.0-gpu-py312")
    aws_account.role("bincount-pipeline", PIPELINE_TRUST)
    return aws_account


def sent(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert submit.main(["pipeline", *REQUESTS["pipeline"], *words, "submit=true"]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_it_is_made_started_changed_followed_and_cleaned_up(
    account: Aws,
    stubbed: Stubbed,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert f"sent {NAME}: made, and execution " in sent(capsys)
    sagemaker = account.client("sagemaker")
    told = json.loads(sagemaker.describe_pipeline(PipelineName=NAME)["PipelineDefinition"])
    assert told == definition(REQUESTS["pipeline"])
    for name in ("Prepare", "Train", "Evaluate"):
        arguments = step(told, name)["Arguments"]
        places = json.dumps(arguments).split('"')
        (config,) = {each for each in places if each.endswith("/config/") and each.startswith("s3://mine/")}
        key = f"{config.removeprefix('s3://mine/')}config.yaml"
        assert account.client("s3").get_object(Bucket="mine", Key=key)
    function = account.client("lambda").get_function(FunctionName=NAME)["Configuration"]
    assert (function["FunctionArn"], function["Role"]) == (step(told, "Deploy")["FunctionArn"], CONTROL)

    assert f"sent {NAME}: changed" in sent(capsys, "trainer.max_epochs=9")
    again = json.loads(sagemaker.describe_pipeline(PipelineName=NAME)["PipelineDefinition"])
    assert step(again, "Prepare") == step(told, "Prepare")
    assert step(again, "Train") != step(told, "Train")
    assert len(sagemaker.list_pipeline_executions(PipelineName=NAME)["PipelineExecutionSummaries"]) == 2

    stubbed.answers("list_pipeline_execution_steps", {"PipelineExecutionSteps": STEPS})
    for job in ("latest", NAME):
        assert submit.main(["status", f"job={job}"]) == 0
        out = capsys.readouterr().out
        assert f"{NAME}: Succeeded, execution " in out  # as moto has it at once
        assert "  Prepare   Succeeded, taken from an earlier execution\n" in out
        assert (
            "  Train     Failed, 90 s, job pipelines-a-Train-b\n            reason: no GPU is free\n" in out
        )
        assert "  Deploy    Succeeded, 2 s, deployed: no, why: no better: accuracy 0.4\n" in out
    assert submit.main(["logs", f"job={NAME}"]) == 0
    assert "logs job=pipelines-a-Train-b" in capsys.readouterr().out
    assert submit.main(["stop", f"job={NAME}"]) == 0
    assert f"{NAME} has ended already: Succeeded" in capsys.readouterr().out
    execution = {"PipelineExecutionStatus": "Executing"}
    stubbed.answers("describe_pipeline_execution", execution)
    stubbed.answers("stop_pipeline_execution", {})
    assert submit.main(["stop", f"job={NAME}"]) == 0
    assert f"{NAME} is stopping" in capsys.readouterr().out
    assert stubbed.asked["stop_pipeline_execution"][0]["PipelineExecutionArn"].startswith("arn:aws:sagemaker")

    package = registered(account, told, {"accuracy": 0.5})
    kinds = ["pipeline", "function", "model version", "model group"]
    assert [each.kind for each in cleanup.tagged(REGION)] == kinds
    stubbed.answers("delete_model_package", {})
    stubbed.answers("delete_model_package_group", {})
    assert submit.main(["cleanup", f"run={NAME}", "submit=true"]) == 0
    assert "deleted 4" in capsys.readouterr().out
    assert stubbed.asked["delete_model_package"] == [{"ModelPackageName": package}]
    assert stubbed.asked["delete_model_package_group"] == [{"ModelPackageGroupName": NAME}]
    assert [each.kind for each in cleanup.tagged(REGION)] == kinds[2:]  # moto deletes no such things


STARTED = datetime(2026, 11, 21, 12, tzinfo=UTC)
STEPS = [
    {"StepName": "Prepare", "StepStatus": "Succeeded", "CacheHitResult": {"SourcePipelineExecutionArn": "a"}},
    {
        "StepName": "Train",
        "StepStatus": "Failed",
        "StartTime": STARTED,
        "EndTime": STARTED + timedelta(seconds=90),
        "FailureReason": "no GPU\n is free",
        "Metadata": {
            "TrainingJob": {"Arn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/pipelines-a-Train-b"}
        },
    },
    {
        "StepName": "Deploy",
        "StepStatus": "Succeeded",
        "StartTime": STARTED,
        "EndTime": STARTED + timedelta(seconds=2),
        "Metadata": {
            "Lambda": {
                "OutputParameters": [
                    {"Name": "deployed", "Value": "no"},
                    {"Name": "why", "Value": "no better: accuracy 0.4"},
                ]
            }
        },
    },
]


def other_trust(service: str) -> Callable[[Aws], None]:
    def made(account: Aws) -> None:
        account.client("iam").update_assume_role_policy(
            RoleName="bincount-pipeline", PolicyDocument=PIPELINE_TRUST.replace(f"{service}.", "other.")
        )

    return made


def another_data_set(account: Aws) -> None:
    account.client("s3").put_object(Bucket="mine", Key="bins/index.json", Body=b"{}")


def nothing(account: Aws) -> None:
    """All is as it should be."""


THEIRS = "pipeline_role=arn:aws:iam::999999999999:role/bincount-pipeline"
WRONG_IN_AWS: dict[str, tuple[list[str], str, Callable[[Aws], None]]] = {
    "pipeline_role_of_this_account": ([THEIRS], f"you are of account {ACCOUNT}", nothing),
    "pipeline_role_exists": ([f"pipeline_role={CONTROL}s"], "there is no such role", nothing),
    "pipeline_role_is_for_sagemaker": ([], "SageMaker may not take it", other_trust("sagemaker")),
    "pipeline_role_is_for_lambda": ([], "Lambda may not take it", other_trust("lambda")),
    "out_is_free_or_ours": ([], "out=s3://mine/bins: there is a data set already", another_data_set),
}


def test_all_that_only_aws_can_tell_is_in_the_table() -> None:
    of_jobs = set(start.preflight.PREFLIGHT) - {"out_is_free"}
    assert set(pipeline_checks.RULES.asked) == set(WRONG_IN_AWS) | of_jobs


@pytest.mark.slow
@pytest.mark.parametrize("check", WRONG_IN_AWS)
def test_what_only_aws_can_tell(
    check: str, account: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    added, told, made = WRONG_IN_AWS[check]
    made(account)
    words = [*REQUESTS["pipeline"], *added, "submit=true"]
    assert told in line_of(words, capsys)
    assert account.client("sagemaker").list_pipelines()["PipelineSummaries"] == []
    monkeypatch.delitem(pipeline_checks.RULES.asked, check)
    if check not in ("pipeline_role_of_this_account", "pipeline_role_exists"):  # Lambda tells of those, too
        assert submit.main(["pipeline", *words]) == 0


@pytest.mark.slow
def test_a_data_set_that_this_pipeline_has_made_is_no_hindrance(
    account: Aws, capsys: pytest.CaptureFixture[str]
) -> None:
    another_data_set(account)
    made = step(definition(REQUESTS["pipeline"]), "Prepare")["Arguments"]["Environment"]["BINCOUNT_MADE"]
    key = made.removeprefix("s3://mine/")
    account.client("s3").put_object(Bucket="mine", Key=key, Body=b"")
    assert f"sent {NAME}: made" in sent(capsys)


# --- the function that deploys ------------------------------------------------------------------------


def results(**figures: float) -> dict[str, Any]:
    """A results.json of the same photos."""
    guess = {"majority": {"accuracy": 0.25, "rmse": 1.6, "count": 2}, "prior": {"nll": 1.7}}
    same = {"split": "test", "index_digest": "d1", "samples": 100, "baselines": guess}
    return {**same, "accuracy": 0.5, "rmse": 1.0, "mae": 0.8, "nll": 1.2, **figures}


def registered(account: Aws, told: dict[str, Any], figures: dict[str, Any]) -> str:
    """What the step Register does with an execution's results.json; gives the model package's ARN."""
    execution = os.urandom(6).hex()
    known = {**pipeline.ANY, "Execution.PipelineExecutionId": execution}
    arguments = steps.filled_in(step(told, "Register")["Arguments"], known)
    address = arguments["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"].removeprefix("s3://mine/")
    account.client("s3").put_object(Bucket="mine", Key=address, Body=json.dumps(figures))
    return str(account.client("sagemaker").create_model_package(**arguments)["ModelPackageArn"])


class Promoting:
    """The function of a pipeline, called as its step calls it."""

    def __init__(self, account: Aws, stubbed: Stubbed, words: list[str] = REQUESTS["pipeline"]):  # noqa: F811
        self.account, self.sagemaker = account, account.client("sagemaker")
        self.stubbed, self.told = stubbed, definition(words)
        self.sagemaker.create_model_package_group(ModelPackageGroupName=NAME)
        stubbed.answers("update_endpoint", self._update)

    def _update(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Which moto has not."""
        endpoint = self.sagemaker.describe_endpoint(EndpointName=asked["EndpointName"])
        tags = self.sagemaker.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"]
        self.sagemaker.delete_endpoint(EndpointName=asked["EndpointName"])
        self.sagemaker.create_endpoint(**asked, Tags=tags)
        return {}

    def promote(self, package: str) -> tuple[str, str]:
        known = {**pipeline.ANY, "Steps.Register.ModelPackageArn": package}
        called = step(self.told, "Deploy")
        event = steps.filled_in(called["Arguments"], known)
        assert all(isinstance(value, str) for value in event.values())
        answer = promote.handler(event, None)
        assert set(answer) == {each["OutputName"] for each in called["OutputParameters"]}
        return answer["deployed"], answer["why"]

    def one(self, figures: dict[str, Any]) -> tuple[str, str, str]:
        """A new model with these figures: its package, and what becomes of it."""
        package = registered(self.account, self.told, figures)
        return package, *self.promote(package)

    @property
    def served(self) -> str | None:
        """The package that the endpoint serves."""
        endpoint = promote.described(NAME, self.sagemaker)
        return promote.served_by(endpoint, self.sagemaker) if endpoint else None


@pytest.fixture
def promoting(account: Aws, stubbed: Stubbed) -> Promoting:  # noqa: F811
    return Promoting(account, stubbed)


@pytest.fixture(autouse=True)
def _region_of_the_function(monkeypatch: pytest.MonkeyPatch, no_aws: pytest.MonkeyPatch) -> None:
    """Lambda tells a function where it is."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)


@pytest.mark.slow
def test_the_first_model_is_deployed_then_better_ones_and_no_other(promoting: Promoting) -> None:
    first, *answer = promoting.one(results(accuracy=0.4))
    assert answer == ["yes", "the first: accuracy 0.4"]
    assert promoting.served == first
    assert promoting.promote(first) == ("no", "it is deployed already")
    _, *answer = promoting.one(results(accuracy=0.39))
    assert answer == ["no", "no better: accuracy 0.39, and 0.4 of what is deployed"]
    _, *answer = promoting.one(results(accuracy=0.4))
    assert answer[0] == "no"
    assert promoting.served == first
    better, *answer = promoting.one(results(accuracy=0.45))
    assert answer == ["yes", "better: accuracy 0.45, and 0.4 of what is deployed"]
    assert promoting.served == better
    assert len(promoting.stubbed.asked["update_endpoint"]) == 1

    found = promoting.sagemaker.list_model_packages(ModelPackageGroupName=NAME)["ModelPackageSummaryList"]
    approved = {each["ModelPackageArn"] for each in found if each["ModelApprovalStatus"] == "Approved"}
    assert approved == {first, better}
    assert len(found) == 4
    kinds = [each.kind for each in cleanup.tagged(REGION) if each.run == NAME]
    assert kinds == ["endpoint", *["endpoint config"] * 2, *["model"] * 2]


@pytest.mark.slow
def test_what_is_deployed_is_what_deploy_would_have_made(promoting: Promoting) -> None:
    promoting.one(results())
    order = composed(REQUESTS["pipeline"])
    assert order.endpoint is not None
    alone = deploy.made(order.endpoint)["CreateEndpointConfig"]["ProductionVariants"][0]
    endpoint = promoting.sagemaker.describe_endpoint(EndpointName=NAME)
    config = promoting.sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    (variant,) = config["ProductionVariants"]
    assert {**variant, "ModelName": NAME} == alone
    assert promoting.sagemaker.describe_model(ModelName=variant["ModelName"])["ExecutionRoleArn"] == ROLE


@pytest.mark.slow
def test_lower_is_better_of_rmse(account: Aws, stubbed: Stubbed) -> None:  # noqa: F811
    promoting = Promoting(account, stubbed, [*REQUESTS["pipeline"], "trainer.monitor=val/rmse"])
    promoting.one(results(rmse=1.0))
    _, deployed, why = promoting.one(results(rmse=1.1, accuracy=0.9))
    assert (deployed, why) == ("no", "no better: rmse 1.1, and 1 of what is deployed")
    assert promoting.one(results(rmse=0.9))[1] == "yes"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("figures", "why"),
    [
        (results(accuracy=0.25), "accuracy 0.25 is no better than guessing, 0.25"),
        (results(accuracy=0.9, index_digest="d2", samples=7), "(index_digest, samples differ)"),
        (results(accuracy=0.9, split="val"), "(split differ)"),
    ],
)
def test_what_cannot_be_compared_is_not_deployed(
    figures: dict[str, Any], why: str, promoting: Promoting
) -> None:
    first, *_ = promoting.one(results())
    _, deployed, told = promoting.one(figures)
    assert deployed == "no"
    assert why in told
    assert promoting.served == first


@pytest.mark.slow
def test_a_first_model_that_only_guesses_is_not_deployed(promoting: Promoting) -> None:
    assert promoting.one(results(accuracy=0.2))[1] == "no"
    assert promoting.served is None


@pytest.mark.slow
def test_an_endpoint_of_an_unknown_model_or_out_of_service_is_left_alone(promoting: Promoting) -> None:
    sagemaker = promoting.sagemaker
    sagemaker.create_model(
        ModelName="bincount-mine",
        ExecutionRoleArn=ROLE,
        PrimaryContainer={"Image": GPU, "ModelDataUrl": "s3://mine/a/model.tar.gz"},
    )
    variant = {"VariantName": "all", "ModelName": "bincount-mine", "InstanceType": "ml.c5.xlarge"}
    sagemaker.create_endpoint_config(
        EndpointConfigName="bincount-mine", ProductionVariants=[{**variant, "InitialInstanceCount": 1}]
    )
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName="bincount-mine")
    _, deployed, why = promoting.one(results())
    assert (deployed, why) == ("no", f"{NAME} serves no registered model, so its figures are not known")
    endpoint = {**sagemaker.describe_endpoint(EndpointName=NAME), "EndpointStatus": "Updating"}
    promoting.stubbed.answers("describe_endpoint", endpoint)
    _, deployed, why = promoting.one(results())
    assert (deployed, why) == ("no", f"{NAME} is Updating: only what is in service is replaced")


@pytest.mark.slow
def test_a_call_that_was_cut_off_is_made_again(promoting: Promoting) -> None:
    package = registered(promoting.account, promoting.told, results())
    event = steps.filled_in(
        step(promoting.told, "Deploy")["Arguments"], {"Steps.Register.ModelPackageArn": package}
    )
    promote.configured(event, promoting.sagemaker)
    assert promoting.promote(package)[0] == "yes"


# --- the container of the step Evaluate ---------------------------------------------------------------


@pytest.mark.slow
def test_the_step_evaluate_scores_what_was_trained_and_its_figures_decide(
    small_run: Path, small_data: Path, promoting: Promoting, tmp_path: Path
) -> None:
    order = composed([f"data.root={small_data}", *GIVEN, "evaluate.max_hours=1"])
    evaluate = step(steps.definition(order), "Evaluate")
    (request,) = [
        asked
        for operation, asked in steps.job_requests({"Steps": [evaluate]}, pipeline.ANY)
        if operation == "CreateProcessingJob"
    ]
    at_s3 = tmp_path / "s3"
    for address, content in requests.uploads(order.evaluate).items():
        place = at_s3 / address.removeprefix("s3://")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    archived = at_s3 / pipeline.ANY["Steps.Train.ModelArtifacts.S3ModelArtifacts"].removeprefix("s3://")
    archived.parent.mkdir(parents=True)
    with tarfile.open(archived, "w:gz") as archive:
        archive.add(small_run, ".")
    with stage():
        host = Host.from_request(request, {"s3://mine": at_s3 / "mine"}, tmp_path / "host")
        try:
            code, _ = host.end(180)
        finally:
            host.kill()
    assert code == 0, host.told
    assert host.failure is None
    (output,) = request["ProcessingOutputConfig"]["Outputs"]
    left = host.ml / Path(output["S3Output"]["LocalPath"]).relative_to("/opt/ml")
    told = json.loads((left / evaluate["PropertyFiles"][0]["FilePath"]).read_bytes())
    assert (told["split"], told["samples"]) == ("test", 14)
    assert told["index_digest"] == Index.open(str(small_data)).digest
    assert (left / "predictions.parquet").exists()

    assert set(steps.CALLED.values()) | set(promote.PHOTOS) <= set(told)
    assert promoting.one({**told, "accuracy": 1.0})[1:] == ("yes", "the first: accuracy 1")
    assert promoting.one(told)[1] == "no"


def test_an_archive_that_is_missing_or_broken_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the input `model` of the job brings it"):
        container._unpack(tmp_path / "model.tar.gz", tmp_path / "model")
    (tmp_path / "model.tar.gz").write_bytes(b"no archive")
    with pytest.raises(BadInput, match=r"model\.tar\.gz cannot be unpacked"):
        container._unpack(tmp_path / "model.tar.gz", tmp_path / "model")


# --- the documentation --------------------------------------------------------------------------------

COMMANDS = [
    line
    for line in (ROOT / "docs/sagemaker.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("python launch/submit.py pipeline")
]


def test_there_are_commands_in_the_documentation() -> None:
    assert len(COMMANDS) >= 2


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_documentation_preview(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in shlex.split(command)[3:] if word != "submit=true"]
    assert submit.main(["pipeline", *words]) == 0, capsys.readouterr().err
