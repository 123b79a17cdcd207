"""A stand-in for AWS's SMDDP, which is on no package index: gloo, with nothing that SMDDP does not have.

AWS names AllReduce and AllGather as what SMDDP does, with the DDP script's broadcast and barrier; it has no
`new_group`, no other backend beside it, and no ReduceOp.AVG. All else raises here.
https://docs.aws.amazon.com/sagemaker/latest/dg/data-parallel-modify-sdp-pt.html
"""

from typing import Any

from torch import distributed
from torch.distributed import ProcessGroup, ReduceOp

NAME = "smddp"


class Smddp(ProcessGroup):
    def __init__(self, store: Any, rank: int, size: int, timeout: Any):
        super().__init__(rank, size)
        self._gloo = distributed.ProcessGroupGloo(store, rank, size, timeout)

    def getBackendName(self) -> str:  # noqa: N802
        return NAME

    def allreduce(self, tensors: Any, opts: Any = None) -> Any:
        opts = opts or distributed.AllreduceOptions()
        has = (ReduceOp.SUM, ReduceOp.MIN, ReduceOp.MAX)
        assert any(opts.reduceOp == each for each in has), "smddp sums and finds the least and the most"
        return self._gloo.allreduce(tensors, opts)

    def broadcast(self, tensors: Any, opts: Any) -> Any:
        return self._gloo.broadcast(tensors, opts)

    def allgather(self, outputs: Any, inputs: Any, opts: Any = None) -> Any:
        return self._gloo.allgather(outputs, inputs, *([opts] if opts else []))

    def barrier(self, opts: Any = None) -> Any:
        return self._gloo.barrier(opts or distributed.BarrierOptions())


def _refuse(name: str) -> Any:
    def refused(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"smddp has no {name}")

    return refused


for _name in (
    "allgather_coalesced",
    "allgather_into_tensor_coalesced",
    "_allgather_base",
    "allreduce_coalesced",
    "alltoall",
    "alltoall_base",
    "gather",
    "monitored_barrier",
    "recv",
    "recv_anysource",
    "reduce",
    "reduce_scatter",
    "_reduce_scatter_base",
    "scatter",
    "send",
):
    setattr(Smddp, _name, _refuse(_name))


def _refused_group(*args: Any, **kwargs: Any) -> None:
    raise NotImplementedError("smddp has no new_group")


distributed.new_group = _refused_group  # type: ignore[assignment]
distributed.Backend.register_backend(NAME, Smddp, devices=["cpu", "cuda"])
