"""status, logs, stop: what became of a job that was sent."""

from launch import jobs, tables
from launch.overrides import launcher_of, nothing_else, take

KNOWN = ("job", "runs", "launcher.region")


def status(words: list[str]) -> None:
    name, region, runs = _job(words, "status")
    if name.startswith(tables.NAMED):
        print(tables.status(name, runs))
        return
    print(jobs.status(name, region, runs))


def logs(words: list[str]) -> None:
    name, region, runs = _job(words, "logs")
    print(jobs.logs(name, region, runs))


def stop(words: list[str]) -> None:
    name, region, _ = _job(words, "stop")
    print(jobs.stop(name, region))


def _job(words: list[str], verb: str) -> tuple[str, str, str]:
    """The job's name, its region, and the folder of runs."""
    name, runs = take(words, "job", "latest"), take(words, "runs", "runs")
    nothing_else(verb, words, KNOWN)
    return name, launcher_of(words).region, runs
