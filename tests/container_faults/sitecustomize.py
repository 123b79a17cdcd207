"""Python imports this first: a rank of a rehearsal notes its steps, and fails where it is told to."""

import os
import sys

if "bincount.fit" in sys.orig_argv:
    from bincount.model.module import CountModule

    _step = CountModule.training_step
    _fails = os.environ.get("REHEARSAL_FAILS", "")

    def _noted(module, batch, batch_index):  # type: ignore[no-untyped-def]
        with open("/opt/ml/output/steps.txt", "a") as file:
            print(module.global_step, file=file)
        if _fails == f"rank {os.environ['RANK']} in step {module.global_step}":
            raise ValueError("this photo is\nupside down")
        return _step(module, batch, batch_index)

    CountModule.training_step = _noted  # type: ignore[method-assign]
