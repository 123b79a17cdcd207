"""What runs in a container of SageMaker: `python -m bincount.container` train, prepare, evaluate or serve.

The configuration comes whole, in a file; the verb is all that stands on the command line. What SageMaker's
tuner tries comes as hyperparameters, which are keys of the configuration with other values. Everything lies
under /opt/ml, as SageMaker has it:

    input/data/config/config.yaml    the configuration of train        (processing/input/config/ of others)
    input/data/data/                 the data set, unless it is streamed from `data.root`
    input/config/hyperparameters.json what the tuner tries; empty in other jobs
    input/config/resourceconfig.json which hosts there are             (config/ of prepare)
    processing/input/model/          model.tar.gz, which evaluate scores
    processing/output/               results.json and what goes with it, of evaluate
    checkpoints/                     kept in S3, and back on every host when a job starts again
    model/                           the finished run folder, on the first host; what serve answers with
    output/failure                   the line that says why it failed  (message of prepare, evaluate)
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from bincount.errors import BadInput, BincountError, Stopped, complaint, exit_code, nearest, one_line

if TYPE_CHECKING:
    from bincount.config import EvaluateConfig, PrepareConfig, TrainConfig
    from bincount.training.hosts import Meeting

ML = Path("/opt/ml")
RUNS = ML / "checkpoints/runs"

#: Where SageMaker asks for counts.
PORT = 8080

#: What SageMaker shows of a failure.
SHOWN = 1024

#: What of a run is left behind: it only helps to go on from a damaged checkpoint.
LEFT_BEHIND = ("previous.ckpt", "damaged.ckpt", ".*.partial")

#: Which variable names an object that tells, once it is there, that this job's data set is made.
MADE = "BINCOUNT_MADE"

#: Seconds between two looks for the other hosts' parts of a data set, and without one more of their shards
#: until they are given up: a large shard takes some minutes, and hosts start within minutes of each other.
LOOK, PATIENCE = 10.0, 1800.0


class Cluster(NamedTuple):
    """The hosts of the job by name, sorted, which is this one, and their network interface."""

    hosts: tuple[str, ...]
    own: str
    interface: str | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb, and return the exit code that `bincount` would have."""
    # Before torch is imported: a container's first process would not be ended by a signal without a handler.
    signal.signal(signal.SIGTERM, _stopped)
    # torch prints the stack of each connection that another host's end closed.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    words = list(sys.argv[1:] if argv is None else argv)
    verbs = {"train": (_train, "failure"), "prepare": (_prepare, "message")}
    verbs |= {"evaluate": (_evaluate, "message"), "serve": (_serve, "failure")}
    verb, told_in = verbs.get(words[0] if words else "", (None, "failure"))
    try:
        if verb is None or len(words) > 1:
            raise BadInput(
                f"{' '.join(words)!r}: one of {', '.join(verbs)} stands here, and all else in a file"
            )
        verb()
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("BINCOUNT_DEBUG") == "1":
            traceback.print_exc()
        line = complaint(error)
        print(f"bincount: {line}", file=sys.stderr, flush=True)
        if not isinstance(error, Stopped):
            _tell(ML / "output" / told_in, line)
        return exit_code(error)
    return 0


def _stopped(number: int, frame: FrameType | None) -> None:
    raise Stopped(signal.Signals(number))


def _tell(file: Path, line: str) -> None:
    with contextlib.suppress(OSError):  # the log has it, too
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(line.encode()[:SHOWN].decode(errors="ignore").encode())


# --- train --------------------------------------------------------------------------------------------


def _train() -> None:
    from bincount import train

    cluster = _cluster(ML / "input/config/resourceconfig.json")
    job = os.environ.get("TRAINING_JOB_NAME") or _toolkit().get("job_name") or "job"
    if cluster.interface:
        for backend in ("NCCL", "GLOO"):
            os.environ.setdefault(f"{backend}_SOCKET_IFNAME", cluster.interface)
    with _meeting(cluster, job) as meeting:
        _read_secrets()
        if meeting is not None and cluster.own != cluster.hosts[0]:
            with tempfile.TemporaryDirectory(prefix="bincount-") as own:
                train.take_part(meeting, Path(own))
            return
        config = _train_config(job, len(cluster.hosts))
        with train.begun(config) as (index, folder):
            # SageMaker would keep what it points to twice.
            (RUNS / "latest").unlink(missing_ok=True)
            train.carry_out(config, index, folder, meeting)
        shutil.copytree(folder, ML / "model", ignore=shutil.ignore_patterns(*LEFT_BEHIND), dirs_exist_ok=True)


