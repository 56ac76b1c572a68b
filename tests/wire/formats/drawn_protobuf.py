"""Protobuf schemas and messages to draw, and what Google's own reading says of them."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from hypothesis import strategies as st

from featurestore.core.spec import ValueType
from featurestore.wire.formats.columns import WantedColumn
from featurestore.wire.formats.protobuf.descriptors import Schema

_F = FieldDescriptorProto
_INTS = {
    _F.TYPE_INT32: (-(2**31), 2**31 - 1),
    _F.TYPE_INT64: (-(2**63), 2**63 - 1),
    _F.TYPE_UINT32: (0, 2**32 - 1),
    _F.TYPE_UINT64: (0, 2**63 - 1),
    _F.TYPE_SINT32: (-(2**31), 2**31 - 1),
    _F.TYPE_SINT64: (-(2**63), 2**63 - 1),
    _F.TYPE_FIXED32: (0, 2**32 - 1),
    _F.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    _F.TYPE_FIXED64: (0, 2**63 - 1),
    _F.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
}
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    **{kind: st.integers(*bounds) | st.sampled_from([0, 1, *bounds]) for kind, bounds in _INTS.items()},
    _F.TYPE_FLOAT: st.floats(width=32, allow_nan=False, allow_infinity=False),
    _F.TYPE_DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    _F.TYPE_BOOL: st.booleans(),
    _F.TYPE_STRING: st.text(max_size=9),
    _F.TYPE_BYTES: st.binary(max_size=9),
    _F.TYPE_ENUM: st.sampled_from([0, 1, 7, -3]),
}
_GOOGLE = "google.protobuf"
_WRAPPERS = ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
_KEYS = ("k", "key")
_DEFAULTS = {
    _F.TYPE_BOOL: "true",
    _F.TYPE_STRING: "café",
    _F.TYPE_ENUM: "C",
    _F.TYPE_DOUBLE: "2.5",
    _F.TYPE_FLOAT: "-1",
}


@st.composite
def _schemas(draw: st.DrawFn) -> FileDescriptorSet:
    """A file with a message and what it has in it: presence of every sort, oneofs, and what no column holds."""
    file = FileDescriptorProto(name="drawn.proto", package="p", syntax=draw(st.sampled_from(["proto2", "proto3"])))
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
    symbols = file.enum_type.add(name="E")
    symbols.options.allow_alias = True
    for name, number in (("A", 0), ("B", 1), ("ALSO_B", 1), ("C", 7), ("D", -3)):
        symbols.value.add(name=name, number=number)
    _draw_message(draw, file, file.message_type.add(name="Top"), ".p.Top", 2)
    return FileDescriptorSet(file=[file])


def _draw_message(draw: st.DrawFn, file: FileDescriptorProto, message: DescriptorProto, name: str, depth: int) -> None:
    kinds = [
        *SCALARS,
        _F.TYPE_ENUM,
        "wrapper",
        "timestamp",
        "repeated",
        "map",
        "itself",
        *["message"] * (3 * (depth > 0)),
    ]
    numbers = st.integers(1, 20) | st.integers(1, 2**29 - 1).filter(lambda number: not 19_000 <= number < 20_000)
    has_oneof = draw(st.booleans())
    if has_oneof:
        message.oneof_decl.add(name="choice")
    for number in draw(st.lists(numbers, unique=True, min_size=1, max_size=7)):
        field = message.field.add(name=f"f{len(message.field)}", number=number, label=_F.LABEL_OPTIONAL)
        kind = draw(st.sampled_from([*kinds, *["group"] * (file.syntax == "proto2")]))
        if kind in ("map", "repeated", "itself", "group", "message"):
            _draw_structure(draw, file, message, field, (kind, name, depth))
        elif kind in ("wrapper", "timestamp"):
            of = f"{draw(st.sampled_from(_WRAPPERS))}Value" if kind == "wrapper" else "Timestamp"
            field.type, field.type_name = _F.TYPE_MESSAGE, f".{_GOOGLE}.{of}"
        else:
            field.type = kind
            if kind == _F.TYPE_ENUM:
                field.type_name = ".p.E"
        if has_oneof and field.label == _F.LABEL_OPTIONAL and draw(st.booleans()):
            field.oneof_index = 0
        elif file.syntax == "proto2" and field.type in {*_DEFAULTS, *_INTS} and field.label != _F.LABEL_REPEATED:
            if draw(st.booleans()):
                field.default_value = _DEFAULTS.get(field.type, "9")
        elif file.syntax == "proto3" and field.label == _F.LABEL_OPTIONAL:
            field.proto3_optional = draw(st.booleans())
    for field in message.field:
        if field.proto3_optional:
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")
    if has_oneof and not any(field.HasField("oneof_index") and field.oneof_index == 0 for field in message.field):
        taken = {field.number for field in message.field}
        free = next(number for number in range(1, len(taken) + 2) if number not in taken)
        only = message.field.add(name="only", number=free, label=_F.LABEL_OPTIONAL, type=_F.TYPE_INT64)
        only.oneof_index = 0


def _draw_structure(
    draw: st.DrawFn, file: FileDescriptorProto, message: DescriptorProto, field: _F, of: tuple[str, str, int]
) -> None:
    kind, name, depth = of
    field.type, field.type_name = _F.TYPE_MESSAGE, name
    if kind == "repeated":
        field.label, field.type = _F.LABEL_REPEATED, draw(st.sampled_from([_F.TYPE_SINT32, _F.TYPE_STRING]))
        field.ClearField("type_name")
    elif kind == "map":
        entry = message.nested_type.add(name=f"F{field.name[1:]}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=_F.LABEL_OPTIONAL, type=_F.TYPE_STRING)
        value = entry.field.add(name="value", number=2, label=_F.LABEL_OPTIONAL)
        value.type = draw(st.sampled_from([*SCALARS, _F.TYPE_MESSAGE]))
        if value.type == _F.TYPE_ENUM:
            value.type_name = ".p.E"
        elif value.type == _F.TYPE_MESSAGE:
            names = ["Timestamp", *(f"{one}Value" for one in _WRAPPERS)]
            value.type_name = draw(st.sampled_from([name, *(f".{_GOOGLE}.{one}" for one in names)]))
        field.label, field.type_name = _F.LABEL_REPEATED, f"{name}.{entry.name}"
    elif kind in ("group", "message"):
        inner = message.nested_type.add(name=f"M{field.name}")
        field.type, field.type_name = _F.TYPE_GROUP if kind == "group" else _F.TYPE_MESSAGE, f"{name}.{inner.name}"
        if kind == "group":
            field.name = inner.name.lower()
        _draw_message(draw, file, inner, field.type_name, depth - 1)


@st.composite
def topics(draw: st.DrawFn) -> tuple[FileDescriptorSet, list[WantedColumn], list[bytes]]:
    """A schema, columns of it, and some messages; many are several that were written one behind the other."""
    files = draw(_schemas())
    cls = message_of(files, 0)
    columns: list[WantedColumn] = []
    _draw_columns(draw, cls.DESCRIPTOR, "", columns, 3)
    messages = []
    for _ in range(draw(st.integers(1, 5))):
        parts = []
        for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
            _fill(draw, message := cls(), 3)
            parts.append(message.SerializePartialToString())
        messages.append(b"".join(parts))
    return files, columns, messages


def _draw_columns(draw: st.DrawFn, message: Any, path: str, columns: list[WantedColumn], depth: int) -> None:
    for field in message.fields:
        place = f"{path}.{field.name}".lstrip(".")
        if field.type == FieldDescriptor.TYPE_GROUP or not draw(st.integers(0, 3)):
            continue
        if not field.is_repeated:
            _draw_column(draw, field, place, columns, depth)
        elif field.message_type:
            for key in draw(st.lists(st.sampled_from(_KEYS), unique=True, max_size=2)):
                _draw_column(draw, field.message_type.fields_by_name["value"], f"{place}.{key}", columns, depth)


def _draw_column(draw: st.DrawFn, field: Any, place: str, columns: list[WantedColumn], depth: int) -> None:
    """A column of a field or of a map's value, or several of what is in it."""
    of_it = field.message_type.full_name if field.message_type else ""
    if of_it and not of_it.startswith(_GOOGLE):
        if depth:
            _draw_columns(draw, field.message_type, place, columns, depth - 1)
        return
    value = field.message_type.fields_by_name["value"] if of_it.endswith("Value") else field
    if of_it == f"{_GOOGLE}.Timestamp":
        columns.append(WantedColumn(place, ValueType.TIMESTAMP, place))
    elif value.type in _INTS:
        held_by = [ValueType.INT64, ValueType.INT64, ValueType.FLOAT64, ValueType.TIMESTAMP]
        columns.append(WantedColumn(place, draw(st.sampled_from(held_by)), place))
    elif value.type in (_F.TYPE_STRING, _F.TYPE_ENUM):
        columns.append(WantedColumn(place, ValueType.STRING, place))
    elif value.type in (_F.TYPE_FLOAT, _F.TYPE_DOUBLE, _F.TYPE_BOOL):
        kind = ValueType.BOOL if value.type == _F.TYPE_BOOL else ValueType.FLOAT64
        columns.append(WantedColumn(place, kind, place))


