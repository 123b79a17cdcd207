"""Where ranks agree. It takes only what gloo, NCCL and SMDDP all have: sums, broadcasts and barriers."""

import importlib
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed

from bincount.errors import one_line

log = logging.getLogger(__name__)

#: Time after which a rank that can start no collective with the others is given up by torch itself.
LONGEST = timedelta(minutes=30)


class Together(DDPStrategy):
    """Data parallel training that every backend can do, and that tells of its collectives.

    Lightning reduces a mean by ReduceOp.AVG, which SMDDP has not; here it is a sum over the ranks' number.
    """

    def __init__(self, backend: str | None, passed: Callable[[], None], **more: Any):
        """``backend`` None: as torch chooses for the device. ``passed`` is called before each collective."""
        # Searching takes 0.1 ms a step, and keeps DDP from laying out its buckets anew after the first step:
        # three ranks and more sum in an order that hangs on it, and a resumed run would differ.
        super().__init__(process_group_backend=backend, timeout=LONGEST, find_unused_parameters=True, **more)
        self._passed = passed

    def reduce(self, tensor: Tensor, group: Any = None, reduce_op: Any = "mean") -> Tensor:
        """The sum over all ranks, or their mean, in place."""
        self._passed()
        distributed.all_reduce(tensor)
        if str(reduce_op) == "sum":
            return tensor
        assert str(reduce_op) in ("mean", "avg"), reduce_op
        return tensor.copy_(tensor / self.world_size)

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        self._passed()
        super().barrier(*args, **kwargs)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        self._passed()
        return super().broadcast(obj, src)


def agree(trainer: L.Trainer, mine: Sequence[int], decide: Callable[[list[int]], Sequence[int]]) -> list[int]:
    """What rank 0 decides on the sums over all ranks of ``mine``, on every rank.

    All ranks must come here. What the others decide counts for nothing but its length, which is the same.
    """
    if trainer.world_size == 1:
        return list(decide(list(mine)))
    device = trainer.strategy.root_device
    sums = trainer.strategy.reduce(torch.tensor(mine, device=device), reduce_op="sum")
    decided = torch.tensor(decide(sums.tolist()), device=device)
    distributed.broadcast(decided, 0)
    told: list[int] = decided.tolist()
    return told


def backend(wanted: str, accelerator: str) -> str | None:
    """torch's name of the backend: None is its own choice, gloo for CPUs and NCCL for GPUs.

    ``smddp`` is of AWS's images alone; elsewhere it is the backend of the device, and the log says why.
    """
    if wanted == "auto":
        return None
    if wanted == "smddp":
        try:
            importlib.import_module("smdistributed.dataparallel.torch.torch_smddp")
        except ImportError as error:
            instead = "nccl" if accelerator == "gpu" else "gloo"
            log.warning("launcher.backend=smddp cannot be used here, %s is: %s", instead, one_line(error))
            return instead
    return wanted
