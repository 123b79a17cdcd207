"""Learning to count collages before the photos themselves.

Collages are bins put together from items cut out of the training photos (bincount.data.collage). A run keeps
what it learnt from them in its folder `pretraining/`, laid out like a run's; the collages go once it has.
"""

import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from omegaconf import OmegaConf

from bincount import run, storage
from bincount.compose import compose, typed
from bincount.config import COLLAGES_LEARNT, Logger, PrepareConfig, TrainConfig
from bincount.data.index import Index
from bincount.fit import fit
from bincount.prepare import make
from bincount.training import ranks, sealed
from bincount.training.signals import Signals

log = logging.getLogger(__name__)

#: Pixels of a collage's side at least: what a bin can be drawn on.
SMALLEST = 32

#: The folder of the collages in that of the pre-training.
COLLAGES = "collages"


def pretrain(config: TrainConfig, index: Index, folder: Path, signals: Signals) -> None:
    """Pre-train the run of this folder, or go on with it; what was done already is left as it is."""
    where = folder / run.PRETRAINING
    collages, gone = where / COLLAGES, where / f".{COLLAGES}.gone"
    shutil.rmtree(gone, ignore_errors=True)
    if (where / run.LAST).exists() and not collages.exists():
        return
    log.info("pre-training on %s collages of the training photos", f"{config.pretrain.photos:,}")
    if not (collages / "index.json").exists():
        make(_collages(config, index, collages))
    own = _own(config, collages, resumed=sealed.newest(where) is not None)
    (where / "checkpoints").mkdir(parents=True, exist_ok=True)
    storage.write_text(where / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(asdict(own))))
    if config.launcher.devices > 1:
        ranks.start(config.launcher.devices, "bincount.fit", where)
        signals.install()  # torchrun took them over
    else:
        fit(own, where, signals)
    # Renamed first: a part of them could neither be learnt from nor made whole.
    shutil.rmtree(collages.rename(gone))
    log.info("training on the photos")


def _collages(config: TrainConfig, index: Index, out: Path) -> PrepareConfig:
    height, width = config.data.height_width
    words = {
        "source": "collage",
        "source.cut": config.data.root,
        "source.photos": config.pretrain.photos,
        "source.width": max(width, SMALLEST),
        "source.height": max(height, SMALLEST),
        "source.difficulty": config.pretrain.difficulty,
        "out": out,
        "seed": config.seed,
        "max_count": index.counts.max_count,
        "overflow": "class" if index.counts.more else "skip",
        "split.train": COLLAGES_LEARNT,
        "split.val": 1 - COLLAGES_LEARNT,
        "split.test": 0,
        "shortest_side": "null",
    }
    found: PrepareConfig = typed("prepare", compose("prepare", [f"{key}={words[key]}" for key in words]))
    return found


def _own(config: TrainConfig, collages: Path, resumed: bool) -> TrainConfig:
    """The configuration of the pre-training by itself."""
    model, optimizer = config.model, replace(config.optimizer, lr=config.pretrain.lr or config.optimizer.lr)
    model = replace(model, freeze=model.freeze and model.weights is not None)  # a fresh body has to learn
    data = replace(config.data, root=str(collages), fraction=1.0, balance="none", reader="ranges", cache=None)
    trainer = replace(
        config.trainer,
        max_epochs=config.pretrain.epochs,
        max_steps=None,
        stop_after=None,
        checkpoint_copy=None,
        profiler=None,
    )
    return replace(
        config,
        resume=run.PRETRAINING if resumed else None,
        data=data,
        model=model,
        optimizer=optimizer,
        trainer=trainer,
        pretrain=replace(config.pretrain, epochs=0),
        logger=Logger(name="csv"),
    )
