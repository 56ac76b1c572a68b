"""A message type as a program: what is wanted of its messages is stored, everything else is stepped over.

A column is a path of field names ("card.bin"), and of keys of maps ("tags.channel"). Presence is Protobuf's:

    a field without presence (proto3's plain ones)        absent: the default of its type
    one with a default of its own (proto2)                absent: that
    `optional`, a member of a oneof, a message            absent: null (so wrappers and Timestamps, which are messages)
    anything in a message that is absent                  null
    a key that a map does not have                        null; one that it has, without a value: the default
    a TIMESTAMP column of a text or an integer            absent: null; 0 and "" are no moments that somebody set

A number that an enum does not have makes its message unreadable, in open enums too: told as "7" today and as CHARGEBACK
when the schema has caught up, it would be two values of one thing. A field that a type does not have is null. What it
has, and no column of that type can hold, is a misfit: told by column, and null.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from featurestore.core.events import Int64Array
from featurestore.core.spec import ValueType
from featurestore.wire.formats.columns import WantedColumn
from featurestore.wire.formats.protobuf import loop
from featurestore.wire.formats.wishes import NO_COLUMN_HOLDS, NOTHING, Wish, wish_for, with_article


class Kind(enum.Enum):
    """What a slot holds."""

    INTEGER = "integer"
    DOUBLE = "double"
    TEXT = "text"
    SYMBOL = "symbol"
    TIMESTAMP = "timestamp"


@dataclass(frozen=True, slots=True)
class Stored:
    """How a column comes of its slot.

    Attributes:
        kind: what is there.
        default: what a message has that is there without the field; of a SYMBOL, its place.
        symbols: of an enum.
        slot: which one.
    """

    kind: Kind
    default: int | float | bytes = 0
    symbols: tuple[str, ...] = ()
    slot: int = loop.SKIP


@dataclass(frozen=True, slots=True)
class Program:
    """What `loop.run_program` runs.

    Attributes:
        fields: (F, 9).
        scopes: (S, 4).
        tables: the numbers of enums.
        paths: (F + S,) what each field, and a field of each scope, is called in messages.
        stored: by column; of those that the type has no field for, nothing.
        missing: columns that the type has no field for.
        misfits: column -> why it cannot hold what the type has.
    """

    fields: Any
    scopes: Any
    tables: Int64Array
    paths: tuple[str, ...]
    stored: Mapping[str, Stored]
    missing: frozenset[str]
    misfits: Mapping[str, str]


_TYPES: dict[int, tuple[str, int, int]] = {
    FieldDescriptor.TYPE_INT32: ("int32", loop.INT32, loop.VARINT),
    FieldDescriptor.TYPE_INT64: ("int64", loop.INT64, loop.VARINT),
    FieldDescriptor.TYPE_UINT32: ("uint32", loop.UINT32, loop.VARINT),
    FieldDescriptor.TYPE_UINT64: ("uint64", loop.UINT64, loop.VARINT),
    FieldDescriptor.TYPE_SINT32: ("sint32", loop.SINT32, loop.VARINT),
    FieldDescriptor.TYPE_SINT64: ("sint64", loop.SINT64, loop.VARINT),
    FieldDescriptor.TYPE_FIXED32: ("fixed32", loop.FIXED32, loop.FOUR_BYTES),
    FieldDescriptor.TYPE_SFIXED32: ("sfixed32", loop.SFIXED32, loop.FOUR_BYTES),
    FieldDescriptor.TYPE_FIXED64: ("fixed64", loop.FIXED64, loop.EIGHT_BYTES),
    FieldDescriptor.TYPE_SFIXED64: ("sfixed64", loop.SFIXED64, loop.EIGHT_BYTES),
    FieldDescriptor.TYPE_FLOAT: ("float", loop.FLOAT, loop.FOUR_BYTES),
    FieldDescriptor.TYPE_DOUBLE: ("double", loop.DOUBLE, loop.EIGHT_BYTES),
    FieldDescriptor.TYPE_BOOL: ("bool", loop.BOOL, loop.VARINT),
    FieldDescriptor.TYPE_ENUM: ("enum", loop.ENUM, loop.VARINT),
    FieldDescriptor.TYPE_STRING: ("string", loop.TEXT, loop.LENGTH),
    FieldDescriptor.TYPE_BYTES: ("bytes", loop.PASSED, loop.LENGTH),
    FieldDescriptor.TYPE_MESSAGE: ("message", loop.MESSAGE, loop.LENGTH),
    FieldDescriptor.TYPE_GROUP: ("group", loop.PASSED, loop.GROUP),
}
"""Type -> its name, what the loop does with one that is wanted, its wire type."""

_TIMESTAMP = "google.protobuf.Timestamp"
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_Wanted = tuple[Any, Wish, str]
"""A field, what is wanted of it, and its path."""

_NOT_IN_A_ONEOF = (0, 0, 0, 0)
_INT64_MAX = 2**63 - 1


def compile_message(message: Descriptor, columns: Sequence[WantedColumn]) -> Program:
    """The program that reads some columns of a type's messages.

    Args:
        message: the type.
        columns: what to read.
    """
    return _Compiler(columns).program(message)


class _Compiler:
    """Walks what is wanted of a type; slots are given so that those of a oneof, and of its members, stand together."""

    def __init__(self, columns: Sequence[WantedColumn]) -> None:
        self._columns = columns
        self._scopes: list[list[int]] = []
        self._fields: list[list[tuple[list[int], str]]] = []
        self._scope_paths: list[str] = []
        self._tables: list[int] = []
        self._slots = 0
        self._stored: dict[str, Stored] = {}
        self._misfits: dict[str, str] = {}

    def program(self, message: Any) -> Program:
        """All of it."""
        self._write_scope(message, wish_for(self._columns), "")
        rows: list[list[int]] = []
        paths: list[str] = []
        for scope, fields in zip(self._scopes, self._fields, strict=True):
            scope[loop.FIRST] = len(rows)
            for row, path in sorted(fields, key=lambda field: field[0][loop.NUMBER]):
                rows.append(row)
                paths.append(path)
            scope[loop.END] = len(rows)
        known = self._stored.keys() | self._misfits.keys()
        return Program(
            np.array(rows, dtype=np.int64).reshape(-1, 9),
            np.array(self._scopes, dtype=np.int64),
            np.array(self._tables, dtype=np.int64),
            (*paths, *self._scope_paths),
            self._stored,
            frozenset(column.name for column in self._columns if column.name not in known),
            self._misfits,
        )

    def _write_scope(self, message: Any, wish: Wish, path: str) -> int:
        """A message type in its place; its number."""
        number = len(self._scopes)
        self._scopes.append([0, 0, 0, 0])
        fields: list[tuple[list[int], str]] = []
        self._fields.append(fields)
        self._scope_paths.append(f"a field of {path}" if path else "a field")
        wanted: dict[str, _Wanted] = {}
        for name, inner in wish.fields.items():
            field, place = message.fields_by_name.get(name), f"{path}.{name}".lstrip(".")
            if field is not None and (readable := self._readable(field, inner, place)) is not None:
                wanted[name] = (field, readable, place)
        alone = [each for each in wanted.values() if not _is_in_oneof(each[0])]
        # What has a value whenever the message is there comes first, so that its slots stand together.
        always = [each for each in alone if _is_always_there(*each[:2])]
        self._scopes[number][loop.ALWAYS :] = [self._slots, self._slots + len(always)]
        for field, inner, place in [*always, *(each for each in alone if each not in always)]:
            fields.append(([*self._write_field(field, inner, place), *_NOT_IN_A_ONEOF], place))
        oneofs = {
            field.containing_oneof.name: field.containing_oneof
            for field, _, _ in wanted.values()
            if _is_in_oneof(field)
        }
        for oneof in oneofs.values():
            fields += self._write_oneof(oneof, wanted, path)
        return number

    def _write_oneof(self, oneof: Any, wanted: Mapping[str, _Wanted], path: str) -> list[tuple[list[int], str]]:
        """All its members: one that is not wanted still ends what another one said."""
        first, fields = self._slots, []
        for member in oneof.fields:
            begin = self._slots
            _, inner, place = wanted.get(member.name, (member, NOTHING, f"{path}.{member.name}".lstrip(".")))
            fields.append(([*self._write_field(member, inner, place), first, begin, self._slots], place))
        for row, _ in fields:
            row.append(self._slots)
        return fields

    def _write_field(self, field: Any, wish: Wish, path: str) -> list[int]:
        """What is done with a field that can be read, or is not wanted."""
        _, step, wire = _TYPES[field.type]
        slot, argument = loop.SKIP, 0
        if field.type == FieldDescriptor.TYPE_ENUM:
            numbers = list(_symbols(field.enum_type))
            argument = len(self._tables)
            self._tables += [len(numbers), *numbers]
        if field.is_repeated and wish.fields:
            return [field.number, wire, loop.MAP, slot, self._write_map(field, wish, path)]
        if field.type == FieldDescriptor.TYPE_MESSAGE and (wish.columns or wish.fields):
            argument = self._write_message(field.message_type, wish, path)
        elif wish.columns:
            stored = _stored(field, wish.columns[0].type)
            assert stored is not None, "it was readable"
            slot = self._store(wish.columns[0], stored)
        elif step != loop.ENUM:
            step = loop.PASSED
        return [field.number, wire, step, slot, argument]

    def _write_map(self, field: Any, wish: Wish, path: str) -> int:
        """A scope for the entries of each key; where in the tables the keys begin."""
        value, keys = field.message_type.fields_by_name["value"], list[int]()
        for key, inner in wish.fields.items():
            number, begin, place = len(self._scopes), self._slots, f"{path}.{key}"
            self._scopes.append([0, 0, begin, begin])
            self._scope_paths.append(f"a field of {path}")
            self._fields.append([])
            row = self._write_field(value, inner, place)
            self._fields[number].append(([*row, *_NOT_IN_A_ONEOF], place))
            # An entry without a value has its default: of a message, one that is there and has nothing.
            if value.type == FieldDescriptor.TYPE_MESSAGE:
                self._scopes[number][loop.ALWAYS :] = self._scopes[row[loop.ARGUMENT]][loop.ALWAYS :]
            elif inner.columns[0].type is not ValueType.TIMESTAMP:
                self._scopes[number][loop.ALWAYS_END] = self._slots
            text = key.encode()
            keys += [len(text), number, begin, self._slots, *text]
        argument = len(self._tables)
        self._tables += [len(wish.fields), *keys]
        return argument

    def _write_message(self, message: Any, wish: Wish, path: str) -> int:
        """The scope of a message in a field."""
        if not wish.columns:
            return self._write_scope(message, wish, path)
        if message.full_name in _WRAPPERS:
            return self._write_scope(message, Wish(fields={"value": Wish(wish.columns)}), path)
        slot = self._store(wish.columns[0], Stored(Kind.TIMESTAMP))
        self._scopes.append([0, 0, slot, slot + 1])
        self._scope_paths.append(f"a field of {path}")
        self._fields.append(
            [
                ([number, loop.VARINT, step, slot, 0, *_NOT_IN_A_ONEOF], path)
                for number, step in ((1, loop.SECONDS), (2, loop.NANOS))
            ]
        )
        return len(self._scopes) - 1

    def _store(self, column: WantedColumn, stored: Stored) -> int:
        """A slot for a column."""
        slot = self._slots
        self._slots += 1
        self._stored[column.name] = Stored(stored.kind, stored.default, stored.symbols, slot)
        return slot

    def _readable(self, field: Any, wish: Wish, path: str) -> Wish | None:
        """What can be read of what is wanted of a field; takes note of what cannot."""
        kind, column = _kind(field), next(iter(wish.columns), None)
        below = [each for inner in wish.fields.values() for each in inner.all_columns()]
        if kind == "map":
            return self._readable_keys(field, wish, path)
        if kind in ("repeated field", "group"):
            self._misfit(wish.all_columns(), f"{path} is {with_article(kind)}, {NO_COLUMN_HOLDS}")
            return None
        if kind == "message":
            of_it = next(iter(field.message_type.fields_by_name), "...")
            self._misfit(wish.columns, f"{path} is a message: name one of its fields, {path}.{of_it}")
            return Wish(fields=wish.fields) if wish.fields else None
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            self._misfit(below, f"{path} is {with_article(kind)}, which has no fields")
        if column is None:
            return Wish(fields=wish.fields) if field.type == FieldDescriptor.TYPE_MESSAGE else None
        others = wish.columns[1:] + (below if field.type == FieldDescriptor.TYPE_MESSAGE else [])
        self._misfit(others, f"{path} is column {column.name} already")
        if _stored(field, column.type) is None:
            holds = f"which no column of type {column.type.value} holds"
            self._misfit([column], f"{path} is {with_article(kind)}, {holds}")
            return None
        return Wish([column])

    def _readable_keys(self, field: Any, wish: Wish, path: str) -> Wish | None:
        """What can be read of the values of a map's keys; takes note of what cannot."""
        self._misfit(wish.columns, f"{path} is a map, {NO_COLUMN_HOLDS}: name one of its keys, {path}.KEY")
        fields = field.message_type.fields_by_name
        if fields["key"].type != FieldDescriptor.TYPE_STRING:
            for inner in wish.fields.values():
                self._misfit(inner.all_columns(), f"{path} is a map whose keys are no texts, {NO_COLUMN_HOLDS}")
            return None
        found = {key: self._readable(fields["value"], inner, f"{path}.{key}") for key, inner in wish.fields.items()}
        readable = {key: inner for key, inner in found.items() if inner is not None}
        return Wish(fields=readable) if readable else None

    def _misfit(self, columns: Sequence[WantedColumn], reason: str) -> None:
        self._misfits.update((column.name, reason) for column in columns)


