"""`python launch/submit.py VERB key=value …`: previews a job of SageMaker; submit=true sends it.

The same `conf/` and words as `bincount`. Without submit=true nothing is sent.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # Python puts this folder first, where requests.py would stand before the package of that name.
    sys.path[0] = str(ROOT)

from bincount.cli import answered  # noqa: E402
from bincount.errors import BadInput, BincountError, nearest  # noqa: E402

if TYPE_CHECKING:
    from bincount.config import SageMaker
    from launch.job import Job

HELP = """python launch/submit.py: training and preparing on SageMaker.

usage: python launch/submit.py VERB [key=value …]

  train      preview a training job; submit=true sends it
  prepare    preview a processing job that makes a data set, a part on each instance; submit=true sends it
  status     how a job stands, seconds billed, spot saving, cost so far
  logs       bring a job's log and figures into log.txt and metrics.csv of its run folder
  stop       end a job; it saves a checkpoint first

  python launch/submit.py train launcher=sagemaker data.root=s3://mine/bins
  python launch/submit.py train launcher=sagemaker_smddp experiment=multinode
  python launch/submit.py train launcher=sagemaker data.root=s3://mine/bins launcher.output=s3://mine/jobs \\
      launcher.role=arn:aws:iam::123456789012:role/bincount \\
      launcher.code=dist/bincount-0.1.0-py3-none-any.whl \\
      launcher.spot=true launcher.max_hours=4 launcher.max_wait_hours=8 submit=true
  python launch/submit.py prepare source=s3 source.bucket=s3://aft-vbi-pds out=s3://mine/bins launcher.nodes=8
  python launch/submit.py status job=latest
  python launch/submit.py logs job=bincount-default-20261121-120000-ab12 launcher.region=eu-west-1
  python launch/submit.py stop job=latest

Every key of `bincount train --help` and `bincount prepare --help`, and those of conf/launcher/sagemaker.yaml.
status, logs, stop: job (a name, or latest), runs (the folder of runs), launcher.region.
docs/sagemaker.md goes from an empty AWS account to a trained model."""

VERBS = ("train", "prepare", "status", "logs", "stop")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for a failure, 2 for bad input."""
    return answered(_run, argv)


def _run(words: list[str]) -> None:
    if not words or {"-h", "--help", "help"} & set(words):
        print(HELP)
        return
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        raise BadInput(f"{verb}: there is no such verb: {nearest(verb, VERBS)}")
    for word in rest:
        if word.startswith("-") or "=" not in word:
            raise BadInput(f"{word}: write key=value, or --help")
    if verb in ("train", "prepare"):
        sending = _take(rest, "submit", "false").lower()
        if sending not in ("true", "false"):
            raise BadInput(f"submit={sending}: write submit=true, or leave it out")
        start(verb, rest, sending == "true")
    else:
        follow(verb, rest)


def follow(verb: str, words: list[str]) -> None:
    """status, logs, stop."""
    name, runs = _take(words, "job", "latest"), _take(words, "runs", "runs")
    for word in words:
        if not word.startswith("launcher"):
            known = ["job", "runs", "launcher.region"]
            key = word.partition("=")[0]
            raise BadInput(f"{key}: there is no such key in `{verb}`: {nearest(key, known)}")
    region = _launcher(words).region
    from launch import jobs

    if verb == "status":
        print(jobs.status(name, region, runs))
    elif verb == "logs":
        print(jobs.logs(name, region, runs))
    else:
        print(jobs.stop(name, region))


def start(verb: str, words: list[str], sending: bool) -> None:
    """Preview a job, and with ``sending`` send it. Raises BadInput where something would go wrong."""
    from launch import checks, instances, preview

    job, data_told = composed(verb, words)
    checks.run_checks(job, checks.CHECKS)
    if sending:
        send(job, data_told)
        return
    kind = "Training" if job.train else "Processing"
    price = instances.price(job.instance, job.launcher.region, kind) if job.instance else None
    print(preview.preview(job, price, data_told))
    lacking = checks.missing(job)
    print("\n[this is a preview: nothing was sent]")
    for line in lacking or ["submit=true sends it"]:
        print(f"{'first: ' if lacking else ''}{line}")


