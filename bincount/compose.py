"""From the words of a command line to a verb's typed configuration, and from mistakes to one clear line.

Hydra composes `conf/`, the dataclasses of `bincount.config` type and check every key. Nothing here
imports torch.
"""

import re
from collections.abc import Sequence
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from bincount import run, words
from bincount.config import REGISTRIES, VERBS, check, path_keys
from bincount.errors import BadInput, near, nearest
from bincount.words import conf_dir, groups, options

#: Groups whose state is in a checkpoint: who resumes goes on with theirs.
OF_CHECKPOINT = {"model", "objective", "optimizer", "scheduler"}

#: What is told of a value that is no whole number and should be.
WHOLE = "must be a whole number"

#: What other programs call our keys.
ELSEWHERE = {
    "learning_rate": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "patience": "trainer.stop_after",
    "batch": "data.batch_size",
    "num_workers": "data.workers",
    "img_size": "data.image_size",
    "dataset": "data.root",
    "backbone": "model",
    "arch": "model",
    "loss": "objective",
    "gpus": "launcher.devices",
    "output": "out",
    "checkpoint": "run",
}


def compose(verb: str, overrides: Sequence[str]) -> DictConfig:
    """Compose the verb's configuration. Raises BadInput, naming the nearest valid words."""
    none = {f"{group}=null" for group, option in groups(verb).items() if option is None}  # Hydra refuses it
    overrides = [each for each in overrides if each not in none]
    taken = [quoted(override, path_keys(VERBS[verb])) for override in overrides]
    try:
        parsed = OverridesParser.create().parse_overrides(taken)
        if swept := next((each for each in parsed if each.is_sweep_override()), None):
            raise BadInput(_several(verb, str(swept.input_line)))
        cfg = _compose(verb, taken)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # the last of GROUP=null
        raise BadInput(_explain(verb, overrides, taken, error)) from None
    return _resumed(cfg, parsed) if cfg.get("resume") else cfg


def typed(verb: str, cfg: DictConfig) -> Any:
    """The verb's dataclass with every value typed and in range. Raises BadInput."""
    try:
        schema = OmegaConf.structured(VERBS[verb])
        for group, options in REGISTRIES.items():
            if group in cfg and cfg[group].get("name") in options:
                schema[group] = OmegaConf.structured(options[cfg[group].name])
        config = OmegaConf.to_object(OmegaConf.merge(schema, cfg))
    except MissingMandatoryValue as error:
        raise BadInput(f"{error.full_key} is not given: add {error.full_key}=…") from None
    except ConfigKeyError as error:
        key = str(error.full_key)
        raise BadInput(f"{key}: there is no such key in `{verb}`: {_near_key(key, keys(cfg))}") from None
    except OmegaConfBaseException as error:
        given = OmegaConf.select(cfg, str(error.full_key))
        raise BadInput(f"{error.full_key}={_shown(given)}: {_wanted(error)}") from None
    check(config)
    return config


def keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    """The dotted name of every value in ``cfg``."""
    found: list[str] = []
    for key, node in cfg.items_ex(resolve=False):
        name = f"{prefix}{key!s}"
        found += keys(node, f"{name}.") if isinstance(node, DictConfig) and node else [name]
    return found


