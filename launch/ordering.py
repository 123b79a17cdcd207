"""How an order is checked, and then shown; or asked about, and sent."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from launch import checks, preview, service_model
from launch.job import Order

Kind = TypeVar("Kind", bound=Order)
Check = Callable[[Any], str | None]

#: Requests of SageMaker by their names, in their order.
Requests = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Rules:
    """What is looked at, by name: ``checks`` first, ``given`` before it is sent, ``asked`` of AWS."""

    checks: dict[str, Check]
    given: dict[str, Check]
    asked: dict[str, Check]


def named(*each: Check) -> dict[str, Check]:
    """Checks by their names."""
    return {check.__name__: check for check in each}


def of_parts(check: Check, parts: Callable[[Any], Iterable[Any]]) -> Check:
    """The check of an order that looks at ``parts`` of it; the first line that is found counts."""

    def checked(order: Any) -> str | None:
        return next((line for part in parts(order) if (line := check(part))), None)

    checked.__name__ = check.__name__
    return checked


def carry_out(
    order: Kind,
    rules: Rules,
    wanted: bool,
    made: Callable[[Kind], Requests],
    told: Callable[[Kind], str],
    send: Callable[[Kind], None],
) -> None:
    """Show what is ``told`` of an order, or if ``wanted`` send it. Raises BadInput where that is in vain."""
    checks.run_checks(order, rules.checks)
    if not wanted:
        print(told(order))
        print(preview.ending(checks.missing(order, rules.given)))
        return
    checks.run_checks(order, rules.given)
    for operation, request in made(order).items():
        service_model.check("sagemaker", operation, request)
    checks.run_checks(order, rules.asked)
    send(order)
