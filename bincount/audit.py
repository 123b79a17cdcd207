"""`bincount audit`: photos + expected quantities become the list of bins to check.

out.csv  out.skipped.csv  out.html; with planted.times, evaluation/<split>/audit.json and audit.png of the run
"""

import json
import sys
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from shlex import join

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich import box
from rich.table import Table

from bincount import pictures, progress, report, run, storage
from bincount.auditing import page, suspicion
from bincount.auditing.answers import count_photos, forget, given_answers
from bincount.auditing.expected import read_expected
from bincount.auditing.findings import Findings, Validation, judged, names
from bincount.auditing.matching import Bins, most_judged
from bincount.auditing.planting import ALL, FIRST, ORDERS, TOLD, Planted, trial
from bincount.comparison import percent
from bincount.config import AuditConfig
from bincount.counter import Counter, load
from bincount.data.catalogue import usable_names
from bincount.data.found import find_photos
from bincount.data.index import probability_columns
from bincount.data.skipped import Skipped
from bincount.errors import BadInput
from bincount.report import audited
from bincount.report.scored import Scored

#: Findings that are shown on the terminal.
SHOWN = 10


def audit(config: AuditConfig) -> None:
    """Rank the bins by how likely they do not hold what is expected; or plant errors, and look for them."""
    folder = run.find(config.run, config.runs)
    if config.planted.times:
        put_to_the_test(config, folder)
        return
    if (config.photos is None) == (config.predictions is None):
        raise BadInput(
            "an audit needs photos=DIR, or predictions=FILE with what was told of them; one of both"
        )
    if config.expected is None:
        raise BadInput("expected is not given: add expected=FILE with id,count, or a folder of records")
    out = storage.folder(config.out)
    if out.is_dir() or out.suffix in (".html", ".png"):
        raise BadInput(f"out={out}: the findings are a CSV, and a page beside it: name a file ….csv")
    counter = load(folder)
    validation = _validation(folder, counter.counts.names)
    if config.audit.budget is None and validation is None:
        raise BadInput(
            f"the run {folder.name} keeps no answers to validation photos (calibration.parquet), which "
            "audit.false_alarms is measured on: give audit.budget=N instead"
        )
    with storage.alone(out.with_name(f".{out.name}.lock"), f"out={out}: another audit writes there"):
        _judge(config, folder, counter, validation, out)


def _judge(
    config: AuditConfig, folder: Path, counter: Counter, validation: Validation | None, out: Path
) -> None:
    assert config.expected is not None
    expected, skipped = read_expected(config.expected)
    draft = out.with_name(f".{out.name}.partial")
    unusable = {row.id for row in skipped}
    answers, unreadable = _answers(config, counter, folder, expected, unusable, draft)
    bins = Bins(answers, expected, [*skipped, *unreadable], counter.counts, draft)
    left_out = bins.left_out()
    if not len(bins):
        forget(draft)
        reasons = "; ".join(f"{reason} ({number:,})" for reason, number in left_out.items())
        raise BadInput(f"no bin can be judged: {reasons}")
    findings = judged(bins, expected, counter.counts, validation, config.audit)
    bins.write(out, names(counter.counts, config.photos is not None), findings.flagged, findings.rate[0])
    bins.write_left_out(out.with_name(f"{out.stem}.skipped.csv"))
    facts = {
        "run": str(folder),
        "photos": str(config.photos or config.predictions),
        "expected quantities": config.expected,
        "command": join(["bincount", *sys.argv[1:]]),
    }
    page.write(out.with_suffix(".html"), findings, left_out, counter, facts)
    forget(draft)
    _tell(out, findings, left_out)


def _answers(
    config: AuditConfig,
    counter: Counter,
    folder: Path,
    expected: pa.Table,
    unusable: Collection[str],
    draft: Path,
) -> tuple[list[Path], list[Skipped]]:
    """What the counter tells of the bins that it can judge, as Parquet files, and what cannot be read.

    ``unusable``: ids whose expected quantity was left out already.
    """
    if config.predictions is not None:
        return given_answers(storage.folder(config.predictions), counter.counts.names, draft), []
    skipped: list[Skipped] = []
    found = {photo.address: photo for photo in find_photos(config.photos)}
    named = usable_names(found, skipped)
    judgeable = expected.filter(pc.less_equal(expected["expected"], most_judged(counter.counts)))["id"]
    wanted = pc.is_in(pa.array(named, pa.string()), value_set=judgeable).to_pylist()
    told = {*expected["id"].to_pylist(), *unusable}
    skipped += [
        Skipped(id, name, "the photo has no expected quantity")
        for id, name in named.items()
        if id not in told
    ]
    photos = [found[name] for name, is_wanted in zip(named.values(), wanted, strict=True) if is_wanted]
    photos.sort(key=lambda photo: photo.address)
    of_run = {"weights": storage.sha256(run.weights(folder)), "temperature": counter.temperature}
    answers, unreadable = count_photos(counter, photos, config.batch_size, draft, of_run)
    return answers, [*skipped, *unreadable]


