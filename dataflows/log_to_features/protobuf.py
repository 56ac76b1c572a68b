"""The Protobuf message of a service's vectors, as a class and as the text that a registry keeps.

A feature's number follows from its name: one that is added, dropped or moved leaves the numbers of all others alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import xxhash
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from featurestore.core.spec import ValueType
from featurestore.errors import InvalidRequest
from featurestore.online.answer.schema import ServiceSchema

MESSAGE = "FeatureVector"

_FIRST_OF_FEATURES, _LAST_NUMBER = 20_000, (1 << 29) - 1
"""Behind the numbers that Protobuf keeps for itself, up to its largest one."""

_FIRST_KEY = 100
"""Join keys stand in the service's order, from here on."""

_TYPES: Mapping[str, FieldDescriptorProto.Type.ValueType] = {
    "int64": FieldDescriptorProto.TYPE_INT64,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "string": FieldDescriptorProto.TYPE_STRING,
    "bool": FieldDescriptorProto.TYPE_BOOL,
}

_SCALARS: Mapping[ValueType, str] = {
    ValueType.INT64: "int64",
    ValueType.FLOAT64: "double",
    ValueType.STRING: "string",
    ValueType.BOOL: "bool",
    ValueType.TIMESTAMP: "int64",
}
_LISTS: Mapping[ValueType, str] = {
    ValueType.INT64_LIST: "int64",
    ValueType.FLOAT64_LIST: "double",
    ValueType.STRING_LIST: "string",
}
_MAPS: Mapping[ValueType, str] = {ValueType.INT64_MAP: "int64", ValueType.FLOAT64_MAP: "double"}

_Field = tuple[str, str, int]
"""(type as it is written, name, number)."""


def proto_text(schema: ServiceSchema) -> str:
    """The schema's text.

    Raises:
        InvalidRequest: two features have the same number.
    """
    lines = ['syntax = "proto3";', f"package {package_of(schema)};", "", f"message {MESSAGE} {{"]
    lines += [f"  {kind} {name} = {number};" for kind, name, number in _fields(schema)]
    lines += ["", "  message Features {"]
    lines += [f"    {kind} {name} = {number};" for kind, name, number in _features(schema)]
    return "\n".join([*lines, "  }", "}", ""])


def message_class(schema: ServiceSchema) -> Any:
    """The message's class.

    Raises:
        InvalidRequest: two features have the same number.
    """
    package = package_of(schema)
    file = FileDescriptorProto(name=f"{schema.service}.proto", package=package, syntax="proto3")
    message = file.message_type.add(name=MESSAGE)
    full_name = f".{package}.{MESSAGE}"
    for field in _fields(schema):
        _add(message, full_name, field)
    features = message.nested_type.add(name="Features")
    for field in _features(schema):
        _add(features, f"{full_name}.Features", field)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(full_name[1:]))


def package_of(schema: ServiceSchema) -> str:
    """Package of the message, namespace of the record: the service's name, where it may stand in one."""
    return "featurestore." + re.sub(r"\W", "_", schema.service, flags=re.ASCII)


def _fields(schema: ServiceSchema) -> Iterator[_Field]:
    """Fields of the message."""
    yield "Features", "features", 1
    yield "map<string, string>", "statuses", 2
    yield "int64", "as_of_ms", 3
    yield "optional int64", "event_time_ms", 4
    yield "string", "cause", 5
    yield "map<string, string>", "definitions", 6
    yield "map<string, int64>", "positions", 7
    for index, key in enumerate(schema.join_keys):
        yield _SCALARS[key.type], key.name, _FIRST_KEY + index


def _features(schema: ServiceSchema) -> Iterator[_Field]:
    """Fields of the features."""
    names: dict[int, str] = {}
    for slot in schema.features:
        span = _LAST_NUMBER - _FIRST_OF_FEATURES + 1
        number = _FIRST_OF_FEATURES + xxhash.xxh3_64_intdigest(slot.name.encode()) % span
        other = names.setdefault(number, slot.name)
        if other != slot.name:
            raise InvalidRequest(
                f'features "{other}" and "{slot.name}" have the same number in Protobuf',
                hint="rename one of them in the service, or publish Avro",
            )
        if slot.type in _SCALARS:
            yield f"optional {_SCALARS[slot.type]}", slot.name, number
        elif slot.type in _LISTS:
            yield f"repeated {_LISTS[slot.type]}", slot.name, number
        else:
            yield f"map<string, {_MAPS[slot.type]}>", slot.name, number


def _add(message: DescriptorProto, full_name: str, field: _Field) -> None:
    """A field as the compiler would describe it."""
    kind, name, number = field
    added = message.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.startswith("map<"):
        entry = "".join(part[:1].upper() + part[1:] for part in name.split("_")) + "Entry"
        value = kind.removeprefix("map<string, ").removesuffix(">")
        nested = message.nested_type.add(name=entry)
        nested.options.map_entry = True
        for index, (part, of) in enumerate((("key", "string"), ("value", value)), 1):
            nested.field.add(name=part, number=index, label=FieldDescriptorProto.LABEL_OPTIONAL, type=_TYPES[of])
        added.label = FieldDescriptorProto.LABEL_REPEATED
        added.type, added.type_name = FieldDescriptorProto.TYPE_MESSAGE, f"{full_name}.{entry}"
    elif kind == "Features":
        added.type, added.type_name = FieldDescriptorProto.TYPE_MESSAGE, f"{full_name}.Features"
    elif kind.startswith("repeated "):
        added.label, added.type = FieldDescriptorProto.LABEL_REPEATED, _TYPES[kind.removeprefix("repeated ")]
    else:
        added.type = _TYPES[kind.removeprefix("optional ")]
        if kind.startswith("optional "):
            added.proto3_optional = True
            added.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
