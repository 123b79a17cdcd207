"""A counter as a graph from pixels to probabilities and counts, written as ONNX or by torch.export."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from bincount.counter import Counter
from bincount.errors import BadInput, BincountError, install, one_line
from bincount.exported import FACTS, Facts
from bincount.model.decoding import decode

#: What `torch.onnx.export` and the check of its file need beside torch.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class Graph(nn.Module):
    """All that comes after resizing: normalising, mirror image, model, posterior, temperature, decoding."""

    def __init__(self, counter: Counter):
        super().__init__()
        self.model, self.objective = counter.model, counter.objective  # whose weights belong to the graph
        self._counter = counter

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities float32 (B, classes) and counts int64 (B,) of uint8 (B, 3, height, width)."""
        probabilities = self._counter.told(pixels)
        return probabilities, decode(probabilities, self._counter.decoding)


def check_installed(format: str) -> None:
    """Raise BadInput where something is missing that this format needs."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise BadInput(f"bincount export needs torch 2.6 or newer, and this is {torch.__version__}")
    for package in PACKAGES if format == "onnx" else ():
        if find_spec(package) is None:
            raise BadInput(
                f"format=onnx: {package} is not installed: {install('export')}, or write format=torch"
            )


def program_of(counter: Counter) -> ExportedProgram:
    """The counter, which is on the CPU, as a program for any number of photos. Raises BincountError."""
    # Two, since torch takes a single photo for a number that never changes.
    example = torch.zeros(2, 3, *counter.image_size, dtype=torch.uint8)
    with _quiet():
        try:
            return torch.export.export(
                Graph(counter), (example,), dynamic_shapes={"pixels": {0: Dim("batch")}}, strict=False
            )
        except Exception as error:  # what a network does that has no graph is told in many ways
            model = type(counter.model).__name__
            raise BincountError(f"{model} cannot be exported: {one_line(error)}") from error


def write_onnx(program: ExportedProgram, facts: Facts, path: Path) -> None:
    """One file with weights and facts. Raises BincountError."""
    with _quiet():
        try:
            written = torch.onnx.export(
                program,
                dynamo=True,
                input_names=["pixels"],
                output_names=["probabilities", "count"],
                verbose=False,
            )
            assert written is not None
            written.model.metadata_props[FACTS] = facts.as_json()
            written.save(path, external_data=False)
        except Exception as error:
            raise BincountError(f"torch cannot write this run as ONNX: {one_line(error)}") from error


def write_program(program: ExportedProgram, facts: Facts, path: Path) -> None:
    """One archive, as ``torch.export.load`` reads it, with the facts as an extra file."""
    with _quiet(), path.open("wb") as file:
        torch.export.save(program, file, extra_files={FACTS: facts.as_json()})


@contextmanager
def _quiet() -> Iterator[None]:
    """What torch warns of is of its own inside; whether the file is right is checked afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
