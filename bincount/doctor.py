"""`bincount doctor`: is all there that the other verbs need? Each line is ok, or says what to do."""

from rich.text import Text

from bincount import progress
from bincount.checkup import environment, places
from bincount.checkup.finding import Check, Finding, Mark
from bincount.config import DoctorConfig
from bincount.errors import BincountError

#: How each mark is shown on a terminal.
SHOWN = {Mark.OK: ("✓", "green"), Mark.HINT: ("!", "yellow"), Mark.BAD: ("✗", "bold red")}


def doctor(config: DoctorConfig) -> None:
    """Look at everything, and tell. Raises BincountError where something is to be mended."""
    bad = seen = 0
    for check in checks(config):
        for finding in check.findings():
            progress.out.print(shown(finding, progress.out.is_terminal), soft_wrap=True)
            seen, bad = seen + 1, bad + (finding.mark is Mark.BAD)
    if bad:
        raise BincountError(
            f"{bad} of {seen} {'is' if bad == 1 else 'are'} not in order: see what its line says"
        )


def checks(config: DoctorConfig) -> list[Check]:
    """What is looked at, in the order of what rests on what."""
    far = [each for each in (config.s3, config.data.root) if each and each.startswith("s3://")]
    found = [
        Check("Python", environment.python),
        Check("packages", environment.packages),
        Check("torch", environment.torch),
        Check("processors", environment.processors),
        Check("memory", environment.memory),
        Check("disk", environment.disk),
        Check("GPU", environment.gpu),
        Check("data", lambda: places.data(config.data.root)),
        Check("runs", lambda: places.runs(config.runs)),
        Check("run", lambda: places.trained(config.run, config.runs)),
    ]
    if far or config.out is not None:
        found.insert(7, Check("S3" if far else "out", lambda: places.s3(far, config.out)))
    return found


def shown(finding: Finding, on_terminal: bool) -> Text:
    """A finding as a line: with a mark in colour on a terminal, in plain words in a log."""
    mark, style = SHOWN[finding.mark] if on_terminal else (f"{finding.mark.value:<5}", "")
    fix = f": {finding.fix}" if finding.fix else ""
    return Text.assemble(
        (mark, style), f" {finding.what:<12} {finding.told}", (fix, "bold" if on_terminal else "")
    )
