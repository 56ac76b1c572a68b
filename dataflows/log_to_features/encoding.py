"""Vectors as values of messages: JSON, Avro or Protobuf, by a schema that the service makes.

    {"card_id": "c-17",
     "features": {"card_count_5m": 6, "card_amount_mean_1d": null},
     "statuses": {"card_amount_mean_1d": "NOT_FOUND"},
     "as_of_ms": 1790000000000, "event_time_ms": 1789999999500, "cause": "event",
     "definitions": {"card_activity": "9f3a12bc..."}, "positions": {"transactions/0": 4711}}

All three have these fields, and a value that is not there is null in each (in Protobuf: not set). A schema of a
registry is named by the five bytes in front, as Confluent's serializers write them.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from dataflows.log_to_features.protobuf import message_class, package_of, proto_text
from dataflows.log_to_features.vectors import Vector
from featurestore.core.spec import Column, ValueType
from featurestore.errors import InvalidRequest
from featurestore.online.answer.schema import ServiceSchema

FORMATS = ("json", "avro", "protobuf")

SCHEMA_TYPES: Mapping[str, str] = {"json": "JSON", "avro": "AVRO", "protobuf": "PROTOBUF"}
"""What registries call them."""

_FIELDS = ("features", "statuses", "as_of_ms", "event_time_ms", "cause", "definitions", "positions")

_MAGIC = b"\x00"

_AVRO_TYPES: Mapping[ValueType, Any] = {
    ValueType.INT64: "long",
    ValueType.FLOAT64: "double",
    ValueType.STRING: "string",
    ValueType.BOOL: "boolean",
    ValueType.TIMESTAMP: {"type": "long", "logicalType": "timestamp-millis"},
    ValueType.INT64_LIST: {"type": "array", "items": "long"},
    ValueType.FLOAT64_LIST: {"type": "array", "items": "double"},
    ValueType.STRING_LIST: {"type": "array", "items": "string"},
    ValueType.INT64_MAP: {"type": "map", "values": "long"},
    ValueType.FLOAT64_MAP: {"type": "map", "values": "double"},
}

_JSON_TYPES: Mapping[ValueType, Any] = {
    ValueType.INT64: {"type": ["integer", "null"]},
    ValueType.FLOAT64: {"type": ["number", "null"]},
    ValueType.STRING: {"type": ["string", "null"]},
    ValueType.BOOL: {"type": ["boolean", "null"]},
    ValueType.TIMESTAMP: {"type": ["integer", "null"], "description": "milliseconds since 1970, UTC"},
    ValueType.INT64_LIST: {"type": ["array", "null"], "items": {"type": "integer"}},
    ValueType.FLOAT64_LIST: {"type": ["array", "null"], "items": {"type": "number"}},
    ValueType.STRING_LIST: {"type": ["array", "null"], "items": {"type": "string"}},
    ValueType.INT64_MAP: {"type": ["object", "null"], "additionalProperties": {"type": "integer"}},
    ValueType.FLOAT64_MAP: {"type": ["object", "null"], "additionalProperties": {"type": "number"}},
}


class Encoding(Protocol):
    """Makes values of messages."""

    def encode(self, vector: Vector, *, is_event: bool) -> bytes:
        """The bytes of a vector."""
        ...


Register = Callable[[str, str], int]
"""(kind, text of a schema) -> its id in the registry."""


def make_encoding(name: str, schema: ServiceSchema, register: Register | None) -> Encoding:
    """The encoding of a service's vectors; its schema is registered.

    Args:
        name: one of FORMATS.
        schema: the service's.
        register: None where there is no registry: plain JSON.

    Raises:
        InvalidRequest: a feature or join key cannot stand in such a message.
    """
    _check_names(name, schema)
    if name == "avro":
        assert register is not None, "the settings ask for a registry"
        return _Avro(schema, register)
    if name == "protobuf":
        assert register is not None, "the settings ask for a registry"
        return _Protobuf(schema, register)
    prefix = b"" if register is None else _prefix(register(SCHEMA_TYPES[name], json.dumps(json_schema(schema))))
    return _Json(prefix)


def _check_names(name: str, schema: ServiceSchema) -> None:
    """Refuse what the format cannot say."""
    for key in schema.join_keys:
        if key.name in _FIELDS:
            raise InvalidRequest(
                f'join key "{key.name}" has the name of another field of the message',
                hint=f"rename it: a message has {', '.join(_FIELDS)} beside the join keys",
            )
    for slot in schema.features:
        if slot.type not in _AVRO_TYPES:
            raise InvalidRequest(
                f'feature "{slot.name}" has a type that only Feast\'s SDK knows', hint="publish a service without it"
            )
    names = [*(key.name for key in schema.join_keys), *(slot.name for slot in schema.features)]
    odd = next((one for one in names if not re.fullmatch(r"[A-Za-z_]\w*", one, flags=re.ASCII)), None)
    if odd is not None and name != "json":
        raise InvalidRequest(
            f'"{odd}" cannot be a name in {SCHEMA_TYPES[name]}',
            hint="give the feature a name of letters and digits (name=...), or publish it as json",
        )


def fields_of(vector: Vector, *, is_event: bool) -> dict[str, Any]:
    """A vector's fields, all formats alike."""
    return {
        **vector.entity,
        "features": vector.features,
        "statuses": vector.statuses,
        "as_of_ms": vector.as_of_ms,
        "event_time_ms": vector.event_time_ms,
        "cause": "event" if is_event else "window",
        "definitions": vector.definitions,
        "positions": {f"{topic}/{partition}": offset for (topic, partition), offset in vector.positions.items()},
    }


