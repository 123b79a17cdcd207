"""Backbones: networks from a batch of photos [B, 3, H, W] to outputs [B, K].

A new backbone is one function under `@register(name, head=...)`. It names those of these arguments that it
needs: `outputs` (K), `image_size` (height, width in pixels), `imagenet` (start from ImageNet weights) and
`architecture` (timm's name for it). Its state dict keeps the key names of torchvision or timm, so that
files can be exchanged with others.
"""

import inspect
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from bincount.errors import BadInput, BincountError, install, nearest, one_line
from bincount.model.registry import Registry

log = logging.getLogger(__name__)

State = dict[str, Tensor]
Make = Callable[..., nn.Module]
ARGUMENTS = {"outputs", "image_size", "imagenet", "architecture"}
PATCH = 16


@dataclass(frozen=True)
class Backbone:
    """How a backbone is made, and the dotted name of its last layer (or how to tell that from the model)."""

    make: Make
    head: str | Callable[[nn.Module], str]

    @property
    def arguments(self) -> set[str]:
        """Those of ARGUMENTS that `make` takes."""
        return set(inspect.signature(self.make).parameters)


BACKBONES: Registry[Backbone] = Registry("model")


def register(name: str, head: str | Callable[[nn.Module], str]) -> Callable[[Make], Make]:
    """Decorator that enters a function as the backbone `name`, whose last layer is the submodule `head`."""

    def enter(make: Make) -> Make:
        backbone = Backbone(make, head)
        if strange := backbone.arguments - ARGUMENTS:
            raise TypeError(f"backbone {name} asks for {sorted(strange)}; there are {sorted(ARGUMENTS)}")
        BACKBONES.register(name)(backbone)
        return make

    return enter


def build(
    name: str,
    outputs: int,
    image_size: tuple[int, int],
    weights: str | None,
    freeze: bool,
    architecture: str | None = None,
) -> nn.Module:
    """The backbone `name`, on the CPU and in training mode.

    Args:
        image_size: height and width in pixels.
        weights: None to start from scratch, `imagenet`, or the path of a state dict or Lightning checkpoint.
        freeze: train the head alone.
        architecture: timm's name, for `timm`.

    Raises:
        BadInput: an unknown name, a size that the backbone cannot take, or weights that do not fit.
        BincountError: ImageNet weights could not be downloaded.
    """
    backbone = BACKBONES[name]
    given = {"outputs": outputs, "image_size": image_size, "imagenet": weights == "imagenet"}
    given["architecture"] = architecture
    model = backbone.make(**{key: given[key] for key in backbone.arguments})
    head = backbone.head if isinstance(backbone.head, str) else backbone.head(model)
    model.head_path = head  # type: ignore[assignment]
    if weights not in (None, "imagenet"):
        fill(model, read_state(weights), head, f"model.weights={weights}")
    if freeze:
        freeze_body(model)
    return model


def head_of(model: nn.Module) -> nn.Module:
    """The last layer of a model made by `build`: the one that is left fresh and is trained under `freeze`."""
    return model.get_submodule(str(model.head_path))


# --- the backbones ------------------------------------------------------------------------------------


@register("resnet18", head="fc")
def resnet18(outputs: int, imagenet: bool) -> nn.Module:
    return _resnet("resnet18", outputs, imagenet)


@register("resnet34", head="fc")
def resnet34(outputs: int, imagenet: bool) -> nn.Module:
    return _resnet("resnet34", outputs, imagenet)


@register("resnet50", head="fc")
def resnet50(outputs: int, imagenet: bool) -> nn.Module:
    return _resnet("resnet50", outputs, imagenet)


@register("vit_b_16", head="heads.head")
def vit_b_16(outputs: int, image_size: tuple[int, int], imagenet: bool) -> nn.Module:
    """For square photos. ImageNet's position embeddings, learnt at 224 pixels, are interpolated."""
    height, width = image_size
    if height != width or height % PATCH:
        size = f"data.image_size={height}x{width}"
        raise BadInput(f"{size}: vit_b_16 needs a square size divisible by {PATCH}, such as 224")
    model: nn.Module = models.vit_b_16(num_classes=outputs, image_size=height)
    if imagenet:
        state = interpolate_embeddings(height, PATCH, _imagenet_state("vit_b_16"))
        fill(model, state, "heads.head", "the ImageNet weights of vit_b_16")
    return model


def _resnet(name: str, outputs: int, imagenet: bool) -> nn.Module:
    model: nn.Module = models.get_model(name, num_classes=outputs)
    if imagenet:
        fill(model, _imagenet_state(name), "fc", f"the ImageNet weights of {name}")
    return model


def _imagenet_state(name: str) -> State:
    """torchvision's first ImageNet weights, those that published results start from; cached in TORCH_HOME."""
    with _downloading(name):
        weights = models.get_model_weights(name)["IMAGENET1K_V1"]
        state: State = weights.get_state_dict(progress=False, check_hash=True)
    return state


@contextmanager
def _downloading(name: str) -> Iterator[None]:
    try:
        yield
    # Not narrower: urllib, http.client, huggingface_hub, httpx and pickle each fail in a way of their own.
    except Exception as error:
        raise BincountError(
            f"the ImageNet weights of {name} cannot be downloaded ({one_line(error)}); "
            "fetch them where there is a network and give the file: model.weights=FILE"
        ) from error


