"""A function of photos, however they are given: what a run and an exported file have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import islice
from typing import Generic, TypeVar, overload

from bincount.answer import Answer
from bincount.data.given import ONE, Photo, pixels_of
from bincount.data.images import Pixels

Fitted = TypeVar("Fitted")


class Answering(ABC, Generic[Fitted]):
    """Called with a photo, it answers. ``Fitted``: a photo at the size that is counted."""

    @abstractmethod
    def _fitted(self, photo: Pixels) -> Fitted:
        """The photo, uint8 (height, width, 3), as it is counted."""

    @abstractmethod
    def _answers(self, fitted: list[Fitted]) -> list[Answer]:
        """What is told of each of the photos, which are counted at once."""

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
