"""A self-contained HTML page: its look and its parts. Pictures are inside the file.

It reads on a phone, on paper, in the dark, and aloud: tables have captions and headers, pictures a text.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --faint: #57606a; --ground: #fff; --soft: #f6f8fa;
        --line: #8c959f; --link: #0550ae }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --faint: #a3adb8; --ground: #0d1117; --soft: #1c2128; --line: #6e7681;
          --link: #79c0ff } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: var(--text); background: var(--ground); overflow-wrap: anywhere }
a { color: var(--link) } h1, h2, h3, h4 { line-height: 1.25 }
dt { font-weight: 600 }
h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem }
table { border-collapse: collapse; font-size: .9375rem }
caption { text-align: left; color: var(--faint); padding: .25rem 0 }
th, td { padding: .25rem .5rem; text-align: right; font-weight: inherit; vertical-align: top;
         overflow-wrap: normal }
tr > :first-child, table.words th, table.words td { text-align: left; padding-left: 0 }
tbody th { white-space: nowrap } table.words td { overflow-wrap: anywhere }
thead { border-bottom: 2px solid var(--line) } thead th { font-weight: 600 }
tr.ours { font-weight: 600 } tr.published { color: var(--faint) } tr.look th { font-weight: 600 }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px }
pre { background: var(--soft); padding: 1rem; white-space: pre-wrap; border-radius: 4px }
.scroll { overflow-x: auto; margin: 1rem 0 } .scroll > img { min-width: 36rem }
.short { font-size: 1.1rem } summary { cursor: pointer }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem;
          padding: 0; margin: 1rem 0; list-style: none }
.photos div { display: flex; gap: 2px }
.photos img { min-width: 0; max-width: 50%; max-height: 10rem; background: var(--soft) }
.photos p { margin: 0; font-size: .875rem; line-height: 1.35 }
@media print {
  :root { --text: #000; --faint: #444; --ground: #fff; --soft: #f6f8fa; --link: #000 }
  body { font-size: 10pt; margin: 0; max-width: none } nav { display: none }
  h2, h3, h4, caption { break-after: avoid } tr, li, img { break-inside: avoid }
  .scroll { overflow: visible } .scroll > img { min-width: 0 }
  .photos { grid-template-columns: repeat(3, 1fr) }
  details::details-content { content-visibility: visible; block-size: auto } }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """The whole page; ``parts`` are HTML, ``title`` is text."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{STYLE}</style>"
    body = f"<body><main>{''.join(parts)}</main></body>"
    return f'<!doctype html><html lang="en"><head>{head}</head>{body}</html>\n'


def heading(level: int, text: str) -> str:
    """A heading that :func:`contents` can lead to."""
    return f'<h{level} id="{_anchor(text)}">{escape(text)}</h{level}>'


def contents(titles: Iterable[str]) -> str:
    """Links to the headings of these titles."""
    links = "".join(f'<li><a href="#{_anchor(title)}">{escape(title)}</a></li>' for title in titles)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def _anchor(text: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in text.lower())


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", words: bool = False) -> str:
    """A table; the first entry of each row is its class, the next its header.

    ``words``: its cells are texts, not numbers.
    """
    titles = "".join(f'<th scope="col">{escape(title)}</th>' if title else "<td></td>" for title in head)
    body = "".join(
        f'<tr class="{kind}"><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for kind, name, *cells in rows
    )
    told = f"<caption>{escape(caption)}</caption>" if caption else ""
    kind = ' class="words"' if words else ""
    table = f"<table{kind}>{told}<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    # A part that scrolls must be reached by the keyboard, too.
    region = f' role="region" aria-label="{escape(caption)}"' if caption else ' role="group"'
    return f'<div class="scroll" tabindex="0"{region}>{table}</div>'


def line(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def listed(texts: Iterable[str]) -> str:
    """A list of sentences."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def code(text: str) -> str:
    """Lines as they are to be typed, or as a file has them."""
    return f"<pre>{escape(text)}</pre>"


def folded(title: str, parts: Iterable[str]) -> str:
    """Parts that are shown when the title is clicked; on paper they are all there."""
    return f"<details><summary>{escape(title)}</summary>{''.join(parts)}</details>"


def picture(path: Path, told: str, wide: bool = False) -> str:
    """A PNG or JPEG, with the text that stands for it where it cannot be seen.

    ``wide``: on a phone it is scrolled, not shrunk.
    """
    if wide:
        return f'<div class="scroll" tabindex="0" role="group">{image(path, told)}</div>'
    return f"<p>{image(path, told)}</p>"


def image(path: Path, told: str) -> str:
    """Like :func:`picture`, within a line."""
    return embedded(path.read_bytes(), "png" if path.suffix == ".png" else "jpeg", told)


def embedded(content: bytes, kind: str, told: str) -> str:
    """A picture whose bytes are not in a file; ``kind`` is png or jpeg."""
    encoded = base64.b64encode(content).decode()
    return f'<img alt="{escape(told)}" src="data:image/{kind};base64,{encoded}">'
