"""Rare counts made to weigh as much as common ones, from the index alone: by weights or by repetition."""

import numpy as np
import numpy.typing as npt

#: A photo comes at most so often in an epoch.
MOST_COPIES = 20

Numbers = npt.NDArray[np.int64]


def class_weights(classes: Numbers, number: int) -> npt.NDArray[np.float32]:
    """A weight for each of ``number`` classes: float32 (number,), as n / (classes held * n of the class).

    All classes that are held then weigh the same together, and a photo weighs 1 on average. A class without
    photos has weight 0.
    """
    held = np.bincount(classes, minlength=number)
    share = held * int(np.count_nonzero(held))
    weights = np.zeros(number, np.float32)
    weights[held > 0] = len(classes) / share[held > 0]
    return weights


def copies(classes: Numbers, number: int) -> Numbers:
    """How often each photo comes in an epoch: int64 (photos,), 1 for the commonest class.

    The others come as many whole times as bring them nearest to it, up to MOST_COPIES.
    """
    held = np.bincount(classes, minlength=number)
    wanted = np.rint(held.max(initial=0) / np.maximum(held, 1)).astype(np.int64)
    of_class: Numbers = np.clip(wanted, 1, MOST_COPIES)
    return of_class[classes]
