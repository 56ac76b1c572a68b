"""Payloads of a registry's schemas to columns: what all formats do whose schemas are compiled to programs.

    payloads -> schema ids -> a program for each -> slots of the batch -> columns

A payload begins with the id of its schema (Confluent's wire format). A program reads what is wanted of the
payloads of its schema into slots, rows of matrices, of which the format then makes columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypeVar
from uuid import UUID

import numpy as np

from featurestore.core.events import BoolArray, ColumnValues, Float64Array, Int64Array
from featurestore.core.spec import ValueType
from featurestore.wire.formats.columns import (
    GUID_BYTES,
    ID_BYTES,
    ReadColumns,
    SchemaId,
    WantedColumn,
    header_mistake,
    moments,
    no_moment,
    none_if_all,
    objects,
)

_GUIDS = 2**32
"""Numbers from here on are those of a batch's GUIDS."""

Values = Int64Array | Float64Array | Sequence[bytes]
Part = tuple[Int64Array, Values, BoolArray]
"""Rows of one schema, the values of a column in them, and where there is one."""


class CompiledProgram(Protocol):
    """A program, as far as it does not matter of which format."""

    @property
    def misfits(self) -> Mapping[str, str]:
        """Column -> why it cannot hold what the schema has."""
        ...


_Program = TypeVar("_Program", bound=CompiledProgram)


class ProgramFormat(Protocol[_Program]):
    """What a format knows of its programs."""

    def programs(self, slots: Slots, refused: dict[int, str]) -> tuple[Int64Array, Mapping[int, _Program | str]]:
        """(N,) which program each payload has, -1 for those that are refused; the programs, or why there is none."""
        ...

    def run(self, program: _Program, slots: Slots, rows: Int64Array) -> list[tuple[int, str]]:
        """Read some payloads into the slots; what is wrong with those that could not be."""
        ...

    def part(
        self, program: _Program, slots: Slots, column: WantedColumn, rows: Int64Array, refused: dict[int, str]
    ) -> Part:
        """A column of some payloads that were read."""
        ...

    def given_text(self, program: _Program, slots: Slots, column: WantedColumn, row: int) -> bytes | None:
        """The text of which a moment was made; None of one that was no text."""
        ...


class Slots:
    """The slots of a batch of N payloads.

    Attributes:
        data: all payloads, one behind the other.
        begins: (N,) where what a program reads of each begins.
        ends: (N,) where they end.
        integers: (C, N) integers by slot, and where texts begin.
        upper: (C, N) where texts end.
        doubles: (C, N).
        valid: (C, N) True where there is a value.
    """

    def __init__(self, payloads: Sequence[bytes], slots: int) -> None:
        count = len(payloads)
        self.data = b"".join(payloads)
        lengths = np.fromiter(map(len, payloads), dtype=np.int64, count=count)
        self.ends: Int64Array = np.cumsum(lengths)
        self.begins: Int64Array = self.ends - lengths
        self.integers = np.zeros((slots, count), dtype=np.int64)
        self.upper = np.zeros((slots, count), dtype=np.int64)
        self.doubles = np.zeros((slots, count), dtype=np.float64)
        self.valid = np.zeros((slots, count), dtype=np.bool_)
        self._guids: dict[bytes, int] = {}

    def take_schema_ids(self, refused: dict[int, str]) -> Int64Array:
        """(N,) the number of each payload's schema, -1 for what does not begin with an id; `begins` are behind it then.

        A number is what its registry calls a schema, or for this batch alone, beyond 32 bits, that of a GUID.
        """
        data, lengths = self.as_array(), self.ends - self.begins
        ids = np.full(len(lengths), -1, dtype=np.int64)
        sizes = np.full(len(lengths), ID_BYTES, dtype=np.int64)
        framed = np.flatnonzero(lengths >= ID_BYTES)
        for row in framed[data[self.begins[framed]] == 1].tolist():
            if lengths[row] >= GUID_BYTES:
                begin = int(self.begins[row]) + 1
                ids[row] = self._guids.setdefault(self.data[begin : begin + 16], _GUIDS + len(self._guids))
                sizes[row] = GUID_BYTES
        framed = framed[data[self.begins[framed]] == 0]
        first = self.begins[framed]
        ids[framed] = sum(data[first + 1 + place].astype(np.int64) << (8 * (3 - place)) for place in range(4))
        for row in np.flatnonzero(ids < 0).tolist():
            refused[row] = header_mistake(self.data[self.begins[row] : self.ends[row]])
        self.begins = self.begins + sizes
        return ids

    def schema_of(self, number: int) -> SchemaId:
        """The schema that `take_schema_ids` gave a number."""
        return number if number < _GUIDS else UUID(bytes=next(islice(self._guids, number - _GUIDS, None)))

    def as_array(self) -> Any:
        """`data` as an array of numbers."""
        return np.frombuffer(self.data, dtype=np.uint8)

    def texts(self, slot: int, rows: Int64Array) -> list[bytes]:
        """The bytes of some rows of a slot; b"" of nulls."""
        data = self.data
        spans = zip(self.integers[slot, rows].tolist(), self.upper[slot, rows].tolist(), strict=True)
        return [data[low:high] for low, high in spans]


