"""One rank's training: brings data, model and training together, as the configuration of a run says.

torchrun starts it with `python -m bincount.fit RUN_FOLDER`.
"""

import contextlib
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch

from bincount import compose, run
from bincount.config import WATCHED, Launcher, Optimizer, TrainConfig
from bincount.data.course import Course
from bincount.data.datamodule import BinData
from bincount.data.index import Index
from bincount.errors import BincountError, Stopped
from bincount.model import backbones, objectives
from bincount.model.module import CountModule
from bincount.model.optimizers import rate_factor
from bincount.training import loggers, profiling, ranks
from bincount.training.averaging import MovingAverage
from bincount.training.channel import Together, backend
from bincount.training.checkpoints import CounterFacts, KeepBest, KeepLast
from bincount.training.copies import Copies
from bincount.training.health import HealthFigures
from bincount.training.heartbeat import Heartbeat
from bincount.training.reporting import EpochLines
from bincount.training.resuming import Resuming, SeedSteps, Start
from bincount.training.sealed import SealedIO
from bincount.training.signals import Signals, leave_signals_alone
from bincount.training.stopping import BroadcastEarlyStopping, Patience, Reason, Stop, StoppedTraining

log = logging.getLogger(__name__)


def fit(config: TrainConfig, folder: Path, signals: Signals) -> None:
    """Train on this rank, until the end or a reason to stop, from the last checkpoint on if there is one.

    Raises Stopped for a signal, and BincountError where too many photos cannot be read.
    """
    index = Index.open(config.data.root)
    L.seed_everything(config.seed, workers=False, verbose=False)
    checkpoint = _resume_from(config, folder)
    model, objective = model_of(_with_pretrained(config, folder), index, fresh=checkpoint is None)
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
        CounterFacts(counter_facts(config, index)),
        EpochLines(),
        HealthFigures(model, objective.clueless(), lambda: data.waited),
        stopping,
    ]
    if config.trainer.ema is not None:
        callbacks.append(MovingAverage(config.trainer.ema))
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
    profiler = profiling.build(config.trainer.profiler, folder)
    with _lightning_quiet(), copies_of(config, folder) or contextlib.nullcontext() as copies:
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
            profiler=profiler,
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
        if config.trainer.sync_batchnorm:
            log.info("batch norms are over the photos of all ranks (trainer.sync_batchnorm)")
        module.to(memory_format=torch.channels_last)
        leave_signals_alone(trainer)
        try:
            with signals.noted(), contextlib.suppress(StoppedTraining), profiling.written(profiler):
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
    _end(stopping.stop, signals, config, data, folder)


def _end(stop: Stop, signals: Signals, config: TrainConfig, data: BinData, folder: Path) -> None:
    """Raise where what stopped the training stops the command, too."""
    how = ranks.going_on(folder, config.launcher.nodes)
    if stop.reason is Reason.SIGNAL:
        raise Stopped(signal.Signals(stop.number), f" on rank {stop.rank}: {how}")
    if signals.received is not None:  # while the last epoch was saved, when nobody asks any more
        raise Stopped(signals.received, f" after training: {how}")
    if stop.reason is Reason.UNREADABLE:
        raise BincountError(
            f"{stop}, more than data.max_bad={config.data.max_bad:g} allows, which is "
            f"{data.most_unreadable:,}: {data.unreadable.summary() or 'see the log'}"
        )


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
        log.info(
            "the learning rate is %g: optimizer.lr=%g scaled for %d ranks (optimizer.scale=%s)",
            rate,
            config.optimizer.lr,
            ranks,
            config.optimizer.scale,
        )
    return replace(config.optimizer, lr=rate)


def _resume_from(config: TrainConfig, folder: Path) -> Path | None:
    """The checkpoint that :func:`last_checkpoint` found whole."""
    if config.resume is None:
        return None
    return next((folder / name for name in (run.LAST, run.PREVIOUS) if (folder / name).exists()), None)


def _start(course: Course) -> Start:
    epoch, steps = course.start.epoch, course.start.steps
    return Start(epoch, steps, course.steps_of(epoch), course.scheduled)


def _with_pretrained(config: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration with the weights to begin with: those of the run's pre-training, if it had one."""
    pretrained = folder / run.PRETRAINING / run.LAST
    if not config.pretrain.epochs or not pretrained.exists():
        return config
    return replace(config, model=replace(config.model, weights=str(pretrained)))


def model_of(config: TrainConfig, index: Index, fresh: bool) -> tuple[torch.nn.Module, objectives.Objective]:
    """The model and what it learns by. Not ``fresh``: its weights come from a checkpoint."""
    settings = _backbone(config) if fresh else {**_backbone(config), "weights": None}
    objective = objectives.build(classes=len(index.counts), **asdict(config.objective))
    model = backbones.build(outputs=objective.outputs, image_size=config.data.height_width, **settings)
    return model, objective


def _backbone(config: TrainConfig) -> dict[str, Any]:
    """What `backbones.build` is told of the model."""
    return {key: value for key, value in asdict(config.model).items() if key != "mirror"}


def counter_facts(config: TrainConfig, index: Index) -> dict[str, Any]:
    """What a counter must know beside the weights."""
    return {
        "model": _backbone(config),
        "mirror": config.model.mirror,
        "objective": asdict(config.objective),
        "counts": asdict(index.counts),
        "image_size": list(config.data.height_width),
        "stored": asdict(index.image_size),
        "index_digest": index.digest,
    }


def copies_of(config: TrainConfig, folder: Path) -> Copies | None:
    """The second place of the run's checkpoints, laid out like the folder of runs."""
    if config.trainer.checkpoint_copy is None:
        return None
    top = config.trainer.checkpoint_copy.rstrip("/")
    return Copies(folder, f"{top}/{config.experiment}/{folder.name}")


def _precision(launcher: Launcher) -> Any:
    """Lightning's name of the precision; ``auto`` is bf16 where the device computes in it, and so faster."""
    if launcher.precision != "auto":
        return launcher.precision
    if launcher.accelerator == "gpu":
        has_bf16 = torch.cuda.is_bf16_supported()
    else:
        has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16-mixed" if has_bf16 else "32-true"


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


def rank(folder: Path) -> None:
    """What torchrun starts on each rank. Exits where it fails or is stopped."""
    if os.environ["RANK"] == "0":
        run.log_to(folder)
    try:
        with Signals() as signals:
            fit(compose.typed("train", run.saved_config(folder)), folder, signals)
    except (Exception, KeyboardInterrupt) as error:
        code = ranks.report(error)
        if os.environ.get("BINCOUNT_DEBUG") == "1":
            traceback.print_exc()
        sys.exit(code)


if __name__ == "__main__":
    rank(Path(sys.argv[1]))
