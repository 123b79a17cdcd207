import copy
import sys
import urllib.request

import pytest
import torch
from torch import nn
from torchvision import models

from bincount.errors import BadInput, BincountError
from bincount.model import backbones
from bincount.model.backbones import BACKBONES, build, head_of, register

SIZE = (32, 32)


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Weights come from an empty cache, and nobody gets through to the network."""

    def refuse(*_args, **_kwargs):
        raise OSError("no network\nin tests")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def tiny():
    """A backbone of one's own is one function."""

    @register("tiny", head="head")
    def tiny(outputs):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
        model.add_module("head", nn.Linear(4 * 30 * 30, outputs))
        return model

    yield "tiny"
    del BACKBONES["tiny"]


def save(state, tmp_path, name="weights.pt"):
    torch.save(state, tmp_path / name)
    return str(tmp_path / name)


def cache_imagenet(name, state, tmp_path):
    url = models.get_model_weights(name)["IMAGENET1K_V1"].url
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / url.rsplit("/", 1)[1])


def same(one, other, but=()):
    return all(
        torch.equal(value, other[key]) for key, value in one.items() if not key.startswith(tuple(but) or "!")
    )


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "vit_b_16"])
def test_torchvision_backbones_keep_their_keys_and_have_a_head(name):
    model = build(name, 7, SIZE, weights=None, freeze=False)
    assert model(torch.zeros(2, 3, *SIZE)).shape == (2, 7)
    assert head_of(model).out_features == 7
    assert model.state_dict().keys() == models.get_model(name).state_dict().keys()


@pytest.mark.parametrize("size", [(32, 48), (40, 40)])
def test_vit_needs_a_square_of_whole_patches(size):
    with pytest.raises(BadInput, match=f"data.image_size={size[0]}x{size[1]}: .*divisible by 16"):
        build("vit_b_16", 6, size, weights=None, freeze=False)


def test_an_unknown_backbone_names_a_near_one():
    with pytest.raises(BadInput, match=r"model=resnet43: .*did you mean resnet34") as caught:
        build("resnet43", 6, SIZE, weights=None, freeze=False)
    assert "\n" not in str(caught.value)


def test_a_new_backbone_is_one_function(tiny):
    model = build(tiny, 5, SIZE, weights=None, freeze=False)
    assert model(torch.zeros(1, 3, *SIZE)).shape == (1, 5)
    assert head_of(model) is model.head
    with pytest.raises(ValueError, match="already"):
        register(tiny, head="head")(lambda outputs: nn.Identity())


def test_a_backbone_that_asks_for_something_unknown_is_refused_at_once():
    with pytest.raises(TypeError, match="depth"):
        register("deep", head="fc")(lambda outputs, depth: nn.Identity())
    assert "deep" not in BACKBONES


# --- weights ------------------------------------------------------------------------------------------


def test_imagenet_weights_come_from_the_cache_and_the_head_is_fresh(tmp_path):
    state = models.resnet18().state_dict()
    cache_imagenet("resnet18", state, tmp_path)
    model = build("resnet18", 6, SIZE, weights="imagenet", freeze=False)
    assert same(model.state_dict(), state, but=["fc"])
    assert model.fc.out_features == 6


@pytest.mark.slow
def test_imagenet_positions_of_vit_are_interpolated(tmp_path):
    """The published file has the keys of an older torchvision (mlp.linear_1) and positions for 224 pixels."""
    state = models.vit_b_16(image_size=64).state_dict()
    state = {
        key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): state[key] for key in state
    }
    state["encoder.pos_embedding"] += 1
    cache_imagenet("vit_b_16", state, tmp_path)
    model = build("vit_b_16", 6, SIZE, weights="imagenet", freeze=False)
    assert model.encoder.pos_embedding.shape == (1, 5, 768)
    assert model.encoder.pos_embedding.mean() > 0.9
    first = "encoder.layers.encoder_layer_0.mlp"
    assert torch.equal(model.state_dict()[f"{first}.0.weight"], state[f"{first}.linear_1.weight"])


@pytest.mark.parametrize(("name", "architecture"), [("resnet18", None), ("timm", "resnet10t")])
def test_a_failed_download_says_that_a_file_can_be_given(name, architecture, monkeypatch):
    timm = pytest.importorskip("timm")
    if name == "timm":
        create = timm.create_model

        def fail(*args, pretrained=False, **kwargs):
            if pretrained:
                raise RuntimeError("no\nnetwork")
            return create(*args, **kwargs)

        monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        BincountError, match=r"cannot be downloaded \(.*no.*network.*model\.weights=FILE"
    ) as caught:
        build(name, 6, SIZE, weights="imagenet", freeze=False, architecture=architecture)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def wrapped(prefix, beside=()):
    def wrap(state):
        return {
            "state_dict": {prefix + key: value for key, value in state.items()} | dict(beside),
            "epoch": 3,
        }

    return wrap


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{key}": value for key, value in state.items()},
        wrapped("module."),
        wrapped("model.", beside={"objective.share": torch.ones(6)}),
        wrapped("module.model."),
        # Files from before torch 0.4 have no such counters.
        lambda state: {key: state[key] for key in state if "num_batches" not in key},
    ],
    ids=["plain", "parallel", "parallel-checkpoint", "lightning", "parallel-lightning", "old-batchnorm"],
)
def test_weights_files_of_all_kinds_are_loaded(wrap, tiny, tmp_path):
    state = build(tiny, 6, SIZE, weights=None, freeze=False).state_dict()
    model = build(tiny, 6, SIZE, weights=save(wrap(state), tmp_path), freeze=False)
    assert same(model.state_dict(), state)


