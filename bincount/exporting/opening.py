"""A run, or a file that was exported from one: whatever counts photos, by its name."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bincount import counter, exported, run, storage
from bincount.answer import Answer
from bincount.answering import Answering
from bincount.counter import PhotoCounter
from bincount.data.images import Pixels, read_photo, shrink
from bincount.data.index import Counts
from bincount.data.pixels import fit
from bincount.errors import BadInput, one_line
from bincount.exported import FACTS, SUFFIXES, Facts


@dataclass(frozen=True)
class FileCounter(Answering[Tensor]):
    """An exported file that counts photos as the run does that it came from: photos are resized alike.

    ``graph``: from uint8 (B, 3, height, width) to probabilities float32 (B, classes) and counts int64 (B,).
    """

    graph: Callable[[Tensor], tuple[Tensor, Tensor]]
    facts: Facts
    decoding: str

    @property
    def counts(self) -> Counts:
        """Which counts it tells apart."""
        more = self.facts.more
        return Counts(len(self.facts.counts) - 1 - more, more)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of what it takes."""
        return self.facts.image_size

    def pixels(self, encoded: bytes) -> Tensor:
        """A JPEG or PNG as the graph takes it: uint8 (3, height, width). Raises UnreadablePhoto."""
        return self._fitted(read_photo(encoded))

    def probabilities(self, pixels: Tensor) -> Tensor:
        """The probability of each count, float32 (B, classes), of uint8 (B, 3, height, width)."""
        return self.graph(pixels)[0]

    def _fitted(self, photo: Pixels) -> Tensor:
        return fit(shrink(photo, self.facts.shortest_side), self.facts.image_size)

    def _answers(self, fitted: list[Tensor]) -> list[Answer]:
        return counter.answers_of(self, self.probabilities(torch.stack(fitted)))


def open_counter(
    name: str, runs: str, decoding: str | None = None, device: str | None = None
) -> PhotoCounter:
    """The run, or the exported file, of this name. ``decoding`` and ``device`` as in bincount.counter.load.

    A file is counted with on the CPU. Raises BadInput where it cannot be used.
    """
    if is_file(name):
        found = open_file(storage.folder(name))
        return replace(found, decoding=decoding) if decoding else found
    return counter.load(run.find(name, runs), device, decoding)


def is_file(name: str | os.PathLike[str]) -> bool:
    """Whether this names an exported file, and not a run."""
    return Path(name).suffix in SUFFIXES.values()


def open_file(path: Path, format: str | None = None, threads: int | None = None) -> FileCounter:
    """Open an exported file; ``format`` None: by how its name ends. Raises BadInput."""
    if (format or path.suffix) in ("onnx", SUFFIXES["onnx"]):
        found = exported.load(path, threads)

        def graph(pixels: Tensor) -> tuple[Tensor, Tensor]:
            counts, probabilities = found.told(pixels.contiguous().numpy())
            return torch.from_numpy(probabilities), torch.from_numpy(counts)

        return FileCounter(graph, found.facts, found.facts.decoding)
    return _open_program(path)


def _open_program(path: Path) -> FileCounter:
    notes = {FACTS: ""}
    if not path.is_file():
        raise BadInput(f"{path}: there is no such file")
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            module = torch.export.load(file, extra_files=notes).module()
    except Exception as error:  # torch tells damage in many ways
        raise BadInput(f"{path} cannot be read, it may be damaged: {one_line(error)}") from None
    facts = exported.facts_of(notes, path)
    return FileCounter(torch.inference_mode()(module), facts, facts.decoding)
