"""Several ranks on one machine: torchrun starts a process a device and watches over them."""

import os
import subprocess
import sys
from pathlib import Path

from bincount.errors import BincountError
from bincount.machine import processors


def start(devices: int, module: str, folder: Path) -> None:
    """Run ``python -m MODULE FOLDER`` on every rank and wait. Raises BincountError where one fails.

    The ranks are told the run folder alone: its config.yaml needs no quoting and is parsed once.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={devices}", "-m", module, str(folder)]
    threads = max(1, processors() // devices)
    # DDP warns on each rank of the search for unused parameters, which is meant (see train.fit).
    defaults = {"OMP_NUM_THREADS": str(threads), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    done = subprocess.run(command, env={**defaults, **os.environ})
    if done.returncode:
        raise BincountError(f"training stopped with an error on a rank: see above, and {folder / 'log.txt'}")
