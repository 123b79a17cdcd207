"""Photos that cannot be read while training: left out, counted, and named once per cause."""

import logging
import math
from collections import Counter
from typing import NamedTuple

log = logging.getLogger(__name__)

#: Causes that are told at the end; of more there is only the number.
MOST_CAUSES = 20


class Unreadable(NamedTuple):
    """A photo that cannot be read."""

    id: str
    shard: str
    cause: str

    def __str__(self) -> str:
        return f"{self.id} in {self.shard}: {self.cause}"


class UnreadablePhotos:
    """What one rank could not read. Of shards each is a cause; of photos, how they are damaged."""

    def __init__(self) -> None:
        self._causes: Counter[str] = Counter()
        self.of_epoch: set[tuple[str, str]] = set()
        """The photos of this epoch, each once."""

    def add(self, photo: Unreadable) -> None:
        """Count a photo, and log it if nothing like it was seen before."""
        whole_shard = photo.cause.startswith("the shard")
        cause = f"{photo.shard}: {photo.cause}" if whole_shard else photo.cause
        if not self._causes[cause]:
            log.warning("a photo cannot be read and is left out, as are others like it: %s", photo)
        self._causes[cause] += 1
        self.of_epoch.add((photo.shard, photo.id))

    def start_epoch(self) -> None:
        """Begin to count anew."""
        self.of_epoch.clear()

    def summary(self) -> str:
        """All causes with how often each was met, the commonest first; empty where there were none."""
        told = [f"{cause} ({number:,})" for cause, number in self._causes.most_common(MOST_CAUSES)]
        more = len(self._causes) - len(told)
        return "; ".join(told) + (f"; and {more:,} more causes" if more > 0 else "")


def allowed(share: float, photos: int) -> int:
    """How many of an epoch's photos may be unreadable before the run stops: a share, and at least one."""
    return max(1, math.ceil(share * photos))
