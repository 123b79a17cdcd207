"""`bincount train`: shards become a run that counts.

One process trains by itself; with `launcher.devices` above 1, torchrun starts a rank a device on the
configuration in the run folder (`python -m bincount.train RUN_FOLDER`). Then the run is evaluated.
"""

import contextlib
import logging
import os
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
from bincount.config import EvaluateConfig, EvaluationData, Launcher, Plateau, TrainConfig
from bincount.data.course import Course, check_kept
from bincount.data.datamodule import BinData, kept_settings
from bincount.data.index import Index
from bincount.errors import BadInput, nearest
from bincount.evaluate import evaluate
from bincount.model import backbones, objectives
from bincount.model.metrics import WATCHED
from bincount.model.module import CountModule
from bincount.training import loggers, ranks, sealed
from bincount.training.checkpoints import FACTS, CounterFacts, keep_checkpoints
from bincount.training.copies import Copies
from bincount.training.reporting import EpochLines
from bincount.training.resuming import Resuming, SeedSteps, Start, difference
from bincount.training.sealed import Checkpoint, SealedIO

log = logging.getLogger(__name__)


def train(config: TrainConfig) -> Path:
    """Train and evaluate a run; returns its folder."""
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
    if config.launcher.devices > 1:
        ranks.start(config.launcher.devices, __name__, folder)
    else:
        fit(config, folder)
    _evaluate(config, index, folder)
    return folder


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


def fit(config: TrainConfig, folder: Path) -> None:
    """Train on this rank, until the end or from the last checkpoint on."""
    index = Index.open(config.data.root)
    L.seed_everything(config.seed, workers=False, verbose=False)
    checkpoint = _resume_from(config, folder)
    model, objective = _model(config, index, fresh=checkpoint is None)
    data = BinData(index, config.data, config.seed)
    module = CountModule(
        model,
        objective,
        config.optimizer,
        config.scheduler,
        lambda: data.course.schedule(config.trainer.max_epochs, config.trainer.max_steps),
    )
    validates = "val" in index.splits
    callbacks = [
        Resuming(lambda: _start(data.course)),
        SeedSteps(config.seed),
        *keep_checkpoints(folder, config.trainer, WATCHED[config.trainer.monitor] if validates else None),
        CounterFacts(_facts(config, index)),
        EpochLines(),
    ]
    device = "cuda" if config.launcher.accelerator == "gpu" else "cpu"
    with _lightning_quiet(), _copies(config, folder) or contextlib.nullcontext() as copies:
        checkpoints = SealedIO(device, copies.put if copies else None)
        trainer = L.Trainer(
            accelerator=config.launcher.accelerator,
            devices=config.launcher.devices,
            num_nodes=config.launcher.nodes,
            # Searching takes 0.1 ms a step, and keeps DDP from laying out its buckets anew after the first
            # step: three ranks and more sum in an order that hangs on it, and a resumed run would differ.
            strategy="ddp_find_unused_parameters_true" if config.launcher.devices > 1 else "auto",
            precision=_precision(config.launcher),
            max_epochs=config.trainer.max_epochs,
            max_steps=config.trainer.max_steps or -1,
            gradient_clip_val=config.trainer.clip_gradient,
            limit_val_batches=None if validates else 0,
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
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        checkpoints.finish()


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
    names = ("utilities.rank_zero", "accelerators.cuda", "trainer.connectors.checkpoint_connector")
    talkers = [logging.getLogger(f"lightning.pytorch.{name}") for name in names]
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
    """What torchrun starts on each rank."""
    if os.environ["RANK"] == "0":
        run.log_to(folder)
    fit(compose.typed("train", run.saved_config(folder)), folder)


if __name__ == "__main__":
    rank(Path(sys.argv[1]))