def _timm_head(model: nn.Module) -> str:
    return str(model.pretrained_cfg["classifier"])  # type: ignore[index]


@register("timm", head=_timm_head)
def timm(outputs: int, image_size: tuple[int, int], imagenet: bool, architecture: str | None) -> nn.Module:
    """Any classifier of timm with one head, by its name there."""
    library = _import_timm()
    about = _about(library, architecture)
    if imagenet and not about.has_weights:
        raise BadInput(f"model.architecture={architecture}: timm has no weights; set model.weights=null")
    size = {"img_size": image_size} if about.fixed_input_size else {}
    # First without weights, so that a size it cannot take is not told as a failed download.
    try:
        model: nn.Module = library.create_model(architecture, num_classes=outputs, **size)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        height, width = image_size
        raise BadInput(
            f"model.architecture={architecture} with data.image_size={height}x{width}: {one_line(error)}"
        ) from error
    if imagenet:
        with _downloading(str(architecture)):
            model = library.create_model(architecture, pretrained=True, num_classes=outputs, **size)
    return model


def _import_timm() -> ModuleType:
    try:
        import timm as library
    except ImportError as error:
        raise BadInput(f"model=timm: timm is not installed: {install('timm')}") from error
    return library


def _about(library: Any, architecture: str | None) -> Any:
    """timm's description of an architecture; BadInput where it cannot serve as a backbone."""
    if not architecture:
        raise BadInput("model=timm: say which one, such as model.architecture=convnext_tiny")
    if not library.is_model(architecture):
        told = nearest(architecture, library.list_models())
        raise BadInput(f"model.architecture={architecture}: timm has no such model: {told}")
    try:
        about = library.get_pretrained_cfg(architecture)
    except RuntimeError as error:
        raise BadInput(f"model.architecture={architecture}: {one_line(error)}") from error
    if about is None or not isinstance(about.classifier, str):
        raise BadInput(f"model.architecture={architecture}: not a classifier with one head; choose another")
    return about


# --- weights from a file ------------------------------------------------------------------------------


def read_state(path: str) -> State:
    """The tensors of a state dict, or of a checkpoint with one under `state_dict`; runs no code of the file.

    Raises:
        BadInput: there is no such file, or it holds no state dict.
    """
    if not Path(path).is_file():
        raise BadInput(f"model.weights={path}: there is no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        fault = "is no weights file, or holds more than tensors"
        raise BadInput(f"model.weights={path}: {fault}; save model.state_dict() alone") from error
    except Exception as error:  # unpickling the bytes of some other file can fail in any way
        raise BadInput(f"model.weights={path}: cannot be read ({one_line(error)}); is it whole?") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(f"model.weights={path}: holds no state dict; save model.state_dict() alone")
    return dict(state)


def fill(model: nn.Module, state: State, head: str, source: str) -> None:
    """Put the tensors of `state` into the model; a head of another shape is left as it is.

    Raises:
        BadInput: any other key is missing, unexpected or of another shape; `source` says whose.
    """
    own = model.state_dict()
    state = _bare(state, own)
    misshaped = [key for key in state if key in own and state[key].shape != own[key].shape]
    if any(key.startswith(f"{head}.") for key in misshaped):
        log.info("%s: the head %s has another shape and starts fresh", source, head)
        state |= {key: own[key] for key in own if key.startswith(f"{head}.")}
        misshaped = [key for key in misshaped if not key.startswith(f"{head}.")]
    # Not a comparison of the keys: torch's and torchvision's own loading translates those of older versions.
    fitting = {key: value for key, value in state.items() if key not in misshaped}
    try:
        missing, unexpected = model.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        raise BadInput(f"{source}: does not fit the model ({one_line(error)})") from error
    faults = {
        "missing": [key for key in missing if key not in misshaped],
        "unexpected": unexpected,
        "of another shape": misshaped,
    }
    if any(faults.values()):
        told = "; ".join(_few(keys, fault) for fault, keys in faults.items() if keys)
        raise BadInput(f"{source}: does not fit the model: {told}; is it of another backbone?")


def _bare(state: State, own: State) -> State:
    """Keys without DataParallel's `module.`; of a Lightning checkpoint only what is under `model.`."""
    for prefix in ("module.", "model."):
        inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if inside and not any(key.startswith(prefix) for key in own):
            state = inside
    return state


def _few(keys: list[str], fault: str) -> str:
    return f"{len(keys)} {fault} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"


# --- freezing -----------------------------------------------------------------------------------------


def freeze_body(model: nn.Module) -> None:
    """Let only the head learn: the rest gets no gradients, and `.train()` leaves it in eval mode.

    Eval mode matters for BatchNorm, which would move its running statistics without any gradient.
    """
    head = head_of(model)
    model.requires_grad_(False)
    head.requires_grad_(True)
    for part in _body(model, head):
        part.eval()
        part.train = MethodType(_stay, part)  # type: ignore[method-assign]


def _body(model: nn.Module, head: nn.Module) -> Iterator[nn.Module]:
    """The largest submodules that do not hold the head."""
    for child in model.children():
        if all(module is not head for module in child.modules()):
            yield child
        elif child is not head:
            yield from _body(child, head)


def _stay(part: nn.Module, mode: bool = True) -> nn.Module:
    """Takes the place of `.train()` in a frozen module."""
    return part
