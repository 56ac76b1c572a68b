"""Protobuf payloads to columns: programs by schema id and message, and what their slots hold made columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from featurestore.core.events import BoolArray, Int64Array
from featurestore.core.spec import ValueType
from featurestore.wire.formats.columns import (
    ReadColumns,
    SchemaId,
    Schemas,
    UnusableSchema,
    WantedColumn,
    objects,
    refuse_unfit,
)
from featurestore.wire.formats.protobuf import loop
from featurestore.wire.formats.protobuf.descriptors import Schema
from featurestore.wire.formats.protobuf.program import Kind, Program, Stored, compile_message
from featurestore.wire.formats.slots import (
    Part,
    Slots,
    Values,
    misfits,
    mistakes,
    moments_of_texts,
    no_values,
    read_by_programs,
    unusable,
)
from featurestore.wire.moments import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, as_ms

_WRONG = {
    loop.TORN: "ends in the middle of {}",
    loop.WRONG_NUMBER: "has a number of more than 64 bits at {}",
    loop.WRONG_LENGTH: "has a length at {} that cannot be",
    loop.WRONG_TAG: "has a tag at {} that cannot be",
    loop.WRONG_SYMBOL: "has a number in the enum {} that its schema does not have",
    loop.TOO_LARGE: "has a number above 2^63 at {}",
    loop.TOO_DEEP: "is nested too deep at {}",
}
_NO_INDEXES = "does not say which message of its schema it is"
_FIRST_MESSAGE = (0,)
_INDEXES_MAX = 32
"""Messages in messages in a schema's text: as deep as the compiler goes."""

_NANOS_PER_MS = 1_000_000
_NANOS_MAX = 999_999_999


class ProtobufReader:
    """Reads one Protobuf message a payload.

    Args:
        columns: what to read; fields of messages in messages by their path.
        registry: asked once for each id that it knows.
    """

    def __init__(self, columns: Sequence[WantedColumn], registry: Schemas) -> None:
        self._columns = tuple(columns)
        self._registry = registry
        self._schemas: dict[SchemaId, Schema | str] = {}
        self._programs: dict[tuple[SchemaId, str], Program | str] = {}

    def read(self, payloads: Sequence[bytes]) -> ReadColumns:
        """See PayloadReader. Payloads of several schemas and messages may be mixed."""
        return read_by_programs(self, self._columns, payloads)

    def programs(self, slots: Slots, refused: dict[int, str]) -> tuple[Int64Array, dict[int, Program | str]]:
        """See ProgramFormat."""
        schema_ids = slots.take_schema_ids(refused)
        keys = np.full(len(schema_ids), -1, dtype=np.int64)
        programs: dict[int, Program | str] = {}
        firsts = _take_first(slots, schema_ids)
        for number in np.unique(schema_ids[firsts]).tolist():
            keys[firsts[schema_ids[firsts] == number]] = len(programs)
            programs[len(programs)] = self._program(slots.schema_of(number), _FIRST_MESSAGE)
        number_of: dict[tuple[int, tuple[int, ...]], int] = {}
        for row in np.flatnonzero((schema_ids >= 0) & (keys < 0)).tolist():
            indexes, slots.begins[row] = _indexes(slots.data, int(slots.begins[row]), int(slots.ends[row]))
            if not indexes:
                refused[row] = _NO_INDEXES
                continue
            key = (int(schema_ids[row]), indexes)
            if key not in number_of:
                number_of[key] = len(programs)
                programs[len(programs)] = self._program(slots.schema_of(key[0]), indexes)
            keys[row] = number_of[key]
        return keys, programs

    def run(self, program: Program, slots: Slots, rows: Int64Array) -> list[tuple[int, str]]:
        """See ProgramFormat."""
        wrong = np.zeros((2, len(slots.ends)), dtype=np.int64)
        room = np.empty(loop.DEPTH_MAX, dtype=np.int64), np.empty((len(program.scopes), 3), dtype=np.int64)
        bad = loop.run_program(
            *(slots.as_array(), slots.begins, slots.ends, rows, program.fields, program.scopes, program.tables),
            *(slots.integers, slots.upper, slots.doubles, slots.valid, wrong, *room),
        )
        return mistakes(wrong, _WRONG, program.paths) if bad else []

    def part(
        self, program: Program, slots: Slots, column: WantedColumn, rows: Int64Array, refused: dict[int, str]
    ) -> Part:
        """See ProgramFormat."""
        stored = program.stored.get(column.name)
        if stored is None:
            return no_values(column, rows)
        valid: BoolArray = slots.valid[stored.slot, rows]
        if stored.kind is Kind.TIMESTAMP:
            return rows, _timestamps(slots, stored, column, rows, refused), valid
        values = _values(slots, stored, rows, valid)
        if column.type is ValueType.TIMESTAMP:
            if isinstance(values, np.ndarray):
                return rows, as_ms(np.asarray(values, dtype=np.int64), column.unit), valid
            return rows, moments_of_texts(column, rows, values, valid, refused), valid
        if column.type is ValueType.FLOAT64:
            values = np.asarray(values, dtype=np.float64)
        refuse_unfit(column, rows, values, refused)
        return rows, values, valid

    def given_text(self, program: Program, slots: Slots, column: WantedColumn, row: int) -> bytes | None:
        """See ProgramFormat."""
        stored = program.stored[column.name]
        return slots.texts(stored.slot, np.array([row]))[0] if stored.kind is Kind.TEXT else None

    def _program(self, schema_id: SchemaId, indexes: tuple[int, ...]) -> Program | str:
        """What a message of a schema means for our columns, or why it cannot be read."""
        schema = self._schemas.get(schema_id) or self._schema(schema_id)
        if isinstance(schema, str):
            return schema
        message = schema.message(indexes)
        if isinstance(message, str):
            return unusable(schema_id, message)
        # By name, as damaged payloads can have any number of indexes, but a schema has so many messages.
        key = (schema_id, message.full_name)
        if key not in self._programs:
            program = compile_message(message, self._columns)
            self._programs[key] = misfits(schema_id, program) or program
        return self._programs[key]

    def _schema(self, schema_id: SchemaId) -> Schema | str:
        """Ask the registry for a schema, and remember it if it is known."""
        try:
            files = self._registry.files(schema_id)
            if files is None:
                # Not for ever: a registry of several nodes may know it in a moment.
                return unusable(schema_id, "which the registry does not know")
            schema: Schema | str = Schema(files)
        except UnusableSchema as error:
            schema = unusable(schema_id, f"which cannot be read: {error.message}")
        self._schemas[schema_id] = schema
        return schema