def _validation(folder: Path, counts: list[str]) -> Validation | None:
    path = folder / run.ANSWERS
    if not path.exists():
        return None
    kept = pq.read_table(path)
    shares = np.stack([kept[name].to_numpy() for name in probability_columns(counts)], axis=1)
    return Validation(kept["count"].to_numpy(), shares)


def _tell(out: Path, findings: Findings, left_out: dict[str, int]) -> None:
    shown = Table("", "bin", box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("record says", "likely", "wrong with"):
        shown.add_column(name, justify="right")
    for row in findings.first[: min(SHOWN, max(findings.flagged, 1))]:
        cells = (row["id"], str(row["expected"]), row["likely"], percent(row["p_wrong"]))
        shown.add_row(str(row["rank"]), *cells)
    progress.out.print(shown)
    for told in page.summary(findings):
        progress.out.print(told, soft_wrap=True)
    for reason, number in left_out.items():
        progress.out.print(f"left out: {number:,}, {reason}", soft_wrap=True)
    progress.out.print(f"findings: {out}, page: {out.with_suffix('.html')}", soft_wrap=True)


# --- the audit itself put to the test -----------------------------------------------------------------


def put_to_the_test(config: AuditConfig, folder: Path) -> list[Planted]:
    """Plant errors of each kind in the records of a split that the run was evaluated on, and look for them.

    The records are taken for right, though some of them are not: what is found beyond the planted errors
    counts as a false alarm.
    """
    split, planted = config.planted.split, config.planted
    where = folder / "evaluation" / split
    if not (where / "results.json").exists():
        raise BadInput(
            f"the run was not evaluated on {split}: `bincount evaluate run={folder} split={split}`"
        )
    scored = Scored.read(where)
    shares = np.asarray(scored.probabilities, np.float64)
    tried = (
        trial(kind, scored.count, scored.told, shares, planted.rate, planted.times, planted.seed)
        for kind in progress.track([*suspicion.KINDS, ALL], "planting errors", len(suspicion.KINDS) + 1)
    )
    found = [each for each in tried if each is not None]
    results = {
        "split": split,
        "rate": planted.rate,
        "first": FIRST,
        "orders": {order: TOLD[order] for order in ORDERS},
        "words": {each.kind: TOLD[each.kind] for each in found},
        "kinds": [asdict(each) for each in found],
    }
    storage.write_text(where / audited.FIGURES, json.dumps(results, indent=2) + "\n")
    precisions = {
        TOLD[order]: [
            (each.orders[order].average_precision, each.orders[order].average_precision_spread)
            for each in found
        ]
        for order in ORDERS
    }
    pictures.plantings(where / audited.PICTURE, [TOLD[each.kind] for each in found], precisions)
    progress.out.print(_plantings(found, planted.rate))
    report.write(folder)
    progress.out.print(f"figures: {where / audited.FIGURES}", soft_wrap=True)
    progress.out.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    return found


def _plantings(found: list[Planted], rate: float) -> Table:
    one = found[0]
    shown = Table("errors", box=box.SIMPLE_HEAD, padding=(0, 1), title_justify="left", caption_justify="left")
    shown.title = f"{one.wrong} of {one.bins:,} records made wrong ({percent(rate)}), {one.times} times"
    shown.caption = (
        f"first {FIRST}: the share that is wrong of the first bins; AP: average precision; told, were: how "
        f"many of the first {FIRST} the audit said are wrong, and how many were; ± standard deviation"
    )
    for figure in (f"first {FIRST}", "AP"):
        for order in ORDERS:
            shown.add_column(f"{figure}:\n{order}", justify="right")
    for name in ("told", "were"):
        shown.add_column(name, justify="right")
    for each in found:
        of = [each.orders[order] for order in ORDERS]
        precision = [f"{one.precision:.3f} ±{one.precision_spread:.3f}" for one in of]
        average = [f"{one.average_precision:.3f} ±{one.average_precision_spread:.3f}" for one in of]
        shown.add_row(TOLD[each.kind], *precision, *average, f"{each.told:.1f}", f"{each.were:.1f}")
    return shown