class _Json:
    """JSON: what it has no word for, NaN and infinity, is null; its status is not that of a null."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._encoder = msgspec.json.Encoder()

    def encode(self, vector: Vector, *, is_event: bool) -> bytes:
        """See Encoding."""
        return self._prefix + self._encoder.encode(fields_of(vector, is_event=is_event))


class _Avro:
    """Avro, by fastavro."""

    def __init__(self, schema: ServiceSchema, register: Register) -> None:
        from fastavro import parse_schema, schemaless_writer

        text = avro_schema(schema)
        self._write, self._schema = schemaless_writer, parse_schema(text)
        self._prefix = _prefix(register(SCHEMA_TYPES["avro"], json.dumps(text)))

    def encode(self, vector: Vector, *, is_event: bool) -> bytes:
        """See Encoding."""
        buffer = io.BytesIO()
        buffer.write(self._prefix)
        self._write(buffer, self._schema, fields_of(vector, is_event=is_event))
        return buffer.getvalue()


class _Protobuf:
    """Protobuf, by its own library."""

    def __init__(self, schema: ServiceSchema, register: Register) -> None:
        self._class = message_class(schema)
        # The message is the file's first, which Confluent writes as a single zero.
        self._prefix = _prefix(register(SCHEMA_TYPES["protobuf"], proto_text(schema))) + b"\x00"

    def encode(self, vector: Vector, *, is_event: bool) -> bytes:
        """See Encoding."""
        message = self._class()
        for name, value in fields_of(vector, is_event=is_event).items():
            _set(message, name, value)
        encoded: bytes = message.SerializeToString()
        return self._prefix + encoded


def avro_schema(schema: ServiceSchema) -> dict[str, Any]:
    """The Avro schema of a service's vectors; a feature that is added later may be missing in older records."""
    features = [
        {"name": slot.name, "type": ["null", _AVRO_TYPES[slot.type]], "default": None} for slot in schema.features
    ]
    texts = {"type": "map", "values": "string"}
    moment = _AVRO_TYPES[ValueType.TIMESTAMP]
    return {
        "type": "record",
        "name": "FeatureVector",
        "namespace": package_of(schema),
        "fields": [
            *({"name": key.name, "type": _AVRO_TYPES[key.type]} for key in schema.join_keys),
            {"name": "features", "type": {"type": "record", "name": "Features", "fields": features}},
            {"name": "statuses", "type": texts},
            {"name": "as_of_ms", "type": moment},
            {"name": "event_time_ms", "type": ["null", moment]},
            {"name": "cause", "type": "string"},
            {"name": "definitions", "type": texts},
            {"name": "positions", "type": {"type": "map", "values": "long"}},
        ],
    }


def json_schema(schema: ServiceSchema) -> dict[str, Any]:
    """The JSON Schema of a service's vectors."""
    keys = {key.name: _key_type(key) for key in schema.join_keys}
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    features = {slot.name: _JSON_TYPES[slot.type] for slot in schema.features}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": schema.service,
        "type": "object",
        "properties": {
            **keys,
            "features": {"type": "object", "properties": features},
            "statuses": texts,
            "as_of_ms": {"type": "integer"},
            "event_time_ms": {"type": ["integer", "null"]},
            "cause": {"enum": ["event", "window"]},
            "definitions": texts,
            "positions": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
        "required": [*keys, "features", "statuses", "as_of_ms", "event_time_ms", "cause", "definitions", "positions"],
    }


def _key_type(key: Column) -> Any:
    return {"type": "string" if key.type is ValueType.STRING else "integer"}


def _prefix(schema_id: int) -> bytes:
    """Confluent's: a zero and the schema's id."""
    return _MAGIC + schema_id.to_bytes(4, "big")


def _set(message: Any, name: str, value: Any) -> None:
    """Set a field from Python's value; null leaves it out."""
    if value is None:
        return
    if isinstance(value, Mapping):
        target = getattr(message, name)
        if name == "features":
            for feature, one in value.items():
                _set(target, feature, one)
        else:
            target.update(value)
    elif isinstance(value, list):
        getattr(message, name).extend(value)
    else:
        setattr(message, name, value)
