"""The bytes of a plain view's values: what materialize and push write, and lookups read.

    event time, 8 bytes little-endian | version, 1 byte | MessagePack map: feature name -> value, nulls left out

    Feast's value                            stored as
    int64_val, double_val, string_val,       MessagePack's own integer, float, text, boolean: the types that a lookup
    bool_val                                 serves are read without parsing a message each
    any other (lists, bytes, int32, ...)     extension 1: the serialized feast.types.Value, unchanged

Both ways nothing is lost: the Feast SDK gets back the message that it wrote. The event time stands first so that the
store can compare it without decoding the rest (`OnlineStore.write_newer`, which puts it there). Names are kept beside
values, because the view's fields may change between materialization and lookup: a field that was added since reads as
null, one that was removed is skipped, and one whose type changed reads as null until it is materialized again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from google.protobuf.message import DecodeError
from msgspec.msgpack import Ext

from featurestore.core.spec import Column, ValueType
from featurestore.errors import CorruptData, UnknownTileVersion
from featurestore.wire.feast.protos import message_class

VERSION = 1
MESSAGE_CODE = 1
"""Extension code of a serialized feast.types.Value."""

StoredValue = bool | int | float | str | Ext
"""A value as it is stored; `Ext` holds a serialized feast.types.Value."""

PlainValue = StoredValue | list[int] | list[float] | list[str] | None
"""A value as a lookup answers it; TIMESTAMP fields are integer milliseconds, AS_STORED ones are what was stored."""

_HEADER = struct.Struct("<qB")
_VERSION_BYTE = bytes([VERSION])
_MS_PER_SECOND = 1_000
_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(dict[str, StoredValue])

_NATIVE_FIELDS = frozenset({"int64_val", "double_val", "string_val", "bool_val"})
_NATIVE_TYPES: dict[ValueType, type] = {
    ValueType.INT64: int,
    ValueType.FLOAT64: float,
    ValueType.STRING: str,
    ValueType.BOOL: bool,
}
_MESSAGE_FIELDS: dict[ValueType, tuple[str, ...]] = {
    ValueType.INT64: ("int32_val",),
    ValueType.FLOAT64: ("float_val",),
    ValueType.TIMESTAMP: ("unix_timestamp_val",),
    ValueType.INT64_LIST: ("int64_list_val", "int32_list_val"),
    ValueType.FLOAT64_LIST: ("double_list_val", "float_list_val"),
    ValueType.STRING_LIST: ("string_list_val",),
}


class PlainField(NamedTuple):
    """What is wanted of a plain view's values.

    Attributes:
        name: of a feature.
        native: the type of Python that values of it have; None where they have to be made of what is stored.
        type: of the feature.
    """

    name: str
    native: type | None
    type: ValueType


class PlainRow(NamedTuple):
    """One entity of a plain view.

    Attributes:
        values: aligned with the fields, None where null.
        event_time_ms: event time of the values.
    """

    values: list[PlainValue]
    event_time_ms: int


class StoredRow(NamedTuple):
    """One entity as stored, whatever the view's fields are now.

    Attributes:
        values: by feature name, without nulls.
        event_time_ms: event time of the values.
    """

    values: dict[str, StoredValue]
    event_time_ms: int


def encode_values(values: Mapping[str, StoredValue | None]) -> bytes:
    """The stored bytes of one entity's values, but for the event time that `OnlineStore.write_newer` puts in front."""
    return _VERSION_BYTE + _encoder.encode({name: value for name, value in values.items() if value is not None})


def decode_values(stored: bytes) -> StoredRow:
    """What `write_newer` stored of `encode_values`.

    Raises:
        CorruptData: the bytes are not a plain view's values.
        UnknownTileVersion: they were written by a release that this one cannot read.
    """
    try:
        event_time_ms, version = _HEADER.unpack_from(stored)
        if version != VERSION:
            raise UnknownTileVersion(f"the stored values have layout version {version}, not {VERSION}")
        return StoredRow(_decoder.decode(memoryview(stored)[_HEADER.size :]), event_time_ms)
    except (struct.error, msgspec.MsgspecError) as error:
        raise CorruptData("the stored values do not decode", detail=str(error)) from error


def stored_value(message: Any) -> StoredValue | None:
    """A feast.types.Value, of Feast's own module or of `wire.feast.protos`, as it is stored; None when it is null."""
    kind: str | None = message.WhichOneof("val")
    if kind is None or kind == "null_val":
        return None
    if kind in _NATIVE_FIELDS:
        value: StoredValue = getattr(message, kind)
        return value
    return Ext(MESSAGE_CODE, message.SerializeToString(deterministic=True))


def plain_fields(features: Iterable[Column]) -> tuple[PlainField, ...]:
    """Some features of a plain view, to be decoded."""
    return tuple(PlainField(each.name, _NATIVE_TYPES.get(each.type), each.type) for each in features)


def decode_plain(fields: Iterable[PlainField], stored: bytes) -> PlainRow:
    """Some values of a stored row, as the view's features are now.

    Raises:
        CorruptData, UnknownTileVersion: as `decode_values`.
    """
    found, event_time_ms = decode_values(stored)
    values: list[PlainValue] = []
    for name, native, value_type in fields:
        value = found.get(name)
        # Exact, since a bool is an int to Python.
        values.append(value if native is not None and type(value) is native else _as_type(value, value_type))
    return PlainRow(values, event_time_ms)


def _as_type(value: StoredValue | None, value_type: ValueType) -> PlainValue:
    """A value that is not of the type's own; null where it is of another type."""
    if value_type is ValueType.AS_STORED:
        return value
    return _from_message(value, value_type) if isinstance(value, Ext) else None


def _from_message(message_bytes: Ext, value_type: ValueType) -> PlainValue:
    """A value of Feast's narrower types, its lists, and its timestamps, which are whole seconds."""
    try:
        message: Any = message_class("feast.types.Value").FromString(bytes(message_bytes.data))
    except DecodeError as error:
        raise CorruptData("a stored value is not a feast.types.Value", detail=str(error)) from error
    field = message.WhichOneof("val")
    if field not in _MESSAGE_FIELDS.get(value_type, ()):
        return None
    value: Any = getattr(message, field)
    if field.endswith("_list_val"):
        elements: list[int] | list[float] | list[str] = list(value.val)
        return elements
    number: int | float = value
    return number * _MS_PER_SECOND if value_type is ValueType.TIMESTAMP else number
