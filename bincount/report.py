"""report.html of a run: one self-contained page, written anew after each evaluation."""

import base64
import csv
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bincount import comparison, pictures, storage
from bincount.comparison import number, percent

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1f2328 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .75rem; text-align: right }
th:first-child, td:first-child { text-align: left } thead { border-bottom: 2px solid #888 }
tr.ours { font-weight: 600 } tr.published { color: #57606a } img { max-width: 100%; height: auto }
pre { background: #f6f8fa; padding: 1rem; overflow-x: auto } .scroll { overflow-x: auto }
"""

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
    parts = [f"<h1>Run {escape(name)}</h1>", _line(f"Started {environment['started']}, bincount {version}.")]
    for results in sorted((folder / "evaluation").glob("*/results.json")):
        parts += _evaluation(json.loads(results.read_bytes()), results.parent)
    parts += _learning(folder)
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    parts += ["<h2>Configuration</h2>", f"<pre>{escape(config)}</pre>"]
    parts += ["<h2>Environment</h2>", f"<pre>{escape(json.dumps(environment, indent=2))}</pre>"]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>bincount run {escape(name)}</title><style>{STYLE}</style>"
    page = f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
    storage.write_text(folder / "report.html", page)


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
    pictures = [(folder / f"{name}.png", told) for name, told in PICTURES.items()]
    return [
        f"<h2>Split {escape(results['split'])}: {results['samples']:,} photos</h2>",
        _table(["", "accuracy", "RMSE", *(f"of {name}" for name in results["names"])], _summary(results)),
        _line("On the right the accuracy of each count. * published on other splits of ABID."),
        _line(", ".join(f"{name} {value}" for name, value in figures) + "."),
        "<h3>By decoding</h3>",
        _line(f"How probabilities become a count; all other figures are of the {results['decode']}."),
        _table(["decoding", "accuracy", "RMSE"], decodings),
        "<h3>By count</h3>",
        _table(["count", "photos", "accuracy", "RMSE"], per_count),
        *(_image(path, told) for path, told in pictures if path.exists()),
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
    metrics, picture = folder / "metrics.csv", folder / "evaluation" / "curves.png"
    if not metrics.exists():
        return []
    with metrics.open(newline="", encoding="utf-8") as file:
        drawn = pictures.curves(picture, list(csv.DictReader(file)))
    return ["<h2>Learning</h2>", _image(picture, "loss, accuracy and RMSE over the steps")] if drawn else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first entry of each row is its class."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(
        f'<tr class="{kind}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        for kind, *cells in rows
    )
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _line(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _image(path: Path, told: str) -> str:
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{escape(told)}" src="data:image/png;base64,{encoded}"></p>'
