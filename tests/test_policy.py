"""The IAM policies hold every call that the code makes, and no other."""

import ast
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

#: IAM's name of an action where it is not that of the call.
NAMED_OTHERWISE = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
}

#: What calls need beside the action of their own name, and bincount.storage where `submit.py` reads an index.
IMPLIED = {
    "sagemaker:CreateTrainingJob": {"iam:PassRole", "sagemaker:AddTags"},
    "s3:PutObject": {"s3:GetObject"},
    "sagemaker:CreatePipeline": {"iam:PassRole"},
    "lambda:CreateFunction": {"iam:PassRole", "lambda:TagResource"},
    "glue:CreateJob": {"iam:PassRole"},
    # What a query does with the rights of who asks: results and tables in S3, its catalogue in Glue.
    "athena:StartQueryExecution": {
        "s3:AbortMultipartUpload",
        "s3:GetBucketLocation",
        "s3:ListBucketMultipartUploads",
        "s3:ListMultipartUploadParts",
        "glue:CreateDatabase",
        "glue:CreateTable",
        "glue:GetDatabase",
        "glue:GetDatabases",
        "glue:GetPartitions",
        "glue:GetTable",
        "glue:GetTables",
    },
}

#: obstore's functions, and what they need of S3. Large puts are in parts, which are given up when they fail.
OBSTORE = {
    "get": {"s3:GetObject"},
    "get_async": {"s3:GetObject"},
    "get_range": {"s3:GetObject"},
    "get_range_async": {"s3:GetObject"},
    "head": {"s3:GetObject"},
    "put": {"s3:PutObject", "s3:AbortMultipartUpload"},
    "delete": {"s3:DeleteObject"},
    "list": {"s3:ListBucket"},
    "list_with_delimiter": {"s3:ListBucket"},
}

#: What SageMaker itself does as the job's role, by its documentation: logs, metrics, pulling the image.
OF_SAGEMAKER = {
    "logs:CreateLogGroup",
    "logs:CreateLogStream",
    "logs:DescribeLogStreams",
    "logs:PutLogEvents",
    "cloudwatch:PutMetricData",
    "ecr:GetAuthorizationToken",
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:GetDownloadUrlForLayer",
}


#: What SageMaker does as a pipeline's role for each type of its steps, and Lambda as that of a function.
OF_STEPS = {
    "Processing": {f"sagemaker:{what}ProcessingJob" for what in ("Create", "Describe", "Stop")}
    | {"sagemaker:AddTags", "iam:PassRole", "s3:GetObject"},
    "Training": {f"sagemaker:{what}TrainingJob" for what in ("Create", "Describe", "Stop")},
    "RegisterModel": {"sagemaker:CreateModelPackage"},
    "Lambda": {"lambda:InvokeFunction", "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"},
}

#: What runs in AWS Lambda, with another role's rights.
FUNCTION = ROOT / "launch/promote.py"


def allowed(file: str) -> set[str]:
    policy = json.loads((ROOT / "launch" / file).read_text())
    found: set[str] = set()
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        actions = statement["Action"]
        actions = [actions] if isinstance(actions, str) else actions
        assert not found & set(actions), "an action stands twice"
        found |= set(actions)
    return found


def calls(folder: Path, name: str) -> list[ast.Call]:
    """Every call of ``module.name`` or ``name`` in the sources of a folder."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "attr", getattr(node.func, "id", "")) == name
            ):
                found.append(node)
    return found


def action(service: str, operation: str) -> str:
    name = f"{service}:{operation.title().replace('_', '')}"
    return NAMED_OTHERWISE.get(name, name)


def literal(node: ast.expr) -> Any:
    assert isinstance(node, ast.Constant), "name service and operation of `ask` literally"
    return node.value


def test_who_submits_may_do_what_the_code_does_and_nothing_else() -> None:
    asked = {action(literal(call.args[0]), literal(call.args[1])) for call in calls(ROOT / "launch", "ask")}
    assert len(asked) > 10
    if calls(ROOT / "launch", "Client"):  # bincount.client asks endpoints
        asked.add("sagemaker:InvokeEndpoint")
    needed = asked.union(*(more for of, more in IMPLIED.items() if of in asked))
    assert allowed("policy.json") == needed


def test_nothing_in_launch_goes_around_ask() -> None:
    clients = calls(ROOT / "launch", "client") + calls(ROOT / "launch", "resource")
    assert len(clients) == 1 + 2  # those of the function, which runs elsewhere
    assert "import boto3" in (ROOT / "launch/aws.py").read_text()
    for path in (ROOT / "launch").glob("*.py"):
        assert path in (ROOT / "launch/aws.py", FUNCTION) or "boto3" not in path.read_text().replace(
            "boto3 take", ""
        ).replace("for boto3", "").replace("as boto3", ""), path


def test_the_job_may_do_what_the_code_does_and_nothing_else() -> None:
    used = {
        node.attr
        for path in (ROOT / "bincount/storage").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "obstore"
    }
    needed = set().union(*(OBSTORE[name] for name in used if name in OBSTORE))
    assert used - set(OBSTORE) <= {"exceptions", "store", "auth"}
    secrets = calls(ROOT / "bincount", "get_secret_value")
    clients = calls(ROOT / "bincount", "client")
    # bincount.client asks endpoints with the rights of who uses it, and never in a job.
    endpoints = calls(ROOT / "bincount", "invoke_endpoint")
    assert len(secrets) == len(endpoints) == 1
    assert len(clients) == 2
    assert allowed("role-policy.json") == needed | OF_SAGEMAKER | {"secretsmanager:GetSecretValue"}


def test_a_pipeline_may_do_what_its_steps_and_its_function_do_and_nothing_else() -> None:
    asked = {
        action(node.func.value.id, node.func.attr)
        for node in ast.walk(ast.parse(FUNCTION.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("sagemaker", "s3")
    }
    assert "sagemaker:UpdateEndpoint" in asked
    golden = json.loads((ROOT / "tests/golden/pipeline/pipeline.json").read_text())
    assert {step["Type"] for step in golden["Steps"]} == set(OF_STEPS)
    assert allowed("pipeline-policy.json") == asked.union(*OF_STEPS.values())
    trust = json.loads((ROOT / "launch/pipeline-trust.json").read_text())
    services = trust["Statement"][0]["Principal"]["Service"]
    assert services == ["sagemaker.amazonaws.com", "lambda.amazonaws.com"]


def test_sagemaker_and_glue_may_take_the_role() -> None:
    trust = json.loads((ROOT / "launch/trust.json").read_text())
    assert trust["Statement"][0]["Principal"]["Service"] == ["sagemaker.amazonaws.com", "glue.amazonaws.com"]


def test_launch_imports_bincount_and_never_the_other_way() -> None:
    for path in (ROOT / "bincount").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "launch" for name in names), path
