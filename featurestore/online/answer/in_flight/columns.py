"""Columns of payments in flight as a request gives them: checked, and as the rows of heads have them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featurestore.core.events import TEXT_BYTES_MAX, BlobRow, ColumnValues
from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.errors import InvalidRequest
from featurestore.wire.codecs.head import RowColumn

FILLED_LISTS = {
    ValueType.STRING: "strings",
    ValueType.FLOAT64: "doubles",
    ValueType.INT64: "integers",
    ValueType.BOOL: "integers, 0 or 1",
    ValueType.TIMESTAMP: "integers, milliseconds since 1970",
}
"""Where values of each type are sent."""

_INTEGERS: frozenset[type] = frozenset({int, bool})
_FLOATS = _INTEGERS | {float}
_TEXTS = frozenset({str})
_FLAGS = frozenset({0, 1})


GivenColumn = tuple[Sequence[str | int | float], bytes]
"""A column of a request: N values of one type, or none at all where every one is null; and marks, empty where no value
is null, else N bytes, 1 where it is."""

EventColumns = Mapping[str, GivenColumn]
"""Columns of N events by name, event time included."""


class EventColumn:
    """A column of a source, which takes what is given of it.

    Args:
        column: of the payload.
        source: for messages.
    """

    def __init__(self, column: Column, source: SourceSpec) -> None:
        self.name = column.name
        self.type = column.type
        self._source = source
        self._is_text, self._is_float = column.type is ValueType.STRING, column.type is ValueType.FLOAT64
        self._is_flag = column.type is ValueType.BOOL
        self._types = _TEXTS if self._is_text else _FLOATS if self._is_float else _INTEGERS

    def take(self, given: GivenColumn, count: int) -> RowColumn:
        """N values.

        Raises:
            InvalidRequest: they are of another type or number, or such as no stream has.
        """
        values, nulls = given
        if nulls:
            values, nulls = self._with_nulls(values, nulls, count)
        found: list[Any] = list(values)
        if len(found) != count:
            raise InvalidRequest(f"{self} has {len(found)} values for {count} rows", hint="send one for each row")
        if not self._types.issuperset(map(type, found)):
            called = "string" if self._is_text else self.type.value
            hint = "strings" if self._is_text else FILLED_LISTS[self.type]
            raise InvalidRequest(f"{self} must be {called}", hint=f"send its values as {hint}")
        if self._is_text:
            return self._encoded(found, nulls), nulls
        if self._is_float:
            return self._floats(found, nulls)
        if self._is_flag and not _FLAGS.issuperset(found):
            raise InvalidRequest(f"{self} must be bool", hint=f"send its values as {FILLED_LISTS[self.type]}")
        return (_zeroed(found, nulls, 0) if nulls else found), nulls

    def _with_nulls(self, values: Sequence[Any], nulls: bytes, count: int) -> tuple[Sequence[Any], bytes]:
        """Values and marks, where there are marks; a column of nulls needs no values."""
        if len(nulls) != count:
            raise InvalidRequest(f"{self} has {len(nulls)} null marks for {count} rows", hint="send none, or one a row")
        if not any(nulls):
            return values, b""
        if not len(values) and all(nulls):
            values = [""] * count if self._is_text else [0] * count
        return values, nulls

    def _encoded(self, values: Sequence[Any], nulls: bytes) -> list[bytes]:
        """Texts as bytes."""
        encoded = [value.encode() for value in values]
        for row, text in enumerate(encoded):
            if len(text) > TEXT_BYTES_MAX:
                raise InvalidRequest(
                    f"{self} is {len(text)} bytes long in row {row}, the limit is {TEXT_BYTES_MAX}",
                    hint="send what the stream would",
                )
        return _zeroed(encoded, nulls, b"") if nulls else encoded

    def _floats(self, values: Sequence[Any], nulls: bytes) -> RowColumn:
        """Numbers; NaN is null."""
        numbers = list(map(float, values))
        if not all(map(math.isfinite, numbers)):
            if any(map(math.isinf, numbers)):
                raise InvalidRequest(f"{self} is infinite", hint="send what the stream would: a number, or null")
            marks = nulls or bytes(len(numbers))
            nulls = bytes(mark != 0 or math.isnan(number) for mark, number in zip(marks, numbers, strict=True))
        return (_zeroed(numbers, nulls, 0.0) if nulls else numbers), nulls

    def __str__(self) -> str:
        return f'column "{self.name}" of source "{self._source.name}"'


def _zeroed(values: Sequence[Any], nulls: bytes, zero: float | bytes) -> list[Any]:
    """The values, with that of nothing where there is none."""
    return [zero if is_null else value for value, is_null in zip(values, nulls, strict=True)]


def as_arrays(column: RowColumn, value_type: ValueType) -> ColumnValues:
    """A column as expressions read it."""
    values, nulls = column
    valid = np.frombuffer(nulls, dtype=np.uint8) == 0 if nulls else None
    if value_type is not ValueType.STRING:
        if value_type is ValueType.FLOAT64:
            return ColumnValues(np.array(values, dtype=np.float64), valid)
        return ColumnValues(np.array(values, dtype=np.int64), valid)
    texts = np.empty(len(values), dtype=np.object_)
    texts[:] = values
    return ColumnValues(texts, valid)


def as_rows(column: ColumnValues) -> RowColumn:
    """What an expression computed, as rows have it."""
    nulls = b"" if column.valid is None else (~column.valid).tobytes()
    values = column.values
    return values.values() if isinstance(values, BlobRow) else values.tolist(), nulls
