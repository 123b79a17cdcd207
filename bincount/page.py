"""A self-contained HTML page: its look and its parts. Pictures are inside the file."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1f2328 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .75rem; text-align: right }
th:first-child, td:first-child { text-align: left } thead { border-bottom: 2px solid #888 }
tr.ours { font-weight: 600 } tr.published { color: #57606a } img { max-width: 100%; height: auto }
pre { background: #f6f8fa; padding: 1rem; overflow-x: auto } .scroll { overflow-x: auto }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """The whole page; ``parts`` are HTML, ``title`` is text."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>{escape(title)}</title><style>{STYLE}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first entry of each row is its class."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(
        f'<tr class="{kind}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        for kind, *cells in rows
    )
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def line(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def picture(path: Path, told: str) -> str:
    """A PNG, with the text that stands for it where it cannot be seen."""
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{escape(told)}" src="data:image/png;base64,{encoded}"></p>'
