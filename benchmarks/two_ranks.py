"""Photos a second of two ranks of one thread each: our Trainer beside a bare loop of DistributedDataParallel.

    python benchmarks/two_ranks.py [--data DIR] [--model resnet34] [--precision bf16-mixed] [--rounds 19]

Both are started alike, by `ranks.start`. They take the same photos in the same batches (it is checked) from
the same shards, through the same loader and augmentation, to the same network in channels-last memory, with
the same fused optimizer, over gloo. The bare loop is `for batch in loader`: forward, cross-entropy, backward,
step, with torch's DistributedDataParallel as it is, and nothing else. So the difference is what all the rest
costs: Lightning's loops, our callbacks, agreeing whether to stop, losses summed over ranks, logging, the
learning rate's schedule.

They take turns of a few steps, one waiting while the other computes, so that what else happens on the machine
falls on both alike. A turn begins and ends where the forward of a step begins. A round is a turn of each; the
first warms up. What comes before the first turn and after the last, such as saving, is not counted.
"""

import argparse
import itertools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from bincount import cli, compose, fit, run, train
from bincount.config import TrainConfig
from bincount.data.datamodule import loader
from bincount.data.index import Index
from bincount.data.pixels import Augmentation, augment, normalise
from bincount.data.plan import Layout, training_plan
from bincount.data.stream import Batch, EpochStart, PhotoStream
from bincount.model import backbones
from bincount.model.module import CountModule
from bincount.model.optimizers import build_optimizer
from bincount.training import ranks

RANKS = 2

#: Variables that tell a rank which of LOOPS it does, and for how many steps on end.
LOOP, TURN = "TWO_RANKS_LOOP", "TWO_RANKS_TURN"


class Turns:
    """Called by a rank where each forward begins: notes when it was and which photos, and keeps the turns.

    A line of its file has the time, the time at which it was let go on, and the rows. The ranks of a loop
    that has done its turn write a byte each to each rank of the other loop, which wait for as many.
    """

    def __init__(self, folder: Path):
        self._loop, rank = os.environ[LOOP], int(os.environ["RANK"])
        self._file = notes(folder, self._loop, rank).open("w", buffering=1)
        self._its_pipe = pipe(folder, self._loop, rank)
        other = next(loop for loop in LOOPS if loop != self._loop)
        self._other_pipes = [pipe(folder, other, of_rank) for of_rank in range(RANKS)]
        self._step = 0

    def __call__(self, batch: Batch) -> None:
        came = time.monotonic()
        if self._step == 0:
            self._open()
        if self._step % int(os.environ[TURN]) == 0:
            self._change()
        print(came, time.monotonic(), *batch["row"].tolist(), file=self._file)
        self._step += 1

    def _open(self) -> None:
        """Each end waits for its other end, so the loops open them in opposite order."""
        if self._loop == "ours":
            self._wait_at = self._its_pipe.open("rb", buffering=0)
        self._tell = [path.open("wb", buffering=0) for path in self._other_pipes]
        if self._loop == "bare":
            self._wait_at = self._its_pipe.open("rb", buffering=0)

    def _change(self) -> None:
        if self._step > 0:
            for other in self._tell:
                other.write(b".")
        if self._step > 0 or self._loop == "bare":  # ours begins
            for _ in range(RANKS):
                self._wait_at.read(1)  # nothing comes once the others have ended


def notes(folder: Path, loop: str, rank: int) -> Path:
    return folder / f"{loop}-{rank}.txt"


def pipe(folder: Path, loop: str, rank: int) -> Path:
    return folder / f"{loop}-{rank}.pipe"


def ours(folder: Path) -> None:
    turns, step = Turns(folder), CountModule.training_step

    def noting(module: CountModule, batch: Batch, batch_index: int) -> Any:
        turns(batch)
        return step(module, batch, batch_index)

    CountModule.training_step = noting  # type: ignore[method-assign]
    fit.rank(folder)


