"""The columns of a stream's payload, from the text that Feast keeps in JsonFormat(schema_json=...).

Feast passes that text to Spark as a DDL list of columns, "card_id string, amount bigint, event_time timestamp", and
this reads the same language: name, type, optionally "not null" and a comment. Types that no aggregation takes (decimal,
array, struct ...) are kept by name, so that a feature that asks for one gets a proper answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from featurestore.core.spec import Column, ValueType
from featurestore.errors import InvalidRequest

COLUMN_TYPES: dict[str, ValueType] = {
    "string": ValueType.STRING,
    "varchar": ValueType.STRING,
    "char": ValueType.STRING,
    "tinyint": ValueType.INT64,
    "byte": ValueType.INT64,
    "smallint": ValueType.INT64,
    "short": ValueType.INT64,
    "int": ValueType.INT64,
    "integer": ValueType.INT64,
    "bigint": ValueType.INT64,
    "long": ValueType.INT64,
    "float": ValueType.FLOAT64,
    "real": ValueType.FLOAT64,
    "double": ValueType.FLOAT64,
    "boolean": ValueType.BOOL,
    "bool": ValueType.BOOL,
    "timestamp": ValueType.TIMESTAMP,
    "timestamp_ntz": ValueType.TIMESTAMP,
    "timestamp_ltz": ValueType.TIMESTAMP,
}

DDL_NAMES: dict[ValueType, str] = {
    ValueType.STRING: "string",
    ValueType.INT64: "bigint",
    ValueType.FLOAT64: "double",
    ValueType.BOOL: "boolean",
    ValueType.TIMESTAMP: "timestamp",
}
"""The name under which each type is written; `parse_source_schema` reads it back."""

AVRO_TYPES: dict[ValueType, object] = {
    ValueType.STRING: "string",
    ValueType.INT64: "long",
    ValueType.FLOAT64: "double",
    ValueType.BOOL: "boolean",
    ValueType.TIMESTAMP: {"type": "long", "logicalType": "timestamp-millis"},
}

_COLUMN = re.compile(
    r"""\s*(?:`(?P<quoted>(?:[^`]|``)+)`|(?P<plain>[^\s:`,()<>]+))   # name, in backticks or plain
        (?:\s*:\s*|\s+)                                              # "name type" or "name: type"
        (?P<type>[A-Za-z_]\w*)\s*(?P<rest>.*)""",
    re.VERBOSE | re.DOTALL,
)
_QUALIFIERS = re.compile(r"(?:\(\s*\d+\s*\))?\s*(?:not\s+null)?\s*(?:comment\s+.*)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class SourceSchema:
    """A payload's columns.

    Attributes:
        columns: those that can be read, in the text's order.
        unsupported: name -> type text of those that cannot.
    """

    columns: tuple[Column, ...]
    unsupported: dict[str, str]


def parse_source_schema(text: str) -> SourceSchema:
    """Columns of a DDL list.

    Raises:
        InvalidRequest: the text is empty, not a list of "name type", or names a column twice.

    >>> [f"{column.name}:{column.type}" for column in parse_source_schema("id string, amount int not null").columns]
    ['id:string', 'amount:int64']
    """
    columns: list[Column] = []
    unsupported: dict[str, str] = {}
    for part in _split_top_level(text):
        match = _COLUMN.fullmatch(part)
        if match is None:
            raise InvalidRequest(f'"{part.strip()}" is not a column', hint='write "name type, name type, ..."')
        name = match["quoted"].replace("``", "`") if match["quoted"] else match["plain"]
        if name in unsupported or any(column.name == name for column in columns):
            raise InvalidRequest(f'column "{name}" is listed twice', hint="list every column once")
        column_type = COLUMN_TYPES.get(match["type"].lower())
        if column_type is None or not _QUALIFIERS.fullmatch(match["rest"]):
            unsupported[name] = (match["type"] + match["rest"]).strip()
        else:
            columns.append(Column(name, column_type))
    return SourceSchema(tuple(columns), unsupported)


def format_source_schema(columns: tuple[Column, ...]) -> str:
    """The DDL list of columns; `parse_source_schema` reads it back."""
    return ", ".join(f"{_quote(column.name)} {DDL_NAMES[column.type]}" for column in columns)


def avro_schema(name: str, columns: tuple[Column, ...]) -> str:
    """An Avro schema of some columns, each of which may be null; their names are paths into nested records."""
    return json.dumps({"type": "record", "name": name, "fields": _avro_fields(name, [(c.name, c) for c in columns])})


def _avro_fields(name: str, columns: list[tuple[str, Column]]) -> list[dict[str, object]]:
    """Fields of a record, by what is left of each column's path."""
    by_field: dict[str, list[tuple[str, Column]]] = {}
    for path, column in columns:
        field, _, rest = path.partition(".")
        by_field.setdefault(field, []).append((rest, column))
    fields: list[dict[str, object]] = []
    for field, inner in by_field.items():
        rest, column = inner[0]
        kind: object = AVRO_TYPES[column.type]
        if rest:
            kind = {"type": "record", "name": f"{name}_{field}", "fields": _avro_fields(f"{name}_{field}", inner)}
        fields.append({"name": field, "type": ["null", kind], "default": None})
    return fields


def _quote(name: str) -> str:
    return name if re.fullmatch(r"\w+", name) else f"`{name.replace('`', '``')}`"


def _split_top_level(text: str) -> list[str]:
    """Parts between the commas that are outside brackets and quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for at, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "`'\"":
            quote = character
        elif character in "<(":
            depth += 1
        elif character in ">)":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    if not text.strip():
        raise InvalidRequest("the schema has no columns", hint='write "name type, name type, ..."')
    return parts
