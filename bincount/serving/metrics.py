"""What is measured of the service, for Prometheus.

Of several workers each counts its own; as they share a folder, each tells the sums of all.
"""

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

#: Names the folder in which several workers keep what they count; prometheus-client's own word.
SHARED = "PROMETHEUS_MULTIPROC_DIR"

#: The type of what :meth:`Metrics.text` gives.
TYPE = "text/plain; version=0.0.4; charset=utf-8"

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, which nobody reads

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counts and times; a registry of its own, so that there may be two services in a process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "bincount_requests", "Requests answered.", ["path", "method", "status"], registry=registry
        )
        self.seconds = Histogram(
            "bincount_request_seconds",
            "From a request's headers to its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.photos = Counter("bincount_photos", "Photos counted.", registry=registry)
        self.batch = Histogram(
            "bincount_batch_photos", "Photos counted at once.", buckets=_SIZES, registry=registry
        )
        self.counting = Histogram(
            "bincount_batch_seconds", "To count a batch.", buckets=_SECONDS, registry=registry
        )
        self.queue = Gauge(
            "bincount_queue_photos",
            "Photos accepted and not answered yet.",
            multiprocess_mode="livesum",
            registry=registry,
        )

    def text(self) -> bytes:
        """Everything, as Prometheus reads it: of all workers, where there are several."""
        if SHARED not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
