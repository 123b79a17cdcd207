"""A trained run that counts photos: everything that answers goes through here.

A photo is read, shrunk and resized by the functions that prepared and streamed the training photos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from bincount import run
from bincount.answer import Answer as Answer  # known from here, too
from bincount.answering import Answering
from bincount.data.images import Pixels, read_photo, shrink
from bincount.data.index import Counts, ImageSize
from bincount.data.pixels import fit, normalise
from bincount.errors import BadInput, nearest, one_line
from bincount.model import backbones, objectives
from bincount.model.decoding import DECODINGS, decode, tempered
from bincount.model.objectives import Objective
from bincount.training.checkpoints import FACTS


class PhotoCounter(Protocol):
    """What counts photos: a run (:class:`Counter`), or a file that was exported from one."""

    @property
    def counts(self) -> Counts:
        """Which counts it tells apart."""

    @property
    def decoding(self) -> str:
        """How its probabilities become counts (bincount.model.decoding)."""

    def pixels(self, encoded: bytes) -> Tensor:
        """A JPEG or PNG as it is counted: uint8 (3, height, width). Raises UnreadablePhoto."""

    def probabilities(self, pixels: Tensor) -> Tensor:
        """The probability of each count, float32 (B, classes) on the CPU, of uint8 (B, 3, height, width)."""


@dataclass(frozen=True)
class Counter(Answering[Tensor]):
    """A model and how photos reach it; called with a photo, it answers.

    ``image_size``: (height, width); ``stored``: how photos were kept.

    With ``mirror`` it takes the mean of what it tells of a photo and of its mirror image. ``temperature``
    puts its probabilities right, ``decoding`` makes them counts (bincount.model.decoding).
    """

    model: nn.Module
    objective: Objective
    counts: Counts
    image_size: tuple[int, int]
    stored: ImageSize
    device: torch.device
    mirror: bool = False
    temperature: float = 1.0
    decoding: str = "mode"

    def pixels(self, encoded: bytes) -> Tensor:
        """A JPEG or PNG as the model takes it: uint8 (3, height, width). Raises UnreadablePhoto."""
        return self._fitted(read_photo(encoded))

    def _fitted(self, photo: Pixels) -> Tensor:
        return fit(shrink(photo, self.stored.shortest_side), self.image_size)

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """The probability of each count, float32 (B, classes) on the CPU, of uint8 (B, 3, height, width)."""
        return self.told(pixels.to(self.device)).cpu()

    def told(self, pixels: Tensor) -> Tensor:
        """The same without leaving the device, so that all of it can be exported."""
        shown = normalise(pixels)
        views = [shown, shown.flip(3)] if self.mirror else [shown]
        told = torch.stack([self.objective.posterior(self.model(view).float()) for view in views]).mean(dim=0)
        return tempered(told, self.temperature)

    def count(self, photos: Sequence[bytes]) -> tuple[Tensor, Tensor]:
        """Counts int64 (B,), probabilities float32 (B, classes) of encoded photos. Raises UnreadablePhoto."""
        probabilities = self.probabilities(torch.stack([self.pixels(photo) for photo in photos]))
        return decode(probabilities, self.decoding), probabilities

    def _answers(self, fitted: list[Tensor]) -> list[Answer]:
        return answers_of(self, self.probabilities(torch.stack(fitted)))


def answers_of(counter: PhotoCounter, probabilities: Tensor) -> list[Answer]:
    """What ``counter`` answers for photos to which it gave these probabilities, (B, classes)."""
    counts = decode(probabilities, counter.decoding).tolist()
    pairs = zip(counts, probabilities.tolist(), strict=True)
    return [Answer(count, tuple(shares), counter.counts.more) for count, shares in pairs]


def load(folder: Path, device: str | None = None, decoding: str | None = None) -> Counter:
    """Load the best checkpoint of a run (the last one where there was no validation), as it was calibrated.

    ``device`` None: a GPU where there is one. ``decoding`` None: what was best on validation.
    Raises BadInput for a run without a usable checkpoint, a device that is not there, an unknown decoding.
    """
    if decoding is not None and decoding not in DECODINGS:
        raise BadInput(f"decoding={decoding}: {nearest(decoding, DECODINGS)}")
    path = run.weights(folder)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        facts, state = checkpoint[FACTS], checkpoint["state_dict"]
    except Exception as error:
        # torch tells damage in many ways: EOFError, RuntimeError, UnpicklingError, KeyError, BadZipFile …
        raise BadInput(f"{path} cannot be read, it may be damaged: {one_line(error)}") from None
    counts, image_size = Counts(**facts["counts"]), (facts["image_size"][0], facts["image_size"][1])
    objective = objectives.build(classes=len(counts), **facts["objective"])
    settings = {**facts["model"], "weights": None, "freeze": False}
    model = backbones.build(outputs=objective.outputs, image_size=image_size, **settings)
    prefix = "model."
    model.load_state_dict(
        {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    )
    where = _device(device)
    model = model.eval().to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    calibrated = run.calibration(folder)
    return Counter(
        model,
        objective,
        counts,
        image_size,
        ImageSize(**facts["stored"]),
        where,
        facts.get("mirror", False),  # runs before there was a choice
        temperature=calibrated.get("temperature", 1.0),
        decoding=decoding or calibrated.get("decode", "mode"),
    )


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built for the CPU alone asserts
        raise BadInput(f"device={name}: {one_line(error).partition('. ')[0]}") from None
