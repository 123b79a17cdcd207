"""Groups of neighbouring photos, and their assignment to splits."""

from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from random import Random

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bincount.data.labels import read_labels
from bincount.data.splits import assign_splits, block_groups, id_twins, neighbour_groups
from bincount.errors import BadInput

RATIOS = [
    {"train": 0.7, "val": 0.15, "test": 0.15},
    {"train": 0.64, "val": 0.16, "test": 0.2},
    {"train": 0.6, "val": 0.2, "test": 0.2},
    {"train": 0.9, "val": 0.0, "test": 0.1},
]

BOUND = 2
"""Photos by which a split may miss its share, per photo in the largest group (1.4 in 6,000 random trials)."""

ids = st.lists(st.text("019ab", min_size=1, max_size=6), unique=True, max_size=30)
photos = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=120)


def test_neighbours_that_share_an_item_are_one_group() -> None:
    items = {"00001": ["A", "B"], "00002": ["B", "C"], "00003": ["C"], "00004": ["D"], "00009": ["D"]}
    assert neighbour_groups(["00009", "00001", "00003", "00004", "00002"], items) == {
        "00001": "00001",
        "00002": "00001",
        "00003": "00001",
        "00004": "00004",
        "00009": "00004",
    }


def test_only_the_next_photo_is_a_neighbour() -> None:
    items = {"00001": ["A"], "00002": ["B"], "00003": ["A"]}
    assert neighbour_groups(list(items), items) == {id: id for id in items}


def test_a_photo_without_items_does_not_part_its_neighbours() -> None:
    items: dict[str, list[str]] = {"00001": ["A"], "00002": [], "00004": ["A"]}
    groups = neighbour_groups(["00001", "00002", "00003", "00004"], items)
    assert groups == {"00001": "00001", "00002": "00002", "00003": "00003", "00004": "00001"}


def test_numbers_padded_or_not_are_two_series() -> None:
    items = {id: ["A"] for id in ("00001", "100000", "1", "10", "9", "bin9", "bin10")}
    groups = neighbour_groups(list(items), items)
    assert groups == {
        "00001": "00001",
        "100000": "00001",
        "1": "1",
        "9": "1",
        "10": "1",
        "bin9": "bin9",
        "bin10": "bin9",
    }


@given(ids, st.randoms())
def test_groups_are_named_after_a_member_whatever_the_order(ids: list[str], random: Random) -> None:
    items = {id: [random.choice("AB")] for id in ids}
    neighbours, blocks = neighbour_groups(ids, items), block_groups(ids, 3)
    assert set(neighbours) == set(blocks) == set(ids)
    assert all(neighbours[group] == group for group in neighbours.values())
    assert all(blocks[group] == group for group in blocks.values())
    assert max(Counter(blocks.values()).values(), default=0) <= 3
    random.shuffle(ids)
    assert neighbour_groups(ids, items) == neighbours
    assert block_groups(ids, 3) == blocks


def test_blocks_of_ids_do_not_mix_series() -> None:
    groups = block_groups(["00003", "00001", "00002", "2", "1", "b"], block=2)
    assert groups == {"00001": "00001", "00002": "00001", "00003": "00003", "1": "1", "2": "1", "b": "b"}
    with pytest.raises(BadInput, match="block of 0"):
        block_groups(["1"], block=0)


def test_twins_differ_only_by_zero_padding() -> None:
    ids = ["1", "00001", "10", "01", "0", "000", "b01", "b1", "b10", "1", "100"]
    assert id_twins(ids) == [("00001", "1", "01"), ("0", "000"), ("b01", "b1")]
    assert id_twins(["00001", "00010", "00100"]) == []


@pytest.mark.parametrize("ratios", RATIOS)
@given(photos=photos, seed=st.integers(0, 2**64), random=st.randoms())
def test_splits_hold_whole_groups_and_do_not_depend_on_order(
    ratios: dict[str, float], photos: list[tuple[int, int]], seed: int, random: Random
) -> None:
    def assign() -> list[str]:
        return assign_splits(
            [count for count, _ in photos], [str(group) for _, group in photos], ratios, seed
        )

    splits = assign()
    of_group = {(group, split) for (_, group), split in zip(photos, splits, strict=True)}
    groups = len({group for group, _ in of_group})
    used = {name for name, ratio in ratios.items() if ratio > 0}
    assert len(splits) == len(photos)
    assert len(of_group) == groups
    assert set(splits) <= used
    assert groups < len(used) or set(splits) == used

    random.shuffle(photos)
    shuffled = zip(photos, assign(), strict=True)
    assert {(group, split) for (_, group), split in shuffled} == of_group


