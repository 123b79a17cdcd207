"""The words after a verb: which of them are the launcher's, and what is only `submit.py`'s own."""

from collections.abc import Callable, Iterable
from dataclasses import field, fields
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bincount.compose import compose, typed
from bincount.config import SageMaker, check
from bincount.errors import BadInput, nearest

Words = TypeVar("Words")


def ruled(default: Any, holds: Callable[[Any], bool], rule: str) -> Any:
    """A key of a verb's own whose values have a rule, as in `bincount.config`."""
    return field(default=default, metadata={"holds": holds, "rule": rule})


def own(verb: str, words: list[str], kind: type[Words]) -> Words:
    """Take the keys of ``kind``, a dataclass, out of ``words``, typed. Raises BadInput for other keys."""
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    nothing_else(verb, (word for word in words if word.partition("=")[0] not in known), known)
    found = OmegaConf.structured(kind)
    for key in known:
        value = take(words, key, "")
        if value:
            try:
                found[key] = None if value == "null" else value
            except OmegaConfBaseException:
                wanted = found._get_node(key)._metadata.ref_type.__name__
                raise BadInput(f"{key}={value}: must be of type {wanted}") from None
    made: Words = OmegaConf.to_object(found)  # type: ignore[assignment]
    check(made)
    return made


def own_beside(verb: str, words: list[str], kind: type[Words]) -> Words:
    """As :func:`own`, where other verbs' keys stand beside: those are left in ``words``."""
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    found = [word for word in words if word.partition("=")[0] in known]
    for word in found:
        words.remove(word)
    return own(verb, found, kind)


def take(words: list[str], key: str, default: str) -> str:
    """Take `key=value` out of ``words``; the last one counts."""
    for word in list(words):
        if word.partition("=")[0] == key:
            words.remove(word)
            default = word.partition("=")[2]
    return default


def sending(words: list[str]) -> bool:
    """Take `submit=true` out of ``words``: whether the request is to be sent, not only shown."""
    found = take(words, "submit", "false").lower()
    if found not in ("true", "false"):
        raise BadInput(f"submit={found}: write submit=true, or leave it out")
    return found == "true"


def nothing_else(verb: str, words: Iterable[str], known: Iterable[str]) -> None:
    """Raise BadInput for a word that is not the launcher's. ``known``: the keys that the verb has."""
    for word in words:
        if not of_launcher(word):
            key = word.partition("=")[0]
            raise BadInput(f"{key}: there is no such key in `{verb}`: {nearest(key, known)}")


def of_launcher(word: str) -> bool:
    """Whether a word chooses the launcher or sets one of its keys."""
    key = word.partition("=")[0].lstrip("+~")
    return key == "launcher" or key.startswith("launcher.")


def launcher_of(words: Iterable[str]) -> SageMaker:
    """The launcher that its own words ask for, SageMaker's unless said."""
    words = list(words)
    chosen = [] if any(word.startswith("launcher=") for word in words) else ["launcher=sagemaker"]
    launcher: Any = typed("train", compose("train", [*chosen, *words])).launcher
    if not isinstance(launcher, SageMaker):
        raise BadInput(f"launcher={launcher.name}: that runs here, not on SageMaker: give launcher=sagemaker")
    return launcher
