"""The commands that make a run again: the words of `bincount prepare` and `bincount train`.

They come from what is saved, not from what was typed, so that they hold for a job or a resumed run.
"""

import re
import shlex
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from bincount.compose import compose, keys
from bincount.config import VERBS, path_keys
from bincount.words import groups, options

#: Keys that say where a run is kept or what it goes on with, and nothing of what is learnt.
LEFT_OUT = {"runs", "resume", "experiment", "workers", "part", "merge", "overwrite"}


def train_words(saved: DictConfig) -> list[str]:
    """What to type after `bincount train`, only what differs from the defaults. Raises BadInput."""
    known = saved.get("experiment") in options("experiment")
    return _differing("train", saved, [f"experiment={saved.experiment}"] if known else [])


def prepare_words(summary: dict[str, Any], root: str) -> list[str] | None:
    """What to type after `bincount prepare` for a data set's index.json; None where that did not make it.

    Raises BadInput.
    """
    source = dict(summary["source"])
    if source.get("name") not in options("source") or source["name"] == "shards":
        return None
    settings = {key: source.pop(key) for key in ("seed", "split") if key in source}
    settings |= {key: summary[key] for key in ("max_count", "overflow")} | summary["image_size"]
    shards = [shard["samples"] for split in summary["splits"].values() for shard in split["shards"]]
    if len(shards) > len(summary["splits"]):  # some split has more than one, and all but its last are full
        settings["photos_per_shard"] = max(shards)
    return _differing("prepare", OmegaConf.create({"source": source, **settings, "out": root}), [])


def command(verb: str, words: Iterable[str]) -> str:
    """A line for a shell."""
    return " ".join(["bincount", verb, *map(shlex.quote, words)])


def _differing(verb: str, saved: DictConfig, first: list[str]) -> list[str]:
    """The words ``first``, and those without which the composed configuration would not be as ``saved``."""
    usual = compose(verb, first)
    options_taken = {group: _option(saved, group) for group in groups(verb)}
    words = first + [
        f"{group}={option}"
        for group, option in options_taken.items()
        if option in options(group) and option != _option(usual, group)
    ]
    usual, paths = compose(verb, words), path_keys(VERBS[verb])
    for key in keys(usual):
        value = OmegaConf.select(saved, key, default=usual)
        if value is usual or key.split(".")[0] in LEFT_OUT:  # it was not there yet, or does not matter
            continue
        if value != OmegaConf.select(usual, key) or _is_missing(usual, key):
            literal = isinstance(value, str) and key in paths  # the command line takes a path as it is
            words.append(f"{key}={value!s}" if literal else f"{key}={_text(value)}")
    return words


def _option(cfg: DictConfig, group: str) -> Any:
    return cfg[group].get("name") if isinstance(cfg.get(group), DictConfig) else None


def _is_missing(cfg: DictConfig, key: str) -> bool:
    above, _, name = key.rpartition(".")
    return OmegaConf.is_missing(OmegaConf.select(cfg, above) if above else cfg, name)


def _text(value: Any) -> str:
    """A value as Hydra's grammar reads it."""
    if isinstance(value, list | ListConfig):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, dict | DictConfig):
        return f"{{{','.join(f'{name!s}:{_text(each)}' for name, each in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and not re.fullmatch(r"[\w./-]+", value):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)
