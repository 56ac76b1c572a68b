"""Avro payloads to columns: programs by schema id, run over a batch, and what the slots hold made columns."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal

import numpy as np

from featurestore.core.events import BoolArray, Int64Array
from featurestore.core.spec import ValueType
from featurestore.errors import InvalidRequest
from featurestore.wire.formats.avro import loop
from featurestore.wire.formats.avro.program import Kind, Program, Stored, compile_schema
from featurestore.wire.formats.columns import ReadColumns, SchemaId, Schemas, WantedColumn, objects, refuse_unfit
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
from featurestore.wire.moments import as_ms

_MS_PER_DAY = 86_400_000
_DAYS_MAX = 2**31
_EXACTLY = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
"""Python's own context keeps 28 digits of a decimal; 38 are common."""

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


class AvroReader:
    """Reads one Avro record a payload.

    Args:
        columns: what to read; fields of nested records by their path.
        schemas: of a registry, which is asked once for each id that it knows.
    """

    def __init__(self, columns: Sequence[WantedColumn], schemas: Schemas) -> None:
        self._columns = tuple(columns)
        self._slots = {column.name: slot for slot, column in enumerate(columns)}
        self._schemas = schemas
        self._programs: dict[SchemaId, Program | str] = {}

    def read(self, payloads: Sequence[bytes]) -> ReadColumns:
        """See PayloadReader. Payloads of several schemas may be mixed."""
        return read_by_programs(self, self._columns, payloads)

    def programs(self, slots: Slots, refused: dict[int, str]) -> tuple[Int64Array, dict[int, Program | str]]:
        """See ProgramFormat."""
        schema_ids = slots.take_schema_ids(refused)
        return schema_ids, {
            number: self._program(slots.schema_of(number)) for number in np.unique(schema_ids[schema_ids >= 0]).tolist()
        }

    def run(self, program: Program, slots: Slots, rows: Int64Array) -> list[tuple[int, str]]:
        """See ProgramFormat."""
        wrong = np.zeros((2, len(slots.ends)), dtype=np.int64)
        bad = loop.run_program(
            *(slots.as_array(), slots.begins, slots.ends, rows, program.steps, program.tables),
            *(slots.integers, slots.upper, slots.doubles, slots.valid, wrong),
        )
        return mistakes(wrong, _WRONG, program.paths) if bad else []

    def part(
        self, program: Program, slots: Slots, column: WantedColumn, rows: Int64Array, refused: dict[int, str]
    ) -> Part:
        """See ProgramFormat."""
        stored = program.stored.get(column.name)
        if stored is None:
            return no_values(column, rows)
        slot = self._slots[column.name]
        valid: BoolArray = slots.valid[slot, rows]
        values = _values(slots, slot, column, rows, stored)
        if column.type is ValueType.TIMESTAMP and isinstance(values, Sequence):
            return rows, moments_of_texts(column, rows, values, valid, refused), valid
        refuse_unfit(column, rows, values, refused)
        return rows, values, valid

    def given_text(self, program: Program, slots: Slots, column: WantedColumn, row: int) -> bytes | None:
        """See ProgramFormat."""
        if program.stored[column.name].kind is not Kind.TEXT:
            return None
        return slots.texts(self._slots[column.name], np.array([row]))[0]

    def _program(self, schema_id: SchemaId) -> Program | str:
        """What a schema means for our columns, or why its records cannot be read."""
        if schema_id in self._programs:
            return self._programs[schema_id]
        text = self._schemas.text(schema_id)
        if text is None:
            # Not for ever: a registry of several nodes may know it in a moment.
            return unusable(schema_id, "which the registry does not know")
        self._programs[schema_id] = self._compile(schema_id, text)
        return self._programs[schema_id]

    def _compile(self, schema_id: SchemaId, text: str) -> Program | str:
        try:
            program = compile_schema(text, self._columns)
        except InvalidRequest as error:
            return unusable(schema_id, f"which cannot be read: {error.message}")
        return misfits(schema_id, program) or program


def _values(slots: Slots, slot: int, column: WantedColumn, rows: Int64Array, stored: Stored) -> Values:
    """What a slot holds, as the column has it; moments in texts are texts still."""
    if stored.kind is Kind.MOMENT:
        integers: Int64Array = slots.integers[slot, rows]
        if stored.unit != "d":
            return as_ms(integers, stored.unit or column.unit)
        # A date is an int; what claims to be longer must not come round to a moment that nobody meant.
        return np.clip(integers, -_DAYS_MAX, _DAYS_MAX) * _MS_PER_DAY
    if stored.kind in (Kind.INTEGER, Kind.DOUBLE):
        numbers: Int64Array = (slots.integers if stored.kind is Kind.INTEGER else slots.doubles)[slot, rows]
        return numbers
    if stored.kind is Kind.SYMBOL:
        symbols = objects([symbol.encode() for symbol in stored.symbols])
        found: list[bytes] = np.where(slots.valid[slot, rows], symbols[slots.integers[slot, rows]], b"").tolist()
        return found
    texts = slots.texts(slot, rows)
    if stored.kind is Kind.UUID:
        return [str(uuid.UUID(bytes=one)).encode() if one else b"" for one in texts]
    if stored.kind is not Kind.DECIMAL:
        return texts
    exact = [Decimal(int.from_bytes(one, "big", signed=True)).scaleb(-stored.scale, _EXACTLY) for one in texts]
    if column.type is ValueType.FLOAT64:
        return np.array([float(value) for value in exact], dtype=np.float64)
    valid = slots.valid[slot, rows].tolist()
    return [f"{value:f}".encode() if is_there else b"" for value, is_there in zip(exact, valid, strict=True)]
