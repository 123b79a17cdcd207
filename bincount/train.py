"""`bincount train`: shards become a run that counts.

One process trains by itself; with `launcher.devices` above 1, torchrun starts a rank a device on the
configuration in the run folder (`python -m bincount.train RUN_FOLDER`). Then the run is evaluated.
"""

import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import OmegaConf

from bincount import compose, run, storage
from bincount.config import EvaluateConfig, EvaluationData, Launcher, Optimizer, Plateau, TrainConfig
from bincount.data.course import Course, check_kept
from bincount.data.datamodule import BinData, kept_settings
from bincount.data.index import Index
from bincount.errors import BadInput, BincountError, Stopped, complaint, nearest
from bincount.evaluate import evaluate
from bincount.model import backbones, objectives
from bincount.model.metrics import WATCHED
from bincount.model.module import CountModule
from bincount.model.optimizers import rate_factor
from bincount.training import loggers, ranks, sealed
from bincount.training.channel import Together, backend
from bincount.training.checkpoints import FACTS, CounterFacts, KeepBest, KeepLast
from bincount.training.copies import Copies
from bincount.training.heartbeat import Heartbeat
from bincount.training.reporting import EpochLines
from bincount.training.resuming import Resuming, SeedSteps, Start, difference
from bincount.training.sealed import Checkpoint, SealedIO
from bincount.training.signals import Signals, leave_signals_alone
from bincount.training.stopping import BroadcastEarlyStopping, Patience, Reason, Stop, StoppedTraining

log = logging.getLogger(__name__)


def train(config: TrainConfig) -> Path:
    """Train and evaluate a run; returns its folder. Raises Stopped where a signal ends it."""
    index = Index.open(config.data.root)
    checkpoint = last_checkpoint(config)
    check(config, index, fresh=checkpoint is None)
    if checkpoint is not None:
        check_resumed(config, index, checkpoint)
    folder = run_folder(config)
    run.log_to(folder)
    log.info("run %s", folder)
    log.info(
        "%s on %s",
        _model_name(config),
        ", ".join(f"{index.summary['splits'][s]['samples']:,} {s}" for s in index.splits),
    )
    with Signals() as signals, _last_words():
        if config.launcher.devices > 1:
            ranks.start(config.launcher.devices, __name__, folder)
            signals.install()  # torchrun took them over
        else:
            fit(config, folder, signals)
        _evaluate(config, index, folder)
    return folder