def bare(folder: Path) -> None:
    config = compose.typed("train", run.saved_config(folder))
    turns, index = Turns(folder), Index.open(config.data.root)
    distributed.init_process_group("gloo")
    torch.manual_seed(config.seed)
    network = backbones.build(config.model.name, len(index.counts), config.data.height_width, None, False)
    model = DistributedDataParallel(network.to(memory_format=torch.channels_last))
    optimizer = build_optimizer(config.optimizer, model.parameters())
    augmentation = Augmentation(**vars(config.data.augment))
    in_bf16 = torch.autocast("cpu", torch.bfloat16, enabled=config.launcher.precision == "bf16-mixed")
    for batch in itertools.islice(batches(index, config), config.trainer.max_steps):
        pixels = augment(normalise(batch["pixels"]), batch["draws"], augmentation)
        turns(batch)
        with in_bf16:
            outputs = model(pixels)
        loss = F.cross_entropy(outputs.float(), batch["count"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    distributed.destroy_process_group()


def batches(index: Index, config: TrainConfig) -> Iterator[Batch]:
    """This rank's batches of the first epoch."""
    data, table = config.data, index.split("train")
    rows, layout = torch.arange(len(table)).numpy(), Layout(RANKS, data.workers, data.batch_size)
    plan = training_plan(
        rows, table.shard, layout, seed=config.seed, epoch=0, span=data.span, window=data.window
    )
    start, rank = EpochStart(plan, seed=config.seed), distributed.get_rank()
    stream = PhotoStream(table, index.counts, data.height_width, rank, lambda: start)
    return iter(loader(stream, data.workers))


LOOPS = {"ours": ours, "bare": bare}


def start(loop: str, folder: Path) -> None:
    os.environ[LOOP] = loop
    ranks.start(RANKS, Path(__file__).stem, folder)


def start_all(folder: Path) -> None:
    """Do both loops at once; where one fails the other is ended."""
    for loop in LOOPS:
        for rank in range(RANKS):
            os.mkfifo(pipe(folder, loop, rank))
    started = [multiprocessing.Process(target=start, args=(loop, folder)) for loop in LOOPS]
    for each in started:
        each.start()
    while running := [each for each in started if each.is_alive()]:
        connection.wait([each.sentinel for each in running])
        if any(each.exitcode for each in started):
            for each in running:
                each.terminate()
    if any(each.exitcode for each in started):
        sys.exit("a loop has failed: see above")


def turns_of(folder: Path, loop: str, steps: int) -> tuple[list[float], list[list[str]]]:
    """The seconds of each of a loop's turns, until all its ranks had ended it, and the rows of its steps."""
    lines = [
        [line.split() for line in notes(folder, loop, rank).read_text().splitlines()] for rank in range(RANKS)
    ]
    seconds = []
    for first in range(0, len(lines[0]) - steps, steps):
        began = min(float(of_rank[first][1]) for of_rank in lines)
        ended = max(float(of_rank[first + steps][0]) for of_rank in lines)
        seconds.append(ended - began)
    return seconds, [words[2:] for of_rank in lines for words in of_rank]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a data set's folder; else bins are drawn")
    parser.add_argument("--model", default="resnet34")
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--precision", default="32-true", help="or bf16-mixed")
    parser.add_argument("--steps", type=int, default=2, help="of a turn")
    parser.add_argument("--rounds", type=int, default=19)
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent), TURN: str(given.steps)}
    max_steps = given.rounds * given.steps + 1  # where the last forward begins, the last turn ends
    with tempfile.TemporaryDirectory() as name:
        data = given.data or Path(name) / "drawn"
        if given.data is None:
            words = ["source=synthetic", f"source.photos={RANKS * given.batch * max_steps}", f"out={data}"]
            assert cli.main(["prepare", *words, "split.train=1", "split.val=0", "split.test=0"]) == 0
        if len(Index.open(str(data)).split("train")) < RANKS * given.batch * max_steps:
            parser.error(f"{data} has too few photos for {max_steps} steps in an epoch")
        words = [f"data.root={data}", f"model={given.model}", f"data.image_size={given.side}"]
        words += [f"data.batch_size={given.batch}", f"data.workers={given.workers}"]
        words += [f"launcher.devices={RANKS}", f"launcher.precision={given.precision}"]
        words += [f"trainer.max_steps={max_steps}", f"runs={name}/runs"]
        folder = train.run_folder(compose.typed("train", compose.compose("train", words)))
        start_all(folder)
        (our_seconds, our_rows), (bare_seconds, bare_rows) = (
            turns_of(folder, loop, given.steps) for loop in LOOPS
        )
    assert our_rows == bare_rows, "the loops took different photos"
    photos = RANKS * given.batch * given.steps
    rounds = [(photos / mine, photos / its) for mine, its in zip(our_seconds, bare_seconds, strict=True)][1:]
    for mine, its in rounds:
        print(f"ours {mine:6.1f}   bare {its:6.1f} photos/s   {mine / its:.3f}")
    mine, its = (statistics.median(rates) for rates in zip(*rounds, strict=True))
    ratio = statistics.median(mine / its for mine, its in rounds)
    print(
        f"median: ours {mine:.1f}, bare {its:.1f} photos/s; in a round ours has {ratio:.3f} of the bare loop"
    )


if __name__ == "__main__":
    if LOOP in os.environ:
        LOOPS[os.environ[LOOP]](Path(sys.argv[1]))
    else:
        main()
