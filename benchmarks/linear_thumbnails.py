"""How well a linear model counts from thumbnails of 32x32 pixels: what colours and layout alone give away.

    python benchmarks/linear_thumbnails.py data/drawn

Logistic regression on the training split, one for each of several weight decays; the one that is best on
`val` is judged on `test`.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bincount.data.images import decode_jpeg
from bincount.data.index import Index, SplitTable

SIDE = 32
DECAYS = (1e-3, 1e-2, 1e-1, 0.3, 1.0, 3.0)


def thumbnails(table: SplitTable) -> tuple[Tensor, Tensor]:
    """Pixels float32 (photos, 32 * 32 * 3) in 0..1, and counts int64 (photos,)."""
    rows = []
    for row in range(len(table)):
        shard = table.shards[table.shard[row]]
        jpeg = table.store.read_range(shard, int(table.jpeg_offset[row]), int(table.jpeg_length[row]))
        small = Image.fromarray(decode_jpeg(jpeg)).resize((SIDE, SIDE), Image.Resampling.BOX)
        rows.append(np.asarray(small, np.float32).reshape(-1) / 255)
    return torch.from_numpy(np.stack(rows)), torch.from_numpy(table.count)


def fit(pixels: Tensor, counts: Tensor, classes: int, decay: float) -> nn.Linear:
    """Multinomial logistic regression by L-BFGS; ``decay`` weighs the squared weights."""
    model = nn.Linear(pixels.shape[1], classes)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(model(pixels), counts) + decay * model.weight.square().sum() / 2
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    return model


def main(root: Path) -> None:
    """Print the accuracy of each weight decay on val, and of the best one on test."""
    index = Index.open(str(root))
    splits = {split: thumbnails(index.split(split)) for split in ("train", "val", "test")}
    mean, scale = splits["train"][0].mean(dim=0), splits["train"][0].std(dim=0) + 1e-3
    splits = {split: ((pixels - mean) / scale, counts) for split, (pixels, counts) in splits.items()}
    best, chosen = 0.0, None
    for decay in DECAYS:
        model = fit(*splits["train"], len(index.counts), decay)
        accuracy = judge(model, *splits["val"])
        print(f"weight decay {decay:g}: val accuracy {accuracy:.3f}")
        if accuracy > best:
            best, chosen = accuracy, model
    assert chosen is not None
    print(f"the best on val has test accuracy {judge(chosen, *splits['test']):.3f}")


@torch.inference_mode()
def judge(model: nn.Linear, pixels: Tensor, counts: Tensor) -> float:
    """The share of photos whose count is told right."""
    return float((model(pixels).argmax(dim=1) == counts).float().mean())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