@contextlib.contextmanager
def _last_words() -> Iterator[None]:
    """Let the run's log end with why the command does."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        run.note(complaint(error))
        raise


def check(config: TrainConfig, index: Index, fresh: bool = True) -> None:
    """Find what would stop the run, before anything costs time. Raises BadInput.

    ``fresh``: it begins with the weights of ``model.weights``, and not with a checkpoint's.
    """
    if "train" not in index.splits:
        raise BadInput(
            f"{index.store.address} has no photos in split 'train': prepare it with split.train above 0"
        )
    photos = round(index.summary["splits"]["train"]["samples"] * config.data.fraction)
    per_count = index.photos_per_count("train")
    held = [name for name, number in per_count.items() if number]
    if len(held) == 1:
        raise BadInput(
            f"{index.store.address}: every training photo has the count {held[0]}: there is nothing to learn"
        )
    batch = config.data.batch_size * config.launcher.devices
    if photos < batch:
        raise BadInput(
            f"data.batch_size={config.data.batch_size}: a step takes {batch} photos, and there are {photos}"
        )
    monitors = {"trainer.monitor": config.trainer.monitor}
    if isinstance(config.scheduler, Plateau):
        monitors["scheduler.monitor"] = config.scheduler.monitor
        if "val" not in index.splits:
            raise BadInput(
                f"scheduler=plateau: it watches validation, and {index.store.address} has no split 'val'"
            )
    for key, monitor in monitors.items():
        if monitor not in WATCHED:
            raise BadInput(f"{key}={monitor}: {nearest(monitor, WATCHED)}")
    if config.trainer.stop_after is not None and "val" not in index.splits:
        raise BadInput(
            f"trainer.stop_after={config.trainer.stop_after}: it watches validation, and "
            f"{index.store.address} has no split 'val'"
        )
    if config.launcher.accelerator == "cpu":
        for key, wanted in {
            "trainer.sync_batchnorm=true": config.trainer.sync_batchnorm,
            "launcher.backend=nccl": config.launcher.backend == "nccl",
        }.items():
            if wanted:
                raise BadInput(f"{key}: that is for GPUs alone: leave it out, or write launcher=gpu")
    if config.launcher.accelerator == "gpu" and torch.cuda.device_count() < config.launcher.devices:
        found = torch.cuda.device_count()
        raise BadInput(
            f"launcher.devices={config.launcher.devices}: there are {found} GPUs; launcher=local needs none"
        )
    # Builds the model once for its own checks: unknown names, weights that do not fit, sizes it cannot take.
    _model(config, index, fresh)


def last_checkpoint(config: TrainConfig) -> Checkpoint | None:
    """The checkpoint to go on from, brought from its copy if need be; None where there is none."""
    if config.resume is None:
        return None
    folder = run.find(config.resume, config.runs)
    run.log_to(folder)
    copies = _copies(config, folder)
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
        log.info("the run stopped before its first checkpoint: it starts from the beginning")
        return None
    log.info("going on from %s", found[0])
    return found[1]


def check_resumed(config: TrainConfig, index: Index, checkpoint: Checkpoint) -> None:
    """Refuse to go on from a checkpoint of something else. Raises BadInput."""
    then, now = checkpoint[FACTS], _facts(config, index)
    if then["index_digest"] != now["index_digest"]:
        raise BadInput(
            f"{index.store.address}: the data set was prepared anew since the run stopped: start a new run"
        )
    for part in ("model", "objective", "counts"):
        if found := difference(then[part], now[part], f"{part}."):
            key, before, after = found
            raise BadInput(f"{key}={after}: the run was trained with {before}: start a new run")
    saved = checkpoint["state_dict"]
    model, _ = _model(config, index, fresh=False)
    if any(saved[f"model.{key}"].shape != value.shape for key, value in model.state_dict().items()):
        size = list(config.data.height_width)
        raise BadInput(f"data.image_size={size}: the run's weights are for {then['image_size']}")
    place = checkpoint[BinData.__qualname__]
    check_kept(place, kept_settings(config.data, config.seed))
    if place["epoch"] > config.trainer.max_epochs:
        raise BadInput(
            f"trainer.max_epochs={config.trainer.max_epochs}: the run has done {place['epoch']} already"
        )


def fit(config: TrainConfig, folder: Path, signals: Signals) -> None:
    """Train on this rank, until the end or a reason to stop, from the last checkpoint on if there is one.

    Raises Stopped for a signal, and BincountError where too many photos cannot be read.
    """
    index = Index.open(config.data.root)
    L.seed_everything(config.seed, workers=False, verbose=False)
    checkpoint = _resume_from(config, folder)
    model, objective = _model(config, index, fresh=checkpoint is None)
    data = BinData(index, config.data, config.seed)
    module = CountModule(
        model,
        objective,
        _scaled(config),
        config.scheduler,
        lambda: data.course.schedule(config.trainer.max_epochs, config.trainer.max_steps),
    )
    last = KeepLast(folder / run.LAST, config.trainer.checkpoint_every)
    stopping = _stopping(config, index, data, signals, last)
    heartbeat = Heartbeat(
        config.launcher.stalled_after, lambda: signals.note(signal.SIGHUP), ending=ranks.report
    )
    callbacks = [
        Resuming(lambda: _start(data.course)),
        SeedSteps(config.seed),
        CounterFacts(_facts(config, index)),
        EpochLines(),
        stopping,
    ]
    if mode := _monitor_mode(config, index):
        callbacks.append(KeepBest(folder / run.BEST, config.trainer.monitor, mode))
    callbacks.append(last)  # the last state then knows of the best
    several = config.launcher.devices * config.launcher.nodes > 1
    if several:
        callbacks.append(heartbeat)
        strategy: Any = Together(
            backend(config.launcher.backend, config.launcher.accelerator), heartbeat.passed
        )
    device = "cuda" if config.launcher.accelerator == "gpu" else "cpu"
    with _lightning_quiet(), _copies(config, folder) or contextlib.nullcontext() as copies:
        checkpoints = SealedIO(device, copies.put if copies else None)
        trainer = L.Trainer(
            accelerator=config.launcher.accelerator,
            devices=config.launcher.devices,
            num_nodes=config.launcher.nodes,
            strategy=strategy if several else "auto",
            sync_batchnorm=config.trainer.sync_batchnorm,
            precision=_precision(config.launcher),
            max_epochs=config.trainer.max_epochs,
            max_steps=config.trainer.max_steps or -1,
            gradient_clip_val=config.trainer.clip_gradient,
            limit_val_batches=None if "val" in index.splits else 0,
            logger=loggers.build(config, folder),
            callbacks=callbacks,
            plugins=[checkpoints],
            reload_dataloaders_every_n_epochs=1,
            log_every_n_steps=10,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        module.to(memory_format=torch.channels_last)
        leave_signals_alone(trainer)
        try:
            with signals.noted(), contextlib.suppress(StoppedTraining):
                trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
            if unreadable := data.unreadable.summary():
                log.warning("photos that could not be read were left out: %s", unreadable)
            trainer.strategy.barrier()
        except RuntimeError as error:
            # Where a collective failed, who is missing says more than what it was.
            if several and (missing := heartbeat.silent()):
                raise BincountError(f"{missing} does not answer any more: it was killed") from error
            raise
        finally:
            heartbeat.close()
        checkpoints.finish()
    _end(stopping.stop, config, data, folder)


def _stopping(
    config: TrainConfig, index: Index, data: BinData, signals: Signals, last: KeepLast
) -> BroadcastEarlyStopping:
    patience = None
    if (mode := _monitor_mode(config, index)) and config.trainer.stop_after is not None:
        patience = Patience(config.trainer.monitor, mode, config.trainer.stop_after, config.trainer.min_delta)
    return BroadcastEarlyStopping(
        patience,
        max_hours=config.trainer.max_hours,
        signals=signals,
        unreadable=lambda: len(data.unreadable.of_epoch),
        most_unreadable=lambda: data.most_unreadable,
        save=last.save,
        # An accelerator would have to finish each step before the next is prepared.
        every=1 if config.launcher.accelerator == "cpu" else 10,
    )


def _monitor_mode(config: TrainConfig, index: Index) -> str | None:
    """Whether the best has the ``min`` or the ``max`` of what is monitored; None without validation."""
    return WATCHED[config.trainer.monitor] if "val" in index.splits else None


def _scaled(config: TrainConfig) -> Optimizer:
    """The optimizer with its learning rate for all ranks together."""
    ranks = config.launcher.devices * config.launcher.nodes
    rate = config.optimizer.lr * rate_factor(config.optimizer.scale, ranks)
    if rate != config.optimizer.lr:
        rule = (
            f"optimizer.lr={config.optimizer.lr:g}, {ranks} ranks, optimizer.scale={config.optimizer.scale}"
        )
        log.info("the learning rate is %g: %s", rate, rule)
    return replace(config.optimizer, lr=rate)


def _end(stop: Stop, config: TrainConfig, data: BinData, folder: Path) -> None:
    """Raise where what stopped the training stops the command, too."""
    if stop.reason is Reason.SIGNAL:
        how = f" on rank {stop.rank}: `bincount train resume={folder}` goes on"
        raise Stopped(signal.Signals(stop.number), how)
    if stop.reason is Reason.UNREADABLE:
        raise BincountError(
            f"{stop}, more than data.max_bad={config.data.max_bad:g} allows, which is "
            f"{data.most_unreadable:,}: {data.unreadable.summary() or 'see the log'}"
        )


def _resume_from(config: TrainConfig, folder: Path) -> Path | None:
    """The checkpoint that :func:`last_checkpoint` found whole."""
    if config.resume is None:
        return None
    return next((folder / name for name in (run.LAST, run.PREVIOUS) if (folder / name).exists()), None)


def _start(course: Course) -> Start:
    epoch, steps = course.start.epoch, course.start.steps
    return Start(epoch, steps, course.steps_of(epoch), course.scheduled)


def _facts(config: TrainConfig, index: Index) -> dict[str, Any]:
    """What a counter must know beside the weights."""
    return {
        "model": asdict(config.model),
        "objective": asdict(config.objective),
        "counts": asdict(index.counts),
        "image_size": list(config.data.height_width),
        "stored": asdict(index.image_size),
        "index_digest": index.digest,
    }


def _copies(config: TrainConfig, folder: Path) -> Copies | None:
    """The second place of the run's checkpoints, laid out like the folder of runs."""
    if config.trainer.checkpoint_copy is None:
        return None
    top = config.trainer.checkpoint_copy.rstrip("/")
    return Copies(folder, f"{top}/{config.experiment}/{folder.name}")