def read_by_programs(
    reader: ProgramFormat[_Program], columns: Sequence[WantedColumn], payloads: Sequence[bytes]
) -> ReadColumns:
    """The columns of some payloads; those of several schemas may be mixed."""
    refused: dict[int, str] = {}
    slots = Slots(payloads, len(columns))
    keys, found = reader.programs(slots, refused)
    programs: dict[int, _Program] = {}
    for key, program in found.items():
        rows = np.flatnonzero(keys == key)
        if isinstance(program, str):
            refused.update(dict.fromkeys(rows.tolist(), program))
            keys[rows] = -1
            continue
        programs[key] = program
        for row, detail in reader.run(program, slots, rows):
            refused[row] = detail
            keys[row] = -1
    rows = np.flatnonzero(keys >= 0)
    rows_of = {key: np.flatnonzero(keys == key) for key in programs}
    wanted = {column.name: column for column in columns}
    whole = {
        name: _whole(
            [reader.part(programs[key], slots, column, part, refused) for key, part in rows_of.items() if len(part)],
            column,
            rows,
        )
        for name, column in wanted.items()
    }

    def given(name: str, row: int) -> object:
        payload = int(rows[row])
        text = reader.given_text(programs[int(keys[payload])], slots, wanted[name], payload)
        return int(whole[name].values[row]) if text is None else text.decode(errors="replace")

    return ReadColumns(rows, whole, refused, given)


def unusable(schema_id: SchemaId, reason: str) -> str:
    """What is wrong with a payload of a schema for which there is no program."""
    return f"is of schema {schema_id}, {reason}"


def misfits(schema_id: SchemaId, program: CompiledProgram) -> str | None:
    """Why no payload of a schema can be read; None if it fits."""
    return unusable(schema_id, f"in which {'; '.join(program.misfits.values())}") if program.misfits else None


def mistakes(wrong: Int64Array, reasons: Mapping[int, str], paths: Sequence[str]) -> list[tuple[int, str]]:
    """The payloads that a program could not read, and why.

    Args:
        wrong: (2, N) what is wrong, 0 for nothing, and with which of the paths.
        reasons: what to say of it, with a place for the path.
        paths: of the program's fields.
    """
    return [
        (row, reasons[int(wrong[0, row])].format(paths[wrong[1, row]])) for row in np.flatnonzero(wrong[0]).tolist()
    ]


def no_values(column: WantedColumn, rows: Int64Array) -> Part:
    """A column that the schema has no field for."""
    nothing: Values = [b""] * len(rows) if column.type is ValueType.STRING else np.zeros(len(rows), dtype=np.int64)
    return rows, nothing, np.zeros(len(rows), dtype=np.bool_)


def moments_of_texts(
    column: WantedColumn, rows: Int64Array, texts: Sequence[bytes], valid: BoolArray, refused: dict[int, str]
) -> Int64Array:
    """Milliseconds of a TIMESTAMP column whose payloads have texts; a text that is no time refuses its payload."""
    given = [
        text.decode(errors="replace") if is_there else None
        for text, is_there in zip(texts, valid.tolist(), strict=True)
    ]
    times, unreadable = moments(given, column.unit)
    for index in unreadable.tolist():
        refused.setdefault(int(rows[index]), no_moment(column.name, column.unit, given[index]))
    return np.asarray(times.values, dtype=np.int64)


def _whole(parts: Sequence[Part], column: WantedColumn, rows: Int64Array) -> ColumnValues:
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
