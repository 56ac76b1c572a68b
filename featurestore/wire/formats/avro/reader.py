"""Avro payloads to columns: programs by schema id, run over a batch, and what the slots hold made columns."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from featurestore.core.events import BoolArray, ColumnValues, Float64Array, Int64Array
from featurestore.core.spec import ValueType
from featurestore.errors import InvalidRequest
from featurestore.wire.formats.avro import loop
from featurestore.wire.formats.avro.program import Kind, Program, Stored, compile_schema
from featurestore.wire.formats.columns import (
    STRING_CHARACTERS_MAX,
    ReadColumns,
    WantedColumn,
    moments,
    no_moment,
    none_if_all,
    objects,
)
from featurestore.wire.moments import as_ms

HEADER_BYTES = 5
"""A zero, and the id of the writer's schema, big-endian."""

_MS_PER_DAY = 86_400_000
_WRONG = {
    loop.TORN: "ends in the middle of {}",
    loop.WRONG_NUMBER: "has a number of more than 64 bits at {}",
    loop.WRONG_LENGTH: "has a length at {} that cannot be",
    loop.WRONG_BRANCH: "has a branch of the union {} that its schema does not have",
    loop.WRONG_SYMBOL: "has a symbol of the enum {} that its schema does not have",
    loop.WRONG_BOOLEAN: "has a boolean {} that is neither true nor false",
    loop.TOO_DEEP: "is nested too deep at {}",
    loop.LEFT_OVER: "goes on behind its last field",
}

SchemaText = Callable[[int], str | None]
"""The text of a writer's schema by its id; None of one that the registry does not know. May raise what a registry that
does not answer raises, and the payloads are read again then."""


class AvroReader:
    """Reads one Avro record a payload.

    Args:
        columns: what to read; fields of nested records by their path.
        schema_text: asks the registry, once for each id.
    """

    def __init__(self, columns: Sequence[WantedColumn], schema_text: SchemaText) -> None:
        self._columns = tuple(columns)
        self._schema_text = schema_text
        self._programs: dict[int, Program | str] = {}

    def read(self, payloads: Sequence[bytes]) -> ReadColumns:
        """See PayloadReader. Payloads of several schemas may be mixed."""
        refused: dict[int, str] = {}
        schema_ids = self._schema_ids(payloads, refused)
        run = _Run(payloads, len(self._columns))
        programs: dict[int, Program] = {}
        for schema_id in np.unique(schema_ids[schema_ids >= 0]).tolist():
            rows, program = np.flatnonzero(schema_ids == schema_id), self._program(schema_id)
            if isinstance(program, str):
                refused.update(dict.fromkeys(rows.tolist(), program))
                schema_ids[rows] = -1
                continue
            programs[schema_id] = program
            for row, detail in run.run(program, rows):
                refused[row] = detail
                schema_ids[row] = -1
        rows = np.flatnonzero(schema_ids >= 0)
        columns = {}
        for slot, column in enumerate(self._columns):
            parts = [
                _part(run, slot, column, part, program.stored.get(column.name), refused)
                for schema_id, program in programs.items()
                if len(part := np.flatnonzero(schema_ids == schema_id))
            ]
            columns[column.name] = _whole(parts, column, rows)
        given = {column.name: slot for slot, column in enumerate(self._columns)}
        return ReadColumns(
            rows, columns, refused, lambda name, row: _given(run, given[name], int(rows[row]), columns[name], row)
        )

    def _schema_ids(self, payloads: Sequence[bytes], refused: dict[int, str]) -> Int64Array:
        """(N,) the id of each payload's schema; -1 for what does not begin with one."""
        ids = np.empty(len(payloads), dtype=np.int64)
        for row, payload in enumerate(payloads):
            if len(payload) > HEADER_BYTES - 1 and payload[0] == 0:
                ids[row] = int.from_bytes(payload[1:HEADER_BYTES], "big")
            else:
                ids[row] = -1
                refused[row] = "does not begin with a zero and the id of a schema" if payload else "is empty"
        return ids

    def _program(self, schema_id: int) -> Program | str:
        """What a schema means for our columns, or why its records cannot be read."""
        if schema_id not in self._programs:
            self._programs[schema_id] = self._compile(schema_id, self._schema_text(schema_id))
        return self._programs[schema_id]

    def _compile(self, schema_id: int, text: str | None) -> Program | str:
        if text is None:
            return f"is of schema {schema_id}, which the registry does not know"
        try:
            program = compile_schema(text, self._columns)
        except InvalidRequest as error:
            return f"is of schema {schema_id}, which cannot be read: {error.message}"
        if program.misfits:
            return f"is of schema {schema_id}, in which {'; '.join(program.misfits.values())}"
        return program


class _Run:
    """The slots of a batch of payloads."""

    def __init__(self, payloads: Sequence[bytes], slots: int) -> None:
        count = len(payloads)
        self.data = b"".join(payloads)
        lengths = np.fromiter(map(len, payloads), dtype=np.int64, count=count)
        self._ends = np.cumsum(lengths)
        self._begins = self._ends - lengths + HEADER_BYTES
        self.integers = np.zeros((slots, count), dtype=np.int64)
        self.upper = np.zeros((slots, count), dtype=np.int64)
        self.doubles = np.zeros((slots, count), dtype=np.float64)
        self.valid = np.zeros((slots, count), dtype=np.bool_)

    def run(self, program: Program, rows: Int64Array) -> list[tuple[int, str]]:
        """Read some payloads; what is wrong with those that could not be."""
        wrong = np.zeros((2, len(self._ends)), dtype=np.int64)
        data = np.frombuffer(self.data, dtype=np.uint8)
        bad = loop.run_program(
            *(data, self._begins, self._ends, rows, program.steps, program.tables),
            *(self.integers, self.upper, self.doubles, self.valid, wrong),
        )
        if not bad:
            return []
        return [
            (row, _WRONG[int(wrong[0, row])].format(program.paths[wrong[1, row]] or "a field"))
            for row in np.flatnonzero(wrong[0]).tolist()
        ]

    def texts(self, slot: int, rows: Int64Array) -> list[bytes]:
        """The bytes of some rows of a slot; b"" of nulls."""
        data = self.data
        return [data[low:high] for low, high in zip(*self._spans(slot, rows), strict=True)]

    def _spans(self, slot: int, rows: Int64Array) -> tuple[list[int], list[int]]:
        return self.integers[slot, rows].tolist(), self.upper[slot, rows].tolist()


