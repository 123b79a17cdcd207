"""A rank that writes down the ids it sees inside `training_step`. Started by torchrun, from a test."""

import os
import sys
from pathlib import Path
from typing import Any

from bincount import fit
from bincount.data.index import Index
from bincount.model.module import CountModule


def main(folder: Path) -> None:
    from bincount import compose, run

    config = compose.typed("train", run.saved_config(folder))
    ids = Index.open(config.data.root).split("train").id
    log = (folder / f"ids-{os.environ['RANK']}.txt").open("a", encoding="utf-8")
    step = CountModule.training_step

    def logged_step(module: CountModule, batch: dict[str, Any], batch_index: int) -> Any:
        real = batch["row"][batch["weight"] > 0].tolist()
        print(
            module.trainer.current_epoch,
            batch_index,
            *(ids[row].as_py() for row in real),
            file=log,
            flush=True,
        )
        return step(module, batch, batch_index)

    CountModule.training_step = logged_step  # type: ignore[method-assign]
    fit.rank(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
