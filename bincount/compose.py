"""From the words of a command line to a verb's typed configuration, and from mistakes to one clear line.

Hydra composes `conf/`, the dataclasses of `bincount.config` type and check every key. Nothing here
imports torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from bincount import run
from bincount.config import REGISTRIES, VERBS, check, path_keys
from bincount.errors import BadInput, nearest

#: Groups whose state is in a checkpoint: who resumes goes on with theirs.
OF_CHECKPOINT = {"model", "objective", "optimizer", "scheduler"}


def conf_dir() -> Path:
    """The folder of YAML files: shipped inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parent / "conf"


def compose(verb: str, overrides: Sequence[str]) -> DictConfig:
    """Compose the verb's configuration. Raises BadInput, naming the nearest valid words."""
    taken = [quoted(override, path_keys(VERBS[verb])) for override in overrides]
    try:
        parsed = OverridesParser.create().parse_overrides(taken)
        if swept := next((each for each in parsed if each.is_sweep_override()), None):
            raise BadInput(_several(verb, str(swept.input_line)))
        cfg = _compose(verb, taken)
    except (HydraException, OmegaConfBaseException) as error:
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
        raise BadInput(f"{error.full_key}: {_first_line(error)}") from None
    check(config)
    return config


def options(group: str) -> list[str]:
    """The options of a config group."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def groups(verb: str) -> dict[str, str | None]:
    """The config groups of a verb, and the option that each has by default."""
    primary = OmegaConf.load(conf_dir() / f"{verb}.yaml")
    assert isinstance(primary, DictConfig)
    chosen = [each for each in primary.get("defaults", []) if isinstance(each, DictConfig)]
    return {str(group): option for each in chosen for group, option in each.items()}


def keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    """The dotted name of every value in ``cfg``."""
    found: list[str] = []
    for key, node in cfg.items_ex(resolve=False):
        name = f"{prefix}{key!s}"
        found += keys(node, f"{name}.") if isinstance(node, DictConfig) and node else [name]
    return found


def _keys_in(name: str) -> list[str]:
    """The top keys of a YAML file of `conf/`, whether they have a value or not."""
    return [str(key) for key in OmegaConf.load(conf_dir() / f"{name}.yaml")]


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
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
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
    for word, override in zip(overrides, taken, strict=True):
        key, equals, value = word.partition("=")
        if not equals:
            return f"{word}: write key=value; `bincount {verb} --help` shows the keys"
        if key in known:
            if value not in options(key) and value != "null":
                return f"{key}={value}: there is no such {key}: {nearest(value, options(key))}"
            continue
        try:
            OverridesParser.create().parse_overrides([override])
        except HydraException:
            return f"{word}: this value cannot be read; quote it, as in \"{key}='{value}'\""
    try:
        valid = _compose(verb, chosen)
    except (HydraException, OmegaConfBaseException):
        return _first_line(error)
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~")
        if key not in known and OmegaConf.select(valid, key, default=_first_line) is _first_line:
            return f"{key}: there is no such key in `{verb}`: {_near_key(key, [*keys(valid), *known])}"
    return _first_line(error)


def _near_key(key: str, known: list[str]) -> str:
    """Like :func:`nearest`; also where only the last part was typed, or where another option has the key."""
    group, _, name = key.rpartition(".")
    having = [each for each in options(group) if name in _keys_in(f"{group}/{each}")] if group else []
    if having:
        return f"{' and '.join(f'{group}={each}' for each in having)} would have it"
    ends = [each for each in known if each.rpartition(".")[2] == name]
    return f"did you mean {ends[0]}?" if ends else nearest(key, known)


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
