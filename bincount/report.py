"""report.html of a run: one self-contained page, written anew after each evaluation."""

import csv
import json
from html import escape
from pathlib import Path
from typing import Any

from bincount import comparison, pictures, storage
from bincount.comparison import number, percent
from bincount.page import document, line, picture, table

#: The pictures of an evaluation, with the text that stands for each where it cannot be seen.
PICTURES = {
    "confusion": "confusion matrix, rows are true counts",
    "reliability": "how often the most probable count is right, over its probability",
    "examples": "photos with the count told",
}


def write(folder: Path) -> None:
    """Gather what lies in the run's folder into its ``report.html``."""
    environment = json.loads((folder / "environment.json").read_bytes())
    name = f"{folder.parent.name}/{folder.name}"
    version = environment["packages"]["bincount"]
    parts = [f"<h1>Run {escape(name)}</h1>", line(f"Started {environment['started']}, bincount {version}.")]
    for results in sorted((folder / "evaluation").glob("*/results.json")):
        parts += _evaluation(json.loads(results.read_bytes()), results.parent)
    parts += _learning(folder)
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    parts += ["<h2>Configuration</h2>", f"<pre>{escape(config)}</pre>"]
    parts += ["<h2>Environment</h2>", f"<pre>{escape(json.dumps(environment, indent=2))}</pre>"]
    storage.write_text(folder / "report.html", document(f"bincount run {name}", parts))


def _evaluation(results: dict[str, Any], folder: Path) -> list[str]:
    figures = [("MAE", number(results["mae"])), ("within one", percent(results["within_one"]))]
    figures += [("NLL", number(results["nll"])), ("ECE", number(results["ece"]))]
    figures += [("NLL of the prior", number(results["baselines"]["prior"]["nll"]))]
    decodings = [
        ("", how, percent(each["accuracy"]), number(each["rmse"]))
        for how, each in results["decodings"].items()
    ]
    per_count = [
        ("", name, f"{each['samples']:,}", percent(each["accuracy"]), number(each["rmse"]))
        for name, each in zip(results["names"], results["per_count"], strict=True)
    ]
    drawn = [(folder / f"{name}.png", told) for name, told in PICTURES.items()]
    return [
        f"<h2>Split {escape(results['split'])}: {results['samples']:,} photos</h2>",
        table(["", "accuracy", "RMSE", *(f"of {name}" for name in results["names"])], _summary(results)),
        line("On the right the accuracy of each count. * published on other splits of ABID."),
        line(", ".join(f"{name} {value}" for name, value in figures) + "."),
        "<h3>By decoding</h3>",
        line(f"How probabilities become a count; all other figures are of the {results['decode']}."),
        table(["decoding", "accuracy", "RMSE"], decodings),
        "<h3>By count</h3>",
        table(["count", "photos", "accuracy", "RMSE"], per_count),
        *(picture(path, told) for path, told in drawn if path.exists()),
    ]


def _summary(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """The comparison, padded where a published result has no figure for each count."""
    found = []
    for row in comparison.rows({"this run": results}):
        per_count = [percent(share) for share in row.count_accuracy]
        missing = [""] * (len(results["names"]) - len(per_count))
        found.append((row.kind, row.name, percent(row.accuracy), number(row.rmse), *per_count, *missing))
    return found


def _learning(folder: Path) -> list[str]:
    metrics, curves = folder / "metrics.csv", folder / "evaluation" / "curves.png"
    if not metrics.exists():
        return []
    with metrics.open(newline="", encoding="utf-8") as file:
        drawn = pictures.curves(curves, list(csv.DictReader(file)))
    return ["<h2>Learning</h2>", picture(curves, "loss, accuracy and RMSE over the steps")] if drawn else []
