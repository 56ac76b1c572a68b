"""What a JSON schema says of the columns that are read from JSON.

It is a promise and no layout: the stream reads whatever JSON is there. So a column is

    missing     where the schema has no property of that name, and none is allowed or likely: it would be null
    a misfit    where no value that the schema allows could be read
    a doubt     where some could be, and some not: "number" in a bigint column, "string or integer" in a string one
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.core.spec import ValueType
from featurestore.errors import InvalidRequest
from featurestore.wire.formats.columns import WantedColumn
from featurestore.wire.formats.wishes import NO_COLUMN_HOLDS, with_article

DEPTH_MAX = 12
"""Objects in objects, and references to references."""

_READ: Mapping[ValueType, frozenset[str]] = {
    ValueType.STRING: frozenset({"string"}),
    ValueType.INT64: frozenset({"integer"}),
    ValueType.FLOAT64: frozenset({"integer", "number"}),
    ValueType.BOOL: frozenset({"boolean"}),
    ValueType.TIMESTAMP: frozenset({"string", "integer"}),
}
"""What of JSON's types a column reads."""

_PARTS = frozenset({"array", "object"})
"""Types of values that have parts."""

_EVERY = frozenset({"string", "integer", "number", "boolean", "object", "array", "null"})


@dataclass(frozen=True, slots=True)
class JsonFit:
    """See `fits.Fit`."""

    missing: frozenset[str]
    misfits: Mapping[str, str]
    doubts: Mapping[str, str]


class JsonSchema:
    """A schema of objects.

    Args:
        text: JSON.

    Raises:
        InvalidRequest: the text is no JSON schema.
    """

    def __init__(self, text: str) -> None:
        try:
            self._schema = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InvalidRequest("a JSON schema is not JSON", detail=str(error)) from error
        if not isinstance(self._schema, dict):
            raise InvalidRequest("a JSON schema is not an object", hint="register one with properties")

    def fit(self, columns: Sequence[WantedColumn]) -> JsonFit:
        """How it fits some columns, whose fields are paths."""
        missing, misfits, doubts = set[str](), dict[str, str](), dict[str, str]()
        for column in columns:
            found = self._at(column.field)
            if found is None:
                missing.add(column.name)
                continue
            kinds = self._kinds(found, 0) - {"null"}
            reads = _READ[column.type]
            unread = {kind for kind in kinds if kind not in reads}
            if not unread:
                continue
            has = " or ".join(sorted(unread))
            holds = NO_COLUMN_HOLDS if unread <= _PARTS else f"which no column of type {column.type.value} holds"
            reason = f"{column.field} is {with_article(has)}, {holds}"
            (doubts if kinds & reads else misfits)[column.name] = reason
        return JsonFit(frozenset(missing), misfits, doubts)

    def fields(self) -> dict[str, object]:
        """The properties of the object and of those in it: path, and the unit if there is one."""
        found: dict[str, object] = {}
        self._add_fields(self._schema, "", found, 0)
        return found

    def _add_fields(self, schema: Any, path: str, found: dict[str, object], depth: int) -> None:
        for one in self._branches(schema, 0) if depth < DEPTH_MAX else ():
            properties = one.get("properties")
            for name, inner in properties.items() if isinstance(properties, dict) else ():
                place = f"{path}.{name}".lstrip(".")
                units = [each["unit"] for each in self._branches(inner, 0) if "unit" in each]
                found.setdefault(place, units[0] if units else None)
                self._add_fields(inner, place, found, depth + 1)

    def _at(self, path: str) -> Any:
        """The schema of a property; True of one of which nothing is said, None where there is none."""
        inside: list[Any] = [self._schema]
        for name in path.split("."):
            found = []
            for one in (branch for each in inside for branch in self._branches(each, 0)):
                properties = one.get("properties", {})
                if isinstance(properties, dict) and name in properties:
                    found.append(properties[name])
                elif isinstance(one.get("additionalProperties"), dict):
                    # A map: every name is one of its.
                    found.append(one["additionalProperties"])
            if not found:
                return None
            inside = found
        return inside[0] if len(inside) == 1 else {"anyOf": inside}

    def _branches(self, schema: Any, depth: int) -> list[dict[str, Any]]:
        """The schemas of which some are true of a value: itself, what it refers to, and its alternatives."""
        if not isinstance(schema, dict) or depth > DEPTH_MAX:
            return []
        found = [schema]
        if isinstance(reference := schema.get("$ref"), str):
            found += self._branches(self._referred(reference), depth + 1)
        for word in ("allOf", "anyOf", "oneOf"):
            for one in schema.get(word) or ():
                found += self._branches(one, depth + 1)
        return found

    def _referred(self, reference: str) -> Any:
        """What "#/$defs/Card" is; nothing of what is not in this schema."""
        if not reference.startswith("#/"):
            return None
        found: Any = self._schema
        for name in reference[2:].split("/"):
            name = name.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def _kinds(self, schema: Any, depth: int) -> frozenset[str]:
        """JSON's types that a value may be of; "number" is one that is no integer."""
        if not isinstance(schema, dict) or depth > DEPTH_MAX:
            return frozenset() if schema is False else _EVERY
        kinds = _EVERY
        if (said := schema.get("type")) is not None:
            kinds &= _with_integers(frozenset([said] if isinstance(said, str) else said))
        if "const" in schema or isinstance(schema.get("enum"), list):
            given = schema["enum"] if "enum" in schema else [schema["const"]]
            kinds &= frozenset(map(_kind_of, given))
        if isinstance(reference := schema.get("$ref"), str):
            kinds &= self._kinds(self._referred(reference), depth + 1)
        for one in schema.get("allOf") or ():
            kinds &= self._kinds(one, depth + 1)
        for word in ("anyOf", "oneOf"):
            if schema.get(word):
                kinds &= frozenset().union(*(self._kinds(one, depth + 1) for one in schema[word]))
        return kinds


def _with_integers(kinds: frozenset[str]) -> frozenset[str]:
    """Types as a schema writes them, where integers are numbers, to ours: those, and other numbers."""
    return kinds | {"integer"} if "number" in kinds else kinds


def _kind_of(value: object) -> str:
    """The type of a value."""
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}
    return kinds.get(type(value), "null")
