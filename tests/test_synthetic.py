"""Drawn bins: the same arguments give the same bytes, the count is true, and only the items tell it."""

import hashlib
import multiprocessing
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bincount.data.synthetic import counts_to_draw, draw_bin, draw_scene, minimum_visible

SIZE = (160, 128)
#: The difficulty and size of the drawn bins that `make train` learns from.
CLEAR = (0.1, *SIZE)


def digest(arguments: tuple[int, int, int]) -> str:
    return hashlib.sha256(draw_bin(*arguments, *CLEAR).tobytes()).hexdigest()


def test_same_arguments_give_the_same_bytes_in_another_process():
    wanted = [(seed, index, index % 6) for seed in (0, 1) for index in range(6)]
    here = [digest(arguments) for arguments in wanted]
    assert [digest(arguments) for arguments in reversed(wanted)] == here[::-1]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(digest, wanted) == here


def test_drawing_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()
    draw_bin(0, 0, 3, *CLEAR)
    assert (np.random.get_state()[1] == before).all()


def test_photos_differ_by_seed_index_and_count():
    arguments = [(seed, index, count) for seed in (0, 1) for index in range(3) for count in range(4)]
    assert len({digest(each) for each in arguments}) == len(arguments)


@pytest.mark.parametrize(("width", "height"), [(160, 128), (64, 64), (97, 201), (320, 240)])
def test_the_photo_has_the_size_asked_for(width, height):
    scene = draw_scene(0, 1, 3, 0.5, width, height)
    assert scene.photo.shape == (height, width, 3)
    assert scene.photo.dtype == np.uint8
    assert scene.items.shape == (height, width)


@pytest.mark.parametrize("difficulty", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 9, 20])
def test_every_item_is_seen(count, difficulty):
    for index in range(5):
        scene = draw_scene(3, index, count, difficulty, *SIZE)
        assert set(np.unique(scene.items)) - {0} == set(range(1, count + 1))
        assert len(scene.visible) == count
        assert all(share >= minimum_visible(difficulty) >= 0.25 for share in scene.visible)


def test_the_mask_is_where_the_photo_shows_something():
    contrasts = []
    for index in range(20):
        scene = draw_scene(4, index, 1, 0.0, *SIZE)
        inside, outside = scene.photo[scene.items == 1], scene.photo[scene.items == 0]
        contrasts.append(np.abs(np.median(inside, axis=0) - np.median(outside, axis=0)).max())
    assert np.mean(contrasts) > 30


@pytest.mark.slow
def test_photos_get_darker_blurrier_and_noisier_with_difficulty():
    def look(difficulty: float) -> tuple[float, float]:
        photos = [draw_bin(5, index, 4, difficulty, *SIZE).mean(axis=2) for index in range(40)]
        calm = [np.asarray(Image.fromarray(photo).reduce(4)) for photo in photos]  # without the noise
        return float(np.mean(photos)), float(np.mean([photo.std() for photo in calm]))

    clear, middle, worst = look(0.0), look(0.5), look(1.0)
    assert clear[0] > middle[0] > worst[0]
    assert clear[1] > middle[1] > worst[1]


@pytest.mark.parametrize(
    ("count", "difficulty", "size"), [(-1, 0.5, 64), (1, -0.1, 64), (1, 1.1, 64), (1, 0.5, 8), (255, 0.5, 64)]
)
def test_what_cannot_be_drawn_is_refused(count, difficulty, size):
    with pytest.raises(ValueError, match="cannot draw"):
        draw_bin(0, 0, count, difficulty, size, size)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 500), st.integers(0, 20), st.integers(0, 2**32))
def test_counts_are_spread_evenly(photos, max_count, seed):
    counts = counts_to_draw(photos, max_count, seed)
    assert len(counts) == photos
    assert counts == counts_to_draw(photos, max_count, seed)
    times = Counter(dict.fromkeys(range(max_count + 1), 0))
    times.update(counts)
    assert set(times) == set(range(max_count + 1))
    assert max(times.values()) - min(times.values()) <= 1


def test_counts_come_in_an_order_set_by_the_seed():
    assert counts_to_draw(60, 5, 0) != counts_to_draw(60, 5, 1)
    assert counts_to_draw(60, 5, 0) != sorted(counts_to_draw(60, 5, 0))


@pytest.mark.slow
def test_a_linear_model_on_thumbnails_cannot_count():
    """Ridge regression onto one-hot counts, its penalty tuned on the test photos in its favour."""
    photos, trained = 2400, 1800
    counts = np.array(counts_to_draw(photos, 5, 0))
    pixels = np.stack([thumbnail(index, count) for index, count in enumerate(counts)])
    pixels = (pixels - pixels[:trained].mean(axis=0)) / pixels[:trained].std(axis=0)
    train, test = pixels[:trained], pixels[trained:]
    likeness = train @ train.T
    accuracies = []
    for penalty in (1e2, 1e3, 1e4, 1e5):
        weights = np.linalg.solve(likeness + penalty * np.eye(trained), np.eye(6)[counts[:trained]] - 1 / 6)
        answers = (test @ (train.T @ weights)).argmax(axis=1)
        accuracies.append(float((answers == counts[trained:]).mean()))
    # Above chance (1/6), or this test could not fail: some of the empty bins are easy to tell.
    assert 0.19 < max(accuracies) < 0.35


def thumbnail(index: int, count: int) -> np.ndarray:
    photo = Image.fromarray(draw_bin(0, index, count, *CLEAR))
    return np.asarray(photo.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float64).ravel() / 255
