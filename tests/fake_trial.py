"""Stands for `bincount train` where a test is about the sweep: figures are worked out from the words at once.

An `optimizer.lr` above 1 fails, above 10 as bad input. The trial that FAKE_SIGNAL names signals the sweep,
and waits to be stopped; resumed it ends as the others do.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

folder = Path(os.environ["BINCOUNT_RUN_ID"])
config, score = folder / "config.yaml", folder / "evaluation/val/results.json"
words = dict(word.split("=", 1) for word in sys.argv[1:])
if resumed := "resume" in words:
    words = json.loads(config.read_text())
config.write_text(json.dumps(words))
variables = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
start = time.time()
if os.environ.get("FAKE_SIGNAL") == folder.name and not resumed:
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
rate = float(words["optimizer.lr"])
if rate > 1:
    print(f"bincount: optimizer.lr={rate:g}: that is too much", file=sys.stderr)
    print("and a last word of some library", file=sys.stderr)
    sys.exit(2 if rate > 10 else 1)
figure = 1 / (1 + (math.log10(rate) + 2) ** 2) - 0.1 * words.get("model", "").endswith("34")
score.parent.mkdir(parents=True)
score.write_text(json.dumps({"accuracy": figure, "rmse": 1 - figure, "mae": 1 - figure, "nll": 2 - figure}))
told = {"words": words, "variables": variables, "resumed": resumed, "start": start, "end": time.time()}
(folder / "told.json").write_text(json.dumps(told))
