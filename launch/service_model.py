"""A request against AWS's own model of its API, as botocore ships it, and stricter than botocore is.

botocore checks types, names and minima when a request is sent; here also enums, maxima and patterns are, and
without a client.
"""

import re
from functools import cache
from typing import Any

from bincount.errors import BadInput


def check(service: str, operation: str, request: dict[str, Any]) -> None:
    """Raise BadInput for the first thing in ``request`` that the model does not take."""
    from botocore.validate import ParamValidator

    shape = _model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        raise BadInput(f"{operation}: {report.generate_report().splitlines()[0]}")
    for problem in _problems(shape, request, operation):
        raise BadInput(problem)


@cache
def _model(service: str) -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def _problems(shape: Any, value: Any, place: str) -> Any:
    if shape.type_name == "structure":
        for name, each in value.items():
            yield from _problems(shape.members[name], each, f"{place}.{name}")
    elif shape.type_name == "list":
        yield from _bounds(shape, len(value), place, "entries")
        for number, each in enumerate(value):
            yield from _problems(shape.member, each, f"{place}[{number}]")
    elif shape.type_name == "map":
        yield from _bounds(shape, len(value), place, "entries")
        for key, each in value.items():
            yield from _problems(shape.key, key, f"{place}.{key}")
            yield from _problems(shape.value, each, f"{place}.{key}")
    elif shape.type_name == "string":
        yield from _bounds(shape, len(value), place, "characters")
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(_python(pattern), value):
            yield f"{place}={value}: AWS takes only what matches {pattern}"
        if shape.enum and value not in shape.enum:
            yield f"{place}={value}: AWS knows no such value"
    elif shape.type_name in ("integer", "long"):
        yield from _bounds(shape, value, place, "")


def _python(pattern: str) -> str:
    """AWS's patterns are Java's: Unicode classes are written otherwise in Python."""
    for java, python in (
        ("\\p{Alnum}", "A-Za-z0-9"),
        ("\\p{L}", "\\w"),
        ("\\p{N}", "\\d"),
        ("\\p{Z}", "\\s"),
        ("\\uD800\\uDC00-\\uDBFF\\uDFFF", "\\U00010000-\\U0010FFFF"),
    ):
        pattern = pattern.replace(java, python)
    return pattern


def _bounds(shape: Any, size: int, place: str, what: str) -> Any:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if (least is not None and size < least) or (most is not None and size > most):
        yield f"{place}: {size} {what}".rstrip() + f": AWS takes {least} to {most}"
