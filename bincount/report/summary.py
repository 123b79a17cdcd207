"""How good a run is, in sentences that need no knowledge of the field: text for the page and the card."""

from typing import Any

import numpy as np

from bincount.comparison import number, percent
from bincount.model.published import PUBLISHED
from bincount.report.scored import Scored, interval

#: How a split's photos came to the training.
SEEN = {
    "test": "which it never saw before",
    "val": "which it did not learn from, but by which its best state and its calibration were chosen",
    "train": "which it learnt from, so that these figures say nothing about new photos",
}

#: Sources of data sets that are no photos.
DRAWN = ("synthetic", "collage")

#: A count is called sure from this probability on.
SURE = 0.8

#: Fewer photos than these are too few for a share of them.
FEW = 10

#: What the figures mean.
WORDS = {
    "accuracy": "the share of photos whose count told is the recorded one",
    "RMSE": "root mean squared error, in items: the typical error, in which large errors weigh more; 0 is "
    "perfect",
    "MAE": "mean absolute error, in items: by how much a count is off on average",
    "within one": "the share of photos whose count told is right or off by one item",
    "NLL": "negative log-likelihood, in nats: how little probability the recorded counts were given; lower "
    "is better",
    "ECE": "expected calibration error: by how much probabilities and the shares that are right differ on "
    "average",
    "split": "train: photos to learn from; val: to choose by; test: kept for the last figures alone",
    "commonest count": "what is right most often for who never looks at a photo",
}


def sentences(scored: Scored) -> list[str]:
    """What there is to say of an evaluation, the most important first."""
    results = scored.results
    if not results["samples"]:
        return ["There were no photos to count."]
    told = [_right(results), _off(results), _against_guessing(results)]
    if best := published(results):
        told.append(best)
    return [*told, *_where(scored), *_sureness(scored)]


def left_out(results: dict[str, Any]) -> str:
    """What scored predictions were not matched with; empty where nothing is left over."""
    told = {"missing": "photos without an answer", "unknown": "answers to photos without a count"}
    return " and ".join(f"{results[key]:,} {text}" for key, text in told.items() if results[key])


def published(results: dict[str, Any]) -> str | None:
    """The best that others published; None where it is about other photos altogether."""
    if results.get("source") in DRAWN:
        return None
    best = max(PUBLISHED, key=lambda each: each.accuracy)
    return (
        f"The best published result on photos of ABID is {percent(best.accuracy)} right (RMSE "
        f"{number(best.rmse)}, {best.name}), on other photos than these: it tells what to expect, and is no "
        "fair comparison."
    )


def _right(results: dict[str, Any]) -> str:
    photos = results["samples"]
    right = sum(row[place] for place, row in enumerate(results["confusion"]))
    low, high = interval(right, photos)
    seen = SEEN.get(str(results["split"])) if "predictions" not in results else None
    of = f" of {results['split']}, {seen}," if seen else ""
    return (
        f"Of {photos:,} photos{of} {right:,} were counted right: an accuracy of "
        f"{percent(results['accuracy'])}. On other photos of the same kind expect {percent(low)} to "
        f"{percent(high)} (95% confidence)."
    )


def _off(results: dict[str, Any]) -> str:
    return (
        f"{percent(results['within_one'])} were right or off by one item; on average a count is off by "
        f"{results['mae']:.2f} items (RMSE {number(results['rmse'])})."
    )


def _against_guessing(results: dict[str, Any]) -> str:
    majority, guess = results["baselines"]["majority"], results["baselines"]["random"]
    name = results["names"][majority["count"]]
    right = sum(row[place] for place, row in enumerate(results["confusion"]))
    low, _ = interval(right, results["samples"])
    if results["accuracy"] <= majority["accuracy"]:
        verdict = "By accuracy it is no better than not looking at the photos at all."
    elif low <= majority["accuracy"]:
        verdict = "So few photos do not prove that it is better than not looking at them at all."
    else:
        verdict = "So it has learnt to count, if with the errors below."
    return (
        f"Without looking at a photo, always telling the commonest count, {name}, is right for "
        f"{percent(majority['accuracy'])} (RMSE {number(majority['rmse'])}), and guessing for "
        f"{percent(guess['accuracy'])}. {verdict}"
    )


def _where(scored: Scored) -> list[str]:
    """At which counts it is right and wrong, and whether it tells too many or too few."""
    held = [each for each in scored.results["per_count"] if each["samples"]]
    if len(held) < 2:
        return []
    best = max(held, key=lambda each: each["accuracy"])
    worst = min(held, key=lambda each: each["accuracy"])
    row = list(scored.results["confusion"][worst["count"]])
    row[worst["count"]] = 0
    told, names = "", scored.names
    if any(row):
        instead = int(np.argmax(row))
        told = f", for which it mostly tells {names[instead]} ({row[instead]:,} of {worst['samples']:,})"
    never = [name for place, name in enumerate(names) if not (scored.told == place).any()]
    few, many = float(np.mean(scored.told < scored.count)), float(np.mean(scored.told > scored.count))
    return [
        f"It does best with bins of {names[best['count']]} ({percent(best['accuracy'])} right) and worst "
        f"with bins of {names[worst['count']]} ({percent(worst['accuracy'])} right){told}.",
        f"It tells too few items in {percent(few)} of the photos, and too many in {percent(many)}."
        + (f" It never tells {' or '.join(never)}." if never else ""),
    ]


def _sureness(scored: Scored) -> list[str]:
    """What its probabilities are worth."""
    certainty = scored.certainty
    if certainty is None:
        return ["The answers came without probabilities: how sure they are is not known."]
    right = scored.told == scored.count
    order = np.argsort(-certainty, kind="stable")
    surer = right[order[: max(1, len(order) // 2)]]
    sure = certainty >= SURE
    told = [f"Of the half of the photos that it is surest of, {percent(float(surer.mean()))} are right."]
    if sure.sum() >= FEW:
        told.append(
            f"It is sure ({SURE:.0%} or more) of {int(sure.sum()):,} photos, and "
            f"{percent(float(right[sure].mean()))} of these are right."
        )
    else:
        told.append(f"It is hardly ever sure: only {int(sure.sum()):,} photos have {SURE:.0%} or more.")
    off = scored.results["ece"]
    told.append(f"Its probabilities are off by {100 * off:.1f} points on average (ECE).")
    return [" ".join(told)]
