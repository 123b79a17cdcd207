"""What SageMaker's own inference images call: a run answers there as `bincount serve` answers.

In the model's archive, beside the files of the run, `code/inference.py`:

    from bincount.serving.handlers import input_fn, model_fn, output_fn, predict_fn

The photos of a request are counted at once, those of several requests are not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import torch

from bincount import run
from bincount.compose import compose, typed
from bincount.config import Serve, ServeConfig
from bincount.counter import Counter, answers_of, load
from bincount.serving.answers import CSV, Told, as_csv, as_json, wanted
from bincount.serving.judging import Judge, judge_of
from bincount.serving.reading import JSON, asked
from bincount.serving.refusal import Refusal
from bincount.serving.service import fitted, sized


@dataclass(frozen=True)
class Model:
    """A run, and what else answers need."""

    name: str
    counter: Counter
    judge: Judge
    limits: Serve


class Sent(NamedTuple):
    """The body of a request."""

    body: bytes
    kind: str


class Prediction(NamedTuple):
    """What is told of the photos of a request."""

    told: list[Told]
    model: Model


def model_fn(model_dir: str) -> Model:
    """The run in this folder. Raises BadInput where there is none."""
    config: ServeConfig = typed("serve", compose("serve", []))
    folder, limits = Path(model_dir), config.serve
    counter = load(folder, decoding=config.decode)
    judge = judge_of(folder, counter.counts, limits.error_rate, limits.check_from)
    return Model(run.title(folder), counter, judge, limits)


def input_fn(body: bytes | str, content_type: str | None) -> Sent:
    """The body as it came: how much of it is read is for the model's limits to say."""
    return Sent(body.encode() if isinstance(body, str) else bytes(body), content_type or "")


def predict_fn(sent: Sent, model: Model) -> Prediction:
    """What is told of the photos. Raises the toolkit's own error where `bincount serve` refuses them."""
    with _refused():
        given = asked(sent.body, sent.kind, None, model.limits)
        for expected in given.expected:
            model.judge.refuse(expected)
        photos = sized(given, model.limits.megapixels)
        pixels = torch.stack([fitted(model.counter, *each) for each in photos])
    answers = answers_of(model.counter, model.counter.probabilities(pixels))
    verdicts = (
        None if expected is None else model.judge.judge(answer.probabilities, expected)
        for answer, expected in zip(answers, given.expected, strict=True)
    )
    told = [Told(answer, verdict, None) for answer, verdict in zip(answers, verdicts, strict=True)]
    return Prediction(told, model)


def output_fn(prediction: Prediction, accept: str) -> tuple[bytes, str]:
    """The answer and its type, JSON or CSV. Raises the toolkit's own error where neither is accepted."""
    told, model = prediction
    with _refused():
        if wanted(accept) == CSV:
            return as_csv(told, model.counter.counts), CSV
        return as_json(told, model.counter.counts, model.name), JSON


@contextmanager
def _refused() -> Iterator[None]:
    """Make a refusal the toolkit's error of the same status."""
    try:
        yield
    except Refusal as refusal:
        from sagemaker_inference.errors import BaseInferenceToolkitError  # which such an image has

        phrase = HTTPStatus(refusal.status).phrase
        raise BaseInferenceToolkitError(refusal.status, refusal.told, phrase) from None
