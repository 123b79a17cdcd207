"""What this machine offers, and what ends a process on it."""

import os
import signal
import threading
import time

#: Names the process without which this one should not go on.
PARENT = "BINCOUNT_PARENT"

#: Seconds that a process has to end by itself once its parent is gone.
ALONE = 120.0


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_without(parent: int) -> None:
    """End this process, as by SIGTERM, once ``parent``, which started it, is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ALONE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