def _fill(draw: st.DrawFn, message: Any, depth: int) -> None:
    """Set some of its fields; members of a oneof end each other."""
    for field in message.DESCRIPTOR.fields:
        if not draw(st.integers(0, 2)):
            continue
        value = getattr(message, field.name)
        if field.is_repeated and field.message_type:
            of = field.message_type.fields_by_name["value"]
            for key in draw(st.lists(st.sampled_from([*_KEYS, "", "else"]), max_size=4)):
                if of.message_type is None:
                    value[key] = draw(SCALARS[of.type])
                else:
                    _fill_message(draw, value[key], depth)
        elif field.is_repeated:
            value.append("x" if field.type == _F.TYPE_STRING else -2)
        elif field.message_type is None:
            setattr(message, field.name, draw(SCALARS[field.type]))
        else:
            value.SetInParent()
            _fill_message(draw, value, depth)


def _fill_message(draw: st.DrawFn, value: Any, depth: int) -> None:
    """Set some fields of a message in another one."""
    if value.DESCRIPTOR.full_name == f"{_GOOGLE}.Timestamp":
        value.seconds, value.nanos = draw(st.integers(-(10**10), 10**11)), draw(st.integers(0, 999_999_999))
    elif depth:
        _fill(draw, value, depth - 1)