@pytest.mark.parametrize("ratios", RATIOS)
@given(seed=st.integers(0, 99), sizes=st.lists(st.integers(0, 400), min_size=1, max_size=6), data=st.data())
def test_every_count_is_spread_as_the_ratios_say(
    ratios: dict[str, float], seed: int, sizes: list[int], data: st.DataObject
) -> None:
    counts = [count for count, size in enumerate(sizes) for _ in range(size)]
    assume(counts)
    random = Random(data.draw(st.integers(0, 99)))
    random.shuffle(counts)
    groups = [str(n) for n in sorted(random.randrange(len(counts)) for _ in counts)]
    splits = assign_splits(counts, groups, ratios, seed)
    largest = max(Counter(groups).values())
    held, total = Counter(zip(counts, splits, strict=True)), Counter(counts)
    for name, ratio in ratios.items():
        assert abs(splits.count(name) - ratio * len(counts)) <= BOUND * largest
        for count in total:
            assert abs(held[count, name] - ratio * total[count]) <= BOUND * largest


def test_rare_counts_do_not_all_go_to_one_split() -> None:
    counts = list(range(1000))
    splits = Counter(assign_splits(counts, [str(count) for count in counts], RATIOS[0], 0))
    assert splits["val"] == pytest.approx(150, abs=5)
    assert splits["test"] == pytest.approx(150, abs=5)


def test_large_groups_are_spread_too() -> None:
    groups = [str(n) for n in range(200) for _ in range(3)] + [str(n) for n in range(200, 1000)]
    splits = assign_splits([1] * len(groups), groups, RATIOS[0], 0)
    assert splits[:600].count("test") == pytest.approx(90, abs=6)


def test_the_seed_decides() -> None:
    counts, groups = [n % 6 for n in range(60)], [str(n) for n in range(60)]
    first = assign_splits(counts, groups, RATIOS[0], 0)
    assert first == assign_splits(counts, groups, RATIOS[0], 0)
    assert first != assign_splits(counts, groups, RATIOS[0], 1)


def test_splits_are_the_same_on_every_machine_and_version() -> None:
    splits = assign_splits([0, 1, 1, 2, 2, 2, 3, 3], ["a", "b", "c", "a", "d", "e", "f", "b"], RATIOS[2], 7)
    assert splits == ["train", "train", "val", "train", "test", "val", "train", "train"]


def test_few_groups_still_fill_every_split() -> None:
    ratios = {"train": 0.98, "val": 0.01, "test": 0.01}
    assert set(assign_splits([1, 1, 1], ["a", "b", "c"], ratios, 0)) == {"train", "val", "test"}
    assert len(set(assign_splits([1, 1, 1], ["a", "b", "b"], ratios, 0))) == 2
    assert assign_splits([], [], ratios, 0) == []


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ({"train": 0.7, "val": 0.2, "test": 0.2}, "train=0.7, val=0.2, test=0.2 sum to 1.1: change them"),
        ({"train": 1.5, "val": -0.5}, "train=1.5, val=-0.5 must all be 0 or more"),
        ({"train": float("nan")}, "train=nan must all be 0 or more"),
        ({}, "sum to 0"),
    ],
)
def test_bad_ratios(ratios: dict[str, float], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        assign_splits([1], ["a"], ratios, 0)


def pairs(groups: dict[str, str]) -> set[tuple[str, str]]:
    members = defaultdict(list)
    for id, group in sorted(groups.items()):
        members[group].append(id)
    return {pair for group in members.values() for pair in combinations(group, 2)}


@pytest.mark.abid
def test_real_groups_link_all_that_the_labels_link(abid: Path, abid_records: Path) -> None:
    items = {path.stem: orjson.loads(path.read_bytes())["BIN_FCSKU_DATA"] for path in abid_records.iterdir()}
    groups = neighbour_groups(list(items), items)
    labels, _ = read_labels(str(abid / "labels.csv"))
    ours = pairs({label.id: groups[label.id] for label in labels})
    theirs = pairs({label.id: label.group or label.id for label in labels})
    assert theirs < ours
    assert ours - theirs == {("112657", "112688"), ("112658", "112688")}  # ids 30 apart, none between
    assert max(Counter(groups.values()).values()) == 3
    assert len(id_twins(items)) == 16


@pytest.mark.abid
@pytest.mark.parametrize("ratios", RATIOS)
def test_real_splits_hold_their_share_of_each_count(abid: Path, ratios: dict[str, float]) -> None:
    labels, _ = read_labels(str(abid / "labels.csv"))
    counts = [label.count for label in labels]
    splits = assign_splits(counts, [label.group or label.id for label in labels], ratios, 0)
    held, total = Counter(zip(counts, splits, strict=True)), Counter(counts)
    for name, ratio in ratios.items():
        assert all(abs(held[count, name] - ratio * n) < 3 for count, n in total.items())
