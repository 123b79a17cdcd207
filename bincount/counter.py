"""A trained run that counts photos: everything that answers goes through here.

A photo is read, shrunk and resized by the functions that prepared and streamed the training photos.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import overload

import torch
from torch import Tensor, nn

from bincount import run
from bincount.data.given import ONE, Photo, pixels_of
from bincount.data.images import Pixels, read_photo, shrink
from bincount.data.index import Counts, ImageSize
from bincount.data.pixels import fit, normalise
from bincount.errors import BadInput, nearest, one_line
from bincount.model import backbones, objectives
from bincount.model.decoding import DECODINGS, decode, tempered
from bincount.model.objectives import Objective
from bincount.training.checkpoints import FACTS


@dataclass(frozen=True)
class Answer:
    """What a run tells of one photo.

    ``count``: the number of items. ``probabilities``: that of each count, so ``probabilities[3]`` is that of
    three items. With ``more`` the last of them, and a ``count`` that is its place, stands for so many items
    or more (``overflow=class`` of `bincount prepare`).
    """

    count: int
    probabilities: tuple[float, ...]
    more: bool = False

    @property
    def expected(self) -> float:
        """The expected number of items, which need not be whole."""
        return sum(count * share for count, share in enumerate(self.probabilities))


@dataclass(frozen=True)
class Counter:
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
        shown = normalise(pixels.to(self.device))
        views = [shown, shown.flip(3)] if self.mirror else [shown]
        told = torch.stack([self.objective.posterior(self.model(view).float()) for view in views]).mean(dim=0)
        return tempered(told, self.temperature).cpu()

    def count(self, photos: Sequence[bytes]) -> tuple[Tensor, Tensor]:
        """Counts int64 (B,), probabilities float32 (B, classes) of encoded photos. Raises UnreadablePhoto."""
        probabilities = self.probabilities(torch.stack([self.pixels(photo) for photo in photos]))
        return decode(probabilities, self.decoding), probabilities

    @overload
    def __call__(self, photo: Photo, /) -> Answer: ...  # type: ignore[overload-overlap]  # a str is also many

    @overload
    def __call__(self, photo: Iterable[Photo], /, *, batch_size: int = ...) -> list[Answer]: ...

    def __call__(self, photo: Photo | Iterable[Photo], /, *, batch_size: int = 64) -> Answer | list[Answer]:
        """Count a photo, or several: the answer, or a list of the answers in their order.

        A photo is a path (or ``s3://`` address) of a JPEG or PNG, its bytes, an image of Pillow, or a NumPy
        array, uint8 (height, width, 3) in RGB. Of several, ``batch_size`` are counted at once.
        Raises UnreadablePhoto, which names the file, or ``photo 2`` for the second where it is none; NotThere
        where there is no such file; BadInput for what is no photo.
        """
        if isinstance(photo, ONE) or not isinstance(photo, Iterable):
            return self._answers([self._fitted(pixels_of(photo, "the photo"))])[0]
        fitted = (self._fitted(pixels_of(each, f"photo {n}")) for n, each in enumerate(photo, start=1))
        answers: list[Answer] = []
        while batch := list(islice(fitted, batch_size)):
            answers += self._answers(batch)
        return answers

    def _answers(self, fitted: list[Tensor]) -> list[Answer]:
        told = self.probabilities(torch.stack(fitted))
        counts = decode(told, self.decoding).tolist()
        pairs = zip(counts, told.tolist(), strict=True)
        return [Answer(count, tuple(shares), self.counts.more) for count, shares in pairs]


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
