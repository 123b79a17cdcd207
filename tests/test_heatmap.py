"""Heat maps: they glow where the evidence is, for every kind of network that there is."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bincount.counter import Counter
from bincount.data.index import Counts, ImageSize
from bincount.data.pixels import normalise
from bincount.errors import BincountError
from bincount.heatmap import AT_ONCE, evidence, heat_maps
from bincount.model import backbones, objectives

SIZE = 64


def counter(model: nn.Module, classes: int = 6, size: tuple[int, int] = (SIZE, SIZE)) -> Counter:
    objective = objectives.build("cross_entropy", classes=classes)
    kept = ImageSize(None, None)
    return Counter(model.eval(), objective, Counts(classes - 1), size, kept, torch.device("cpu"))


def grey(photos: int, height: int = SIZE, width: int = SIZE) -> Tensor:
    return torch.full((photos, 3, height, width), 110, dtype=torch.uint8)


class Bright(nn.Module):
    """Tells 1 where something is bright, 0 else; it looks at nothing but patches of 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 1, 8, stride=8)
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.patches.weight.fill_(1 / 192)
            self.patches.bias.fill_(-0.5)
            self.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
            self.head.bias.zero_()

    def forward(self, photos: Tensor) -> Tensor:
        return self.head(self.patches(photos).relu().mean(dim=(2, 3)))


def built(name: str, size: int = SIZE, architecture: str | None = None) -> nn.Module:
    torch.manual_seed(0)
    return backbones.build(name, 6, (size, size), None, False, architecture)


@pytest.mark.parametrize(("row", "column"), [(1, 2), (6, 0), (7, 7)])
def test_it_glows_where_the_evidence_is_and_nowhere_else(row: int, column: int) -> None:
    pixels = grey(1)
    pixels[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
    heat = heat_maps(counter(Bright(), 2), pixels)
    wanted = torch.zeros(1, 8, 8)
    wanted[0, row, column] = 1
    torch.testing.assert_close(heat, wanted)


def test_what_speaks_against_a_count_does_not_glow() -> None:
    pixels = grey(2)
    pixels[:, :, 16:24, 16:24] = 255
    heat = heat_maps(counter(Bright(), 2), pixels, torch.tensor([1, 0]))
    assert heat[0, 2, 2] == 1
    assert not heat[1].any()


def test_the_mirror_image_is_turned_back() -> None:
    pixels = grey(1)
    pixels[:, :, 8:16, 40:48] = 255
    both = replace(counter(Bright(), 2), mirror=True)
    heat = heat_maps(both, pixels)
    assert heat[0].argmax() == 1 * 8 + 5
    torch.testing.assert_close(heat, heat_maps(replace(both, mirror=False), pixels))


def test_photos_that_are_not_square_keep_their_shape() -> None:
    pixels = grey(1, 64, 96)
    pixels[:, :, 8:16, 80:88] = 255
    heat = heat_maps(counter(Bright(), 2, (64, 96)), pixels)
    assert heat.shape == (1, 8, 12)
    assert heat[0, 1, 10] == 1


def test_of_a_resnet_the_places_add_up_to_what_it_tells() -> None:
    """HiResCAM's promise where the features are averaged and read by one linear layer."""
    of = counter(built("resnet18", 224), size=(224, 224))
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    told = torch.tensor([4, 1])
    with torch.no_grad():
        logits, bias = of.model(normalise(pixels)), of.model.fc.bias  # type: ignore[union-attr]
        lead = logits - bias - (logits - bias).mean(dim=1, keepdim=True)
    found = evidence(of, normalise(pixels), told)
    assert found.shape == (2, 7, 7)
    torch.testing.assert_close(found.sum(dim=(1, 2)), lead[[0, 1], told], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "architecture", "shape"),
    [
        ("resnet18", None, (8, 8)),
        ("timm", "vit_tiny_patch16_224", (4, 4)),
        ("timm", "vit_pwee_patch16_reg1_gap_256", (4, 4)),
        ("timm", "convnext_atto", (8, 8)),
        ("timm", "mobilenetv3_small_050", (8, 8)),
    ],
)
def test_networks_of_every_kind_have_one(name: str, architecture: str | None, shape: tuple[int, int]) -> None:
    of = counter(built(name, SIZE, architecture))
    pixels = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    heat = heat_maps(of, pixels, torch.tensor([0, 5]))
    assert heat.dtype == torch.float32
    assert heat.shape == (2, *shape)
    assert heat.amax(dim=(1, 2)).tolist() == [1, 1]
    assert heat.min() >= 0
    assert not torch.equal(heat[0], heat[1])


@pytest.mark.slow
def test_torchvisions_vit_has_one() -> None:
    of = counter(built("vit_b_16"))
    pixels = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8)
    assert not heat_maps(of, pixels).any(), "its last layer begins with zeros: it looks nowhere"
    torch.nn.init.normal_(backbones.head_of(of.model).weight)  # type: ignore[arg-type]
    heat = heat_maps(of, pixels)
    assert heat.shape == (1, 4, 4)
    assert heat.max() == 1


def test_it_works_on_what_was_made_in_inference_mode_and_leaves_the_model_alone() -> None:
    with torch.inference_mode():
        of = counter(built("resnet18"))
        pixels = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
        inside = heat_maps(of, pixels)
    assert torch.equal(heat_maps(of, pixels), inside)
    assert not any(module._forward_hooks for module in of.model.modules())
    assert all(value.grad is None for value in of.model.parameters())


def test_many_photos_are_taken_in_parts_with_the_same_maps() -> None:
    pixels = torch.randint(0, 256, (AT_ONCE + 1, 3, SIZE, SIZE), dtype=torch.uint8)
    of = counter(Bright(), 2)
    told = torch.ones(AT_ONCE + 1, dtype=torch.int64)
    torch.testing.assert_close(heat_maps(of, pixels, told)[-1:], heat_maps(of, pixels[-1:], told[-1:]))


def test_no_photos_have_no_heat() -> None:
    assert heat_maps(counter(Bright(), 2), grey(0)).shape[0] == 0


def test_a_network_that_keeps_no_places_is_told() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 6))
    with pytest.raises(BincountError, match="Sequential has no features with a place"):
        heat_maps(counter(flat), grey(1))
