"""`bincount completion bash|zsh`: the script that lets the Tab key complete verbs, keys and their values.

The script asks `bincount completion reply LINE BREAKS` at each Tab. Nothing here imports Hydra or torch, as a
Tab that takes a second is no help.
"""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from bincount import words
from bincount.config import REGISTRIES, VERBS
from bincount.errors import BadInput, nearest

#: Keys that name a run.
RUN_KEYS = ("run", "resume", "against")

#: Keys that are taken literally as paths are, and are none.
NO_PATHS = ("sql",)

#: Values that are worth offering for keys which take others, too.
USUAL = {"split": ("train", "val", "test")}

BASH = """\
# Completes bincount in bash 4 or newer:  eval "$(bincount completion bash)"
_bincount() {
    local line reply=() program="${1/#\\~/$HOME}"
    while IFS= read -r line; do
        reply+=("$line")
    done < <("$program" completion reply "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
    COMPREPLY=("${reply[@]:1}")
    case "${reply[0]}" in
        files) compopt -o default ;;
        more) compopt -o nospace ;;
    esac
}
complete -F _bincount bincount
"""

ZSH = """\
# Completes bincount in zsh:  eval "$(bincount completion zsh)"
_bincount() {
    local -a reply
    local program="${words[1]/#\\~/$HOME}" line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    reply=("${(@f)$("$program" completion reply "$line" = 2>/dev/null)}")
    [[ $PREFIX == *=* ]] && compset -P '*='
    case $reply[1] in
        files) _files ;;
        *) compadd -S '' -- ${(M)reply[2,-1]:#*[=.]}
           compadd -- ${reply[2,-1]:#*[=.]} ;;
    esac
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _bincount bincount
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH}


class Reply(NamedTuple):
    """What the current word can become; with ``files`` its value is a path, which the shell completes."""

    found: list[str]
    files: bool = False


def answer(asked: Sequence[str]) -> str:
    """What `bincount completion …` prints. Raises BadInput for a shell that we have no script for."""
    if asked[:1] == ["reply"]:
        return _told(*asked[1:])
    if len(asked) != 1 or asked[0] not in SCRIPTS:
        shell = " ".join(asked)
        told = nearest(shell, SCRIPTS) if shell else 'eval "$(bincount completion bash)", or zsh'
        raise BadInput(f"completion {shell}".strip() + f": name the shell: {told}")
    return SCRIPTS[asked[0]]


def _told(line: str = "", breaks: str = "") -> str:
    """The reply to the line up to the cursor: `files`, `more` (no blank follows) or `words`, then the words.

    ``breaks``: the characters of which the shell takes the last for the beginning of what it completes.
    """
    (*before, current), quote = _split(line)
    found, files = complete(before[1:], current)
    if quote and quote in breaks:
        start = len(_split(line[: line.rfind(quote)])[0][-1])
    else:
        start = 1 + max((current.rfind(each) for each in set(breaks) & set("=:")), default=-1)
    kind = "files" if files else "more" if len(found) == 1 and found[0].endswith(("=", ".")) else "words"
    return "".join(f"{each}\n" for each in [kind, *(each[start:] for each in found)])


def _split(line: str) -> tuple[list[str], str]:
    """The words of a line as a shell takes them, whose last is being typed, and the quote open in that."""
    for quote in ("", "'", '"'):
        try:
            found = shlex.split(f"{line}{quote}")
        except ValueError:
            continue
        return ([*found, ""] if not line or (line[-1].isspace() and not quote) else found), quote
    return ["", ""], ""


def complete(before: Sequence[str], current: str) -> Reply:
    """What ``current`` can become after the words ``before``, which the name of the program is not among."""
    verbs = [*VERBS, "completion", "help"]
    if not before:
        return Reply(_beginning(current, ["--help", "--version"] if current.startswith("-") else verbs))
    verb = before[0]
    if verb in ("completion", "help"):
        last = SCRIPTS if verb == "completion" else VERBS
        return Reply(_beginning(current, last) if len(before) == 1 else [])
    if verb not in VERBS:
        return Reply([])
    if before[-1] == "--cfg":
        return Reply(_beginning(current, ["job"]))
    if current.startswith("-"):
        return Reply(_beginning(current, ["--cfg", "--help", *["-m", "--multirun"] * (verb == "train")]))
    key, equals, value = current.partition("=")
    return _values(verb, key, value, before) if equals else Reply(_keys(verb, current, before))


def _keys(verb: str, current: str, before: Sequence[str]) -> list[str]:
    """The keys that begin so, up to the next dot where several go on from there."""
    given = {word.partition("=")[0] for word in before}
    known = [*words.groups(verb), *words.keys(verb, before)]
    there = _beginning(current, [f"{key}=" for key in dict.fromkeys(known) if key not in given])
    stems = [_stem(key, current) for key in there]
    return list(
        dict.fromkeys(stem if stems.count(stem) > 1 else key for stem, key in zip(stems, there, strict=True))
    )


def _stem(key: str, current: str) -> str:
    """The key up to the first dot after what is typed of it."""
    dot = key.find(".", len(current))
    return key[: dot + 1] if dot >= 0 else key


def _values(verb: str, key: str, value: str, before: Sequence[str]) -> Reply:
    """The values that begin so; after a comma those of the next one, where -m tries several."""
    several = {"-m", "--multirun"} & set(before)
    done = value[: value.rfind(",") + 1] if several else ""
    head, value = f"{key}={done}", value.removeprefix(done)
    default = words.keys(verb, before).get(key)
    if key in RUN_KEYS and default is not None:
        found = _beginning(value, _runs(verb, before))
        return Reply([f"{head}{each}" for each in found], files=not found)
    groups = words.groups(verb)
    if key in groups:
        offered = words.options(key)
    elif default is None:
        return Reply([])
    else:
        kind, metadata = _field(verb, key, before)
        if metadata.get("path"):
            return Reply([], files=key not in NO_PATHS)
        null = ["null"] * (type(None) in getattr(kind, "__args__", ()))
        offered = [
            *(["true", "false"] if kind is bool else USUAL.get(key, metadata.get("choices", ()))),
            *null,
        ]
        if not set(offered) - {"null"} and default not in ("???", "null"):
            offered.insert(0, default)
    return Reply([f"{head}{each}" for each in _beginning(value, offered)])


def _runs(verb: str, before: Sequence[str]) -> list[str]:
    """``latest`` and the runs in the folder of runs, be it typed or the default one."""
    typed = [word.partition("=")[2] for word in before if word.startswith("runs=")]
    top = Path([words.keys(verb)["runs"], *typed][-1]).expanduser()
    return [*["latest"] * (top / "latest").exists(), *words.runs(top)]


def _field(verb: str, key: str, before: Sequence[str]) -> tuple[Any, Any]:
    """The type and the metadata of a key's field, in the option of its group that is chosen."""
    chosen = words.chosen(verb, before)
    kind: Any = VERBS[verb]
    metadata: Any = {}
    for name in key.split("."):
        known = {each.name: each for each in fields(kind)} if is_dataclass(kind) else {}
        if name not in known:
            return str, {}
        kind, metadata = get_type_hints(kind)[name], known[name].metadata
        kind = REGISTRIES.get(name, {}).get(chosen.get(name) or "", kind)
    return kind, metadata


def _beginning(typed: str, offered: Iterable[str]) -> list[str]:
    return [each for each in offered if each.startswith(typed)]
