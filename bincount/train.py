"""`bincount train`: shards become a run that counts.

One process trains by itself; with `launcher.devices` above 1, torchrun starts a rank a device on the
configuration in the run folder. Then the run is evaluated.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
from omegaconf import OmegaConf

from bincount import checks, compose, health, pretraining, run, storage
from bincount.config import EvaluateConfig, EvaluationData, SageMaker, TrainConfig
from bincount.data.course import check_kept
from bincount.data.datamodule import BinData, kept_settings
from bincount.data.index import Index
from bincount.errors import BadInput, complaint
from bincount.evaluate import calibrate, evaluate
from bincount.fit import copies_of, counter_facts, fit, model_of
from bincount.training import ranks, sealed
from bincount.training.checkpoints import FACTS
from bincount.training.hosts import Meeting
from bincount.training.resuming import difference
from bincount.training.sealed import Checkpoint
from bincount.training.signals import Signals

log = logging.getLogger(__name__)

#: There is such a folder in a container of SageMaker.
IN_JOB = Path("/opt/ml/input/config")


def train(config: TrainConfig) -> Path:
    """Train and evaluate a run; returns its folder. Raises Stopped where a signal ends it."""
    check_here(config)
    with begun(config) as (index, folder):
        carry_out(config, index, folder)
    return folder


@contextlib.contextmanager
def begun(config: TrainConfig) -> Iterator[tuple[Index, Path]]:
    """Check all that can be known before, and make the run's folder, or find the one to go on with.

    The folder is kept for this process meanwhile.
    """
    index = Index.open(config.data.root)
    with contextlib.ExitStack() as kept:
        if config.resume is not None:
            kept.enter_context(run.alone(run.find(config.resume, config.runs)))
        checkpoint = last_checkpoint(config)
        check(config, index, fresh=checkpoint is None)
        if checkpoint is not None:
            check_resumed(config, index, checkpoint)
        folder = run_folder(config)
        if config.resume is None:
            kept.enter_context(run.alone(folder))
        run.log_to(folder)
        _tell_begin(config, index, folder)
        yield index, folder


def _tell_begin(config: TrainConfig, index: Index, folder: Path) -> None:
    log.info("run %s", folder)
    log.info(
        "%s on %s",
        _model_name(config),
        ", ".join(f"{index.summary['splits'][s]['samples']:,} {s}" for s in index.splits),
    )


def carry_out(config: TrainConfig, index: Index, folder: Path, meeting: Meeting | None = None) -> None:
    """Train the run and evaluate it; with a ``meeting`` on several hosts, of which this is the first."""
    for name in (run.CALIBRATION, run.ANSWERS):  # of weights that training replaces
        (folder / name).unlink(missing_ok=True)
    with Signals() as signals, _last_words():
        if config.pretrain.epochs and not any((folder / name).exists() for name in (run.LAST, run.PREVIOUS)):
            pretraining.pretrain(config, index, folder, signals)
        if meeting is not None:
            meeting.announce(_invitation(folder))
            ranks.start_on_all(meeting, config.launcher.devices, "bincount.fit", folder)
            signals.install()  # torchrun took them over
        elif config.launcher.devices > 1:
            ranks.start(config.launcher.devices, "bincount.fit", folder)
            signals.install()
        else:
            fit(config, folder, signals)
        _warn_of_health(folder)
        _evaluate(config, index, folder)


def take_part(meeting: Meeting, top: Path) -> None:
    """Train the run that the first host carries out; ``top`` is where this host may have its files."""
    told = meeting.announced()
    folder = top / str(told["name"])
    storage.write_text(folder / "config.yaml", str(told["config"]))
    if told["checkpoint"] is not None:
        # Rank 0 reads it and sends it to all; here it is enough to know that there is one.
        storage.write_durably(folder / told["checkpoint"], b"")
    config: TrainConfig = compose.typed("train", run.saved_config(folder))
    with Signals():
        ranks.start_on_all(meeting, config.launcher.devices, "bincount.fit", folder)


def _invitation(folder: Path) -> dict[str, str | None]:
    """What other hosts must know of a run to train it."""
    saved = next((name for name in (run.LAST, run.PREVIOUS) if (folder / name).exists()), None)
    return {
        "name": folder.name,
        "config": (folder / "config.yaml").read_text(encoding="utf-8"),
        "checkpoint": str(saved) if saved else None,
    }


@contextlib.contextmanager
def _last_words() -> Iterator[None]:
    """Let the run's log end with why the command does."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        run.note(complaint(error))
        raise


def check_here(config: TrainConfig) -> None:
    """Tell who wants a job of SageMaker which command sends it. Raises BadInput."""
    if isinstance(config.launcher, SageMaker) and not IN_JOB.exists():
        name = config.launcher.name
        raise BadInput(
            f"launcher={name}: that runs as a job of SageMaker: "
            f"`python launch/submit.py train launcher={name} …` shows it, and submit=true sends it"
        )