def _take_first(slots: Slots, schema_ids: Int64Array) -> Int64Array:
    """The payloads that are of their schema's first message, which one zero says; `begins` are behind it then."""
    there = np.flatnonzero((schema_ids >= 0) & (slots.begins < slots.ends))
    firsts: Int64Array = there[slots.as_array()[slots.begins[there]] == 0]
    slots.begins[firsts] += 1
    return firsts


def _indexes(data: bytes, at: int, end: int) -> tuple[tuple[int, ...], int]:
    """Which message a payload is of, as indexes, and the place behind them; none where they cannot be."""
    count, at = _zigzag(data, at, end)
    indexes: list[int] = []
    while 0 < count <= _INDEXES_MAX and len(indexes) < count:
        index, at = _zigzag(data, at, end)
        if index < 0:
            return (), end
        indexes.append(index)
    return tuple(indexes), at


def _zigzag(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number and the place behind it; -1 for one that cannot be."""
    bits = 0
    for shift in range(0, 35, 7):
        if at == end:
            break
        byte = data[at]
        at += 1
        bits |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (bits >> 1) ^ -(bits & 1), at
    return -1, end


def _values(slots: Slots, stored: Stored, rows: Int64Array, valid: BoolArray) -> Values:
    """What a slot holds, and the default where the message has no such field."""
    are_default: Any = valid & (slots.upper[stored.slot, rows] == 0)
    if stored.kind is Kind.TEXT:
        texts = slots.texts(stored.slot, rows)
        if stored.default and are_default.any():
            assert isinstance(stored.default, bytes), "texts have texts"
            texts = [
                stored.default if is_default else text for text, is_default in zip(texts, are_default, strict=True)
            ]
        return texts
    numbers: Any = (slots.doubles if stored.kind is Kind.DOUBLE else slots.integers)[stored.slot, rows]
    if stored.default and are_default.any():
        numbers[are_default] = stored.default
    if stored.kind is not Kind.SYMBOL:
        found: Int64Array = numbers
        return found
    symbols = objects([symbol.encode() for symbol in stored.symbols])
    named: list[bytes] = np.where(valid, symbols[numbers], b"").tolist()
    return named


def _timestamps(
    slots: Slots, stored: Stored, column: WantedColumn, rows: Int64Array, refused: dict[int, str]
) -> Int64Array:
    """Milliseconds of google.protobuf.Timestamps, the finer parts cut off towards the past."""
    seconds, nanos = slots.integers[stored.slot, rows], slots.upper[stored.slot, rows]
    times_ms: Int64Array = as_ms(seconds, "s") + nanos // _NANOS_PER_MS
    are_there = (nanos >= 0) & (nanos <= _NANOS_MAX) & (times_ms >= EVENT_TIME_MS_MIN) & (times_ms <= EVENT_TIME_MS_MAX)
    for index in np.flatnonzero(~are_there).tolist():
        detail = f"{column.name} is {seconds[index]} seconds and {nanos[index]} nanoseconds, which is no Timestamp"
        refused.setdefault(int(rows[index]), detail)
    return times_ms
