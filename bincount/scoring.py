"""An evaluation's files, and the scoring of predictions that were made elsewhere.

results.json  predictions.parquet  confusion.png  reliability.png  counts.png
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bincount import pictures, report, storage
from bincount.config import EvaluateConfig
from bincount.data.index import UNLABELLED, Counts, Index, SplitTable, probability_columns
from bincount.data.labels import read_labels
from bincount.data.predictions import Predictions, read_predictions
from bincount.errors import BadInput
from bincount.model.decoding import expected
from bincount.model.guessing import baselines
from bincount.model.metrics import Score, score, score_told
from bincount.report import galleries
from bincount.report.scored import Scored

#: Ids that an error names.
NAMED = 3

Classes = npt.NDArray[np.int64]


def write(
    where: Path,
    results: dict[str, Any],
    ids: Any,
    classes: Classes,
    told: Classes,
    probabilities: npt.NDArray[np.float32] | None,
) -> Scored:
    """Write figures, answers and pictures of an evaluation into the folder ``where``.

    ``ids``: of the photos, as a list or an Arrow array; ``probabilities``: (photos, classes), None where
    there are none. ``results`` has the ``names`` of the classes.
    """
    # Written last: where it is, the rest is, and is of the same answers.
    figures = where / "results.json"
    figures.unlink(missing_ok=True)
    where.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {"id": ids, "count": classes, "predicted": told}
    names = results["names"]
    if probabilities is not None:
        columns |= dict(zip(probability_columns(names), probabilities.T, strict=True))
        columns["expected"] = expected(torch.from_numpy(probabilities)).numpy()
        pictures.reliability(where / "reliability.png", classes, probabilities)
    with storage.written_whole(where / "predictions.parquet") as partial:
        pq.write_table(pa.table(columns), partial, compression="zstd")
    pictures.confusion(where / "confusion.png", results["confusion"], names)
    pictures.counts(where / "counts.png", names, results["per_count"])
    storage.write_text(figures, json.dumps(results, indent=2) + "\n")
    return Scored.read(where)


@dataclass(frozen=True)
class Labelled:
    """Photos with the counts that they are scored against: ``id``, and ``count``, int64, of each.

    ``counts``: which classes there are; None: as the predictions say. ``known``: ids of further photos, whose
    answers are left alone. ``table`` and ``digest`` are those of a data set, None of a label file.
    """

    name: str
    id: list[str]
    count: Classes
    counts: Counts | None = None
    known: frozenset[str] = frozenset()
    table: SplitTable | None = None
    digest: str | None = None
    source: str | None = None
    split: str | None = None


def score_predictions(config: EvaluateConfig) -> tuple[Path, dict[str, Any]]:
    """Score ``config.predictions`` against labels; gives the folder of what came of it, and the results."""
    address = str(config.predictions)
    out = _folder(config)
    predictions, labelled = read_predictions(address), _labelled(config)
    rows, places, missing, unknown = _matched(predictions, labelled, config)
    names = _class_names(predictions, labelled)
    told = _told(predictions, names, places, address)
    classes = _classes(labelled, names, rows)
    probabilities = None
    if predictions.probabilities is not None:
        if predictions.names != names:
            of_labels, of_file = ", ".join(names), ", ".join(predictions.names or [])
            raise BadInput(f"{address} has probabilities of {of_file}, and {labelled.name} has {of_labels}")
        probabilities = predictions.probabilities[places].astype(np.float32)
    results: dict[str, Any] = {
        "split": labelled.split,
        "predictions": storage.absolute(address),
        "labels": labelled.name,
        "missing": missing,
        "unknown": unknown,
        "decode": None,
        "temperature": None,
        **_figures(classes, told, len(names), probabilities),
        "baselines": baselines(classes, len(names)),
        "names": names,
        "data": labelled.table.store.address if labelled.table else None,
        "source": labelled.source,
        "index_digest": labelled.digest,
    }
    scored = write(out, results, [labelled.id[row] for row in rows], classes, told, probabilities)
    if labelled.table is not None:
        galleries.write(scored, labelled.table.take(rows))
    report.write_scored(out)
    return out, results


def _folder(config: EvaluateConfig) -> Path:
    if config.out is not None:
        out = storage.folder(config.out)
        if (out / "config.yaml").exists():
            raise BadInput(f"out={config.out} is a run's folder: choose another")
        return out
    if "://" in str(config.predictions):
        raise BadInput("out is not given: add out=FOLDER, where the figures of these predictions are written")
    path = storage.folder(str(config.predictions))
    return path.with_name(f"{path.stem}.evaluation")


def _labelled(config: EvaluateConfig) -> Labelled:
    if (config.labels is None) == (config.data.root is None):
        raise BadInput("predictions: say what they are scored against: labels=FILE, or data.root=… split=…")
    if config.labels is not None:
        return _of_file(config.labels)
    index = Index.open(str(config.data.root))
    if config.split == UNLABELLED:
        raise BadInput(f"split={UNLABELLED}: its photos have no count to compare with")
    table = index.split(config.split)
    known = frozenset(index.rows()["id"].to_pylist())
    return Labelled(
        f"{index.store.address}, split {config.split}",
        table.id.to_pylist(),
        table.count,
        index.counts,
        known,
        table,
        index.digest,
        str(index.summary["source"].get("name")),
        config.split,
    )


def _of_file(address: str) -> Labelled:
    labels, skipped = read_labels(address)
    if skipped:
        first = skipped[0]
        raise BadInput(
            f"labels={address}: {len(skipped):,} rows cannot be used, the first {first.file}: {first.reason}"
        )
    if not labels:
        raise BadInput(f"labels={address}: there is no label in it")
    counts = np.array([label.count for label in labels], dtype=np.int64)
    return Labelled(storage.absolute(address), [label.id for label in labels], counts)


def _matched(
    predictions: Predictions, labelled: Labelled, config: EvaluateConfig
) -> tuple[Classes, Classes, int, int]:
    """The rows of the labels that have an answer and the place of each answer; how many photos have none, and
    how many answers are to unknown photos.
    """
    place = {id: number for number, id in enumerate(predictions.id)}
    labels = frozenset(labelled.id)
    unknown = [id for id in predictions.id if id not in labels and id not in labelled.known]
    if unknown and config.missing == "error":
        told = f"{len(unknown):,} ids that {labelled.name} has not, such as {', '.join(unknown[:NAMED])}"
        raise BadInput(
            f"predictions={config.predictions} has {told}: ids must be equal to the letter; "
            "missing=skip leaves them out"
        )
    rows = [row for row, id in enumerate(labelled.id) if id in place]
    missing = [id for id in labelled.id if id not in place]
    if not rows:
        raise BadInput(f"predictions={config.predictions} has no answer to any photo of {labelled.name}")
    if missing and config.missing == "error":
        raise BadInput(
            f"predictions={config.predictions}: {len(missing):,} of {len(labelled.id):,} photos of "
            f"{labelled.name} have no answer, such as {', '.join(missing[:NAMED])}: "
            "missing=skip leaves them out"
        )
    return np.array(rows), np.array([place[labelled.id[row]] for row in rows]), len(missing), len(unknown)


def _class_names(predictions: Predictions, labelled: Labelled) -> list[str]:
    """The names of the classes: those of the data set, of the probabilities, or of the counts there are."""
    if labelled.counts is not None:
        return labelled.counts.names
    return predictions.names or Counts(int(labelled.count.max()), "more" in predictions.told).names


def _told(predictions: Predictions, names: list[str], places: Classes, address: str) -> Classes:
    place = {name: number for number, name in enumerate(names)}
    for each in places.tolist():
        if predictions.told[each] not in place:
            raise BadInput(
                f"predictions={address}: {predictions.id[each]} has the count {predictions.told[each]}, and "
                f"the counts are {names[0]} to {names[-1]}"
            )
    return np.array([place[predictions.told[each]] for each in places.tolist()], dtype=np.int64)


def _classes(labelled: Labelled, names: list[str], rows: Classes) -> Classes:
    more = names[-1] == "more"
    counts = Counts(len(names) - 1 - more, more)
    classes = counts.classes(labelled.count[rows]) if more else labelled.count[rows]
    if (classes >= len(names)).any():
        row = int(np.argmax(classes >= len(names)))
        id, count = labelled.id[rows[row]], classes[row]
        raise BadInput(
            f"{labelled.name}: {id} has the count {count}, and the predictions go to {names[-1]} only"
        )
    return classes


def _figures(
    classes: Classes, told: Classes, number: int, probabilities: npt.NDArray[np.float32] | None
) -> Score:
    found = score_told(classes, told, number)
    if probabilities is None:
        return found
    of = score(classes, probabilities)
    return {**found, "nll": of["nll"], "ece": of["ece"], "decodings": of["decodings"]}