_Values = Int64Array | Float64Array | Sequence[bytes]
_Part = tuple[Int64Array, _Values, BoolArray]
"""Rows of one schema, the values of a column in them, and where there is one."""


def _part(
    run: _Run, slot: int, column: WantedColumn, rows: Int64Array, stored: Stored | None, refused: dict[int, str]
) -> _Part:
    """A column of the rows of one schema."""
    valid: BoolArray = run.valid[slot, rows]
    if stored is None:
        values: _Values = [b""] * len(rows) if column.type is ValueType.STRING else np.zeros(len(rows), dtype=np.int64)
        return rows, values, valid
    if column.type is ValueType.TIMESTAMP:
        values, valid = _moments(run, slot, column, rows, stored, refused)
    elif stored.kind is Kind.INTEGER:
        values = run.integers[slot, rows]
    elif stored.kind is Kind.DOUBLE:
        values = run.doubles[slot, rows]
    elif stored.kind is Kind.SYMBOL:
        symbols = objects([symbol.encode() for symbol in stored.symbols])
        values = np.where(valid, symbols[run.integers[slot, rows]], b"").tolist()
    elif stored.kind is Kind.UUID:
        values = [str(uuid.UUID(bytes=one)).encode() if one else b"" for one in run.texts(slot, rows)]
    elif stored.kind is Kind.DECIMAL:
        values = _decimals(run.texts(slot, rows), stored.scale, column.type)
    else:
        values = run.texts(slot, rows)
    _refuse_unfit(column, rows, values, refused)
    return rows, values, valid


def _moments(
    run: _Run, slot: int, column: WantedColumn, rows: Int64Array, stored: Stored, refused: dict[int, str]
) -> tuple[Int64Array, BoolArray]:
    """Milliseconds of a TIMESTAMP column."""
    valid: BoolArray = run.valid[slot, rows]
    if stored.kind is Kind.MOMENT:
        integers = run.integers[slot, rows]
        return integers * _MS_PER_DAY if stored.unit == "d" else as_ms(integers, stored.unit or column.unit), valid
    given = [
        text.decode(errors="replace") if is_there else None
        for text, is_there in zip(run.texts(slot, rows), valid.tolist(), strict=True)
    ]
    times, unreadable = moments(given, column.unit)
    for index in unreadable.tolist():
        refused.setdefault(int(rows[index]), no_moment(column.name, column.unit, given[index]))
    return np.asarray(times.values, dtype=np.int64), valid


def _decimals(unscaled: Sequence[bytes], scale: int, wanted: ValueType) -> _Values:
    """Decimals as doubles, each the nearest one, or as texts; 0.0 and b"" of nulls."""
    exact = [Decimal(int.from_bytes(one, "big", signed=True)).scaleb(-scale) for one in unscaled]
    if wanted is ValueType.STRING:
        return [f"{value:f}".encode() if one else b"" for value, one in zip(exact, unscaled, strict=True)]
    return np.array([float(value) for value in exact], dtype=np.float64)


def _refuse_unfit(column: WantedColumn, rows: Int64Array, values: _Values, refused: dict[int, str]) -> None:
    """Refuse what no payload may hold: doubles that are no finite number, bytes that are no text, endless texts."""
    if isinstance(values, np.ndarray):
        if values.dtype == np.float64 and not (finite := np.isfinite(values)).all():
            for row in rows[~finite].tolist():
                refused.setdefault(row, f"{column.name} is no finite number")
        return
    for index, text in enumerate(values):
        if text.isascii() and len(text) <= STRING_CHARACTERS_MAX:
            continue
        try:
            if len(text.decode()) <= STRING_CHARACTERS_MAX:
                continue
            detail = f"{column.name} has more than {STRING_CHARACTERS_MAX} characters"
        except UnicodeDecodeError as error:
            detail = f"{column.name} is no UTF-8: {error.reason}"
        refused.setdefault(int(rows[index]), detail)


def _whole(parts: Sequence[_Part], column: WantedColumn, rows: Int64Array) -> ColumnValues:
    """The parts of several schemas as one column of the given rows."""
    kind: Any = {ValueType.STRING: np.object_, ValueType.FLOAT64: np.float64}.get(column.type, np.int64)
    values, valid = np.zeros(len(rows), dtype=kind), np.zeros(len(rows), dtype=np.bool_)
    if kind is np.object_:
        values[:] = b""
    for part, of_part, are_there in parts:
        places = np.searchsorted(rows, part)
        values[places] = objects(of_part) if isinstance(of_part, Sequence) else of_part
        valid[places] = are_there
    return ColumnValues(values, none_if_all(valid))


def _given(run: _Run, slot: int, payload: int, column: ColumnValues, row: int) -> object:
    """What a payload says of a moment: a text, or a number."""
    if run.upper[slot, payload]:
        return run.texts(slot, np.array([payload]))[0].decode(errors="replace")
    return int(column.values[row])
