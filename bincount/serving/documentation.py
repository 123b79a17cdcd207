"""The API as OpenAPI describes it, and as a page that needs nothing else."""

from collections.abc import Iterator, Mapping
from typing import Any

from bincount import page
from bincount.serving.answers import CSV
from bincount.serving.reading import IMAGES, JSON

_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "request": {"type": "string"}},
    "required": ["error", "request"],
}

_PHOTO = {"type": "string", "contentEncoding": "base64"}

_EXPECTED = {
    "description": "the quantity that the record says: one for all photos, or a list, one a photo",
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "array", "items": {"type": ["integer", "null"], "minimum": 0}},
        {"type": "null"},
    ],
}

_ANSWER = {
    "type": "object",
    "properties": {
        "count": {"type": "integer"},
        "or_more": {"type": "boolean", "description": "so many or more"},
        "expected_value": {"type": "number"},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        "record": {
            "type": "object",
            "description": "where a quantity is expected",
            "properties": {
                "expected": {"type": "integer"},
                "p_wrong": {"type": "number", "description": "the probability that the record is wrong"},
                "check": {"type": "boolean"},
            },
        },
        "heatmap": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    },
    "required": ["count", "or_more", "expected_value", "probabilities"],
}

_REFUSED = {
    406: "Accept allows neither JSON nor CSV.",
    408: "The body came too slowly.",
    413: "Too many bytes, pixels or photos.",
    415: "Of another type than these.",
    422: "A photo cannot be read, or the question is not understood.",
    431: "The headers are too large.",
    503: "Too much is under way, or the service is about to end; see Retry-After.",
    504: "No answer in time.",
}

#: What a request may send.
REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGES},
            JSON: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "photo": _PHOTO,
                        "photos": {"type": "array", "items": _PHOTO, "minItems": 1},
                        "expected": _EXPECTED,
                    },
                }
            },
        },
    }
}

#: What it may be answered.
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An answer a photo, in their order.",
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "run": {"type": "string"},
                        "answers": {"type": "array", "items": _ANSWER},
                    },
                    "required": ["run", "answers"],
                }
            },
            CSV: {"schema": {"type": "string"}},
        },
    },
    **{
        status: {"description": told, "content": {JSON: {"schema": _ERROR}}}
        for status, told in _REFUSED.items()
    },
}


def document(schema: Mapping[str, Any]) -> str:
    """The page of an OpenAPI description."""
    parts = [page.heading(1, f"{schema['info']['title']} {schema['info']['version']}")]
    parts += [page.line(schema["info"]["description"])]
    parts += ['<p>For programs: <a href="openapi.json">openapi.json</a>. <a href="./">Count photos</a>.</p>']
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            parts += _operation(f"{method.upper()} {path}", operation)
    return page.document("bincount: the API", parts)


def _operation(title: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield page.heading(2, title)
    yield page.line(operation["summary"])
    yield from (page.line(each) for each in operation.get("description", "").split("\n\n") if each)
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [("", each["name"], each["in"], _kind(each["schema"])) for each in parameters]
        yield page.table(["name", "in", "type"], rows, "Parameters", words=True)
    if "requestBody" in operation:
        body = operation["requestBody"]["content"]
        rows3 = [("", kind, _kind(each["schema"])) for kind, each in body.items()]
        yield page.table(["Content-Type", "what"], rows3, "Body", words=True)
    answers = [
        ("", status, ", ".join(each.get("content", {})), each["description"])
        for status, each in operation["responses"].items()
    ]
    yield page.table(["status", "type", "what"], answers, "Answers", words=True)
    for kind, each in operation["responses"]["200"].get("content", {}).items():
        if "properties" in each.get("schema", {}):
            yield page.table(["key", "type"], _rows(each["schema"]), f"Answer as {kind}", words=True)


def _rows(schema: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str, str]]:
    """A row a key, also of the objects inside."""
    for name, each in schema["properties"].items():
        told = each.get("description")
        inside = each.get("items", each) if each.get("type") == "array" else each
        kind = each["type"] if "properties" in inside else _kind(each)
        yield "", f"{above}{name}", f"{kind}{f': {told}' if told else ''}"
        if "properties" in inside:
            yield from _rows(inside, f"{above}{name}{'[]' if inside is not each else ''}.")


def _kind(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if schema.get("format") == "binary":
        return "the photo's bytes"
    if schema.get("contentEncoding") == "base64":
        return "photo in base64"
    if schema.get("type") == "object" and "properties" in schema:
        keys = (f'"{name}": {_kind(each)}' for name, each in schema["properties"].items())
        return f"{{{', '.join(keys)}}}"
    if schema.get("type") == "array":
        return f"[{_kind(schema['items'])}, …]"
    kind = schema.get("type", "anything")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
