"""What can be typed: the options and keys in `conf/`, and the names of runs.

Read line by line, as Hydra and a YAML parser take longer to import than a shell or a reader of help waits.
tests/test_words.py holds what is read here against what they read.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

#: How `defaults:` says which option of a group is chosen, and how an overlay says it.
_CHOSEN, _OVERLAID = "  - ", "  - override /"


class Line(NamedTuple):
    """A line of a YAML file that gives a value: its dotted key, the value as text, whether keys follow."""

    key: str
    value: str
    is_folder: bool


def conf_dir() -> Path:
    """The folder of YAML files: shipped inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parent / "conf"


def options(group: str) -> list[str]:
    """The options of a config group."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def groups(verb: str) -> dict[str, str | None]:
    """The config groups of a verb, and the option that each has by default."""
    chosen = _defaults(verb, _CHOSEN)
    return {group: None if option == "null" else option for group, option in chosen if group != "_self_"}


def lines(name: str) -> list[Line]:
    """The lines of ``conf/<name>.yaml`` that give values, but for its defaults list."""
    found: list[Line] = []
    above: list[str] = []
    for text in _text(name):
        line = text.partition(" #")[0].rstrip()
        key, colon, value = line.strip().partition(":")
        if not colon or line.strip().startswith(("#", "-")):
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        above[depth:] = [key]
        if above[0] != "defaults":
            found.append(Line(".".join(above), value.strip(), not value))
    return found


def chosen(verb: str, words: Iterable[str]) -> dict[str, str | None]:
    """The option that each group has under ``words``, be it by itself or by an experiment."""
    typed = dict(word.split("=", 1) for word in words if "=" in word)
    by_default = groups(verb)
    overlaid = dict(_defaults(f"experiment/{typed.get('experiment')}", _OVERLAID))
    said = {group: option for group, option in {**overlaid, **typed}.items() if group in by_default}
    return by_default | said


def keys(verb: str, words: Iterable[str] = ()) -> dict[str, str]:
    """The dotted keys that give a value, each with its default, under the options that ``words`` choose."""
    of_groups = {
        f"{group}.{line.key}": line.value
        for group, option in chosen(verb, words).items()
        if group != "experiment" and option in options(group)
        for line in lines(f"{group}/{option}")
        if not line.is_folder and line.key != "name"
    }
    return of_groups | {line.key: line.value for line in lines(verb) if not line.is_folder}


def runs(top: Path) -> list[str]:
    """The runs below ``top``, the folder of runs, as ``EXPERIMENT/RUN`` and the newest first."""
    found = [path.parent for path in top.glob("*/*/config.yaml") if not path.parent.is_symlink()]
    found.sort(key=lambda folder: folder.name, reverse=True)
    return [f"{folder.parent.name}/{folder.name}" for folder in found]


def _defaults(name: str, beginning: str) -> Iterator[tuple[str, str]]:
    """The group and option of each line of the defaults list that begins so."""
    inside = False
    for line in _text(name):
        inside = line.startswith("defaults:") or (inside and line.startswith(" "))
        if inside and line.startswith(beginning):
            group, _, option = line.removeprefix(beginning).partition(":")
            yield group, option.partition(" #")[0].strip()


def _text(name: str) -> list[str]:
    path = conf_dir() / f"{name}.yaml"
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
