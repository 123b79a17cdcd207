"""What is told of photos, as JSON or CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from bincount.counter import Answer
from bincount.data.index import Counts, probability_columns
from bincount.serving.judging import Verdict
from bincount.serving.reading import JSON
from bincount.serving.refusal import Refusal

CSV = "text/csv"


@dataclass(frozen=True)
class Told:
    """Of one photo. ``heat``: rows of how much each place speaks for the count, 0 to 1, where asked for."""

    answer: Answer
    verdict: Verdict | None
    heat: list[list[float]] | None


def wanted(accept: str) -> str:
    """The type to answer with, by the Accept header. Raises Refusal where it allows neither JSON nor CSV."""
    best = {JSON: 0.0, CSV: 0.0}
    for part in accept.split(",") if accept.strip() else ["*/*"]:
        name, *rest = (each.strip().lower() for each in part.split(";"))
        quality = next((_number(each[2:]) for each in rest if each.startswith("q=")), 1.0)
        for kind in best:
            if name in (kind, "*/*", f"{kind.partition('/')[0]}/*"):
                best[kind] = max(best[kind], quality)
    if not any(best.values()):
        raise Refusal(406, f"Accept allows neither {JSON} nor {CSV}")
    return CSV if best[CSV] > best[JSON] else JSON


def _number(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def as_json(told: Sequence[Told], counts: Counts, run: str) -> bytes:
    """``{"run", "answers": [{"count", "or_more", "expected_value", "probabilities", …}]}``."""
    return orjson.dumps({"run": run, "answers": [_fields(each, counts) for each in told]})


def _fields(told: Told, counts: Counts) -> dict[str, Any]:
    answer, shares = told.answer, told.answer.probabilities
    found: dict[str, Any] = {
        "count": answer.count,
        "or_more": answer.more and answer.count > counts.max_count,
        "expected_value": round(answer.expected, 6),
        "probabilities": {name: round(p, 6) for name, p in zip(counts.names, shares, strict=True)},
    }
    if told.verdict is not None:
        verdict = told.verdict
        found["record"] = {"expected": verdict.expected, "p_wrong": round(verdict.p_wrong, 6)}
        found["record"]["check"] = verdict.check
    if told.heat is not None:
        found["heatmap"] = told.heat
    return found


def as_csv(told: Sequence[Told], counts: Counts) -> bytes:
    """A row a photo, in their order: as `bincount predict` writes it, and what the record is judged."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = probability_columns(counts.names)
    writer.writerow(["count", "expected_value", *columns, "expected", "p_wrong", "check"])
    for each in told:
        answer, verdict = each.answer, each.verdict
        shares = [f"{share:.6f}" for share in answer.probabilities]
        judged = [verdict.expected, f"{verdict.p_wrong:.6f}", int(verdict.check)] if verdict else ["", "", ""]
        writer.writerow([counts.names[answer.count], f"{answer.expected:.6f}", *shares, *judged])
    return text.getvalue().encode()
