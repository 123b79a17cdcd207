"""What benchmarks/serving.py compares with: LitServe, which collects photos of many requests, too.

python benchmarks/serving_litserve.py RUN PORT '{"threads": 2, "batch_size": 32, "wait_ms": 5}'
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import Body
from litserve import LitAPI, LitServer

from bincount.counter import Answer, answers_of, load


class Counting(LitAPI):
    def setup(self, device: Any) -> None:
        torch.set_num_threads(self.threads)
        self.counter = load(self.folder, device="cpu")

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> torch.Tensor:
        return self.counter.pixels(request)

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(inputs)

    def predict(self, pixels: torch.Tensor) -> list[Answer]:
        return answers_of(self.counter, self.counter.probabilities(pixels))

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        return output

    def encode_response(self, answer: Answer) -> dict[str, Any]:
        shares = dict(zip(self.counter.counts.names, answer.probabilities, strict=True))
        return {"answers": [{"count": answer.count, "probabilities": shares}]}


if __name__ == "__main__":
    settings = json.loads(sys.argv[3])
    waiting = float(settings["wait_ms"]) / 1000
    api = Counting(max_batch_size=int(settings["batch_size"]), batch_timeout=waiting, api_path="/invocations")
    api.folder, api.threads = Path(sys.argv[1]), int(settings["threads"])
    server = LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