def _kind(field: Any) -> str:
    """What a field is, in messages."""
    if field.is_repeated:
        is_map = field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.GetOptions().map_entry
        return "map" if is_map else "repeated field"
    if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.full_name in {_TIMESTAMP, *_WRAPPERS}:
        return str(field.message_type.full_name)
    return _TYPES[field.type][0]


def _is_in_oneof(field: Any) -> bool:
    """Whether another field can end what this one says; the oneof of an `optional` has no other."""
    return field.containing_oneof is not None and len(field.containing_oneof.fields) > 1


def _is_always_there(field: Any, wish: Wish) -> bool:
    """Whether a message that is there has a value of a field in any case.

    Not as a moment: 0 or "" of a field without presence is one that nobody has set, and not the year 1970.
    """
    if field.is_repeated or any(column.type is ValueType.TIMESTAMP for column in wish.columns):
        return False
    return not field.has_presence or field.has_default_value


def _stored(field: Any, wanted: ValueType) -> Stored | None:
    """How a column of a type comes of a value, a wrapper or a Timestamp; None where it does not."""
    kind, default = _TYPES[field.type][0], field.default_value
    if kind == "message":
        if field.message_type.full_name in _WRAPPERS:
            return _stored(field.message_type.fields_by_name["value"], wanted)
        return Stored(Kind.TIMESTAMP) if wanted is ValueType.TIMESTAMP else None
    if kind == "bytes":
        return None
    if kind == "string":
        fits = wanted in (ValueType.STRING, ValueType.TIMESTAMP)
        return Stored(Kind.TEXT, default.encode()) if fits else None
    if kind == "enum":
        symbols = _symbols(field.enum_type)
        place = list(symbols).index(default)
        return Stored(Kind.SYMBOL, place, tuple(symbols.values())) if wanted is ValueType.STRING else None
    if kind == "bool":
        return Stored(Kind.INTEGER, int(default)) if wanted is ValueType.BOOL else None
    if kind in ("float", "double"):
        return Stored(Kind.DOUBLE, default) if wanted is ValueType.FLOAT64 else None
    fits = wanted in (ValueType.INT64, ValueType.FLOAT64, ValueType.TIMESTAMP) and default <= _INT64_MAX
    return Stored(Kind.INTEGER, default) if fits else None


def _symbols(enum_type: Any) -> dict[int, str]:
    """The symbols of an enum by number, as they are declared; of several with one number the first."""
    symbols: dict[int, str] = {}
    for value in enum_type.values:
        symbols.setdefault(value.number, value.name)
    return symbols
