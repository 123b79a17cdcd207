"""Where each step lies, over epochs that are done in several layouts."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bincount.data.course import KEPT, Course, Place, check_kept, resumed
from bincount.data.plan import Layout, training_plan
from bincount.errors import BadInput

layouts = st.builds(Layout, st.integers(1, 3), st.integers(0, 3), st.integers(1, 4))


@given(st.integers(12, 200), layouts, st.integers(0, 60))
def test_in_one_layout_a_step_lies_where_division_says(rows: int, layout: Layout, step: int) -> None:
    course = Course(rows, layout)
    steps = rows // layout.global_batch
    place = course.at(step)
    assert (place.epoch, place.steps) == divmod(step, steps)
    assert course.steps == course.steps_of(place.epoch) == steps


def test_the_end_of_an_epoch_is_one_until_it_was_validated() -> None:
    course = Course(40, Layout(2, 1, 4))
    for epoch in (1, 2, 3):
        assert course.at(epoch * 5, ended=True) == Place(epoch)
        assert course.at(epoch * 5, ended=False) == Place(epoch - 1, ((Layout(2, 1, 4), 5),))
    assert course.at(0, ended=False) == Place(0)


@given(st.data())
def test_an_epoch_in_several_layouts_takes_no_photo_twice_and_leaves_less_than_a_batch(
    data: st.DataObject,
) -> None:
    """What the loaders give out, over three epochs and up to six starts of a run."""
    rows = np.arange(data.draw(st.integers(12, 90)))
    shards = rows // 10
    state, step, goal = None, 0, 3
    seen: dict[int, Counter[int]] = {epoch: Counter() for epoch in range(goal)}
    left: dict[int, int] = {}
    for start in range(6):
        layout = data.draw(layouts)
        course = resumed(state, len(rows), layout) if state else Course(len(rows), layout)
        assert course.step == step
        left[course.start.epoch] = layout.global_batch
        limit = 1000 if start == 5 else data.draw(st.integers(0, 12))
        ended = True
        while limit and course.at(step).epoch < goal:
            # One epoch, or what is left of it, as the loaders go through it.
            place = course.at(step)
            epoch, done = place.epoch, course.steps_done(place)
            earlier = course.earlier if epoch == course.start.epoch else ()
            plan = training_plan(rows, shards, layout, seed=1, epoch=epoch, span=4, window=8, done=earlier)
            assert plan.steps - done + place.steps == course.steps_of(epoch)
            taken = plan.batches[done : done + limit]
            seen[epoch].update(taken.ravel().tolist())
            limit -= len(taken)
            step += len(taken)
            left[epoch] = layout.global_batch
            ended = bool(limit) or data.draw(st.booleans())
        state = course.state(step, ended)
    for epoch, photos in seen.items():
        assert set(photos.values()) <= {1}
        assert len(rows) - len(photos) < left[epoch]
    assert resumed(state, len(rows), layout).at(step).epoch == goal


@given(layouts, st.integers(0, 70), st.booleans(), st.integers(0, 70))
def test_a_state_goes_on_as_if_never_taken(layout: Layout, stop: int, ended: bool, more: int) -> None:
    course = Course(50, layout)
    again = resumed(course.state(stop, ended), 50, layout)
    assert again.at(stop, ended) == course.at(stop, ended)
    for step in (stop, stop + more):
        assert again.at(step) == course.at(step)
        assert again.schedule(30, None) == course.schedule(30, None) == (course.steps, 30 * course.steps)
        assert again.state(step, True) == course.state(step, True)


def test_a_rank_without_workers_reads_like_one_worker() -> None:
    state = Course(40, Layout(2, 0, 4)).state(3, True)
    again = resumed(state, 40, Layout(2, 1, 4))
    assert again.earlier == ()
    assert again.steps_done(again.at(3)) == 3


def test_the_rest_of_an_epoch_may_be_too_little_for_another_layout() -> None:
    state = Course(40, Layout(1, 0, 4)).state(8, True)  # 8 photos are left
    course = resumed(state, 40, Layout(1, 0, 10))
    assert course.steps_of(0) == course.start.steps == 8
    assert course.at(8) == Place(1)
    assert course.steps_of(1) == 4


def test_a_schedule_goes_on_from_the_same_share_of_its_way() -> None:
    course = Course(80, Layout(2, 0, 4))  # 10 steps an epoch
    assert course.schedule(4, None) == (10, 40)
    half = resumed(course.state(15, True), 80, Layout(1, 0, 4))  # from now on 20
    assert half.scheduled == 30
    assert half.steps_of(1) == 5 + 10
    assert half.schedule(4, None) == (20, 80)
    assert half.schedule(4, max_steps=25) == (20, 40)
    third = resumed(half.state(23, True), 80, Layout(2, 0, 4))
    assert third.scheduled == 19
    assert third.schedule(4, None) == (10, 40)


def test_what_a_plan_rests_on_stays_within_an_epoch() -> None:
    settings = dict.fromkeys(KEPT, 1)
    within = {**Course(40, Layout(1, 0, 4)).state(13, True), "settings": settings}
    after = {**Course(40, Layout(1, 0, 4)).state(20, True), "settings": settings}
    for key in KEPT:
        changed = {**settings, key: 2}
        check_kept(after, changed)
        with pytest.raises(BadInput) as error:
            check_kept(within, changed)
        assert str(error.value) == (
            f"{key}=2: the run stopped within epoch 2, which began with {key}=1: finish the epoch with that"
        )
    check_kept(within, settings)