def test_a_head_of_another_shape_starts_fresh(tiny, tmp_path):
    state = build(tiny, 10, SIZE, weights=None, freeze=False).state_dict()
    model = build(tiny, 6, SIZE, weights=save(state, tmp_path), freeze=False)
    assert same(model.state_dict(), state, but=["head"])
    assert model.head.weight.shape == (6, 3600)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda state: state.pop("head.weight"), r"1 missing \(head\.weight\)"),
        (lambda state: state.update(extra=torch.ones(1)), r"1 unexpected \(extra\)"),
        (lambda state: state.update({"0.bias": torch.ones(9)}), r"1 of another shape \(0\.bias\)"),
        (
            lambda state: [state.pop(k) for k in list(state)[:5]],
            r"5 missing \(0\.weight, 0\.bias, 1\.weight, \.\.\.\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_told_in_one_line(change, fault, tiny, tmp_path):
    state = build(tiny, 6, SIZE, weights=None, freeze=False).state_dict()
    change(state)
    with pytest.raises(BadInput, match=fault) as caught:
        build(tiny, 6, SIZE, weights=save(state, tmp_path), freeze=False)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_backbones_weights_are_refused(tmp_path):
    path = save(models.resnet18(num_classes=6).state_dict(), tmp_path)
    with pytest.raises(BadInput, match=r"80 missing \(layer1\.2\.conv1\.weight"):
        build("resnet34", 6, SIZE, weights=path, freeze=False)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "no such file"),
        (b"", "cannot be read"),
        (b"not a weights file", "no weights file"),
        ([1, 2], "no state dict"),
        ({"weight": "text"}, "no state dict"),
        ({"model": nn.Linear(1, 1)}, "more than tensors"),
    ],
)
def test_other_files_are_refused(content, fault, tiny, tmp_path):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(BadInput, match=fault) as caught:
        build(tiny, 6, SIZE, weights=str(path), freeze=False)
    assert "\n" not in str(caught.value)


def test_a_broken_file_is_refused(tiny, tmp_path):
    path = save(build(tiny, 6, SIZE, weights=None, freeze=False).state_dict(), tmp_path)
    with open(path, "r+b") as file:
        file.truncate(2000)
    with pytest.raises(BadInput, match="is it whole"):
        build(tiny, 6, SIZE, weights=path, freeze=False)


# --- freezing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16"])
def test_freeze_trains_the_head_alone(name):
    model = build(name, 6, SIZE, weights=None, freeze=True)
    head = backbones.BACKBONES[name].head
    learns = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
    assert learns == [f"{head}.weight", f"{head}.bias"]


@pytest.mark.parametrize("copied", [False, True])
def test_a_frozen_body_does_not_move(copied, tiny):
    model = build(tiny, 6, SIZE, weights=None, freeze=True)
    model = copy.deepcopy(model) if copied else model
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for mode in (True, False, True):
        model.train(mode)
        model(torch.randn(4, 3, *SIZE)).square().sum().backward()
        optimizer.step()
    assert model.head.training
    assert not any(module.training for module in list(model)[:4])
    assert same(model.state_dict(), before, but=["head"])
    assert not same(model.state_dict(), before)


# --- timm ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["resnet10t", "test_vit"])
def test_timm_takes_any_architecture(architecture, tmp_path):
    pytest.importorskip("timm")
    model = build("timm", 6, (64, 96), weights=None, freeze=True, architecture=architecture)
    assert model(torch.zeros(2, 3, 64, 96)).shape == (2, 6)
    assert head_of(model).out_features == 6
    path = save(model.state_dict(), tmp_path)
    again = build("timm", 6, (64, 96), weights=path, freeze=False, architecture=architecture)
    assert same(model.state_dict(), again.state_dict())


@pytest.mark.parametrize(
    ("architecture", "fault"),
    [
        (None, r"say which one, such as model\.architecture="),
        ("resnet10", r"model\.architecture=resnet10: .*did you mean resnet1"),
        ("resnet18.nope", "Invalid pretrained tag"),
        ("deit_tiny_distilled_patch16_224", "one head"),
    ],
)
def test_timm_refuses_what_it_has_not(architecture, fault):
    pytest.importorskip("timm")
    with pytest.raises(BadInput, match=fault) as caught:
        build("timm", 6, SIZE, weights=None, freeze=False, architecture=architecture)
    assert "\n" not in str(caught.value)


def test_timm_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BadInput, match=r"pip install -e '.\[timm\]'"):
        build("timm", 6, SIZE, weights=None, freeze=False, architecture="resnet10t")
