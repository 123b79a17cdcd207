"""`bincount evaluate`: a run and a split become figures, pictures and a report.

evaluation/<split>/results.json  predictions.parquet  confusion.png  examples.png
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich import box
from rich.table import Table

from bincount import pictures, progress, report, run, storage
from bincount.config import EvaluateConfig
from bincount.counter import Counter, load
from bincount.data.datamodule import evaluation_loader
from bincount.data.images import decode_jpeg
from bincount.data.index import UNLABELLED, Index, SplitTable
from bincount.data.plan import Layout
from bincount.errors import BadInput, BincountError
from bincount.model.metrics import baselines, score
from bincount.model.objectives import decode
from bincount.model.published import PUBLISHED

#: Photos shown in examples.png.
EXAMPLES = 12

Results = dict[str, Any]


def evaluate(config: EvaluateConfig) -> None:
    """Evaluate one run, or each of several, and print the figures beside baselines and published ones."""
    names = [config.run] if isinstance(config.run, str) else list(config.run)
    if not names:
        raise BadInput("run=[]: name at least one run")
    folders = [run.find(name, config.runs) for name in names]
    results = {folder: evaluate_run(folder, config) for folder in folders}
    progress.out.print(_table({_label(folder): result for folder, result in results.items()}, config.split))
    for folder in folders:
        progress.out.print(f"report: {folder / 'report.html'}", soft_wrap=True)


def evaluate_run(folder: Path, config: EvaluateConfig) -> Results:
    """Score one run on a split and write what it gave into the run's folder."""
    saved = run.saved_config(folder)
    counter = load(folder)
    index = Index.open(config.data.root or saved.data.root)
    if index.counts != counter.counts:
        raise BadInput(
            f"{index.root} has the counts {', '.join(index.counts.names)}, and the run {folder.name} has "
            f"{', '.join(counter.counts.names)}: prepare the data with the run's max_count and overflow"
        )
    if config.split == UNLABELLED:
        raise BadInput(
            f"split={UNLABELLED}: its photos have no count to compare with; use `bincount predict`"
        )
    table = index.split(config.split)
    probabilities = _probabilities(counter, index, config)
    classes = counter.counts.classes(table.count)
    results: Results = {
        "split": config.split,
        **score(classes, probabilities),
        "baselines": baselines(classes, len(counter.counts)),
        "names": counter.counts.names,
        "data": str(index.root.resolve()),
        "index_digest": index.digest,
    }
    where = folder / "evaluation" / config.split
    storage.write_text(where / "results.json", json.dumps(results, indent=2) + "\n")
    _write_predictions(where / "predictions.parquet", table, classes, probabilities, counter)
    pictures.confusion(where / "confusion.png", results["confusion"], counter.counts.names)
    pictures.examples(where / "examples.png", _examples(table, probabilities))
    report.write(folder)
    return results


def _probabilities(counter: Counter, index: Index, config: EvaluateConfig) -> npt.NDArray[np.float32]:
    """The probability of each count for every photo of the split, float32 (photos, classes)."""
    layout = Layout(1, config.data.workers, config.data.batch_size)
    batches = evaluation_loader(index, config.split, counter.image_size, layout)
    photos = len(index.split(config.split))
    found = np.zeros((photos, len(counter.counts)), dtype=np.float32)
    counted = np.zeros(photos, dtype=np.int64)
    unreadable: list[str] = []
    for batch in progress.track(batches, f"evaluating {config.split}", -(-photos // layout.batch_size)):
        real = batch["weight"] > 0
        rows = batch["row"][real].numpy()
        found[rows] = counter.probabilities(batch["pixels"])[real].numpy()
        counted[rows] += 1
        unreadable += batch["unreadable"]
    if not (counted == 1).all():
        told = "; ".join(unreadable[:3])
        missing = int((counted != 1).sum())
        raise BincountError(f"{missing} of {photos} photos of {config.split} could not be counted: {told}")
    if not np.isfinite(found).all():
        raise BincountError("the run's weights have diverged (NaN): train again with a lower optimizer.lr")
    return found


def _write_predictions(
    path: Path,
    table: SplitTable,
    classes: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    counter: Counter,
) -> None:
    predicted, expected = decode(torch.from_numpy(probabilities))
    columns: dict[str, Any] = {"id": table.id, "count": classes, "predicted": predicted.numpy()}
    columns |= {f"p_{name}": probabilities[:, place] for place, name in enumerate(counter.counts.names)}
    columns["expected"] = expected.numpy()
    with storage.written_whole(path) as partial:
        pq.write_table(pa.table(columns), partial, compression="zstd")


def _examples(table: SplitTable, probabilities: npt.NDArray[np.float32]) -> list[pictures.Example]:
    """Photos spread evenly over the split, as they are stored."""
    rows = np.unique(np.linspace(0, len(table) - 1, EXAMPLES).astype(int))
    examples = []
    for row in rows:
        shard = table.root / table.shards[table.shard[row]]
        jpeg = storage.read_range(shard, int(table.jpeg_offset[row]), int(table.jpeg_length[row]))
        told = int(probabilities[row].argmax())
        examples.append(
            pictures.Example(decode_jpeg(jpeg), int(table.count[row]), told, float(probabilities[row, told]))
        )
    return examples


def _label(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def _table(results: dict[str, Results], split: str) -> Table:
    """Our runs, then what guessing gives on the same photos, then what others published on theirs."""
    first = next(iter(results.values()))
    names = first["names"]
    table = Table("", box=box.SIMPLE_HEAD, padding=(0, 1), title_justify="left", caption_justify="left")
    for name in ("accuracy", "RMSE", "MAE", "within 1", *names):
        table.add_column(name, justify="right", no_wrap=True)
    table.title = f"{split}: {first['samples']:,} photos (on the right: accuracy of each count)"
    for label, result in results.items():
        per_count = [_percent(each["accuracy"]) for each in result["per_count"]]
        table.add_row(
            label,
            _percent(result["accuracy"]),
            f"{result['rmse']:.3f}",
            f"{result['mae']:.3f}",
            _percent(result["within_one"]),
            *per_count,
            style="bold",
        )
    table.add_section()
    majority = first["baselines"]["majority"]
    table.add_row(
        "guessing at random",
        _percent(first["baselines"]["random"]["accuracy"]),
        f"{first['baselines']['random']['rmse']:.3f}",
    )
    table.add_row(
        f"always the commonest, {majority['count']}",
        _percent(majority["accuracy"]),
        f"{majority['rmse']:.3f}",
    )
    table.add_section()
    for published in PUBLISHED:
        rmse = "" if published.rmse is None else f"{published.rmse:.3f}"
        per_count = [_percent(share) for share in published.count_accuracy]
        table.add_row(
            f"{published.name} *",
            _percent(published.accuracy),
            rmse,
            "",
            "",
            *per_count[: len(names)],
            style="dim",
        )
    table.caption = "* published on other splits of ABID"
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"
