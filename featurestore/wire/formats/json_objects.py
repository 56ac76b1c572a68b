"""JSON objects to columns.

The reader is made from the columns that somebody reads: a typed struct, so that JSON is checked and converted in one
pass and the rest of the record is skipped. Every column may be null or absent, which mean the same. What does not have
the column's type is not guessed at: 12.0 or "12" in an INT64 column makes the record undecodable. JSON knows neither
NaN nor Infinity and both are refused, as is a number that does not fit its column (beyond 64 bits, or 1e999).

A field is a path into objects in objects ("card.bin"), each a struct in its turn; what is in none is null. A column
that is called as its field is no path: names of JSON may have points.

Measured, nine columns of a 300-byte record: `map` over single records 0.77 us each; one JSON array of all 0.90;
`decode_lines` 0.81. Decoding record by record is both the fastest and the only way in which a malformed payload
cannot shift its neighbours, so it is used throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np

from featurestore.core.events import ColumnValues, Int64Array
from featurestore.core.spec import ValueType
from featurestore.wire.formats.columns import (
    STRING_CHARACTERS_MAX,
    ReadColumns,
    WantedColumn,
    header_mistake,
    id_bytes,
    moments,
    no_moment,
    numbers,
    texts,
)
from featurestore.wire.formats.wishes import Wish, wish_for

# A record nested a thousand deep, even in a column that nobody reads, ends the parser's recursion and not the stream.
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

_TYPES: dict[ValueType, Any] = {
    ValueType.INT64: _INT64 | None,
    ValueType.FLOAT64: float | None,
    ValueType.STRING: Annotated[str, msgspec.Meta(max_length=STRING_CHARACTERS_MAX)] | None,
    ValueType.BOOL: bool | None,
    ValueType.TIMESTAMP: _INT64 | str | None,
}


class JsonReader:
    """Reads one JSON object a payload.

    Args:
        columns: what to read.
        has_header: the id of a schema comes first, as where JSON is written by a schema of a registry.
    """

    def __init__(self, columns: Sequence[WantedColumn], *, has_header: bool = False) -> None:
        self._columns = tuple(columns)
        self._has_header = has_header
        places: dict[str, list[str]] = {}
        wish = wish_for(self._columns, is_path=lambda column: column.field != column.name)
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(_struct(wish, [], places)).decode
        self._places = {name: _Place(steps) for name, steps in places.items()}

    def read(self, payloads: Sequence[bytes]) -> ReadColumns:
        """See PayloadReader. About 2 us a payload of nine columns."""
        refused: dict[int, str] = {}
        if self._has_header:
            sizes = list(map(id_bytes, payloads))
            refused = {row: header_mistake(payloads[row]) for row, size in enumerate(sizes) if not size}
            payloads = [payload[size:] if size else b"{}" for payload, size in zip(payloads, sizes, strict=True)]
        records, rows = self._records(payloads, refused)
        columns = {column.name: self._column(column, records, rows, refused) for column in self._columns}
        return ReadColumns(rows, columns, refused, lambda name, row: self._places[name].of(records[row : row + 1])[0])

    def _records(self, payloads: Sequence[bytes], refused: dict[int, str]) -> tuple[list[Any], Int64Array]:
        """Records of all payloads and their rows; one by one only when some payload is bad."""
        try:
            records = list(map(self._decode, payloads))
            return records, np.arange(len(records), dtype=np.int64)
        except _UNDECODABLE:
            pass
        records, rows = [], []
        for row, payload in enumerate(payloads):
            try:
                records.append(self._decode(payload))
                rows.append(row)
            except _UNDECODABLE as error:
                refused[row] = str(error)
        return records, np.array(rows, dtype=np.int64)

    def _column(
        self, column: WantedColumn, records: list[Any], rows: Int64Array, refused: dict[int, str]
    ) -> ColumnValues:
        """One column of the records; a text that is no time refuses its record."""
        values = self._places[column.name].of(records)
        if column.type is ValueType.STRING:
            return texts(values)
        if column.type is not ValueType.TIMESTAMP:
            return numbers(values, column.type)
        times, unreadable = moments(values, column.unit)
        for index in unreadable.tolist():
            refused.setdefault(int(rows[index]), no_moment(column.name, column.unit, values[index]))
        return times


class _Place:
    """Where the value of a column is in a record: attributes of structs in structs."""

    def __init__(self, steps: Sequence[str]) -> None:
        self._steps = [attrgetter(step) for step in steps]
        self._whole = attrgetter(".".join(steps))

    def of(self, records: list[Any]) -> list[Any]:
        """The value in each record; None where it is in an object that is not there."""
        try:
            return list(map(self._whole, records))
        except AttributeError:  # of None
            found = records
            for step in self._steps:
                found = [None if one is None else step(one) for one in found]
            return found


def _struct(wish: Wish, inside: list[str], places: dict[str, list[str]]) -> type[msgspec.Struct]:
    """The struct of an object; notes where the columns that are wanted of it will be.

    Attributes are numbered because a JSON name need not be a Python name.
    """
    fields: list[tuple[str, Any, None]] = []
    names: dict[str, str] = {}
    for name, inner in wish.fields.items():
        attribute = f"field_{len(fields)}"
        names[attribute] = name
        place = [*inside, attribute]
        if inner.fields:
            assert not inner.columns, "definitions.compile refuses a field that is a value and an object"
            fields.append((attribute, _struct(inner, place, places) | None, None))
            continue
        for column in inner.columns:
            places[column.name] = place
        fields.append((attribute, _TYPES[inner.columns[0].type], None))
    # Records hold no containers that could hold them: a batch of them would only wake the collector up.
    return msgspec.defstruct("Record", fields, rename=names, gc=False)