def _model(config: TrainConfig, index: Index, fresh: bool) -> tuple[torch.nn.Module, objectives.Objective]:
    """The model and what it learns by. Not ``fresh``: its weights come from a checkpoint."""
    settings = asdict(config.model) if fresh else {**asdict(config.model), "weights": None}
    objective = objectives.build(classes=len(index.counts), **asdict(config.objective))
    model = backbones.build(outputs=objective.outputs, image_size=config.data.height_width, **settings)
    return model, objective


def _model_name(config: TrainConfig) -> str:
    return getattr(config.model, "architecture", config.model.name)


def _precision(launcher: Launcher) -> Any:
    """Lightning's name of the precision; ``auto`` is bf16 where the device computes in it, and so faster."""
    if launcher.precision != "auto":
        return launcher.precision
    if launcher.accelerator == "gpu":
        has_bf16 = torch.cuda.is_bf16_supported()
    else:
        has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16-mixed" if has_bf16 else "32-true"


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
    if copies := _copies(config, folder):
        # Shows before training whether copies can be written there.
        copies.put(folder / "config.yaml")
        copies.finish()
    return folder


@contextlib.contextmanager
def _lightning_quiet() -> Iterator[None]:
    """Silence Lightning where it warns of a choice that we made, or of its own insides."""
    meant = [
        "GPU available but not used",
        "The `srun` command is available",
        "Checkpoint directory .* exists and is not empty",
        "Found .* module.* in eval mode at the start of training",
        "The number of training batches .* is smaller than the logging interval",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    ]
    names = [
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.accelerators.cuda",
        "lightning.pytorch.trainer.connectors.checkpoint_connector",
        "lightning.fabric.utilities.distributed",
    ]
    talkers = [logging.getLogger(name) for name in names]
    levels = [talker.level for talker in talkers]
    with warnings.catch_warnings():
        for message in meant:
            warnings.filterwarnings("ignore", message=f".*{message}")
        for talker in talkers:
            talker.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for talker, level in zip(talkers, levels, strict=True):
                talker.setLevel(level)


def _evaluate(config: TrainConfig, index: Index, folder: Path) -> None:
    split = next((split for split in ("test", "val") if split in index.splits), None)
    if split is None:
        log.info("there is no split to evaluate on; the run is in %s", folder)
        return
    data = EvaluationData(root=None, batch_size=config.data.batch_size, workers=config.data.workers)
    evaluate(EvaluateConfig(run=str(folder), runs=config.runs, split=split, data=data))


def rank(folder: Path) -> None:
    """What torchrun starts on each rank. Exits where it fails or is stopped."""
    if os.environ["RANK"] == "0":
        run.log_to(folder)
    try:
        with Signals() as signals:
            fit(compose.typed("train", run.saved_config(folder)), folder, signals)
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("BINCOUNT_DEBUG") == "1":
            raise
        sys.exit(ranks.report(error))


if __name__ == "__main__":
    rank(Path(sys.argv[1]))
