"""Where in a photo a network finds the evidence for the count that it tells.

HiResCAM (Draelos and Carin 2020, Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional
neural networks): the last spatial features times their gradient, added up over the channels. Unlike Grad-CAM
it does not average the gradient over places, so it never points at a place that the network did not use.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bincount.counter import Counter
from bincount.data.pixels import normalise
from bincount.errors import BincountError
from bincount.model.decoding import decode, tempered

#: Features of fewer places along a side tell too little of where; then those of an earlier layer are taken.
#: A ResNet has 7 in its last layer where photos have 224 pixels.
LEAST_SIDE = 7

#: Photos whose activations are kept at the same time.
AT_ONCE = 8

#: The features of a photo, and back from (B, C, h, w): where in the network's own tensor they are.
Grid = Callable[[Tensor], Tensor]


def heat_maps(counter: Counter, pixels: Tensor, told: Tensor | None = None) -> Tensor:
    """Where the evidence for a count lies: float32 (B, h, w) on the CPU, from 0 to 1, the most of a photo.

    ``pixels``: uint8 (B, 3, H, W), as ``counter.pixels`` gives them. ``told``: int64 (B,), the class of each
    photo to explain; None: what the counter tells. A photo in which nothing speaks for its count is all 0.
    Raises BincountError for a network without features that have a place.
    """
    if not len(pixels):
        return torch.zeros(0, 1, 1)
    chunks = range(0, len(pixels), AT_ONCE)
    return torch.cat(
        [
            _maps(counter, pixels[at : at + AT_ONCE], None if told is None else told[at : at + AT_ONCE])
            for at in chunks
        ]
    )


def _maps(counter: Counter, pixels: Tensor, told: Tensor | None) -> Tensor:
    if told is None:
        told = decode(counter.probabilities(pixels), counter.decoding)
    # Nothing that was made in inference mode, weights or photos, can have a gradient: copies of it can.
    with torch.inference_mode(False), torch.enable_grad():
        shown = normalise(pixels.clone().to(counter.device))
        told = told.clone().to(counter.device)
        found = evidence(counter, shown, told)
        if counter.mirror:
            found = (found + evidence(counter, shown.flip(3), told).flip(2)) / 2
    found = found.clamp(min=0).float().cpu()
    return found / found.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def evidence(counter: Counter, shown: Tensor, told: Tensor) -> Tensor:
    """How each place speaks for the class ``told`` (B,) and not for others: (B, h, w), below 0 against it.

    ``shown``: normalised photos (B, 3, H, W).
    """
    model = counter.model
    with _recorded(model) as outputs:
        state = {
            name: value.clone() if value.is_inference() else value.detach()
            for name, value in (*model.named_parameters(), *model.named_buffers())
        }
        logits = torch.func.functional_call(model, state, (shown.requires_grad_(),))
    posterior = tempered(counter.objective.posterior(logits.float()), counter.temperature)
    goal = _lead(posterior, told).sum()
    silent = None
    for features, grid in _finest_first(_spatial(outputs, model, (shown.shape[2], shown.shape[3]))):
        (gradient,) = torch.autograd.grad(goal, features, retain_graph=True, allow_unused=True)
        # The last block of a transformer reads its class token alone: other places there have no gradient.
        if gradient is not None and grid(gradient).any():
            return (grid(gradient) * grid(features)).sum(dim=1).detach()
        silent = torch.zeros_like(grid(features)[:, 0]) if silent is None else silent
    if silent is None:
        raise BincountError(
            f"{type(model).__name__} has no features with a place: there is no heat map of it"
        )
    return silent.detach()  # a head of zeros, as torchvision's ViT begins with, looks nowhere


def _finest_first(found: Iterable[tuple[Tensor, Grid]]) -> list[tuple[Tensor, Grid]]:
    """The last features with LEAST_SIDE places or more, those before them, and then ever coarser ones."""

    def side(pair: tuple[Tensor, Grid]) -> int:
        features, grid = pair
        return min(LEAST_SIDE, *map(int, grid(features).shape[2:]))

    return sorted(found, key=side, reverse=True)


def _lead(posterior: Tensor, told: Tensor) -> Tensor:
    """How far ln p of the class ``told`` (B,) lies above the mean of all: (B,), of a posterior (B, C).

    Against the mean, and not against the nearest count alone, since little in a photo speaks for 3 items
    rather than 2 or 4; of logits it is the difference of them.
    """
    logs = posterior.clamp(min=torch.finfo(posterior.dtype).tiny).log()
    return logs.gather(1, told[:, None])[:, 0] - logs.mean(dim=1)


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Lists, while it lasts, what each module of the model gave out, in order."""
    outputs: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs.append((module, output))

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _spatial(
    outputs: list[tuple[nn.Module, Tensor]], model: nn.Module, size: tuple[int, int]
) -> Iterator[tuple[Tensor, Grid]]:
    """Features that have places, the last first, each with how to see it as (B, C, h, w).

    In a transformer they are the tokens that a norm gave out, (B, N, C).
    """
    of_norms = [output for module, output in outputs if "Norm" in type(module).__name__]
    tokens = [(each, _token_grid(each, model, size)) for each in of_norms if each.ndim == 3]
    planes = [(each, _plane_grid(each, size)) for _, each in outputs if each.ndim == 4]
    for features, grid in reversed([pair for pair in tokens if pair[1]] or planes):
        if grid is not None:
            yield features, grid


def _plane_grid(features: Tensor, size: tuple[int, int]) -> Grid | None:
    """For (B, C, h, w), or (B, h, w, C) as some networks of timm have it."""
    _, first, second, third = features.shape
    if _is_grid(second, third, size):
        return lambda tensor: tensor
    if _is_grid(first, second, size):
        return lambda tensor: tensor.permute(0, 3, 1, 2)
    return None


def _token_grid(features: Tensor, model: nn.Module, size: tuple[int, int]) -> Grid | None:
    """For (B, N, C): tokens in the order of their rows, after those of no place, as the class token."""
    places = features.shape[1]
    known = getattr(model, "num_prefix_tokens", None)
    for extra in range(8) if known is None else [known]:
        height = round(math.sqrt((places - extra) * size[0] / size[1])) if places > extra else 0
        width = (places - extra) // height if height else 0
        if height * width == places - extra and _is_grid(height, width, size):
            return _Tokens(extra, height, width)
    return None


@dataclass(frozen=True)
class _Tokens:
    """Tokens (B, N, C) as (B, C, height, width), without the first ``extra``, which have no place."""

    extra: int
    height: int
    width: int

    def __call__(self, tokens: Tensor) -> Tensor:
        placed = tokens[:, self.extra :].transpose(1, 2)
        return placed.reshape(*placed.shape[:2], self.height, self.width)


def _is_grid(height: int, width: int, size: tuple[int, int]) -> bool:
    """Whether so many places, more than one, can be those of a photo of this size in pixels."""
    if not (1 < height <= size[0] / 2 and 1 < width <= size[1] / 2):
        return False
    # Rounding up at each halving makes up to one place more.
    return abs(height * size[1] / size[0] - width) <= 1