def expected(message: Any, column: WantedColumn) -> object:
    """What Google's own reading says of a column."""
    parts, value, field, is_of_map = column.field.split("."), message, None, False
    while parts:
        if field is not None and not is_of_map and not message.HasField(field.name):
            return None
        message, name = value, parts.pop(0)
        field, value, is_of_map = message.DESCRIPTOR.fields_by_name[name], getattr(message, name), False
        if field.is_repeated:
            key, field, is_of_map = parts.pop(0), field.message_type.fields_by_name["value"], True
            if key not in value:
                return None
            value = value[key]
    assert field is not None, "a path has a name"
    if field.has_presence and not is_of_map and not message.HasField(name):
        is_member = field.containing_oneof is not None and len(field.containing_oneof.fields) > 1
        if not field.has_default_value or is_member or column.type is ValueType.TIMESTAMP:
            return None
    if field.message_type and field.message_type.full_name == f"{_GOOGLE}.Timestamp":
        return value.seconds * 1_000 + value.nanos // 1_000_000
    if field.message_type:
        value = value.value
    if field.enum_type:
        return field.enum_type.values_by_number[value].name.replace("ALSO_", "").encode()
    if column.type is ValueType.TIMESTAMP:
        return value or None  # 0 of what nobody set
    if isinstance(value, str):
        return value.encode()
    return float(value) if column.type is ValueType.FLOAT64 else value


def same(one: object, other: object, column: WantedColumn) -> bool:
    """Equal to the bit, and 1 is True; a moment of 0 may be one that nobody set."""
    if isinstance(one, float) and isinstance(other, float):
        return math.copysign(1, one) == math.copysign(1, other) and one == other
    return one == other or (column.type is ValueType.TIMESTAMP and not one and not other)


def message_of(files: FileDescriptorSet, *indexes: int) -> Any:
    """The class of a message."""
    found = Schema(files).message(indexes)
    assert not isinstance(found, str)
    return message_factory.GetMessageClass(found)
