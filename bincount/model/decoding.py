"""How probabilities of counts are put right, and how they become one count.

Probabilities are float [..., C] of the counts 0 .. C-1, with rows that sum to 1.
"""

import math

import torch
from torch import Tensor

#: The count that is most often right, the one with the least error in items, and the one with the least
#: squared error, which RMSE is made of.
DECODINGS = ("mode", "median", "mean")

#: The temperature is looked for between 1/50 and 50.
MOST_TEMPERATURE = 50.0


def decode(probabilities: Tensor, how: str = "mode") -> Tensor:
    """The count that probabilities tell, int64 [...]; of equally good ones the smallest.

    ``mode`` is the most probable count, ``median`` the first up to which half of the probability lies,
    ``mean`` the whole number nearest to the expected number of items.
    """
    if how == "mode":
        return probabilities.argmax(dim=-1)
    if how == "median":
        half = probabilities.sum(dim=-1, keepdim=True) / 2
        return (probabilities.cumsum(dim=-1) < half).sum(dim=-1).clamp(max=probabilities.shape[-1] - 1)
    return (expected(probabilities) - 0.5).ceil().long()


def expected(probabilities: Tensor) -> Tensor:
    """The expected number of items, [...] in the dtype of the probabilities."""
    counts = torch.arange(probabilities.shape[-1], device=probabilities.device, dtype=probabilities.dtype)
    return (probabilities * counts).sum(dim=-1)


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """Probabilities after their logits were divided by a temperature: above 1 they are less certain.

    Temperature scaling (Guo et al. 2017, On Calibration of Modern Neural Networks).
    """
    return (_logits(probabilities) / temperature).softmax(dim=-1)


def fit_temperature(counts: Tensor, probabilities: Tensor) -> float:
    """The temperature with the least NLL, for true counts int64 [N] and probabilities [N, C].

    The NLL is convex in 1 / temperature: its slope, the mean expected logit less the mean true one, is zero
    at the least.
    """
    logits = _logits(probabilities.double())
    true = logits.gather(1, counts[:, None]).mean()
    low, high = 1 / MOST_TEMPERATURE, MOST_TEMPERATURE
    for _ in range(60):
        middle = math.sqrt(low * high)
        slope = ((middle * logits).softmax(dim=1) * logits).sum(dim=1).mean() - true
        low, high = (low, middle) if slope > 0 else (middle, high)
    return 1 / math.sqrt(low * high)


def best_decoding(counts: Tensor, probabilities: Tensor) -> str:
    """The decoding with the least (1 - accuracy) * RMSE, so that one serves for both figures."""

    def cost(how: str) -> float:
        error = (decode(probabilities, how) - counts).double()
        return float((error != 0).double().mean()) * float(error.square().mean().sqrt())

    return min(DECODINGS, key=cost)


def _logits(probabilities: Tensor) -> Tensor:
    """Up to a constant a row; of a probability of 0 that of the least normal number."""
    return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()
