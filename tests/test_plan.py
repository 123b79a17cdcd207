"""The epoch plan, over random indexes, world sizes, workers and points where a run goes on."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bincount.data.plan import (
    NO_ROW,
    Layout,
    Plan,
    Rows,
    evaluation_plan,
    pick_fraction,
    training_plan,
)

layouts = st.builds(
    Layout,
    world_size=st.integers(1, 8),
    workers=st.integers(0, 4),
    batch_size=st.integers(1, 9),
)


@st.composite
def indexes(draw: st.DrawFn) -> tuple[Rows, Rows]:
    """Rows and the shard of each, some rows perhaps not to be used (`data.fraction`)."""
    sizes = draw(st.lists(st.integers(1, 60), min_size=1, max_size=12))
    shards = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.arange(len(shards))
    if draw(st.booleans()):
        rows = pick_fraction(len(rows), draw(st.floats(0.1, 1)), seed=draw(st.integers(0, 9)))
    return rows, shards[rows]


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, Rows, Rows, int, int]:
    """A training plan with its rows, their shards, its span and its window."""
    rows, shards = draw(indexes())
    span, window = draw(st.integers(1, 40)), draw(st.integers(1, 80))
    seed, epoch = draw(st.integers(0, 2**32)), draw(st.integers(0, 50))
    plan = training_plan(rows, shards, draw(layouts), seed=seed, epoch=epoch, span=span, window=window)
    return plan, rows, shards, span, window


def replayed(plan: Plan, rank: int, steps_done: int) -> list[list[int]]:
    """The batches of a rank in the order in which a DataLoader takes them from its workers."""
    lanes = [plan.lane(rank, worker, steps_done).batches.tolist() for worker in range(plan.layout.lanes)]
    return [
        lane[turn] for turn in range(max(map(len, lanes), default=0)) for lane in lanes if turn < len(lane)
    ]


# --- exactly once -------------------------------------------------------------------------------------


@given(plans())
def test_every_row_comes_at_most_once_and_all_but_the_last_part_batch_exactly_once(
    planned: tuple[Plan, Rows, Rows, int, int],
) -> None:
    plan, rows, *_ = planned
    seen = plan.batches.ravel()
    assert len(set(seen.tolist())) == len(seen)
    assert set(seen.tolist()) <= set(rows.tolist())
    assert len(rows) - len(seen) == len(rows) % plan.layout.global_batch


@given(plans())
def test_every_rank_takes_the_same_number_of_full_batches(
    planned: tuple[Plan, Rows, Rows, int, int],
) -> None:
    plan, rows, *_ = planned
    layout = plan.layout
    assert plan.steps == len(rows) // layout.global_batch
    assert plan.batches.shape == (plan.steps, layout.world_size, layout.batch_size)
    assert NO_ROW not in plan.batches


def test_fewer_rows_than_one_global_batch_make_no_step() -> None:
    rows = np.arange(7)
    plan = training_plan(rows, rows, Layout(8, 2, 1), seed=0, epoch=0, span=4, window=4)
    assert plan.steps == 0
    assert [replayed(plan, rank, 0) for rank in range(8)] == [[]] * 8


def test_one_photo_on_one_rank_is_one_step() -> None:
    plan = training_plan(np.array([0]), np.array([0]), Layout(1, 4, 1), seed=3, epoch=9, span=64, window=1024)
    assert plan.batches.tolist() == [[[0]]]


def test_no_rows_make_an_empty_plan() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert training_plan(nothing, nothing, Layout(2, 2, 4), seed=0, epoch=0, span=8, window=8).steps == 0
    assert evaluation_plan(nothing, Layout(2, 2, 4)).steps == 0


# --- lanes: what each worker does ---------------------------------------------------------------------


@given(plans(), st.data())
def test_workers_in_turn_give_the_planned_batches_from_any_step_on(
    planned: tuple[Plan, Rows, Rows, int, int], data: st.DataObject
) -> None:
    plan, *_ = planned
    steps_done = data.draw(st.integers(0, plan.steps))
    for rank in range(plan.layout.world_size):
        assert replayed(plan, rank, steps_done) == plan.batches[steps_done:, rank].tolist()


@given(plans(), st.data())
def test_a_lane_reads_exactly_the_rows_of_its_batches(
    planned: tuple[Plan, Rows, Rows, int, int], data: st.DataObject
) -> None:
    plan, *_ = planned
    steps_done = data.draw(st.integers(0, plan.steps))
    read = []
    for rank in range(plan.layout.world_size):
        for worker in range(plan.layout.lanes):
            lane = plan.lane(rank, worker, steps_done)
            assert sorted(lane.reads.tolist()) == sorted(lane.batches.ravel().tolist())
            read += lane.reads.tolist()
    assert len(set(read)) == len(read)


@given(plans())
def test_within_a_lane_a_row_moves_by_fewer_places_than_the_window(
    planned: tuple[Plan, Rows, Rows, int, int],
) -> None:
    plan, _, _, _, window = planned
    for rank in range(plan.layout.world_size):
        for worker in range(plan.layout.lanes):
            lane = plan.lane(rank, worker)
            place = {row: n for n, row in enumerate(lane.reads.tolist())}
            moved = [abs(n - place[row]) for n, row in enumerate(lane.batches.ravel().tolist())]
            assert max(moved, default=0) < window


@given(plans(), st.data())
def test_a_worker_never_holds_back_more_rows_than_the_window_wherever_it_starts(
    planned: tuple[Plan, Rows, Rows, int, int], data: st.DataObject
) -> None:
    plan, _, _, _, window = planned
    steps_done = data.draw(st.integers(0, plan.steps))
    lane = plan.lane(0, 0, steps_done)
    place = {row: n for n, row in enumerate(lane.reads.tolist())}
    read = 0
    for given_out, row in enumerate(lane.batches.ravel().tolist()):
        read = max(read, place[row] + 1)
        assert read - given_out <= window


@given(plans())
def test_a_lane_reads_each_span_in_one_go(planned: tuple[Plan, Rows, Rows, int, int]) -> None:
    """Reads are runs of rows that follow each other in one shard: at most one run a span, and one cut."""
    plan, rows, shards, span, _ = planned
    # Neighbours are those among the rows that are used: those left out lie between.
    used = np.isin(rows, plan.batches)
    shard_of = dict(zip(rows.tolist(), shards.tolist(), strict=True))
    order = {row: n for n, row in enumerate(rows[used].tolist())}
    in_shard = {shard: int(np.sum(shards[used] == shard)) for shard in set(shards.tolist())}
    spans = sum(-(-photos // span) for photos in in_shard.values())
    runs = 0
    for rank in range(plan.layout.world_size):
        for worker in range(plan.layout.lanes):
            reads = plan.lane(rank, worker).reads.tolist()
            breaks = [
                order[after] != order[before] + 1 or shard_of[after] != shard_of[before]
                for before, after in pairwise(reads)
            ]
            runs += bool(reads) + sum(breaks)
    lanes = plan.layout.world_size * plan.layout.lanes
    assert runs <= spans + lanes - 1


# --- going on -----------------------------------------------------------------------------------------


@given(indexes(), st.data())
def test_other_layouts_go_on_with_the_rows_not_yet_seen(
    index: tuple[Rows, Rows], data: st.DataObject
) -> None:
    rows, shards = index
    how = {"seed": data.draw(st.integers(0, 99)), "epoch": data.draw(st.integers(0, 9)), "span": 7}
    done: list[tuple[Layout, int]] = []
    seen: list[int] = []
    for _ in range(data.draw(st.integers(1, 3))):
        layout = data.draw(layouts)
        plan = training_plan(rows, shards, layout, **how, window=20, done=done)
        steps = data.draw(st.integers(0, plan.steps))
        seen += plan.batches[:steps].ravel().tolist()
        done.append((layout, steps))
    last = data.draw(layouts)
    plan = training_plan(rows, shards, last, **how, window=20, done=done)
    seen += plan.batches.ravel().tolist()
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(rows.tolist())
    assert len(rows) - len(seen) < last.global_batch


@given(plans(), st.data())
def test_every_rank_and_worker_comes_to_the_same_plan_by_itself(
    planned: tuple[Plan, Rows, Rows, int, int], data: st.DataObject
) -> None:
    _, rows, shards, span, window = planned
    layout, other = data.draw(layouts), data.draw(layouts)
    how = {"seed": 5, "epoch": 2, "span": span, "window": window, "done": ((other, 1),)}
    one, two = (training_plan(rows.copy(), shards.copy(), layout, **how) for _ in range(2))
    assert np.array_equal(one.batches, two.batches)
    assert np.array_equal(one.sequence, two.sequence)


@given(layouts, st.integers(0, 1000), st.integers(0, 1000))
def test_another_epoch_or_seed_gives_another_order(layout: Layout, seed: int, epoch: int) -> None:
    rows = np.arange(300)
    shards = rows // 50
    how = {"span": 8, "window": 64}
    plan = training_plan(rows, shards, layout, seed=seed, epoch=epoch, **how)
    next_epoch = training_plan(rows, shards, layout, seed=seed, epoch=epoch + 1, **how)
    next_seed = training_plan(rows, shards, layout, seed=seed + 1, epoch=epoch, **how)
    assert plan.batches.tolist() != next_epoch.batches.tolist()
    assert plan.batches.tolist() != next_seed.batches.tolist()
    assert next_epoch.batches.tolist() != next_seed.batches.tolist()


# --- evaluation ---------------------------------------------------------------------------------------


def real_batches(plan: Plan) -> set[tuple[int, ...]]:
    """The batches of all ranks, without those that only fill up the last step."""
    batches = plan.batches.reshape(-1, plan.layout.batch_size).tolist()
    return {tuple(batch) for batch in batches if set(batch) != {NO_ROW}}


@given(indexes(), layouts, layouts)
def test_evaluation_reads_every_row_once_in_the_same_batches_at_any_world_size(
    index: tuple[Rows, Rows], one: Layout, other: Layout
) -> None:
    rows, _ = index
    other = Layout(other.world_size, other.workers, one.batch_size)
    plan = evaluation_plan(rows, one)
    assert plan.batches[plan.batches != NO_ROW].tolist() == rows.tolist()
    assert real_batches(plan) == real_batches(evaluation_plan(rows, other))
    assert plan.steps == -(-len(rows) // one.global_batch)


@given(indexes(), layouts)
def test_evaluation_lanes_give_the_planned_batches_and_read_in_order(
    index: tuple[Rows, Rows], layout: Layout
) -> None:
    plan = evaluation_plan(index[0], layout)
    for rank in range(layout.world_size):
        assert replayed(plan, rank, 0) == plan.batches[:, rank].tolist()
        for worker in range(layout.lanes):
            lane = plan.lane(rank, worker)
            wanted = lane.batches.ravel()
            assert lane.reads.tolist() == wanted[wanted != NO_ROW].tolist()


# --- shares -------------------------------------------------------------------------------------------


@given(st.integers(1, 500), st.floats(0.001, 1), st.integers(0, 99))
def test_a_fraction_picks_that_share_of_different_rows_in_order(
    rows: int, fraction: float, seed: int
) -> None:
    picked = pick_fraction(rows, fraction, seed)
    assert len(picked) == max(1, round(rows * fraction))
    assert np.all(np.diff(picked) > 0)
    assert picked[0] >= 0
    assert picked[-1] < rows
    assert picked.tolist() == pick_fraction(rows, fraction, seed).tolist()


def test_a_larger_fraction_keeps_the_rows_of_a_smaller_one() -> None:
    assert set(pick_fraction(1000, 0.1, 7).tolist()) < set(pick_fraction(1000, 0.4, 7).tolist())
    assert pick_fraction(1000, 1, 7).tolist() == list(range(1000))
    assert pick_fraction(0, 0.5, 7).tolist() == []


def test_another_seed_picks_another_fraction() -> None:
    assert pick_fraction(1000, 0.1, 7).tolist() != pick_fraction(1000, 0.1, 8).tolist()


# --- chance -------------------------------------------------------------------------------------------


def test_the_rows_left_out_are_spread_evenly() -> None:
    """Chi-squared of how often each of 103 rows is left out in 2,000 epochs: within 4 deviations."""
    rows = np.arange(103)
    shards, layout, epochs = rows // 20, Layout(2, 2, 5), 2000
    left_out = np.zeros(len(rows))
    for epoch in range(epochs):
        plan = training_plan(rows, shards, layout, seed=1, epoch=epoch, span=8, window=16)
        left_out += ~np.isin(rows, plan.batches)
    expected = epochs * 3 / len(rows)
    chi_squared = np.sum((left_out - expected) ** 2 / expected)
    assert left_out.sum() == 3 * epochs
    assert chi_squared < len(rows) + 4 * (2 * len(rows)) ** 0.5


@pytest.fixture(scope="module")
def large_plan() -> Plan:
    rows = np.arange(20_000)
    return training_plan(rows, rows // 1000, Layout(2, 2, 32), seed=0, epoch=0, span=64, window=1024)


def test_rows_of_one_span_rarely_share_a_batch(large_plan: Plan) -> None:
    batch_of = np.full(20_000, -1)
    batches = large_plan.batches.reshape(-1, 32)
    batch_of[batches] = np.arange(len(batches))[:, None]
    together = (batch_of[1:] == batch_of[:-1]) & (batch_of[1:] >= 0)
    assert together.mean() < 0.05


def test_a_batch_has_photos_of_many_spans_and_shards(large_plan: Plan) -> None:
    batches = large_plan.batches.reshape(-1, 32)
    assert np.mean([len(set((batch // 64).tolist())) for batch in batches]) > 10
    assert np.mean([len(set((batch // 1000).tolist())) for batch in batches]) > 7


def test_the_ranks_get_other_shards_in_each_epoch() -> None:
    rows = np.arange(4000)
    met = [
        set(
            training_plan(rows, rows // 100, Layout(4, 1, 10), seed=0, epoch=epoch, span=50, window=100)
            .batches[:, 0]
            .ravel()
            .tolist()
        )
        for epoch in range(12)
    ]
    # A quarter of all photos an epoch: after 12, a rank has met all but 0.75**12 = 3 % of them.
    assert len(set.union(*met)) > 0.9 * len(rows)


@settings(max_examples=20)
@given(st.integers(2, 500), st.integers(0, 99))
def test_a_window_as_long_as_a_lane_lets_a_row_come_anywhere(places: int, seed: int) -> None:
    assume(places >= 50)
    rows = np.arange(places)
    plan = training_plan(rows, rows * 0, Layout(1, 0, 1), seed=seed, epoch=0, span=places, window=places)
    moved = plan.batches.ravel() - rows
    assert np.abs(moved).max() > places / 4