def send(job: "Job", data_told: str) -> None:
    """Ask AWS what only AWS can tell, put the configuration into S3, and make the job."""
    from bincount import storage
    from launch import aws, checks, jobs, preflight, requests, service_model
    from launch.job import bucket_of

    checks.run_checks(job, checks.GIVEN)
    made = requests.request(job)
    service_model.check("sagemaker", requests.operation(job), made)
    preflight.preflight(job)
    if job.train and job.data is None:
        raise BadInput(data_told)
    region = job.launcher.region
    for address, content in requests.uploads(job).items():
        bucket, key = bucket_of(address)
        aws.ask("s3", "put_object", region, Bucket=bucket, Key=key, Body=content)
    if job.train:
        aws.ask("sagemaker", "create_training_job", region, **made)
    else:
        aws.ask("sagemaker", "create_processing_job", region, **made)
    runs = job.train.runs if job.train else "runs"
    folder = jobs.write_run(storage.folder(runs), job.name, requests.config_yaml(job))
    storage.write_text(folder / "request.json", requests.shown(made) + "\n")
    print(f"sent {job.name}, kept in {folder}")
    more = "" if region == "us-east-1" else f" launcher.region={region}"
    for verb in ("status", "logs", "stop"):
        print(f"  python launch/submit.py {verb} job={job.name}{more}")


def composed(verb: str, words: list[str], name: str | None = None) -> tuple["Job", str]:
    """The job that the words ask for, and why its data set is not known, where it is not."""
    from bincount.compose import compose, typed
    from bincount.config import SageMaker
    from launch.job import Job, new_name

    if verb == "prepare":
        config = typed("prepare", compose("prepare", [word for word in words if not _of_launcher(word)]))
        launcher = _launcher([word for word in words if _of_launcher(word)])
        return Job(name=name or new_name("prepare"), config=config, launcher=launcher), ""
    config = typed("train", compose("train", words))
    if not isinstance(config.launcher, SageMaker):
        raise BadInput(
            f"launcher={config.launcher.name}: `bincount train` trains here; give launcher=sagemaker"
        )
    job = Job(name=name or new_name(config.experiment), config=config, launcher=config.launcher)
    return read_data(job)


def read_data(job: "Job") -> tuple["Job", str]:
    """The job with the facts of its data set, or why they are not known."""
    from bincount.data.index import Index
    from launch import aws
    from launch.job import DataSet

    assert job.train is not None
    root = job.train.data.root
    if root.startswith("s3://") and not aws.has_credentials():
        return job, f"{root} was not read: {aws.NO_CREDENTIALS}"
    try:
        return replace(job, data=DataSet.of(Index.open(root), job.train)), ""
    except BincountError as error:
        return job, str(error)


def _of_launcher(word: str) -> bool:
    key = word.partition("=")[0].lstrip("+~")
    return key == "launcher" or key.startswith("launcher.")


def _launcher(words: list[str]) -> "SageMaker":
    """The launcher that the words ask for, SageMaker's unless said."""
    from bincount.compose import compose, typed
    from bincount.config import SageMaker

    chosen = [] if any(word.startswith("launcher=") for word in words) else ["launcher=sagemaker"]
    launcher: Any = typed("train", compose("train", [*chosen, *words])).launcher
    if not isinstance(launcher, SageMaker):
        raise BadInput(f"launcher={launcher.name}: that runs here, not on SageMaker: give launcher=sagemaker")
    return launcher


def _take(words: list[str], key: str, default: str) -> str:
    """Take `key=value` out of the words."""
    for word in list(words):
        if word.partition("=")[0] == key:
            words.remove(word)
            default = word.partition("=")[2]
    return default


if __name__ == "__main__":
    sys.exit(main())
