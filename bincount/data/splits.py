"""Which photos must stay together, and which split each group goes to. Pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise

from bincount.data.ids import id_order, id_series
from bincount.errors import BadInput


def neighbour_groups(ids: Sequence[str], items: Mapping[str, Collection[Hashable]]) -> dict[str, str]:
    """Group photos of what is likely one bin: ids next to each other in id order that share an item.

    `items` gives the products in an id's record, each as its asin or a stand-in. Give the ids of all records,
    not only of the photos to be used: whatever the gap in their numbers, two ids with none between them are
    next to each other. An id without items (an empty bin, a lost record) is a group of its own and is passed
    over when neighbours are compared. Ids of different series are never linked. A group has the name of its
    first id.

    In ABID groups stay small: at most 3 photos. Where all bins hold a few products, chains grow long and no
    fair split is left: look at the largest group, and take `block_groups` instead.
    """
    ordered = sorted(set(ids), key=id_order)
    groups = {id: id for id in ordered}
    holding = [id for id in ordered if items.get(id)]
    for before, id in pairwise(holding):
        if id_series(before) == id_series(id) and not set(items[before]).isdisjoint(items[id]):
            groups[id] = groups[before]
    return groups


def block_groups(ids: Sequence[str], block: int = 50) -> dict[str, str]:
    """Group photos without records: blocks of `block` ids in id order, named after their first id.

    A bin is cut only where two blocks meet: with blocks of 50, about one neighbouring pair in 50.
    """
    if block < 1:
        raise BadInput(f"a block of {block} ids is no block: give 1 or more")
    by_series: defaultdict[int, list[str]] = defaultdict(list)
    for id in sorted(set(ids), key=id_order):
        by_series[id_series(id)].append(id)
    return {id: same[n - n % block] for same in by_series.values() for n, id in enumerate(same)}


def id_twins(ids: Iterable[str]) -> list[tuple[str, ...]]:
    """List the ids that differ only by zero padding, such as `("00001", "1")`, in id order.

    They are different photos: nothing may take one for the other, and the user should be told.
    """
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for id in sorted(set(ids), key=id_order):
        alike[re.sub(r"(?<![0-9])0+(?=[0-9])", "", id)].append(id)
    return [tuple(twins) for twins in alike.values() if len(twins) > 1]


def assign_splits(
    counts: Sequence[int], groups: Sequence[str], ratios: Mapping[str, float], seed: int
) -> list[str]:
    """Give each photo the name of its split: whole groups, and each count spread as `ratios` says.

    `counts` and `groups` have one entry a photo. The answer depends on the seed and on which photos are in
    which group, not on their order. Every split with a ratio above 0 gets a photo, where there are at least
    as many groups as such splits. Raises BadInput for ratios below 0 or that do not sum to 1.
    """
    _check_ratios(ratios)
    members: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for count, group in zip(counts, groups, strict=True):
        members[group][count] += 1
    # Large groups first, while every split has room for them; in an order that only the seed decides.
    order = sorted(members, key=lambda group: (-members[group].total(), _hash(seed, group), group))
    shares = {name: ratio for name, ratio in ratios.items() if ratio > 0}
    split_of = _spread(order, members, Counter(counts), shares)
    _fill_empty(order, split_of, list(shares))
    return [split_of[group] for group in groups]


def _check_ratios(ratios: Mapping[str, float]) -> None:
    shown = ", ".join(f"{name}={ratio:g}" for name, ratio in ratios.items())
    if not all(ratio >= 0 for ratio in ratios.values()):
        raise BadInput(f"the split ratios {shown} must all be 0 or more")
    total = sum(ratios.values())
    if not abs(total - 1) <= 1e-6:
        raise BadInput(f"the split ratios {shown} sum to {total:g}: change them so that they sum to 1")


def _hash(seed: int, group: str) -> bytes:
    return blake2b(f"{seed} {group}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _spread(
    order: Sequence[str],
    members: Mapping[str, Counter[int]],
    totals: Counter[int],
    shares: Mapping[str, float],
) -> dict[str, str]:
    """Send each group where it adds least to the sum of held² / wanted, over every count and split.

    That sum is least when each split holds its share of each count. Filling by share, not by what is missing,
    gives each split groups of all sizes: otherwise train takes the large ones and test is left with lone
    photos. All photos together weigh as much as all counts together: otherwise rare counts all go to the
    largest split.
    """
    held = {name: dict.fromkeys(totals, 0) for name in shares}
    held_in_all = dict.fromkeys(shares, 0)
    scale = len(totals) / max(1, totals.total())
    split_of = {}
    for group in order:
        parts = sorted(members[group].items())
        size = sum(n for _, n in parts)
        best, least = "", float("inf")
        for name, share in shares.items():
            in_split = held[name]
            added = scale * size * (held_in_all[name] + size / 2)
            for count, n in parts:  # not sum(), which rounds differently from Python 3.12 on
                added += n * (in_split[count] + n / 2) / totals[count]
            if added / share < least:
                best, least = name, added / share
        split_of[group] = best
        held_in_all[best] += size
        for count, n in parts:
            held[best][count] += n
    return split_of


def _fill_empty(order: Sequence[str], split_of: dict[str, str], names: Sequence[str]) -> None:
    """Give each empty split the smallest group of the split with most groups, where groups suffice."""
    filled = Counter(split_of.values())
    for name in names:
        donor, n = filled.most_common(1)[0] if filled else ("", 0)
        if filled[name] or n < 2:
            continue
        moved = next(group for group in reversed(order) if split_of[group] == donor)
        split_of[moved] = name
        filled.update({name: 1, donor: -1})