def _compose(verb: str, overrides: Sequence[str]) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra_compose(verb, list(overrides), return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    job = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    if "experiment" in choices:
        job.experiment = choices.experiment or "default"
    return job


def quoted(override: str, paths: set[str]) -> str:
    """Quote the value of a path, so that Hydra's grammar takes ~, commas and parentheses literally."""
    key, equals, value = override.partition("=")
    plain = value in ("", "null") or value[0] in "'\"["
    if not equals or key.lstrip("+") not in paths or plain:
        return override
    # A backslash means itself, but for those before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    return f"{key}='{escaped}'"


def _several(verb: str, word: str) -> str:
    """What to do about a word with several values."""
    if verb == "train":
        return f"{word}: to train with each value in turn add -m: `bincount train -m {word} …`"
    key, _, value = word.partition("=")
    return f"{word}: this is several values; quote it, as in \"{key}='{value}'\", to mean one"


def _explain(verb: str, overrides: Sequence[str], taken: Sequence[str], error: Exception) -> str:
    """Find the override that cannot be, by trying each by itself."""
    known = groups(verb)
    chosen = [each for each in taken if each.partition("=")[0] in known]
    for place, (word, override) in enumerate(zip(overrides, taken, strict=True)):
        key, equals, value = word.partition("=")
        if not equals:
            return _no_value(verb, word, before=overrides[place - 1] if place else "")
        if key in known:
            if value not in options(key):
                return f"{key}={value}: there is no such {key}: {nearest(value, options(key))}"
            continue
        try:
            OverridesParser.create().parse_overrides([override])
        except HydraException:
            return f"{word}: this value cannot be read; quote it, as in \"{key}='{value}'\""
    try:
        valid = _compose(verb, chosen)
    except (HydraException, OmegaConfBaseException, ValueError):
        return _first_line(error)
    there = keys(valid)
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~")
        if key not in known and not any(each == key or each.startswith(f"{key}.") for each in there):
            return f"{key}: there is no such key in `{verb}`: {_near_key(key, [*there, *known])}"
    return _first_line(error)


def _no_value(verb: str, word: str, before: str) -> str:
    """What to do about a word without an equals sign, which follows the word ``before``."""
    if before.endswith("="):
        return f"{before} {word}: write {before}{word} in one word"
    of = [group for group in groups(verb) if word in options(group)]
    told = " or ".join(f"{group}={word}" for group in of) or "key=value"
    if word in groups(verb) or word in words.keys(verb):
        told = f"{word}=VALUE in one word"
    return f"{word}: write {told}; `bincount {verb} --help` shows the keys"


def _near_key(key: str, known: list[str]) -> str:
    """Like :func:`nearest`; also where only the last part was typed, where another option has the key, or
    where other programs call it so."""
    group, _, name = key.rpartition(".")
    having = [each for each in options(group) if name in _keys_in(f"{group}/{each}")] if group else []
    if having:
        return f"{' and '.join(f'{group}={each}' for each in having)} would have it"
    known = [each for each in known if not each.endswith(".name")]
    if (called := ELSEWHERE.get(name.lower())) in known:
        return f"did you mean {called}?"
    if ends := [each for each in known if each.rpartition(".")[2] == name]:
        return f"did you mean {near(key, ends) or ends[0]}?"
    inside = {each.removeprefix(f"{group}."): each for each in known if each.startswith(f"{group}.")}
    if inside:
        meant = near(name, inside)
        return f"did you mean {inside[meant]}?" if meant else f"{group} has {', '.join(inside)}"
    return nearest(key, known)


def _keys_in(name: str) -> list[str]:
    """The keys of a YAML file of `conf/`, whether they have a value or not."""
    return [line.key for line in words.lines(name)]


def _wanted(error: OmegaConfBaseException) -> str:
    """What a value has to be, where OmegaConf refused it as of another type."""
    told = _first_line(error)
    kinds = {
        "to Integer": WHOLE,
        "to Float": "must be a number",
        "valid bool": "must be true or false",
        "not Optional": "must have a value",
        "'None' for field": "must have a value",
        "Invalid type assigned": "has keys of its own, and no value: give one of those",
    }
    return next((kind for sign, kind in kinds.items() if sign in told), told)


def _shown(value: Any) -> str:
    """A value as it is typed."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def _resumed(cfg: DictConfig, overrides: Sequence[Override]) -> DictConfig:
    """The configuration of the run to go on with, changed only where the command line says so."""
    source = run.find(cfg.resume, cfg.runs)
    resumed = _with_new_keys(run.saved_config(source), cfg)
    for override in overrides:
        key = override.key_or_group
        group = key.partition(".")[0]
        if group in OF_CHECKPOINT or key in ("data", "experiment"):
            saved = (OmegaConf.select(resumed, key), OmegaConf.select(resumed, f"{key}.name"))
            if OmegaConf.select(cfg, key) not in saved and override.value() not in saved:
                raise BadInput(f"{key}={override.value()}: resume goes on with the {group} of {source}")
        else:
            OmegaConf.update(resumed, key, OmegaConf.select(cfg, key), merge=False)
    resumed.resume, resumed.runs = str(source), cfg.runs
    return resumed


def _with_new_keys(saved: DictConfig, cfg: DictConfig) -> DictConfig:
    """The saved configuration with what this version of the program has and the one that saved it had not."""
    whole = OmegaConf.create(OmegaConf.to_container(saved))
    assert isinstance(whole, DictConfig)
    for key, now in cfg.items():
        if key not in saved:
            whole[key] = now
        elif _option(now) is not None and _option(now) == _option(saved[key]):  # another has other keys
            whole[key] = OmegaConf.merge(now, saved[key])
    return whole


def _option(node: Any) -> Any:
    """Which option of its group a part of a configuration is; empty where it is none, None for no part."""
    return node.get("name", "") if isinstance(node, DictConfig) else None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