def check(config: TrainConfig, index: Index, fresh: bool = True) -> None:
    """Find what would stop the run, before anything costs time. Raises BadInput.

    ``fresh``: it begins with the weights of ``model.weights``, and not with a checkpoint's.
    """
    begun = config if fresh else replace(config, pretrain=replace(config.pretrain, epochs=0))
    for line in checks.found(begun, checks.Photos.of(index, config)):
        raise BadInput(line)
    if config.launcher.accelerator == "gpu" and torch.cuda.device_count() < config.launcher.devices:
        found = torch.cuda.device_count()
        raise BadInput(
            f"launcher.devices={config.launcher.devices}: there are {found} GPUs; launcher=local needs none"
        )
    # Builds the model once for its own checks: unknown names, weights that do not fit, sizes it cannot take.
    model_of(config, index, fresh)


def last_checkpoint(config: TrainConfig) -> Checkpoint | None:
    """The checkpoint to go on from, brought from its copy if need be; None where there is none."""
    if config.resume is None:
        return None
    folder = run.find(config.resume, config.runs)
    run.log_to(folder)
    copies = copies_of(config, folder)
    try:
        found = sealed.newest(folder)
    except sealed.Damaged:
        if copies is None:
            raise
        found = None
    if found is None and copies is not None:
        log.info("bringing the checkpoints from %s", copies.address)
        copies.fetch()
        found = sealed.newest(folder)
    if found is None:
        if (folder / run.PRETRAINING).exists():
            return None
        log.info("the run stopped before its first checkpoint: it starts from the beginning")
        return None
    log.info("going on from %s", found[0])
    return found[1]


def check_resumed(config: TrainConfig, index: Index, checkpoint: Checkpoint) -> None:
    """Refuse to go on from a checkpoint of something else. Raises BadInput."""
    then, now = checkpoint[FACTS], counter_facts(config, index)
    if then["index_digest"] != now["index_digest"]:
        raise BadInput(
            f"{index.store.address}: the data set was prepared anew since the run stopped: start a new run"
        )
    for part in ("model", "objective", "counts"):
        if found := difference(then[part], now[part], f"{part}."):
            key, before, after = found
            raise BadInput(f"{key}={after}: the run was trained with {before}: start a new run")
    averaged = "averaging_state" in checkpoint
    if averaged != (config.trainer.ema is not None):
        before = "an average" if averaged else "no average"
        raise BadInput(
            f"trainer.ema={config.trainer.ema}: the run keeps {before} of its weights: start a new run"
        )
    saved = checkpoint["state_dict"]
    model, _ = model_of(config, index, fresh=False)
    if any(saved[f"model.{key}"].shape != value.shape for key, value in model.state_dict().items()):
        size = list(config.data.height_width)
        raise BadInput(f"data.image_size={size}: the run's weights are for {then['image_size']}")
    place = checkpoint[BinData.__qualname__]
    check_kept(place, kept_settings(config.data, config.seed))
    if place["epoch"] > config.trainer.max_epochs:
        raise BadInput(
            f"trainer.max_epochs={config.trainer.max_epochs}: the run has done {place['epoch']} already"
        )


def _warn_of_health(folder: Path) -> None:
    for each in health.findings(folder):
        if each.verdict == health.LOOK:
            log.warning("training health, %s: %s", each.name, each.told)


def _model_name(config: TrainConfig) -> str:
    return getattr(config.model, "architecture", config.model.name)


def run_folder(config: TrainConfig) -> Path:
    """A new run's folder, or the one to go on with; its config.yaml is what every rank reads."""
    config = replace(config, data=replace(config.data, root=storage.absolute(config.data.root)))
    if config.trainer.checkpoint_copy is not None:
        copy = storage.absolute(config.trainer.checkpoint_copy)
        config = replace(config, trainer=replace(config.trainer, checkpoint_copy=copy))
    saved = OmegaConf.create(asdict(config))
    if config.resume is None:
        folder = run.create(config.runs, config.experiment, saved)
    else:
        folder = run.find(config.resume, config.runs)
        storage.write_text(folder / "config.yaml", OmegaConf.to_yaml(saved))
    if copies := copies_of(config, folder):
        # Shows before training whether copies can be written there.
        copies.put(folder / "config.yaml")
        copies.finish()
    return folder


def _evaluate(config: TrainConfig, index: Index, folder: Path) -> None:
    data = EvaluationData(root=None, batch_size=config.data.batch_size, workers=config.data.workers)
    if "val" in index.splits:
        calibrate(folder, index, data)
    if config.trainer.evaluate is None:
        log.info("it is evaluated on no split (trainer.evaluate=null); the run is in %s", folder)
        return
    split = next((split for split in (config.trainer.evaluate, "val") if split in index.splits), None)
    if split is None:
        log.info("there is no split to evaluate on; the run is in %s", folder)
        return
    evaluate(
        EvaluateConfig(
            run=str(folder),
            runs=config.runs,
            predictions=None,
            labels=None,
            missing="error",
            out=None,
            split=split,
            decode=None,
            data=data,
        )
    )
