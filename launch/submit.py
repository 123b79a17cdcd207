"""`python launch/submit.py VERB key=value …`: previews a job of SageMaker; submit=true sends it.

The same `conf/` and words as `bincount`. Without submit=true nothing is sent.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # Python puts this folder first, where requests.py would stand before the package of that name.
    sys.path[0] = str(ROOT)

from bincount.cli import answered  # noqa: E402
from bincount.errors import BadInput, nearest  # noqa: E402

HELP = """python launch/submit.py: training, preparing and counting on SageMaker.

usage: python launch/submit.py VERB [key=value …]

  train      preview a training job; submit=true sends it; -m: one for each trial of a sweep, ranked
  prepare    preview a processing job that makes a data set, a part on each instance; submit=true sends it
  tables     preview a Glue job (Spark), or Athena's queries, for the tables of records; submit=true sends it
  status     how a job, a pipeline or a tuning job stands, what it cost so far, what failed and why
  logs       bring a job's log and figures into log.txt and metrics.csv of its run folder
  stop       end it; a job that trains saves a checkpoint first
  tune       preview a job of SageMaker's own tuner, which trains with many values; submit=true sends it
  pipeline   preview prepare, train, evaluate, register, deploy if better; submit=true makes and starts it
  transform  preview a job that counts all photos below an address in S3; submit=true sends it
  deploy     preview an endpoint that counts photos; submit=true makes it, and it costs until cleanup
  invoke     a photo to an endpoint, and its count back
  cleanup    list what was deployed, of one run or of all; submit=true deletes it

  python launch/submit.py train launcher=sagemaker data.root=s3://mine/bins
  python launch/submit.py train launcher=sagemaker_smddp experiment=multinode
  python launch/submit.py train launcher=sagemaker data.root=s3://mine/bins launcher.output=s3://mine/jobs \\
      launcher.role=arn:aws:iam::123456789012:role/bincount \\
      launcher.code=dist/bincount-0.1.0-py3-none-any.whl \\
      launcher.spot=true launcher.max_hours=4 launcher.max_wait_hours=8 submit=true
  python launch/submit.py train -m launcher=sagemaker data.root=s3://mine/bins sweep.jobs=2 optimizer.lr=0.1,1
  python launch/submit.py tune launcher=sagemaker data.root=s3://mine/bins sweep.trials=30 sweep.jobs=3
  python launch/submit.py prepare source=s3 source.bucket=s3://aft-vbi-pds out=s3://mine/bins launcher.nodes=8
  python launch/submit.py tables source.metadata=s3://mine/metadata out=s3://mine/tables tables.engine=athena
  python launch/submit.py pipeline launcher=sagemaker source=s3 source.bucket=s3://aft-vbi-pds \\
      out=s3://mine/bins prepare.nodes=8 launcher.output=s3://mine/jobs
  python launch/submit.py status job=latest
  python launch/submit.py logs job=bincount-default-20261121-120000-ab12 launcher.region=eu-west-1
  python launch/submit.py stop job=latest
  python launch/submit.py transform job=latest photos=s3://mine/photos out=s3://mine/counts
  python launch/submit.py deploy model=s3://mine/jobs/JOB/output/model.tar.gz serverless=true
  python launch/submit.py invoke endpoint=latest photo=bin.jpg
  python launch/submit.py cleanup all=true

Every key of `bincount train --help` and `bincount prepare --help`, and those of conf/launcher/sagemaker.yaml.
status, logs, stop: job (a name, or latest), runs (the folder of runs), launcher.region.
train -m, tune: several values for a key, sweep, sweep.trials, sweep.jobs, as docs/sweeps.md has them.
transform, deploy: job (a name, or latest) or model (its address), instance_type, instances, launcher.image,
    launcher.role, launcher.region; transform also photos, out, content (image/jpeg or image/png);
    deploy also name, serverless, memory (MB), concurrency.
pipeline: the keys of `prepare` and `train` (data.root is `out`; or data.root alone: nothing is prepared),
    name, pipeline_role, deploy (false: no endpoint); prepare.KEY and evaluate.KEY are launcher.KEY of that
    step alone; deploy.instance_type, .instances, .serverless, .memory, .concurrency are those of `deploy`.
tables: the keys of `prepare`, tables.engine (spark, athena), workers, worker_type (of Glue).
invoke: photo, endpoint (a name, or latest) or url.
cleanup: run (a job that was deployed, or a pipeline) or all=true.
docs/sagemaker.md goes from an empty AWS account to a trained model."""

#: In which module of `launch/` a verb is, as the function of its name.
VERBS = {"train": "start", "prepare": "start", "status": "follow", "logs": "follow", "stop": "follow"}
VERBS |= {verb: verb for verb in ("tune", "pipeline", "transform", "deploy", "invoke", "cleanup", "tables")}


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
        if verb == "train" and word in ("-m", "--multirun"):
            continue
        if word.startswith("-") or "=" not in word:
            raise BadInput(f"{word}: write key=value, or --help")
    getattr(importlib.import_module(f"launch.{VERBS[verb]}"), verb)(rest)


if __name__ == "__main__":
    sys.exit(main())
