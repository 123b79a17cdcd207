"""What benchmarks/serving.py compares with: a handler of FastAPI as most are written.

python benchmarks/serving_plain.py RUN PORT '{"threads": 2}'
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import Depends, FastAPI, Request

from bincount.counter import answers_of, load


def app(folder: Path) -> FastAPI:
    counter, made = load(folder, device="cpu"), FastAPI()

    async def body(request: Request) -> bytes:
        return await request.body()

    @made.post("/invocations")
    def invocations(photo: bytes = Depends(body)) -> dict[str, Any]:
        pixels = counter.pixels(photo)
        (answer,) = answers_of(counter, counter.probabilities(pixels[None]))
        shares = dict(zip(counter.counts.names, answer.probabilities, strict=True))
        return {"answers": [{"count": answer.count, "probabilities": shares}]}

    return made


if __name__ == "__main__":
    settings = json.loads(sys.argv[3])
    torch.set_num_threads(int(settings["threads"]))
    uvicorn.run(
        app(Path(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False
    )
