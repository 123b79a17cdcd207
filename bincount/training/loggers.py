"""Where the figures of a run go while it trains: always metrics.csv, and Weights & Biases if wanted."""

import csv
import io
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from bincount import config, storage
from bincount.errors import BadInput, install

log = logging.getLogger(__name__)

#: Seconds between two writings of metrics.csv.
EVERY = 10.0


def build(settings: config.TrainConfig, folder: Path) -> list[Logger]:
    """The loggers of a run. Raises BadInput where wandb is wanted and not installed."""
    loggers: list[Logger] = [MetricsFile(folder / "metrics.csv")]
    if isinstance(settings.logger, config.WandbLogger):
        loggers.append(_wandb(settings, settings.logger, folder))
    return loggers


def _wandb(settings: config.TrainConfig, wandb: config.WandbLogger, folder: Path) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    # A trial is in the folder of its sweep, and has but a number.
    above = folder.parent.name
    name = folder.name if above == settings.experiment else f"{above}-{folder.name}"
    try:
        return WandbLogger(
            project=wandb.project,
            entity=wandb.entity,
            name=f"{settings.experiment}/{name}",
            id=name,
            resume="allow",
            save_dir=folder,
            mode=wandb.mode,
            config=asdict(settings),
        )
    except ModuleNotFoundError:
        raise BadInput(f"logger=wandb: wandb is not installed: {install('wandb')}") from None


class MetricsFile(Logger):
    """Keeps ``metrics.csv``; a resumed run goes on with its rows up to the step that it resumes from."""

    def __init__(self, path: Path):
        super().__init__()
        self._path, self._written, self._failed = path, 0.0, False
        self._rows: dict[int, dict[str, float | str]] = {}
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self._rows = {int(row["step"]): dict(row) for row in csv.DictReader(file)}

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run folder's config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        at = step or 0
        # Rows behind this step are of a run that got further before it was stopped and resumed here.
        while self._rows and next(reversed(self._rows)) > at:
            self._rows.popitem()
        self._rows.setdefault(at, {"step": at}).update(metrics)

    @rank_zero_only
    def save(self) -> None:
        """Write the file, now and then: Lightning asks with every row, and the file only grows."""
        if time.monotonic() - self._written >= EVERY:
            self.write()

    @rank_zero_only
    def write(self) -> None:
        """Write the file now; where that fails it is told once, and training goes on."""
        self._written = time.monotonic()
        others = {name for row in self._rows.values() for name in row} - {"step", "epoch"}
        names = ["step", "epoch", *sorted(others)]
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows.values())
        try:
            storage.write_text(self._path, text.getvalue())
        except OSError as error:
            if not self._failed:
                log.error("%s cannot be written: %s", self._path, error.strerror or error)
            self._failed = True
        else:
            self._failed = False

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.write()
