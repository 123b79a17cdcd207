"""MODEL_CARD.md of a run, under the usual headings (Mitchell et al. 2019, Model Cards)."""

from collections.abc import Iterable, Sequence
from typing import Any

from omegaconf import DictConfig

from bincount.comparison import number, percent, rows
from bincount.data.index import SPLITS, Index
from bincount.report import facts, summary
from bincount.report.scored import Scored

#: What the labels of photos are.
OF_RECORDS = (
    "Labels are the recorded stock, not what is visible: items hide behind webbing and behind each other, "
    "and records can be wrong. Nobody reaches 100%, and a count that differs from the record is a reason to "
    "look, not a proof."
)

#: What the counts of any run may not be taken for.
LIMITS = (
    "It knows no other counts than those it learnt, and tells one of them whatever the photo shows.",
    "Photos from other cameras, other bins or in other light were not tried.",
    "Figures are of one training with one seed; another differs by a point or two.",
)


def text(
    name: str, saved: DictConfig, found: dict[str, Any], scored: Sequence[Scored], index: Index | None
) -> str:
    """The card as Markdown."""
    first = scored[0]
    counts = first.names
    return "\n".join(
        [
            f"# Model card: {name}",
            "",
            "## What it is",
            "",
            f"A network ({saved.model.get('architecture') or saved.model.name}) that tells from one photo of "
            f"a warehouse bin how many items are in it: {', '.join(counts)}, each with a probability. "
            f"Trained with bincount {found['packages']['bincount']} on {found['started'][:10]}.",
            "",
            "## Intended use",
            "",
            "To find bins that may not hold what the stock record says, so that people count those first, "
            "and for research on counting. Not to change stock records by itself, and not to judge the work "
            "of people.",
            "",
            "## Data",
            "",
            *_data(saved, index),
            "",
            "## Training",
            "",
            *_training(saved),
            "",
            "## Evaluation",
            "",
            *_evaluation(scored),
            "## Limits",
            "",
            *_bullets(_limits(first, index)),
            "",
            "## How to repeat it",
            "",
            "```sh",
            *facts.commands(
                found, index, facts.words_of_training(saved), [each.folder.name for each in scored]
            ),
            "```",
            "",
            "Pictures, photos, curves and the whole configuration are in report.html beside this file.",
            "",
        ]
    )


def _data(saved: DictConfig, index: Index | None) -> list[str]:
    if index is None:
        return [f"{saved.data.root}, which cannot be read any more from here."]
    names = index.counts.names
    lines = [*_bullets(facts.data_sentences(str(saved.data.root), index)), ""]
    body = []
    for split in (split for split in SPLITS if split in index.splits):
        per_count = index.photos_per_count(split)
        cells = [f"{per_count[each]:,}" for each in names]
        body.append([split, f"{index.summary['splits'][split]['samples']:,}", *cells])
    return lines + _table(["split", "photos", *(f"of {each}" for each in names)], body)


def _training(saved: DictConfig) -> list[str]:
    weights = saved.model.weights or "none, it started from nothing"
    told = [
        f"up to {saved.trainer.max_epochs} epochs in batches of {saved.data.batch_size}, photos of "
        f"{saved.data.image_size} pixels",
        f"objective {saved.objective.name}, optimizer {saved.optimizer.name} with a learning rate of "
        f"{saved.optimizer.lr:g}, scheduler {saved.scheduler.name}",
        f"first weights: {weights}",
        f"seed {saved.seed}; the best epoch by {saved.trainer.monitor} is kept",
    ]
    pretrained = saved.get("pretrain", {}).get("epochs")
    told += [f"before that {pretrained} epochs on collages"] if pretrained else []
    return _bullets(told)


def _evaluation(scored: Iterable[Scored]) -> list[str]:
    lines = []
    for each in scored:
        results = each.results
        compared = [
            [row.name, percent(row.accuracy), number(row.rmse), number(row.mae), percent(row.within_one)]
            for row in rows({"this run": results})
        ]
        per_count = [
            [name, f"{figures['samples']:,}", percent(figures["accuracy"]), number(figures["rmse"])]
            for name, figures in zip(each.names, results["per_count"], strict=True)
        ]
        lines += [
            f"### {each.title}: {results['samples']:,} photos",
            "",
            *_bullets(summary.sentences(each)),
            "",
        ]
        lines += [*_table(["", "accuracy", "RMSE", "MAE", "within one"], compared), ""]
        lines += ["\\* published on other splits of ABID.", ""]
        lines += [*_table(["recorded count", "photos", "accuracy", "RMSE"], per_count), ""]
        lines += [f"NLL {number(results['nll'])}, ECE {number(results['ece'])}.", ""]
    return lines


def _limits(scored: Scored, index: Index | None) -> list[str]:
    drawn = scored.results.get("source") in summary.DRAWN
    told = [*LIMITS] if drawn else [OF_RECORDS, *LIMITS]
    if index is not None and index.summary["overflow"] == "skip":
        most = index.counts.max_count
        told.append(f"Bins with more than {most} items were left out: for them it tells {most} or fewer.")
    if drawn:
        told.append("It was tried on drawn bins alone: expect nothing of it on real photos.")
    weak = [
        f"{name} ({percent(each['accuracy'])})"
        for name, each in zip(scored.names, scored.results["per_count"], strict=True)
        if each["samples"] and each["accuracy"] < 0.5
    ]
    if weak:
        told.append(f"More often wrong than right for bins of {', '.join(weak)}.")
    return told


def _bullets(texts: Iterable[str]) -> list[str]:
    return [f"- {text}" for text in texts]


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    cells = [list(head), ["---"] * len(head), *body]
    return [f"| {' | '.join(_cell(text) for text in row)} |" for row in cells]


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("*", "\\*")
