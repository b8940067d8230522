"""docs/api-reference.md from the API's description of itself: `python docs/write_api_reference.py`. A test compares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from orchestrator.api.app import create_app
from orchestrator.api.dependencies import Services

PAGE = Path(__file__).with_name("api-reference.md")
HEAD = """# API reference

Written by `docs/write_api_reference.py` from the document that the server serves at `/openapi.json`; a test compares.
[The HTTP API](api.md) says how to use it: keys and their scopes, a first job, pages, errors.

Every operation may also refuse a request with {refusals}, as a [problem document](api.md#errors).
Statuses are listed with an operation where they are peculiar to it.
"""
EVERYWHERE = (400, 401, 403, 411, 413, 422, 429, 500, 503)
LONGEST_ENUM = 12


def write_page() -> str:
    """The whole page."""
    document = create_app(cast("Services", None)).openapi()
    refusals = ", ".join(str(status) for status in EVERYWHERE)
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            group = (operation.get("tags") or ["server"])[0]
            groups.setdefault(group, []).append("".join(each_line(f"{verb.upper()} {path}", operation)))
    parts = [HEAD.format(refusals=refusals)]
    for group, texts in groups.items():
        parts += [f"\n## {group.capitalize()}\n", *texts]
    parts.append("\n## Shapes\n\nA field with `*` must be given.\n")
    parts += ["".join(each_field(name, schema)) for name, schema in sorted(document["components"]["schemas"].items())]
    return "".join(parts)


def each_line(name: str, operation: dict[str, Any]) -> Iterator[str]:
    """An operation: what it does, what it takes, what it answers."""
    yield f"\n### `{name}`\n\n{in_one_line(operation.get('description', ''))}\n"
    rows = [*each_parameter(operation), *each_body(operation)]
    if rows:
        yield "\n| takes | | |\n|---|---|---|\n" + "".join(rows)
    yield "\nAnswers " + "; ".join(each_answer(operation)) + ".\n"


def each_parameter(operation: dict[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        name = f"`{parameter['name']}`" + ("\\*" if parameter.get("required") else "")
        schema = parameter["schema"]
        yield f"| {name} | {parameter['in']} | {type_of(schema)}{limits_of(schema)} |\n"


def each_body(operation: dict[str, Any]) -> Iterator[str]:
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"| body | `{kind}` | {type_of(content['schema'])} |\n"


def each_answer(operation: dict[str, Any]) -> Iterator[str]:
    for status, response in operation["responses"].items():
        if int(status) in EVERYWHERE:
            continue
        schema = next((content.get("schema") for content in response.get("content", {}).values()), None)
        shape = type_of(schema) if schema else ""
        yield f"`{status}`" + (f" {shape}" if shape and int(status) < 400 else "")


def each_field(name: str, schema: dict[str, Any]) -> Iterator[str]:
    """A shape, field by field."""
    description = in_one_line(schema.get("description", ""))
    yield f"\n### {name}\n" + (f"\n{description}\n" if description else "")
    if "enum" in schema:
        yield f"\nOne of {values_of(schema['enum'])}.\n"
    required = set(schema.get("required", ()))
    rows = [
        f"| `{field}`{chr(92) + '*' if field in required else ''} | {type_of(value)}{limits_of(value)} |\n"
        for field, value in schema.get("properties", {}).items()
    ]
    if rows:
        yield "\n| field | |\n|---|---|\n" + "".join(rows)


def type_of(schema: dict[str, Any]) -> str:
    """A schema in words; a shape with a name is a link."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(dict.fromkeys(type_of(each) for each in schema.get("anyOf", schema.get("oneOf", ()))))
    if "const" in schema:
        return values_of([schema["const"]])
    if "enum" in schema:
        return "one of " + values_of(schema["enum"]) if len(schema["enum"]) <= LONGEST_ENUM else "text"
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {type_of(schema['additionalProperties'])}"
    words = {"string": "text", "boolean": "true or false", "number": "number", "integer": "whole number"}
    if schema.get("format") == "date-time":
        return "time"
    return words.get(schema.get("type", ""), schema.get("type", "anything"))


def limits_of(schema: dict[str, Any]) -> str:
    """Bounds and the default, where there are some."""
    bounds = [schema, *schema.get("anyOf", ())]
    names = {
        "minimum": "at least",
        "maximum": "at most",
        "exclusiveMinimum": "above",
        "minLength": "characters at least",
        "maxLength": "characters at most",
        "minItems": "entries at least",
        "maxItems": "entries at most",
    }
    found = [f"{text} {each[name]:g}" for each in bounds for name, text in names.items() if name in each]
    if schema.get("default") is not None:
        found.append(f"`{json.dumps(schema['default'])}` when left out")
    return "; " + ", ".join(found) if found else ""


def values_of(values: list[Any]) -> str:
    return ", ".join(f"`{json.dumps(value)}`" for value in values)


def in_one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(write_page(), encoding="utf-8")
