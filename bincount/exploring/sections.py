"""A finding as people see it: the same words and figures on a terminal and in a page, there with pictures."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape as plain
from rich.table import Table

from bincount import page, storage


@dataclass(frozen=True)
class Drawn:
    """A picture: ``draw`` writes it as a PNG, ``told`` stands for it where it cannot be seen."""

    draw: Callable[[Path], None]
    told: str


@dataclass(frozen=True)
class Section:
    """A title, sentences, a table whose first column names its rows, and a picture; most may be missing."""

    title: str
    lines: Sequence[str] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    drawn: Drawn | None = None


def show(out: Console, sections: Iterable[Section]) -> None:
    """Print the sections, without their pictures."""
    for section in sections:
        out.print(f"\n[bold]{plain(section.title)}[/bold]", soft_wrap=True)
        for line in section.lines:
            out.print(plain(line))
        if section.rows:
            out.print(_table(section.head, section.rows))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table for a terminal or a log: the first column to the left, the others to the right."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for place, name in enumerate(head):
        shown.add_column(plain(name), justify="right" if place else "left")
    for row in rows:
        shown.add_row(*map(plain, row))
    return shown


def write(out: Path, title: str, sections: Iterable[Section]) -> None:
    """Write a self-contained page with all sections and their pictures."""
    sections = list(sections)
    parts = [f"<h1>{escape(title)}</h1>", page.contents(section.title for section in sections)]
    with tempfile.TemporaryDirectory(prefix="bincount-") as folder:
        for number, section in enumerate(sections):
            parts.append(page.heading(2, section.title))
            parts += map(page.line, section.lines)
            if section.rows:
                parts.append(page.table(section.head, [("", *row) for row in section.rows]))
            if section.drawn:
                path = Path(folder, f"{number}.png")
                section.drawn.draw(path)
                parts.append(page.picture(path, section.drawn.told))
        storage.write_text(out, page.document(title, parts))
