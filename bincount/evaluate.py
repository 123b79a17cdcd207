"""`bincount evaluate`: a run and a split, or predictions made elsewhere, become figures and a report.

evaluation/<split>/results.json  predictions.parquet  *.png  gallery.json  gallery/
"""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bincount import comparison, pictures, progress, report, run, scoring, storage
from bincount.config import EvaluateConfig, EvaluationData
from bincount.counter import Counter, load
from bincount.data.datamodule import evaluation_loader
from bincount.data.images import decode_jpeg
from bincount.data.index import UNLABELLED, Index, SplitTable, probability_columns
from bincount.data.plan import Layout
from bincount.data.unreadable import Unreadable
from bincount.errors import BadInput, BincountError
from bincount.model.decoding import best_decoding, decode, fit_temperature, tempered
from bincount.model.guessing import baselines
from bincount.model.metrics import score
from bincount.report import audited, galleries, summary

log = logging.getLogger(__name__)

#: Photos shown in examples.png.
EXAMPLES = 12

Results = dict[str, Any]


def evaluate(config: EvaluateConfig) -> None:
    """Evaluate one run, each of several, or predictions, and print the figures beside baselines and published
    ones.
    """
    if config.predictions is not None:
        _evaluate_predictions(config)
        return
    if config.labels is not None or config.out is not None:
        raise BadInput("labels and out are for predictions made elsewhere: add predictions=FILE")
    names = [config.run] if isinstance(config.run, str) else list(config.run)
    if not names:
        raise BadInput("run=[]: name at least one run")
    folders = list(dict.fromkeys(run.find(name, config.runs) for name in names))
    results = {folder: evaluate_run(folder, config) for folder in folders}
    named = {_label(folder): result for folder, result in results.items()}
    progress.out.print(comparison.table(named, config.split, progress.out.width))
    for folder in folders:
        progress.out.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    if len(folders) > 1:
        page = storage.folder(config.runs) / "comparison.html"
        labels = {_label(folder): folder for folder in folders}
        report.write_comparison(page, labels, config.split)
        progress.out.print(f"side by side: {page}", soft_wrap=True)


def _evaluate_predictions(config: EvaluateConfig) -> None:
    out, results = scoring.score_predictions(config)
    name = Path(str(config.predictions)).name
    progress.out.print(comparison.table({name: results}, results["split"] or name, progress.out.width))
    if left_out := summary.left_out(results):
        progress.out.print(f"left out of all figures: {left_out}")
    progress.out.print(f"report: {out / 'report.html'}", soft_wrap=True)


def evaluate_run(folder: Path, config: EvaluateConfig) -> Results:
    """Score one run on a split and write what it gave into the run's folder."""
    saved = run.saved_config(folder)
    counter = load(folder, decoding=config.decode)
    index = Index.open(config.data.root or saved.data.root)
    if index.counts != counter.counts:
        of_data, of_run = ", ".join(index.counts.names), ", ".join(counter.counts.names)
        raise BadInput(
            f"{index.store.address} has the counts {of_data}, and the run {folder.name} has {of_run}: "
            "prepare the data with the run's max_count and overflow"
        )
    if config.split == UNLABELLED:
        raise BadInput(
            f"split={UNLABELLED}: its photos have no count to compare with; use `bincount predict`"
        )
    table = index.split(config.split)
    probabilities, _, missing = _probabilities(counter, index, config.split, config.data)
    if missing:
        raise BincountError(missing)
    classes = counter.counts.classes(table.count)
    told = decode(torch.from_numpy(probabilities), counter.decoding).numpy()
    results: Results = {
        "split": config.split,
        "decode": counter.decoding,
        "temperature": counter.temperature,
        **score(classes, probabilities, counter.decoding),
        "baselines": baselines(classes, len(counter.counts)),
        "names": counter.counts.names,
        "data": storage.absolute(index.store.address),
        "source": str(index.summary["source"].get("name")),
        "index_digest": index.digest,
    }
    where = folder / "evaluation" / config.split
    names = counter.counts.names
    scored = scoring.write(where, results, table.id, classes, told, probabilities)
    pictures.examples(where / "examples.png", _examples(table, classes, told, probabilities, names))
    galleries.write(scored, table, counter)
    audited.forget(where)
    report.write(folder)
    return results


def calibrate(folder: Path, index: Index, data: EvaluationData) -> None:
    """Find on the photos of ``val`` which temperature makes a run's probabilities right, and which decoding
    is best, and write it to the run's calibration.json.

    Photos that cannot be read are left out, and told. Raises BincountError where none can.
    """
    counter = replace(load(folder), temperature=1.0)
    told, readable, missing = _probabilities(counter, index, "val", data)
    if not readable.any():
        raise BincountError(missing)
    if missing:
        log.warning("the run is calibrated on the other photos: %s", missing)
    given = torch.from_numpy(told[readable]).double()
    classes = counter.counts.classes(index.split("val").count[readable])
    counts = torch.from_numpy(classes)
    temperature = fit_temperature(counts, given)
    right = tempered(given, temperature)
    before, after = score(classes, given), score(classes, right)
    found = {
        "split": "val",
        "samples": after["samples"],
        "temperature": temperature,
        "decode": best_decoding(counts, right),
        "nll": {"before": before["nll"], "after": after["nll"]},
        "ece": {"before": before["ece"], "after": after["ece"]},
        "decodings": after["decodings"],
    }
    storage.write_text(folder / run.CALIBRATION, json.dumps(found, indent=2) + "\n")
    names = ["count", *probability_columns(counter.counts.names)]
    with storage.written_whole(folder / run.ANSWERS) as partial:
        pq.write_table(pa.table([classes, *right.numpy().T], names=names), partial)


def _probabilities(
    counter: Counter, index: Index, split: str, data: EvaluationData
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], str]:
    """The probability of each count for every photo of the split, float32 (photos, classes), which of them
    could be counted, bool (photos), and what there is to say of the others; nothing where there are none.
    """
    layout = Layout(1, data.workers, data.batch_size)
    batches = evaluation_loader(index, split, counter.image_size, layout)
    photos = len(index.split(split))
    found = np.zeros((photos, len(counter.counts)), dtype=np.float32)
    counted = np.zeros(photos, dtype=np.int64)
    unreadable: list[Unreadable] = []
    for batch in progress.track(batches, f"evaluating {split}", -(-photos // layout.batch_size)):
        real = batch["weight"] > 0
        rows = batch["row"][real].numpy()
        found[rows] = counter.probabilities(batch["pixels"])[real].numpy()
        counted[rows] += 1
        unreadable += batch["unreadable"]
    if not np.isfinite(found).all():
        raise BincountError("the run's weights have diverged (NaN): train again with a lower optimizer.lr")
    readable = counted == 1
    causes = "; ".join(map(str, unreadable[:3]))
    missing = f"{int((~readable).sum())} of {photos} photos of {split} could not be counted: {causes}"
    return found, readable, "" if readable.all() else missing


def _examples(
    table: SplitTable,
    classes: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    names: list[str],
) -> list[pictures.Example]:
    """Photos spread evenly over the split, as they are stored."""
    rows = np.unique(np.linspace(0, len(table) - 1, EXAMPLES).astype(int))
    examples = []
    for row in rows:
        count = int(predicted[row])
        shown = names[classes[row]], names[count], float(probabilities[row, count])
        examples.append(pictures.Example(decode_jpeg(table.jpeg(int(row))), *shown))
    return examples


def _label(folder: Path) -> str:
    return folder.name if folder.parent.name == "default" else f"{folder.parent.name}/{folder.name}"