@contextlib.contextmanager
def _meeting(cluster: Cluster, job: str) -> Iterator["Meeting | None"]:
    """Where several hosts meet; None where there is but one."""
    from bincount.training.hosts import Hosts, Meeting

    if len(cluster.hosts) == 1:
        yield None
        return
    print(f"{cluster.own} of {', '.join(cluster.hosts)}", flush=True)
    with Meeting(Hosts(cluster.hosts, cluster.own, job)) as meeting:
        yield meeting


def _train_config(job: str, hosts: int) -> "TrainConfig":
    """The configuration as it is to be run here: a new run, or the one that the checkpoints are of."""
    config: TrainConfig = _config("train", ML / "input/data/config/config.yaml", _hyperparameters())
    if config.launcher.nodes != hosts:
        raise BadInput(f"launcher.nodes={config.launcher.nodes}: the job has {hosts} instances")
    if (ML / "input/data/data").exists():
        config = replace(config, data=replace(config.data, root=str(ML / "input/data/data")))
    os.environ["BINCOUNT_RUN_ID"] = job
    begun = _begun(job)
    if begun is not None:
        _check_same(config, begun)
    return replace(config, runs=str(RUNS), resume=str(begun) if begun else None)


def _begun(job: str) -> Path | None:
    """The run that SageMaker brought back: this job's, or an earlier job's with the same checkpoints."""
    found = {path.parent.name: path.parent for path in RUNS.glob("*/*/config.yaml")}
    if len(found) > 1 and job not in found:
        raise BadInput(
            f"the checkpoints are of {len(found)} runs, {', '.join(sorted(found)[:3])} …: "
            "name a place that has those of one"
        )
    return found.get(job) or next(iter(found.values()), None)


def _check_same(config: "TrainConfig", begun: Path) -> None:
    """Refuse what is in a run's checkpoint and would change; as `bincount train resume=` does."""
    from dataclasses import asdict

    from bincount.compose import OF_CHECKPOINT
    from bincount.training.resuming import difference

    then, now = asdict(_config("train", begun / "config.yaml")), asdict(config)
    for group in sorted(OF_CHECKPOINT):
        if found := difference(then[group], now[group], f"{group}."):
            key, before, after = found
            raise BadInput(
                f"{key}={after}: the checkpoints are of run {begun.name}, which was begun with {before}: "
                "keep that, or name another place for checkpoints"
            )


# --- prepare ------------------------------------------------------------------------------------------


def _prepare() -> None:
    from bincount.prepare import prepare

    cluster = _cluster(ML / "config/resourceconfig.json")
    _read_secrets()
    config: PrepareConfig = _config("prepare", ML / "processing/input/config/config.yaml")
    parts, first = len(cluster.hosts), cluster.own == cluster.hosts[0]
    if (not first or _made_by_us()) and _made(config):
        # Killed and started again: the first host found all parts whole. Or an earlier job with this very
        # configuration has made the data set.
        print(f"{config.out} is made already", flush=True)
        return
    if parts == 1:
        prepare(config)
    else:
        prepare(replace(config, part=f"{cluster.hosts.index(cluster.own) + 1}/{parts}"))
        if first:
            _merge(replace(config, merge=True))
    if first:
        _note_made()


def _made(config: "PrepareConfig") -> bool:
    from bincount import storage

    return not config.overwrite and storage.open_store(config.out).has("index.json")


def _made_by_us() -> bool:
    """Whether a job with this configuration has made its data set: an object says so, which MADE names."""
    from bincount import storage

    above, _, name = os.environ.get(MADE, "").rpartition("/")
    return bool(above) and storage.open_store(above).has(name)


def _note_made() -> None:
    from bincount import storage

    above, _, name = os.environ.get(MADE, "").rpartition("/")
    if above:
        storage.open_store(above).write(name, b"")


def _merge(config: "PrepareConfig") -> None:
    """Join the parts, once they are all there."""
    from bincount.prepare import Unmade, prepare

    fewest, since = None, time.monotonic()
    while True:
        try:
            prepare(config)
        except Unmade as missing:
            if fewest is None or missing.number < fewest:
                fewest, since = missing.number, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                raise BincountError(
                    f"no other host has made a shard for {PATIENCE / 60:.0f} minutes: {missing}"
                ) from None
            time.sleep(LOOK)
        else:
            return


# --- evaluate -----------------------------------------------------------------------------------------


