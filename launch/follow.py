"""status, logs, stop: what became of what was sent, of whatever kind it is."""

from types import ModuleType
from typing import Any

from bincount.errors import BadInput
from launch import executions, jobs, tables, tunings
from launch.overrides import launcher_of, nothing_else, take

KNOWN = ("job", "runs", "launcher.region")

#: Kinds of what is sent, in the order in which a name is looked up. Each module has ``found`` and ``newest``,
#: and for what is found ``status``, ``logs`` and ``stop``, which are told the folder of runs, too.
KINDS: tuple[ModuleType, ...] = (tables, jobs, executions, tunings)


def status(words: list[str]) -> None:
    kind, sent, runs = _sent(words, "status")
    print(kind.status(sent, runs))


def logs(words: list[str]) -> None:
    kind, sent, runs = _sent(words, "logs")
    print(kind.logs(sent, runs))


def stop(words: list[str]) -> None:
    kind, sent, runs = _sent(words, "stop")
    print(kind.stop(sent, runs))


def _sent(words: list[str], verb: str) -> tuple[ModuleType, Any, str]:
    """Of which kind it is, what AWS tells of it, and the folder of runs."""
    name, runs = take(words, "job", "latest"), take(words, "runs", "runs")
    nothing_else(verb, words, KNOWN)
    region = launcher_of(words).region
    if name == "latest":
        found = [newest for kind in KINDS if (newest := kind.newest(region, runs))]
        if not found:
            raise BadInput(f"job=latest: there is no job of bincount in {region} yet")
        _, name = max(found)
    for kind in KINDS:
        if (sent := kind.found(name, region, runs)) is not None:
            return kind, sent, runs
    raise BadInput(f"job={name}: there is no such job in {region}")
