"""What an audit found, as a page: how many to check, what to expect of it, and the bins with their photos."""

from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bincount import pictures, storage
from bincount.auditing.findings import Findings
from bincount.comparison import percent
from bincount.counter import Counter
from bincount.data.images import Pixels, UnreadablePhoto, encode_jpeg, read_photo, shrink
from bincount.data.pixels import fit, thumbnail
from bincount.errors import BincountError
from bincount.heatmap import heat_maps
from bincount.page import code, document, embedded, heading, line, listed, picture, table

#: Bins that are shown with their photo.
SHOWN = 24

#: Pixels of the longer side of a photo in the page, and its JPEG quality.
SIDE, QUALITY = 200, 75


def write(
    path: Path, findings: Findings, left_out: dict[str, int], counter: Counter, facts: dict[str, str]
) -> None:
    """Write the page; ``facts`` tell what was audited, by which run, and with which command."""
    drawn = path.with_name(f".{path.stem}.checking.png")
    expected = findings.sure.cumsum()
    pictures.checking(drawn, expected, findings.flagged, findings.rate[0])
    parts = [
        "<h1>Bins to check</h1>",
        listed(summary(findings)),
        picture(drawn, _told(expected, findings)),
        heading(2, "The most suspicious bins"),
        *_gallery(findings.first[:SHOWN], counter),
        *_list(findings, path),
        heading(2, "Not judged"),
        *_left_out(left_out),
        heading(2, "How to repeat it"),
        table(["what", "which"], [("", *fact) for fact in facts.items() if fact[0] != "command"], words=True),
        code(facts["command"]),
    ]
    storage.write_text(path, document("Bins to check", parts))
    drawn.unlink()


def summary(findings: Findings) -> list[str]:
    """What to do and what to expect of it, a sentence a line."""
    bins, flagged = len(findings.sure), findings.flagged
    best, low, high = findings.wrong
    between = f" ({low:.0f} to {high:.0f})" if round(low) != round(high) else ""
    told = [f"{bins:,} bins were judged, and {flagged:,} are flagged."]
    if flagged:
        told.append(
            f"Of these {flagged:,} about {best:.0f}{between} do not hold what the record says; "
            f"of as many drawn at random about {findings.rate[0] * flagged:.1f} would not."
        )
    rate, least, most = findings.rate
    if least == most:
        told.append(f"This takes {percent(rate)} of all records for wrong, as was given (audit.error_rate).")
    else:
        told.append(
            f"About {percent(rate)} of all records are wrong, as far as photos can tell "
            f"({percent(least)} to {percent(most)} with 95 % confidence)."
        )
    if findings.false_alarms is not None:
        told.append(
            f"{percent(findings.false_alarms)} of the validation photos, whose records are taken for right, "
            "would have been flagged, too."
        )
    return told


def _told(expected: Any, findings: Findings) -> str:
    half = int(np.searchsorted(expected, expected[-1] / 2)) + 1
    flagged, total = findings.wrong[0], expected[-1]
    return (
        f"Wrong records expected among the first bins checked: {flagged:.0f} among the flagged, and half of "
        f"all {total:.0f} among the first {half:,} of {len(expected):,}."
    )


def _gallery(rows: list[dict[str, Any]], counter: Counter) -> list[str]:
    read = {}
    for place, row in enumerate(rows):
        try:
            read[place] = read_photo(storage.read(row["photo"])) if row.get("photo") else None
        except (BincountError, UnreadablePhoto):
            continue  # it was there when it was counted; the list below has its figures
    photos = {place: photo for place, photo in read.items() if photo is not None}
    if not photos:
        return []
    heats = _heats(photos, rows, counter)
    items = [_item(rows[place], photo, heats.get(place)) for place, photo in photos.items()]
    told = "Each photo as it is, and with the places that speak for the likely count glowing (HiResCAM)."
    return [line(told), f'<ul class="photos">{"".join(items)}</ul>']


def _heats(photos: dict[int, Pixels], rows: list[dict[str, Any]], counter: Counter) -> dict[int, Any]:
    side = counter.stored.shortest_side
    pixels = torch.stack([fit(shrink(photo, side), counter.image_size) for photo in photos.values()])
    likely = torch.tensor([counter.counts.names.index(rows[place]["likely"]) for place in photos])
    try:
        return dict(zip(photos, heat_maps(counter, pixels, likely).numpy(), strict=True))
    except BincountError:  # a network whose features have no place
        return {}


def _item(row: dict[str, Any], photo: Pixels, heat: Any) -> str:
    small = thumbnail(photo, SIDE)
    shown = embedded(encode_jpeg(small, QUALITY), "jpeg", f"Bin {row['id']}")
    if heat is not None:
        glowing = encode_jpeg(pictures.heated(small, heat), QUALITY)
        shown += " " + embedded(glowing, "jpeg", f"Where it looked in bin {row['id']}")
    words = f"record {row['expected']}, likely {row['likely']}, wrong with {row['p_wrong']:.0%}"
    return f"<li>{shown}<p>{row['rank']}. {escape(row['id'])}<br>{escape(words)}</p></li>"


def _list(findings: Findings, path: Path) -> list[str]:
    head = ["rank", "bin", "record says", "likely", "wrong with"]
    cells = [
        ("", str(row["rank"]), row["id"], str(row["expected"]), row["likely"], percent(row["p_wrong"]))
        for row in findings.first
    ]
    all_of_them = line(
        f"All {len(findings.sure):,} bins are in {path.with_suffix('.csv').name}, in this order."
    )
    return [table(head, cells, caption="The first bins to check"), all_of_them]


def _left_out(left_out: dict[str, int]) -> list[str]:
    if not left_out:
        return [line("Every bin was judged.")]
    rows = [("", reason, f"{number:,}") for reason, number in left_out.items()]
    where = "Left out; each with its reason is in the file that ends in skipped.csv"
    return [table(["why", "bins"], rows, caption=where)]
