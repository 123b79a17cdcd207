"""Photos as tensors: resized and normalised as torchvision does it, and changed each by its own numbers."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import photo
from torchvision.transforms.v2 import functional as tv

from bincount.data.pixels import DRAWS, MEAN, STD, Augmentation, augment, draws, fit, normalise

NOTHING = Augmentation(**{key.name: 0.0 for key in fields(Augmentation)})
ALL = Augmentation(
    flip=0.5, upside_down=0.5, shift=0.1, zoom=0.2, rotate=10, stretch=0.2, light=0.3, contrast=0.3, color=0.3
)


def pixels(photos: int = 6, height: int = 24, width: int = 32) -> torch.Tensor:
    return normalise(torch.stack([fit(photo(width, height, n), (height, width)) for n in range(photos)]))


# --- resizing and normalising -------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(16, 120), st.integers(16, 120), st.integers(16, 96), st.integers(16, 96))
def test_a_photo_is_resized_as_torchvision_does_it(
    width: int, height: int, to_height: int, to_width: int
) -> None:
    image = photo(width, height, seed=width)
    ours = fit(image, (to_height, to_width))
    theirs = tv.resize(torch.from_numpy(image).permute(2, 0, 1), [to_height, to_width], antialias=True)
    assert ours.dtype == torch.uint8
    assert ours.shape == (3, to_height, to_width)
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert (ours != theirs).float().mean() < 0.1  # torchvision 0.19 rounds some otherwise


def test_a_photo_of_the_right_size_stays_as_it_is() -> None:
    assert torch.equal(fit(photo(40, 32), (32, 40)), torch.from_numpy(photo(40, 32)).permute(2, 0, 1))


def test_the_whole_photo_is_squashed_and_no_edge_is_cut() -> None:
    image = np.zeros((40, 200, 3), dtype=np.uint8)
    image[:, :20], image[:, -20:] = 255, 255
    small = fit(image, (32, 32))
    assert small[:, :, 0].min() > 200
    assert small[:, :, -1].min() > 200


def test_normalising_is_torchvisions() -> None:
    batch = torch.stack([fit(photo(seed=n), (32, 40)) for n in range(3)])
    ours = normalise(batch)
    theirs = tv.normalize(tv.to_dtype(batch, torch.float32, scale=True), list(MEAN), list(STD))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)


# --- random numbers -----------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(0, 1000), st.lists(st.integers(-1, 10**9), max_size=8))
def test_the_numbers_of_a_photo_depend_on_seed_epoch_and_row_alone(
    seed: int, epoch: int, rows: list[int]
) -> None:
    numbers = draws(seed, epoch, np.array(rows, dtype=np.int64))
    assert numbers.shape == (len(rows), DRAWS)
    assert numbers.dtype == torch.float32
    assert torch.all((numbers >= 0) & (numbers <= 1))
    for row, own in zip(rows, numbers, strict=True):
        assert torch.equal(draws(seed, epoch, np.array([row]))[0], own)


def test_another_seed_epoch_or_row_has_other_numbers() -> None:
    drawn = [draws(*which, np.array([row])) for which in [(0, 0), (0, 1), (1, 0)] for row in (0, 1, 2)]
    assert len({tuple(numbers.ravel().tolist()) for numbers in drawn}) == 9


# --- augmentation -------------------------------------------------------------------------------------


def test_no_strength_changes_nothing() -> None:
    batch = pixels()
    torch.testing.assert_close(
        augment(batch, draws(0, 0, np.arange(6)), NOTHING), batch, atol=1e-4, rtol=1e-4
    )


def test_a_flip_is_the_exact_mirror() -> None:
    batch = pixels()
    flipped = augment(batch, draws(0, 0, np.arange(6)), replace(NOTHING, flip=1))
    torch.testing.assert_close(flipped, batch.flip(3), atol=1e-4, rtol=1e-4)


def test_the_share_of_flips_is_the_one_asked_for() -> None:
    batch, numbers = pixels(1).expand(400, -1, -1, -1), draws(0, 0, np.arange(400))
    changed = (augment(batch, numbers, replace(NOTHING, flip=0.3)) - batch).abs().amax((1, 2, 3)) > 0.1
    assert 0.2 < changed.float().mean() < 0.4


def test_a_photo_is_changed_alike_whatever_else_is_in_its_batch() -> None:
    batch, numbers = pixels(), draws(3, 1, np.arange(6))
    together = augment(batch, numbers, ALL)
    for n in range(6):
        alone = augment(batch[n : n + 1], numbers[n : n + 1], ALL)
        torch.testing.assert_close(alone[0], together[n], atol=1e-5, rtol=1e-5)
    backwards = augment(batch.flip(0), numbers.flip(0), ALL).flip(0)
    torch.testing.assert_close(backwards, together, atol=1e-5, rtol=1e-5)


def test_each_photo_of_a_batch_is_changed_in_its_own_way() -> None:
    batch = pixels(1).expand(6, -1, -1, -1)
    changed = augment(batch, draws(0, 0, np.arange(6)), ALL)
    assert changed.shape == batch.shape
    assert all((changed[0] - changed[n]).abs().max() > 0.1 for n in range(1, 6))


@pytest.mark.parametrize("numbers", [0.0, 0.5, 1.0])
def test_zooming_only_shows_more(numbers: float) -> None:
    """A dot in the middle stays there and never gets larger."""
    batch = torch.zeros(1, 1, 33, 33)
    batch[:, :, 8:25, 8:25] = 1
    zoomed = augment(batch, torch.full((1, DRAWS), numbers), replace(NOTHING, zoom=0.2))
    expected = (17 * (1 - 0.2 * numbers)) ** 2
    assert abs(float(zoomed.sum()) - expected) < 0.1 * expected
    assert zoomed[0, 0, 16, 16] == pytest.approx(1)


def test_a_shift_moves_by_a_part_of_the_side() -> None:
    batch = pixels(1, 40, 40)
    numbers = torch.full((1, DRAWS), 0.5)
    numbers[0, 1] = 1.0  # as far as it goes, along the width
    moved = augment(batch, numbers, replace(NOTHING, shift=0.1))
    torch.testing.assert_close(moved[..., :36], batch[..., 4:], atol=1e-4, rtol=1e-4)


def test_upside_down_is_the_exact_mirror() -> None:
    batch = pixels()
    turned = augment(batch, draws(0, 0, np.arange(6)), replace(NOTHING, upside_down=1))
    torch.testing.assert_close(turned, batch.flip(2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("number", "turns"), [(0.0, 1), (0.5, 0), (1.0, -1)])
def test_a_rotation_goes_to_either_side(number: float, turns: int) -> None:
    batch = pixels(2, 24, 24)
    numbers = torch.full((2, DRAWS), 0.5)
    numbers[:, 8] = number
    turned = augment(batch, numbers, replace(NOTHING, rotate=90))
    torch.testing.assert_close(turned, torch.rot90(batch, -turns, (2, 3)), atol=1e-3, rtol=1e-3)


def test_a_rotation_keeps_right_angles_where_a_photo_is_not_square() -> None:
    batch = torch.zeros(1, 1, 40, 80)
    batch[:, :, 10:30, 30:50] = 1  # 20 by 20 pixels
    numbers = torch.full((1, DRAWS), 0.5)
    numbers[:, 8] = 1.0
    turned = augment(batch, numbers, replace(NOTHING, rotate=90))
    torch.testing.assert_close(turned[0, 0, 10:30, 30:50].mean(), torch.tensor(1.0), atol=0.05, rtol=0)
    assert float(turned.sum()) == pytest.approx(400, rel=0.05)


@pytest.mark.parametrize("number", [0.0, 1.0])
def test_stretching_keeps_the_area(number: float) -> None:
    batch = torch.zeros(1, 1, 64, 64)
    batch[:, :, 22:42, 22:42] = 1
    numbers = torch.full((1, DRAWS), 0.5)
    numbers[:, 7] = number
    stretched = augment(batch, numbers, replace(NOTHING, stretch=0.25))[0, 0]
    wide, high = float(stretched[32].sum()), float(stretched[:, 32].sum())
    assert wide / high == pytest.approx(1.25**2 if number == 0 else 1.25**-2, rel=0.05)
    assert float(stretched.sum()) == pytest.approx(400, rel=0.05)


def test_without_saturation_a_photo_is_grey_and_black_stays_black_under_any_color() -> None:
    batch, numbers = pixels(), torch.full((6, DRAWS), 0.5)
    numbers[:, 9] = 0.0
    grey = augment(batch, numbers, replace(NOTHING, color=1.0))
    torch.testing.assert_close(grey.amax(1), grey.amin(1), atol=1e-4, rtol=1e-4)
    black = normalise(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    numbers = torch.full((1, DRAWS), 0.5)
    numbers[:, 10:13] = torch.tensor([0.0, 0.5, 1.0])
    gained = augment(black, numbers, replace(NOTHING, color=0.5))
    torch.testing.assert_close(gained, black, atol=1e-4, rtol=1e-4)


def test_what_comes_in_at_a_side_is_no_mirror_image() -> None:
    """An item near the border is not shown again beyond it."""
    batch = torch.zeros(1, 1, 40, 40)
    batch[:, :, 18:22, 3:6] = 1
    moved = augment(batch, torch.full((1, DRAWS), 1.0), replace(NOTHING, zoom=0.3))
    alone = augment(batch, torch.full((1, DRAWS), 0.0), replace(NOTHING, zoom=0.3))
    assert float(moved.sum()) < float(alone.sum())


def test_brightness_and_contrast_go_both_ways_within_their_bounds() -> None:
    batch = pixels(1)
    numbers = torch.full((3, DRAWS), 0.5)
    numbers[:, 4] = torch.tensor([0.0, 0.5, 1.0])
    low, same, high = augment(batch.expand(3, -1, -1, -1), numbers, replace(NOTHING, contrast=0.25))
    torch.testing.assert_close(same, batch[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(low, batch[0] / 1.25, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(high, batch[0] * 1.25, atol=1e-4, rtol=1e-4)
    numbers = torch.full((2, DRAWS), 0.5)
    numbers[:, 5] = torch.tensor([0.0, 1.0])
    dark, light = augment(batch.expand(2, -1, -1, -1), numbers, replace(NOTHING, light=0.1))
    torch.testing.assert_close(light - dark, torch.full_like(dark, 2 * 0.1 / STD[1]), atol=1e-4, rtol=1e-4)
