"""The figures of one evaluation, as tables and pictures with their words."""

from typing import Any

import numpy as np

from bincount import comparison, pictures
from bincount.comparison import number, percent
from bincount.page import folded, heading, line, picture, table
from bincount.report.scored import Scored


def sections(scored: Scored) -> list[str]:
    """Comparison, confusion, counts and reliability."""
    results = scored.results
    return [
        compared({"this run" if "predictions" not in results else "these answers": results}),
        *_by_decoding(results),
        *_by_count(scored),
        *_confusion(scored),
        *_reliability(scored),
    ]


def compared(results: dict[str, dict[str, Any]]) -> str:
    """The comparison, padded where a published result has no figure for each count."""
    first = next(iter(results.values()))
    names = first["names"]
    rows = []
    for row in comparison.rows(results):
        per_count = [percent(share) for share in row.count_accuracy]
        missing = [""] * (len(names) - len(per_count))
        rows.append(
            (
                row.kind,
                row.name,
                percent(row.accuracy),
                number(row.rmse),
                number(row.mae),
                percent(row.within_one),
                *per_count,
                *missing,
            )
        )
    caption = (
        f"{first['samples']:,} photos, accuracy by count at the right; * published, on other photos of ABID"
    )
    head = ["", "accuracy", "RMSE", "MAE", "within one", *(f"of {name}" for name in names)]
    return table(head, rows, caption)


def _by_decoding(results: dict[str, Any]) -> list[str]:
    if not results["decodings"]:
        return []
    rows = [
        ("ours" if how == results["decode"] else "", how, percent(each["accuracy"]), number(each["rmse"]))
        for how, each in results["decodings"].items()
    ]
    caption = "By how probabilities become a count"
    used = f"All other figures are of the {results['decode']}." if results["decode"] else ""
    return [table(["decoding", "accuracy", "RMSE"], rows, caption), *([line(used)] if used else [])]


def _by_count(scored: Scored) -> list[str]:
    named = list(zip(scored.names, scored.results["per_count"], strict=True))
    rows = [
        ("", name, f"{each['samples']:,}", percent(each["accuracy"]), number(each["rmse"]))
        for name, each in named
    ]
    held = [(name, each) for name, each in named if each["samples"]]
    told = "; ".join(f"of {name}: {percent(each['accuracy'])}, {number(each['rmse'])}" for name, each in held)
    return [
        heading(3, f"{scored.title}: by count"),
        *_shown(scored, "counts.png", f"Bar charts of accuracy and RMSE over the recorded count. {told}."),
        table(["count", "photos", "accuracy", "RMSE"], rows, "Accuracy and RMSE by recorded count"),
    ]


def _confusion(scored: Scored) -> list[str]:
    matrix, names = scored.results["confusion"], scored.names
    rows = [("", name, *(f"{photos:,}" for photos in row)) for name, row in zip(names, matrix, strict=True)]
    mostly = [
        f"{name} is told as {names[int(np.argmax(row))]} in {max(row):,} of {sum(row):,}"
        for name, row in zip(names, matrix, strict=True)
        if any(row)
    ]
    return [
        heading(3, f"{scored.title}: what is taken for what"),
        line("A row is a recorded count, a column the count told; what is right lies on the diagonal."),
        *_shown(scored, "confusion.png", f"Confusion matrix. Recorded {'; '.join(mostly)}."),
        folded(
            "The confusion matrix as a table",
            [
                table(
                    ["recorded", *(f"told {name}" for name in names)],
                    rows,
                    "Photos by recorded count and count told",
                )
            ],
        ),
    ]


def _reliability(scored: Scored) -> list[str]:
    title = heading(3, f"{scored.title}: what its probabilities are worth")
    if scored.probabilities is None:
        return [title, line("The answers came without probabilities: NLL and ECE are not known.")]
    results = scored.results
    prior = number(results["baselines"]["prior"]["nll"])
    bins = pictures.sureness(scored.count, scored.probabilities)
    rows = [
        (
            "",
            f"{each.low:.0%} to {each.high:.0%}",
            f"{each.photos:,}",
            percent(each.mean),
            percent(each.right),
        )
        for each in bins
    ]
    told = "; ".join(
        f"at {each.mean:.0%} it is right in {each.right:.0%} of {each.photos:,}" for each in bins
    )
    return [
        title,
        line(
            "If a count told with 70% is right in 70% of the cases, the curve runs along the diagonal; "
            "below it, it is too sure of itself. Larger dots are more photos. "
            f"ECE {number(results['ece'])}; NLL {number(results['nll'])}, where telling every photo the "
            f"shares of the split has {prior}."
        ),
        *_shown(scored, "reliability.png", f"Reliability, by probability of the likeliest count: {told}."),
        folded(
            "The reliability curve as a table",
            [
                table(
                    ["probability", "photos", "mean probability", "right"],
                    rows,
                    "How often the most probable count is right",
                )
            ],
        ),
    ]


def _shown(scored: Scored, name: str, told: str) -> list[str]:
    """A picture of the evaluation; nothing where an earlier version of the program did not draw it."""
    path = scored.folder / name
    return [picture(path, told, wide=name == "counts.png")] if path.exists() else []
