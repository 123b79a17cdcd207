"""An ONNX file that `bincount export` wrote, as a function of photos. Torch is not needed.

Photos are resized by Pillow, which gives the same pixels as torch, or pixels that differ by 1 of 255.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bincount import storage
from bincount.answer import Answer
from bincount.answering import Answering
from bincount.data.images import Pixels, read_photo
from bincount.errors import BadInput, install, one_line

#: Under which name a file has its facts.
FACTS = "bincount"

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


@dataclass(frozen=True)
class Facts:
    """What an exported file tells of itself.

    ``counts``: the names of the classes, the last of them ``more`` where there is such a class.
    ``image_size``: (height, width) in pixels. ``shortest_side``: pixels to which the shorter side of a larger
    photo is resized first; None: not at all. ``weights``: the digest of the checkpoint.
    """

    counts: tuple[str, ...]
    image_size: tuple[int, int]
    shortest_side: int | None
    decoding: str
    run: str
    weights: str
    version: str

    @property
    def more(self) -> bool:
        """Whether the last class stands for all greater counts."""
        return self.counts[-1] == "more"

    def as_json(self) -> str:
        """As it stands in the file."""
        return json.dumps(asdict(self))


def facts_of(notes: Mapping[str, str | bytes], path: Path) -> Facts:
    """The facts among the notes of a file. Raises BadInput where it has none."""
    try:
        found = json.loads(notes[FACTS])
        found |= {"counts": tuple(found["counts"]), "image_size": tuple(found["image_size"])}
        return Facts(**found)
    except (KeyError, TypeError, ValueError):
        told = "was not written by `bincount export`, or by another version: export it again"
        raise BadInput(f"{path} {told}") from None


@dataclass(frozen=True)
class Exported(Answering[Pixels]):
    """An ONNX file, called with photos as a :class:`bincount.counter.Counter` is."""

    session: Any
    facts: Facts

    def pixels(self, encoded: bytes) -> Pixels:
        """A JPEG or PNG as the graph takes it: uint8 (3, height, width). Raises UnreadablePhoto."""
        return self._fitted(read_photo(encoded))

    def told(self, pixels: Pixels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Counts (B,) and the probability of each count (B, classes), of uint8 (B, 3, height, width)."""
        probabilities, counts = self.session.run(["probabilities", "count"], {"pixels": pixels})
        return counts, probabilities

    def _fitted(self, photo: Pixels) -> Pixels:
        side, (height, width) = self.facts.shortest_side, photo.shape[:2]
        image = Image.fromarray(photo)
        if side is not None and min(height, width) > side:
            scale = side / min(height, width)
            size = (max(side, round(width * scale)), max(side, round(height * scale)))
            image = image.resize(size, Image.Resampling.BICUBIC)
        image = image.resize(self.facts.image_size[::-1], Image.Resampling.BILINEAR)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def _answers(self, fitted: list[Pixels]) -> list[Answer]:
        counts, probabilities = self.told(np.stack(fitted))
        pairs = zip(counts.tolist(), probabilities.tolist(), strict=True)
        return [Answer(count, tuple(shares), self.facts.more) for count, shares in pairs]


def load(name: str | os.PathLike[str], threads: int | None = None) -> Exported:
    """Open an ONNX file that `bincount export` wrote. ``threads`` None: one a processor.

    Raises BadInput, in one line, where it cannot be used or onnxruntime is not installed.
    """
    path = storage.folder(os.fspath(name))
    try:
        import onnxruntime
    except ImportError:
        raise BadInput(f"{path}: onnxruntime is not installed: {install('export')}") from None
    if not path.is_file():
        raise BadInput(f"{path}: there is no such file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime has an exception of its own for each kind of damage, without a common class.
        raise BadInput(f"{path} cannot be read, it may be damaged: {one_line(error)}") from None
    return Exported(session, facts_of(session.get_modelmeta().custom_metadata_map, path))
