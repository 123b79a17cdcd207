"""Runs of two ranks, killed with SIGKILL again and again and resumed: do they end as if never stopped?

    python benchmarks/killed_runs.py --kills 100 [--seed 0] 2>ranks.log

A run has two workers a rank, augmentation and dropout, and saves after each third step. All its processes are
killed at once, at a random moment of a step, of saving or of validating, until a moment comes too late for
the run; then the next one begins. Only kills that came are counted. Each run that ends is compared, bit by
bit, with one that was never stopped: weights, optimizer, schedule, best checkpoint and metrics.csv, but for
its times. Nothing may be left over either: no half-written file, no process. Ends with 1 where a run differs
or anything is left over; the folder of the runs is kept then. What the ranks say goes to standard error.
"""

import argparse
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from bincount import cli

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from killing import RUN, Moment, differences, kill_until_done, random_moment, register, train_killed

DATA = ["source.photos=96", "source.width=48", "source.height=48", "photos_per_shard=16", "workers=0"]


def random_moments(chance: random.Random) -> Iterator[tuple[list[str], Moment]]:
    while True:
        yield [], random_moment(chance)


def told(kills: Iterable[str]) -> str:
    """How many kills, and how many of each kind: a kill reads "12 ms into step 3"."""
    kinds = Counter(kill.split()[-2] for kill in kills)
    of = ", ".join(f"{number} in {kind}" for kind, number in sorted(kinds.items()))
    return f"{kinds.total()} kills ({of})"


def left_files(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*.partial")]


def left_processes(folder: Path) -> list[str]:
    """Living processes that were started to work in ``folder``, without this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            works_there = process.joinpath("cwd").readlink() == folder
        except OSError:  # it has just ended, or is someone else's
            continue
        if works_there and process.name != str(os.getpid()):
            found.append(f"process {process.name}")
    return found


def main(kills: int, seed: int, folder: Path) -> bool:
    """Whether all went well."""
    results, sys.stdout = sys.stdout, sys.stderr
    os.chdir(folder)
    start = time.monotonic()
    assert cli.main(["prepare", *DATA, f"out={folder / 'data'}"]) == 0
    words = [f"data.root={folder / 'data'}", *RUN]
    train_killed([*words, f"runs={folder / 'whole'}"])
    whole = (folder / "whole/latest").resolve()
    starts = random_moments(random.Random(seed))
    came: list[str] = []
    differing = left = runs = 0
    while len(came) < kills:
        runs += 1
        more = itertools.islice(starts, kills - len(came))
        run, here = kill_until_done(words, folder / f"run-{runs}", more)
        came += here
        faults = differences(whole, run)
        leftover = left_files(run) + left_processes(folder)
        differing += bool(faults)
        left += len(leftover)
        found = [*(f"differs in {fault}" for fault in faults), *(f"left over: {each}" for each in leftover)]
        found += [f"killed {kill}" for kill in here] if found else ["the same"]
        print(f"run {runs}: {told(here)}; {'; '.join(found)}", file=results, flush=True)
    seconds = time.monotonic() - start
    print(f"{told(came)}, {runs} runs, {seconds:.0f} s", file=results)
    print(f"{differing} runs differ, {left} files and processes are left over in {folder}", file=results)
    return not differing and not left


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    # The ranks are forks of this process, and networks this small lose more to waiting for a second thread.
    torch.set_num_threads(1)
    register()
    top = Path(tempfile.mkdtemp()).resolve()
    tempfile.tempdir = str(top)  # where Python's own modules leave folders behind when they are killed
    if not main(given.kills, given.seed, top):
        sys.exit(1)
    shutil.rmtree(top)
