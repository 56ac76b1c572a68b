"""The OpenAPI document of the operations, made of the very types that their bodies are decoded and encoded by."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from featurestore import __version__
from featurestore.serving.http import problems
from featurestore.serving.http.messages import JSON
from featurestore.serving.http.operations import NAME, Operation
from featurestore.serving.http.problems import Problem

TIMEOUT_HEADER = "request-timeout"
"""Seconds that the caller gives."""

_ATTRIBUTE = re.compile(r"^    (\w+): (.*?)(?=^    \w+:|\Z)", re.MULTILINE | re.DOTALL)

_HEALTH = {
    "/healthz": ("health", "Whether the process is alive.", {"200": "It is."}),
    "/readyz": (
        "readiness",
        "Whether lookups are answered.",
        {"200": "They are.", "503": "The online store does not answer, or the server is about to stop."},
    ),
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The document, OpenAPI 3.1.

    Args:
        operations: what may be asked.
    """
    types = [each for one in operations for each in (one.body, one.answer) if each is not None]
    schemas, components = msgspec.json.schema_components([*types, Problem], ref_template="#/components/schemas/{name}")
    schema_of = dict(zip([*types, Problem], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.verb.lower()] = _operation(operation, schema_of)
    for path, (name, summary, statuses) in _HEALTH.items():
        responses = {status: {"description": text} for status, text in statuses.items()}
        paths[path] = {"get": {"operationId": name, "summary": summary, "responses": responses}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Feature store",
            "version": __version__,
            "description": "Feature values of entities, as of now or of a moment. Times are milliseconds since 1970.",
        },
        "paths": paths,
        "components": {"schemas": {name: _with_descriptions(schema) for name, schema in components.items()}},
    }


def _with_descriptions(schema: dict[str, Any]) -> dict[str, Any]:
    """A type's docstring as descriptions of the type and of each of its members."""
    text, _, attributes = inspect.cleandoc(schema["description"]).partition("\n\nAttributes:\n")
    described = schema | {"description": " ".join(text.split())}
    if attributes:
        texts = dict(_ATTRIBUTE.findall(attributes))
        described["properties"] = {
            name: {**member, "description": " ".join(texts[name].split())}
            for name, member in schema["properties"].items()
        }
    return described


def _operation(operation: Operation, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {
            "name": TIMEOUT_HEADER,
            "in": "header",
            "description": "Seconds until the caller gives up, and so does the server.",
            "schema": {"type": "number", "exclusiveMinimum": 0},
        }
    ]
    if NAME in operation.path:
        parameters.append({"name": "name", "in": "path", "required": True, "schema": {"type": "string"}})
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "The answer.", "content": {JSON: {"schema": schema_of[operation.answer]}}},
            "default": {
                "description": "There is no answer.",
                "content": {problems.CONTENT_TYPE: {"schema": schema_of[Problem]}},
            },
        },
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema_of[operation.body]}}}
    return described
