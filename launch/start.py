"""train and prepare: a job is previewed, or sent."""

from dataclasses import replace

from bincount import storage
from bincount.compose import compose, typed
from bincount.config import SageMaker
from bincount.data.index import Index
from bincount.errors import BadInput, BincountError
from launch import aws, checks, instances, jobs, preflight, preview, requests, service_model
from launch.job import DataSet, Job, bucket_of, new_name
from launch.overrides import launcher_of, of_launcher, sending


def train(words: list[str]) -> None:
    """A training job; or with -m one for each trial of a sweep."""
    if "-m" in words or "--multirun" in words:
        from launch import trials

        trials.train([word for word in words if word not in ("-m", "--multirun")])
        return
    _start("train", words)


def prepare(words: list[str]) -> None:
    """A processing job that makes a data set."""
    _start("prepare", words)


def _start(verb: str, words: list[str]) -> None:
    """Preview a job, or send it. Raises BadInput where something would go wrong."""
    wanted = sending(words)
    job, data_told = composed(verb, words)
    checks.run_checks(job, checks.CHECKS)
    if wanted:
        send(job, data_told)
        return
    kind = "Training" if job.train else "Processing"
    price = instances.price(job.instance, job.launcher.region, kind) if job.instance else None
    print(preview.preview(job, price, data_told))
    print(preview.ending(checks.missing(job, checks.GIVEN)))


def send(job: Job, data_told: str) -> None:
    """Ask AWS what only AWS can tell, put the configuration into S3, and make the job."""
    checks.run_checks(job, checks.GIVEN)
    service_model.check("sagemaker", requests.operation(job), requests.request(job))
    preflight.preflight(job)
    create(job, data_told)
    runs = job.train.runs if job.train else "runs"
    folder = jobs.write_run(storage.folder(runs), job.name, requests.config_yaml(job))
    storage.write_text(folder / "request.json", requests.shown(requests.request(job)) + "\n")
    print(f"sent {job.name}, kept in {folder}")
    more = "" if job.launcher.region == "us-east-1" else f" launcher.region={job.launcher.region}"
    for verb in ("status", "logs", "stop"):
        print(f"  python launch/submit.py {verb} job={job.name}{more}")


def create(job: Job, data_told: str) -> None:
    """Put the configuration into S3, and make the job."""
    if job.train and job.data is None:
        raise BadInput(data_told)
    region, made = job.launcher.region, requests.request(job)
    upload(job)
    if job.train:
        aws.ask("sagemaker", "create_training_job", region, **made)
    else:
        aws.ask("sagemaker", "create_processing_job", region, **made)


def upload(job: Job) -> None:
    """Put into S3 what has to be there before the job is made."""
    for address, content in requests.uploads(job).items():
        bucket, key = bucket_of(address)
        aws.ask("s3", "put_object", job.launcher.region, Bucket=bucket, Key=key, Body=content)


def composed(verb: str, words: list[str], name: str | None = None) -> tuple[Job, str]:
    """The job that the words ask for, and why its data set is not known, where it is not."""
    if verb == "prepare":
        config = typed("prepare", compose("prepare", [word for word in words if not of_launcher(word)]))
        launcher = launcher_of([word for word in words if of_launcher(word)])
        return Job(name=name or new_name("prepare"), config=config, launcher=launcher), ""
    config = typed("train", compose("train", words))
    if not isinstance(config.launcher, SageMaker):
        raise BadInput(
            f"launcher={config.launcher.name}: `bincount train` trains here; give launcher=sagemaker"
        )
    job = Job(name=name or new_name(config.experiment), config=config, launcher=config.launcher)
    return read_data(job)


def read_data(job: Job) -> tuple[Job, str]:
    """The job with the facts of its data set, or why they are not known."""
    assert job.train is not None
    root = job.train.data.root
    if root.startswith("s3://") and not aws.has_credentials():
        return job, f"{root} was not read: {aws.NO_CREDENTIALS}"
    try:
        return replace(job, data=DataSet.of(Index.open(root), job.train)), ""
    except BincountError as error:
        return job, str(error)
