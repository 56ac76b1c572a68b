"""A writer's schema as a program: what is wanted of its records is stored, everything else is stepped over.

A column is a path of field names ("card.bin"). Each is stored in a slot, and `Stored` says how a column comes of what
is there. A field that a schema does not have is null in its records, as one that a union leaves out. What the schema
has, and no column of that type can hold, is a misfit: told by column, and null.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.core.events import Int64Array
from featurestore.core.spec import ValueType
from featurestore.errors import InvalidRequest
from featurestore.wire.formats.avro import loop
from featurestore.wire.formats.columns import WantedColumn
from featurestore.wire.formats.wishes import NO_COLUMN_HOLDS, NOTHING, Wish, wish_for, with_article


class Kind(enum.Enum):
    """What a slot holds."""

    INTEGER = "integer"
    DOUBLE = "double"
    TEXT = "text"
    SYMBOL = "symbol"
    MOMENT = "moment"
    DECIMAL = "decimal"
    UUID = "uuid"


@dataclass(frozen=True, slots=True)
class Stored:
    """How a column comes of its slot.

    Attributes:
        kind: what is there.
        symbols: of an enum.
        unit: of a moment: "s", "ms", "us", "ns" or "d"; "" is the column's own.
        scale: digits of a decimal behind the point.
    """

    kind: Kind
    symbols: tuple[str, ...] = ()
    unit: str = ""
    scale: int = 0


@dataclass(frozen=True, slots=True)
class Program:
    """What `loop.run_program` runs.

    Attributes:
        steps: (S, 3).
        tables: first steps of unions' branches.
        paths: (S,) the field that each step reads, for messages.
        stored: by column; of those that the schema has no field for, nothing.
        missing: columns that the schema has no field for.
        misfits: column -> why it cannot hold what the schema has.
    """

    steps: Any
    tables: Int64Array
    paths: tuple[str, ...]
    stored: Mapping[str, Stored]
    missing: frozenset[str]
    misfits: Mapping[str, str]


_MOMENTS = {
    "timestamp-millis": "ms",
    "timestamp-micros": "us",
    "timestamp-nanos": "ns",
    "local-timestamp-millis": "ms",
    "local-timestamp-micros": "us",
    "local-timestamp-nanos": "ns",
    "date": "d",
}
_STEPS = {
    "boolean": loop.BOOLEAN,
    "int": loop.LONG,
    "long": loop.LONG,
    "float": loop.FLOAT,
    "double": loop.DOUBLE,
    "bytes": loop.BYTES_OF_LENGTH,
    "string": loop.BYTES_OF_LENGTH,
}
_NAMED = frozenset({"record", "error", "enum", "fixed"})


def compile_schema(text: str, columns: Sequence[WantedColumn]) -> Program:
    """The program that reads some columns of a schema's records.

    Args:
        text: the schema, JSON.
        columns: what to read.

    Raises:
        InvalidRequest: the text is no Avro schema, or not one of records.
    """
    try:
        return _Compiler(json.loads(text), columns).program()
    except json.JSONDecodeError as error:
        raise InvalidRequest("an Avro schema is not JSON", detail=str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        # JSON of any other shape: each part would have to be asked for its own, to say no more than this.
        raise InvalidRequest("an Avro schema has parts that are none", detail=repr(error)) from error


class _Compiler:
    """Walks a schema once and writes steps.

    Records that are stepped over a second time become subroutines, and so do those that contain themselves: what a
    schema uses again and again is not unrolled.
    """

    def __init__(self, schema: Any, columns: Sequence[WantedColumn]) -> None:
        self._schema = schema
        self._slots = {column.name: slot for slot, column in enumerate(columns)}
        self._wish = wish_for(columns)
        self._steps: list[list[int]] = []
        self._paths: list[str] = []
        self._tables: list[int] = []
        self._named: dict[str, tuple[Any, str]] = {}
        self._open: list[str] = []
        self._calls: dict[str, list[int]] = {}
        self._stored: dict[str, Stored] = {}
        self._misfits: dict[str, str] = {}

    def program(self) -> Program:
        """All of it."""
        if not isinstance(self._schema, dict) or self._schema.get("type") not in ("record", "error"):
            raise InvalidRequest(
                "an Avro schema is not one of records", hint="register a record for the topic's values"
            )
        self._write(self._schema, "", self._wish, "")
        self._put(loop.END, "")
        written: dict[str, int] = {}
        while waiting := [name for name in self._calls if name not in written]:
            for name in waiting:
                written[name] = len(self._steps)
                self._write_fields(self._named[name][0], name, NOTHING, name)
                self._put(loop.RETURN, name)
        for name, places in self._calls.items():
            for place in places:
                self._steps[place][2] = written[name]
        known = self._stored.keys() | self._misfits.keys()
        return Program(
            np.array(self._steps, dtype=np.int64).reshape(-1, 3),
            np.array(self._tables, dtype=np.int64),
            tuple(self._paths),
            {name: stored for name, stored in self._stored.items() if name not in self._misfits},
            frozenset(self._slots.keys() - known),
            self._misfits,
        )

    def _put(self, step: int, path: str, slot: int = loop.SKIP, argument: int = 0) -> int:
        """Write a step; its place."""
        self._steps.append([step, slot, argument])
        self._paths.append(path)
        return len(self._steps) - 1

    def _write(self, schema: Any, namespace: str, wish: Wish, path: str) -> None:
        """The steps of a value."""
        if isinstance(schema, list):
            self._write_union(schema, namespace, wish, path)
            return
        if isinstance(schema, str):
            name = schema if schema in _STEPS or schema == "null" else _full_name(schema, namespace)
            if name in self._named:
                self._write(*self._named[name], wish, path)
                return
            schema = {"type": schema}
        if not isinstance(schema, dict) or "type" not in schema:
            raise InvalidRequest(f'an Avro schema has no type at "{path}"')
        kind = schema["type"]
        if kind in ("record", "error"):
            self._write_record(schema, namespace, wish, path)
        elif kind in ("array", "map"):
            self._write_blocks(schema, namespace, wish, path)
        elif kind == "enum" or kind == "fixed" or kind in _STEPS:
            if kind in _NAMED:
                self._name(schema, namespace)
            self._write_value(schema, wish, path)
        elif kind == "null":
            return
        elif isinstance(kind, (dict, list)) or kind in self._named or _full_name(kind, namespace) in self._named:
            self._write(kind, namespace, wish, path)
        else:
            raise InvalidRequest(f'an Avro schema has a type "{kind}" at "{path}" that it does not define')

    def _name(self, schema: dict[str, Any], namespace: str) -> str:
        """Take note of a named type; its full name."""
        name = _full_name(schema["name"], schema.get("namespace", namespace))
        self._named.setdefault(name, (schema, namespace))
        return name

    def _write_record(self, schema: dict[str, Any], namespace: str, wish: Wish, path: str) -> None:
        was_known = len(self._named)
        name = self._name(schema, namespace)
        self._misfit(wish.columns, f"is a record: name one of its fields, {path or name}.{_first_field(schema)}")
        is_again = was_known == len(self._named)
        if name in self._open or (is_again and not wish.all_columns()):
            # What is wanted of a type inside itself has no end, and is nothing.
            for column in wish.all_columns():
                self._misfits[column.name] = f"{column.field} is inside of itself"
            self._calls.setdefault(name, []).append(self._put(loop.CALL, path))
            return
        self._write_fields(schema, name, wish, path)

    def _write_fields(self, schema: dict[str, Any], name: str, wish: Wish, path: str) -> None:
        """The fields of a record, one behind the other."""
        self._open.append(name)
        inner = name.rpartition(".")[0]
        for one in schema["fields"]:
            self._write(one["type"], inner, wish.fields.get(one["name"], NOTHING), f"{path}.{one['name']}".lstrip("."))
        self._open.pop()

    def _write_union(self, branches: Sequence[Any], namespace: str, wish: Wish, path: str) -> None:
        table = len(self._tables)
        self._tables += [0] * len(branches)
        self._put(loop.UNION, path, len(branches), table)
        jumps = []
        for number, branch in enumerate(branches):
            self._tables[table + number] = len(self._steps)
            self._write(branch, namespace, wish, path)
            jumps.append(self._put(loop.JUMP, path))
        for jump in jumps:
            self._steps[jump][2] = len(self._steps)

    def _write_blocks(self, schema: dict[str, Any], namespace: str, wish: Wish, path: str) -> None:
        """An array or a map, of which the values of some keys may be wanted."""
        is_map = schema["type"] == "map"
        for column in wish.columns if is_map else wish.all_columns():
            self._misfits[column.name] = f"{path} is {with_article(schema['type'])}, {NO_COLUMN_HOLDS}"
        values = schema["values" if is_map else "items"]
        first = self._put(loop.BLOCKS, path)
        self._steps[first][2] = len(self._steps)
        keys = wish.fields if is_map else {}
        if keys:
            steps_of = self._put_keys(keys, path)
        elif is_map:
            self._put(loop.BYTES_OF_LENGTH, path)
        self._write(values, namespace, NOTHING, path)
        jumps = [self._put(loop.JUMP, path)] if keys else []
        for key, inner in keys.items():
            self._tables[steps_of[key]] = len(self._steps)
            self._write(values, namespace, inner, f"{path}.{key}")
            jumps.append(self._put(loop.JUMP, path))
        for jump in jumps:
            self._steps[jump][2] = len(self._steps)
        last = self._put(loop.NEXT_ITEM, path, argument=first + 1)
        self._steps[first][1] = self._steps[last][1] = len(self._steps)

    def _put_keys(self, keys: Mapping[str, Wish], path: str) -> dict[str, int]:
        """The step that looks for keys of a map; where in the tables the steps of their values belong."""
        self._put(loop.KEY, path, len(keys), len(self._tables))
        steps_of = {}
        for key, wish in keys.items():
            name, slots = key.encode(), [self._slots[column.name] for column in wish.all_columns()]
            steps_of[key] = len(self._tables) + 2
            self._tables += [len(name), len(slots), 0, *slots, *name]
        return steps_of

    def _write_value(self, schema: dict[str, Any], wish: Wish, path: str) -> None:
        """A value without parts: stored, if it is wanted and fits."""
        kind = schema["type"]
        for column in wish.all_columns():
            if column not in wish.columns:
                self._misfits[column.name] = f"{path} is {with_article(kind)}, which has no fields"
        step = {"enum": loop.ENUM, "fixed": loop.FIXED}.get(kind) or _STEPS[kind]
        argument = len(schema["symbols"]) if kind == "enum" else schema["size"] if kind == "fixed" else 0
        slot = loop.SKIP
        for column in wish.columns[:1]:
            stored = _stored(schema, column.type)
            if stored is None or self._stored.get(column.name, stored) != stored:
                has = with_article(f"{schema.get('logicalType', kind)}")
                self._misfits[column.name] = f"{path} is {has}, which no column of type {column.type.value} holds"
                continue
            self._stored[column.name], slot = stored, self._slots[column.name]
            if stored.kind is Kind.DOUBLE and step == loop.LONG:
                step = loop.LONG_AS_DOUBLE
        for column in wish.columns[1:]:
            self._misfits[column.name] = f"{path} is column {wish.columns[0].name} already"
        self._put(step, path, slot, argument)

    def _misfit(self, columns: Sequence[WantedColumn], reason: str) -> None:
        self._misfits.update((column.name, f"{column.field} {reason}") for column in columns)


def _stored(schema: dict[str, Any], wanted: ValueType) -> Stored | None:
    """How a column of a type comes of a value; None where it does not."""
    kind, logical = schema["type"], schema.get("logicalType", "")
    if logical == "decimal" and kind in ("bytes", "fixed"):
        fits = wanted in (ValueType.FLOAT64, ValueType.STRING)
        return Stored(Kind.DECIMAL, scale=int(schema.get("scale", 0))) if fits else None
    if kind in ("int", "long"):
        if wanted is ValueType.TIMESTAMP:
            return Stored(Kind.MOMENT, unit=_MOMENTS.get(logical, ""))
        return {ValueType.INT64: Stored(Kind.INTEGER), ValueType.FLOAT64: Stored(Kind.DOUBLE)}.get(wanted)
    if kind in ("float", "double"):
        return Stored(Kind.DOUBLE) if wanted is ValueType.FLOAT64 else None
    if kind == "boolean":
        return Stored(Kind.INTEGER) if wanted is ValueType.BOOL else None
    if kind == "enum":
        return Stored(Kind.SYMBOL, symbols=tuple(schema["symbols"])) if wanted is ValueType.STRING else None
    if kind == "string":
        return Stored(Kind.TEXT) if wanted in (ValueType.STRING, ValueType.TIMESTAMP) else None
    is_uuid = logical == "uuid" and kind == "fixed" and schema["size"] == 16
    return Stored(Kind.UUID) if is_uuid and wanted is ValueType.STRING else None


def _full_name(name: str, namespace: str) -> str:
    return f"{namespace}.{name}" if namespace and "." not in name else name


def _first_field(schema: dict[str, Any]) -> str:
    return next((one["name"] for one in schema["fields"]), "...")
