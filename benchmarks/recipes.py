"""Recipes on the same photos beside each other: the table of docs/results.md.

    python benchmarks/recipes.py data/abid abid2018 best --size 64 --seeds 3

Trains `experiment=NAME` with the seeds 0, 1, …, each in the run folder `runs/NAME/SIZEpx-seedS`. A run
that was stopped goes on, one that is done is only read: a second call prints the table again. Passes are
photos and collages that went through the network, over the photos to train on. Seconds are of the epochs
alone. Of several seeds: the mean ± the standard deviation between them.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from bincount.config import COLLAGES_LEARNT

DECODINGS = ("mode", "median", "mean")
EPOCH = re.compile(r" INFO epoch .*  (\d+) s  [\d,]+ photos/s$", re.MULTILINE)
HEAD = (
    *("experiment", "seeds", "passes", "seconds", "NLL", "ECE"),
    *(f"{figure}, {decoding}" for decoding in DECODINGS for figure in ("accuracy", "RMSE")),
    "accuracy of each count, own decoding",
)


def results_of(folder: Path) -> Path:
    return folder / "evaluation/test/results.json"


def train(data: str, experiment: str, size: int, seed: int, runs: Path) -> Path:
    """The folder of the run, trained to its end if it was not."""
    name = f"{size}px-seed{seed}"
    folder = runs / experiment / name
    if not results_of(folder).exists():
        begun = (folder / "config.yaml").exists()
        new = [f"experiment={experiment}", f"seed={seed}", f"data.root={data}", f"data.image_size={size}"]
        words = [f"resume={folder}"] if begun else new
        command = [sys.executable, "-m", "bincount", "train", f"runs={runs}", *words]
        if code := subprocess.call(command, env=os.environ | {"BINCOUNT_RUN_ID": name}):
            sys.exit(code)  # it has said why
    return folder


def passes(folder: Path, data: str) -> float:
    """How often as many photos as there are to train on went through the network."""
    config = OmegaConf.load(folder / "config.yaml")
    photos = json.loads((Path(data) / "index.json").read_bytes())["splits"]["train"]["samples"]
    collages = config.pretrain.epochs * round(config.pretrain.photos * COLLAGES_LEARNT)
    return float(config.trainer.max_epochs + collages / photos)


def seconds(folder: Path) -> int:
    return sum(map(int, EPOCH.findall((folder / "log.txt").read_text())))


def figure(values: list[float], digits: int = 3) -> str:
    told = f"{statistics.mean(values):.{digits}f}"
    return f"{told} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else told


def row(experiment: str, folders: list[Path], data: str) -> list[str]:
    results: list[dict[str, Any]] = [json.loads(results_of(folder).read_bytes()) for folder in folders]
    decoded = (
        figure([result["decodings"][decoding][name] for result in results])
        for decoding in DECODINGS
        for name in ("accuracy", "rmse")
    )
    counts = zip(*([each["accuracy"] for each in result["per_count"]] for result in results), strict=True)
    return [
        experiment,
        str(len(folders)),
        f"{passes(folders[0], data):.1f}",
        figure([seconds(folder) for folder in folders], 0),
        *(figure([result[name] for result in results]) for name in ("nll", "ece")),
        *decoded,
        " ".join(f"{statistics.mean(each):.2f}" for each in counts),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", help="the data set, such as data/abid")
    parser.add_argument("experiments", nargs="+", help="names of conf/experiment")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    found = {
        experiment: [
            train(options.data, experiment, options.size, seed, options.runs) for seed in range(options.seeds)
        ]
        for experiment in options.experiments
    }
    rows = [list(HEAD), ["---"] * len(HEAD)]
    rows += [row(experiment, folders, options.data) for experiment, folders in found.items()]
    print("\n".join(f"| {' | '.join(cells)} |" for cells in rows))


if __name__ == "__main__":
    main()