def _evaluate() -> None:
    """Score a run on a split of `data.root`; what comes of it lies where SageMaker fetches it."""
    from bincount.evaluate import evaluate

    given = ML / "processing/input"
    config: EvaluateConfig = _config("evaluate", given / "config/config.yaml")
    with tempfile.TemporaryDirectory(prefix="bincount-") as own:
        folder = Path(own) / "model"
        _unpack(given / "model/model.tar.gz", folder)
        evaluate(replace(config, run=str(folder)))
        shutil.copytree(folder / "evaluation" / config.split, ML / "processing/output", dirs_exist_ok=True)


def _unpack(file: Path, folder: Path) -> None:
    if not file.exists():
        raise BadInput(f"there is no {file}: the input `model` of the job brings it")
    try:
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadInput(f"{file} cannot be unpacked: {one_line(error)}") from None


# --- serve --------------------------------------------------------------------------------------------


def _serve() -> None:
    """Answer for the run in model/, until SageMaker ends it."""
    from bincount import compose
    from bincount.serve import serve

    words = [f"run={ML / 'model'}", "serve.host=0.0.0.0", f"serve.port={PORT}"]
    serve(compose.typed("serve", compose.compose("serve", words)))


# --- what SageMaker tells -----------------------------------------------------------------------------


def _cluster(file: Path) -> Cluster:
    """The hosts of the job; from the file, or what the sagemaker-training toolkit makes of it."""
    if file.exists():
        try:
            told = json.loads(file.read_bytes())
            hosts, own = tuple(sorted(told["hosts"])), str(told["current_host"])
            interface = told.get("network_interface_name")
        except (ValueError, KeyError, TypeError) as error:
            raise BincountError(f"{file} cannot be read: {type(error).__name__}: {one_line(error)}") from None
    else:
        hosts = tuple(sorted(json.loads(os.environ.get("SM_HOSTS", '["algo-1"]'))))
        own = os.environ.get("SM_CURRENT_HOST", hosts[0])
        interface = os.environ.get("SM_NETWORK_INTERFACE_NAME")
    if own not in hosts:
        raise BincountError(f"{file}: this host, {own}, is not among {', '.join(hosts)}")
    return Cluster(hosts, own, interface)


def _toolkit() -> dict[str, Any]:
    """What the sagemaker-training toolkit tells a program; nothing where it does not run."""
    told: dict[str, Any] = json.loads(os.environ.get("SM_TRAINING_ENV", "{}"))
    return told


def _config(verb: str, file: Path, changes: Mapping[str, str] | None = None) -> Any:
    """The configuration in a file, ``changes`` made to its keys. Raises BadInput."""
    from omegaconf import OmegaConf

    from bincount import compose, run

    if not file.exists():
        raise BadInput(f"there is no {file}: the channel `config` of the job brings it")
    config = run.saved_config(file.parent)
    known = compose.keys(config)
    for key, value in (changes or {}).items():
        if key not in known:
            raise BadInput(f"hyperparameter {key}: there is no such key: {nearest(key, known)}")
        OmegaConf.update(config, key, value)
    return compose.typed(verb, config)


def _hyperparameters() -> dict[str, str]:
    """What SageMaker's tuner tries in this job; its own words begin with an underscore or `sagemaker_`."""
    file = ML / "input/config/hyperparameters.json"
    if not file.exists():
        return {}
    told: dict[str, str] = json.loads(file.read_bytes())
    return {key: value for key, value in told.items() if not key.startswith(("_", "sagemaker_"))}


def _read_secrets() -> None:
    """Set the variables that BINCOUNT_SECRETS names: ``VARIABLE=secret's name or ARN,…``."""
    wanted = os.environ.get("BINCOUNT_SECRETS")
    if not wanted:
        return
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    for each in wanted.split(","):
        variable, _, name = each.strip().partition("=")
        if not variable or not name:
            raise BadInput(f"BINCOUNT_SECRETS: {each!r} is not VARIABLE=SECRET")
        try:
            client = boto3.client("secretsmanager", region_name=region)
            value = client.get_secret_value(SecretId=name).get("SecretString", "")
        except (BotoCoreError, ClientError) as error:
            raise BadInput(f"secret {name} for {variable} cannot be read: {one_line(error)}") from None
        os.environ[variable] = _of_secret(value, variable, name)


def _of_secret(value: str, variable: str, name: str) -> str:
    """The secret itself; or, as the console makes them, the value of ``variable`` in an object of JSON."""
    with contextlib.suppress(ValueError):
        held = json.loads(value)
        if isinstance(held, dict):
            value = held.get(variable, "")
    if not isinstance(value, str) or not value:
        raise BadInput(f"secret {name} has no text for {variable}")
    return value


if __name__ == "__main__":
    sys.exit(main())
