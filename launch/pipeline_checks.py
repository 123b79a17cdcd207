"""What would make a pipeline fail or cost in vain: before any request, and of AWS itself.

Its jobs are looked at as any jobs, its endpoint as any endpoint; here is what only a pipeline can get wrong.
"""

from collections.abc import Iterator

from bincount import storage
from launch import checks, hosting_checks, preflight
from launch.job import ROLE, Job, Order
from launch.ordering import Check, Rules, named, of_parts
from launch.steps import Pipeline


def pipeline_role_given(pipeline: Pipeline) -> str | None:
    if pipeline.acts_as is None:
        return (
            "pipeline_role is not given: add pipeline_role=arn:aws:iam::ACCOUNT:role/NAME (docs/sagemaker.md)"
        )
    return None


def pipeline_role_is_an_arn(pipeline: Pipeline) -> str | None:
    if not ROLE.fullmatch(pipeline.control_role):
        return f"pipeline_role={pipeline.acts_as} is no role: write arn:aws:iam::ACCOUNT:role/NAME"
    return None


def jobs_have_another_role(pipeline: Pipeline) -> str | None:
    if pipeline.acts_as is not None and pipeline.acts_as == pipeline.launcher.role:
        return (
            f"pipeline_role={pipeline.acts_as}: that is launcher.role, whose jobs could then start jobs and "
            "deploy: make a role of its own"
        )
    return None


def checkpoints_are_of_one_execution(pipeline: Pipeline) -> str | None:
    wanted = pipeline.launcher.checkpoints
    if wanted not in ("auto", "none"):
        return (
            f"launcher.checkpoints={wanted}: every execution would go on with the same run: auto, each has "
            "its own, or none"
        )
    return None


def one_instance_evaluates(pipeline: Pipeline) -> str | None:
    nodes = pipeline.evaluate.launcher.nodes
    if nodes != 1:
        return f"evaluate.nodes={nodes}: one instance evaluates, and the others would be paid for"
    return None


# --- what only AWS can tell ---------------------------------------------------------------------------


def pipeline_role_of_this_account(pipeline: Pipeline) -> str | None:
    return preflight.other_account("pipeline_role", pipeline.control_role, pipeline.launcher.region)


def pipeline_role_exists(pipeline: Pipeline) -> str | None:
    return preflight.no_role("pipeline_role", pipeline.control_role, pipeline.launcher.region)


def pipeline_role_is_for_sagemaker(pipeline: Pipeline) -> str | None:
    return preflight.not_trusted(
        "pipeline_role", pipeline.control_role, pipeline.launcher.region, "sagemaker"
    )


def pipeline_role_is_for_lambda(pipeline: Pipeline) -> str | None:
    if pipeline.endpoint is None:
        return None
    return preflight.not_trusted("pipeline_role", pipeline.control_role, pipeline.launcher.region, "lambda")


def out_is_free_or_ours(pipeline: Pipeline) -> str | None:
    job = pipeline.prepare
    if job is None or job.prepare is None or not storage.open_store(job.prepare.out).has("index.json"):
        return None
    if storage.open_store(job.place("").rstrip("/")).has("made"):
        return None
    return (
        f"out={job.prepare.out}: there is a data set already that this pipeline, as it is now, has not made: "
        "give data.root in place of source and out, or another out"
    )


# --- all of them, in their order ----------------------------------------------------------------------


def _jobs(pipeline: Pipeline) -> Iterator[Job]:
    yield from pipeline.jobs.values()


def _training(pipeline: Pipeline) -> Iterator[Job]:
    yield pipeline.train


def _endpoint(pipeline: Pipeline) -> Iterator[Order]:
    if pipeline.endpoint is not None:
        yield pipeline.endpoint


def _training_on_given_data(pipeline: Pipeline) -> Iterator[Job]:
    if pipeline.prepare is None:
        yield pipeline.train


def _all_checks() -> dict[str, Check]:
    """Those of jobs, then those that endpoints have beside."""
    found = named(*(of_parts(check, _jobs) for check in checks.CHECKS.values()))
    for name, check in hosting_checks.ENDPOINTS.checks.items():
        known = f"{name}_of_endpoint" if name in found else name
        found[known] = of_parts(check, _endpoint)
    return found


#: A pipeline's image is another matter than a job's: its model has to be served.
_GIVEN = [check for name, check in checks.GIVEN.items() if name != "image_has_bincount"]

_ASKED = {
    name: of_parts(check, _training_on_given_data if name == "index_readable" else _training)
    for name, check in preflight.PREFLIGHT.items()
    if name != "out_is_free"
}

RULES = Rules(
    named(hosting_checks.no_wheel, pipeline_role_is_an_arn, jobs_have_another_role)
    | named(checkpoints_are_of_one_execution, one_instance_evaluates)
    | {name: check for name, check in _all_checks().items() if name != "no_wheel"},
    named(*(of_parts(check, _training) for check in _GIVEN), hosting_checks.image_given, pipeline_role_given),
    _ASKED
    | named(pipeline_role_of_this_account, pipeline_role_exists, pipeline_role_is_for_sagemaker)
    | named(pipeline_role_is_for_lambda, out_is_free_or_ours),
)
