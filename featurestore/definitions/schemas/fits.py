"""How a schema fits the columns that are read, by format; and what else it says of its fields: names and units.

Avro and Protobuf are compiled as the stream compiles them, so that both say the same. A JSON schema is only a promise
of what JSON will say; it is read here alone.

A unit is a property of a field:

    Avro          {"name": "amount", "type": "long", "unit": "cents of EUR"}       of the field, or of its type
    JSON Schema   {"amount": {"type": "integer", "unit": "cents of EUR"}}
    Protobuf      int64 amount = 1 [(confluent.field_meta).params = {key: "unit", value: "cents of EUR"}];
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor

from featurestore.core.spec import SourceSpec
from featurestore.definitions.schemas.json_schema import JsonSchema
from featurestore.definitions.schemas.proto_text import descriptors
from featurestore.definitions.schemas.subjects import SubjectSchema
from featurestore.errors import InvalidRequest
from featurestore.wire.formats.avro.program import compile_schema
from featurestore.wire.formats.columns import WantedColumn
from featurestore.wire.formats.protobuf.descriptors import Schema
from featurestore.wire.formats.protobuf.program import compile_message

UNIT = "unit"
"""Property of a field."""

DEPTH_MAX = 12
"""Records in records whose fields are told; types may contain themselves."""

_FIELD_META = "confluent.field_meta"


@dataclass(frozen=True, slots=True)
class Fit:
    """How a schema fits some columns.

    Attributes:
        missing: columns that it has no field for.
        misfits: column -> why it cannot hold what the schema has.
        doubts: column -> why it cannot hold all that the schema allows.
        units: path of a field -> its unit, of those that have one.
    """

    missing: frozenset[str]
    misfits: Mapping[str, str]
    doubts: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()


def fit_of(source: SourceSpec, columns: Sequence[WantedColumn], schema: SubjectSchema, record: str = "") -> Fit:
    """How a schema fits the columns of a source.

    Args:
        source: for its format.
        columns: that are read.
        schema: to read them from.
        record: full name of the message, of a Protobuf schema of several; "" is the first.

    Raises:
        InvalidRequest: the text is no schema.
    """
    if source.format == "avro":
        program = compile_schema(schema.text, columns)
        fields = dict(_avro_fields(json.loads(schema.text)))
        return Fit(program.missing, program.misfits, units=_units(fields), paths=tuple(fields))
    if source.format == "json_schema":
        of_json = JsonSchema(schema.text)
        found = of_json.fit(columns)
        return Fit(found.missing, found.misfits, found.doubts, _units(of_json.fields()), tuple(of_json.fields()))
    files = Schema(descriptors(schema.text, schema.references))
    message = files.named(record) if record else files.message((0,))
    if isinstance(message, str):
        return Fit(frozenset(), {column.name: message for column in columns})
    compiled = compile_message(message, columns)
    fields = dict(_protobuf_fields(message))
    return Fit(compiled.missing, compiled.misfits, units=_units(fields), paths=tuple(fields))


def _units(fields: Mapping[str, object]) -> dict[str, str]:
    """The fields with a unit."""
    return {path: unit for path, unit in fields.items() if isinstance(unit, str) and unit}


def _avro_fields(schema: Any) -> Iterator[tuple[str, object]]:
    """The fields of a schema that compiles: path, and the unit if there is one."""
    named: dict[str, Any] = {}

    def of(kind: Any, namespace: str, path: str, unit: object, depth: int) -> Iterator[tuple[str, object]]:
        if isinstance(kind, list):
            for branch in kind:
                if branch != "null":
                    yield from of(branch, namespace, path, unit, depth)
            return
        if isinstance(kind, str):
            full = kind if "." in kind or not namespace else f"{namespace}.{kind}"
            kind = named.get(full, named.get(kind, {"type": kind}))
        unit = kind.get(UNIT, unit)
        if isinstance(kind["type"], (dict, list)):
            yield from of(kind["type"], namespace, path, unit, depth)
        elif kind["type"] in ("record", "error", "enum", "fixed"):
            inner = kind.get("namespace", namespace)
            full = kind["name"] if "." in kind["name"] or not inner else f"{inner}.{kind['name']}"
            named[full] = {**kind, "name": full}
            if kind["type"] in ("record", "error") and depth < DEPTH_MAX:
                for one in kind["fields"]:
                    place = f"{path}.{one['name']}".lstrip(".")
                    yield from of(one["type"], full.rpartition(".")[0], place, one.get(UNIT), depth + 1)
                return
            yield path, unit
        else:
            yield path, unit

    return of(schema, "", "", None, 0)


def _protobuf_fields(message: Descriptor) -> Iterator[tuple[str, object]]:
    """The fields of a message and of those in it: path, and the unit if there is one."""
    pool: Any = message.file.pool
    try:
        meta = pool.FindExtensionByName(_FIELD_META)
        options: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))
    except KeyError:
        meta = options = None

    def of(inside: Any, path: str, depth: int) -> Iterator[tuple[str, object]]:
        for one in inside.fields:
            place = f"{path}.{one.name}".lstrip(".")
            unit = None
            if meta is not None:
                said = options.FromString(one.GetOptions().SerializeToString())
                unit = said.Extensions[meta].params.get(UNIT)
            yield place, unit
            if one.message_type is not None and not one.is_repeated and depth < DEPTH_MAX:
                yield from of(one.message_type, place, depth + 1)

    return of(message, "", 1)


def require_kind(source: SourceSpec, subject: str, schema: SubjectSchema, expected: str) -> None:
    """Refuse a schema of another kind than the source's format.

    Raises:
        InvalidRequest: it is one.
    """
    if schema.kind not in ("", expected):
        raise InvalidRequest(
            f'subject "{subject}" has schemas of kind {schema.kind}, and source "{source.name}" is {source.format}',
            hint="give the source the format that its producers write",
        )
