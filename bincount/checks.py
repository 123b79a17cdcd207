"""What would stop a training, or make it train in vain, told by its configuration and its data set's index.

Nothing here needs torch or a photo. `bincount train` asks before it begins; `launch/` asks before it sends a
job. A check gives the line that people are told, or None.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bincount.config import COLLAGES_LEARNT, Plateau, TrainConfig
from bincount.data.balance import copies
from bincount.data.index import Index
from bincount.data.plan import Layout


@dataclass(frozen=True)
class Photos:
    """What an index tells of the photos: the splits that there are, and of the training photos more.

    ``epoch``: photos of a training epoch; ``held``: the names of the counts that they have.
    """

    splits: tuple[str, ...]
    epoch: int
    held: tuple[str, ...]

    @classmethod
    def of(cls, index: Index, config: TrainConfig) -> "Photos":
        """The facts of an opened data set; an epoch is as long as ``data.balance`` and ``fraction`` say."""
        splits = tuple(index.splits)
        if "train" not in splits:
            return cls(splits, 0, ())
        photos = index.summary["splits"]["train"]["samples"]
        if config.data.balance == "oversample":
            table = index.split("train")
            photos = int(np.sum(copies(index.counts.classes(table.count), len(index.counts))))
        held = tuple(name for name, number in index.photos_per_count("train").items() if number)
        return cls(splits, max(1, round(photos * config.data.fraction)), held)


Check = Callable[[TrainConfig, Photos], str | None]


def layout(config: TrainConfig) -> Layout:
    """How many ranks and workers take part."""
    ranks = config.launcher.nodes * config.launcher.devices
    return Layout(ranks, config.data.workers, config.data.batch_size)


# --- data ---------------------------------------------------------------------------------------------


def training_has_photos(config: TrainConfig, photos: Photos) -> str | None:
    if "train" not in photos.splits:
        return f"{config.data.root} has no photos in split 'train': prepare it with split.train above 0"
    return None


def counts_differ(config: TrainConfig, photos: Photos) -> str | None:
    if len(photos.held) == 1:
        held = photos.held[0]
        return f"{config.data.root}: every training photo has the count {held}: there is nothing to learn"
    return None


def enough_photos(config: TrainConfig, photos: Photos) -> str | None:
    taking = layout(config)
    if "train" not in photos.splits or photos.epoch >= taking.global_batch:
        return None
    step = "a step" if taking.world_size == 1 else f"a step of {taking.world_size} ranks"
    return (
        f"data.batch_size={config.data.batch_size}: {step} takes {taking.global_batch:,} photos, and there "
        f"are {photos.epoch:,}"
    )


def plateau_has_validation(config: TrainConfig, photos: Photos) -> str | None:
    if "val" not in photos.splits and isinstance(config.scheduler, Plateau):
        return f"scheduler=plateau: it watches validation, and {config.data.root} has no split 'val'"
    return None


def stopping_has_validation(config: TrainConfig, photos: Photos) -> str | None:
    after = config.trainer.stop_after
    if "val" not in photos.splits and after is not None:
        return f"trainer.stop_after={after}: it watches validation, and {config.data.root} has no split 'val'"
    return None


#: By name; these need the index.
OF_PHOTOS: dict[str, Check] = {
    check.__name__: check
    for check in (
        training_has_photos,
        counts_differ,
        enough_photos,
        plateau_has_validation,
        stopping_has_validation,
    )
}


# --- the configuration alone --------------------------------------------------------------------------


_FOR_GPUS = "that is for GPUs alone, and launcher.accelerator is cpu: leave it out"


def backend_fits_device(config: TrainConfig) -> str | None:
    if config.launcher.accelerator == "cpu" and config.launcher.backend == "nccl":
        return f"launcher.backend=nccl: {_FOR_GPUS}"
    return None


def batchnorm_fits_device(config: TrainConfig) -> str | None:
    if config.launcher.accelerator == "cpu" and config.trainer.sync_batchnorm:
        return f"trainer.sync_batchnorm=true: {_FOR_GPUS}"
    return None


def pretrains_on_one_node(config: TrainConfig) -> str | None:
    epochs, nodes = config.pretrain.epochs, config.launcher.nodes
    if epochs and nodes > 1:
        return (
            f"pretrain.epochs={epochs}: that runs on one node, and launcher.nodes={nodes}: give "
            "launcher.nodes=1 or pretrain.epochs=0"
        )
    return None


def pretrains_without_limit(config: TrainConfig) -> str | None:
    epochs, hours = config.pretrain.epochs, config.trainer.max_hours
    if epochs and hours is not None:
        return (
            f"trainer.max_hours={hours:g}: it would count anew after the {epochs} epochs of pre-training: "
            "leave it or pretrain.epochs out"
        )
    return None


def enough_collages(config: TrainConfig) -> str | None:
    made, step = config.pretrain.photos, layout(config).global_batch
    if config.pretrain.epochs and round(made * COLLAGES_LEARNT) < step:
        return (
            f"pretrain.photos={made:,}: a step takes {step:,} photos, and {COLLAGES_LEARNT:.0%} of them are "
            "learnt from"
        )
    return None


#: By name; these need nothing else.
OF_CONFIG: dict[str, Callable[[TrainConfig], str | None]] = {
    check.__name__: check
    for check in (
        backend_fits_device,
        batchnorm_fits_device,
        pretrains_on_one_node,
        pretrains_without_limit,
        enough_collages,
    )
}


def found(config: TrainConfig, photos: Photos) -> Iterator[str]:
    """The lines of all checks that find something."""
    yield from filter(None, (check(config, photos) for check in OF_PHOTOS.values()))
    yield from filter(None, (check(config) for check in OF_CONFIG.values()))
