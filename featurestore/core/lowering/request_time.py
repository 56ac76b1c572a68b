"""Features computed while they are asked for: SQL over features of several views and columns of the request.

    amount (request)        12.5    80.0    null
    amount_mean_30d (card)  10.0    null    7.0
    amount / amount_mean    1.25    null    null      N rows at once, by the same engine as conditions

Evaluated last, behind lowering and derived features, by lookups, training sets and Feast's SDK alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np

from featurestore.core.events import BlobRow, BoolArray, ColumnValues
from featurestore.core.expressions import Expression, compile_expression
from featurestore.core.spec import ComputedColumn, OnDemandViewSpec, ValueType
from featurestore.errors import InvalidRequest

RequestValue = int | float | str | bool | datetime | None
"""A value of a column; a TIMESTAMP is integer milliseconds UTC, or a datetime."""

WRITTEN_AS: Mapping[ValueType, str] = {
    ValueType.INT64: "64-bit integers",
    ValueType.FLOAT64: "numbers",
    ValueType.STRING: "texts",
    ValueType.BOOL: "true or false",
    ValueType.TIMESTAMP: "integers, milliseconds since 1970",
}
"""How to send values of a type."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_INT64_MAX = (1 << 63) - 1
_DTYPES = {ValueType.FLOAT64: np.dtype(np.float64), ValueType.STRING: np.dtype(np.object_)}


@dataclass(frozen=True, slots=True)
class CompiledFeature:
    """A feature of an on-demand view that SQL computes.

    Attributes:
        expression: what it is.
        inputs: names that are features of other views.
        request: names that are columns of the request.
    """

    expression: Expression
    inputs: tuple[str, ...]
    request: tuple[str, ...]


@lru_cache(maxsize=4_096)
def compiled_feature(view: OnDemandViewSpec, feature: ComputedColumn) -> CompiledFeature:
    """A feature of that view, whose expression is sound."""
    types = {read.name: read.type for read in view.inputs}
    request = {column.name: column.type for column in view.request_columns}
    expression = compile_expression(feature.expression, {**request, **types})
    return CompiledFeature(
        expression,
        tuple(sorted(expression.columns & types.keys())),
        tuple(sorted(expression.columns - types.keys())),
    )


def compute(
    inputs: Mapping[str, Sequence[object]], columns: Mapping[str, str], features: Mapping[str, str]
) -> dict[str, list[RequestValue]]:
    """Features of N rows.

    Args:
        inputs: name -> N values, None where null; whatever else is there is not looked at.
        columns: name -> type, such as "float64", of all that the features read.
        features: name -> SQL.

    Returns:
        Name -> N values, None where null.

    Raises:
        InvalidRequest: a value is of another type, or the SQL is none.
        KeyError: a column is missing.
    """
    types = {name: ValueType(type_name) for name, type_name in columns.items()}
    read = {name: column_of(name, inputs[name], value_type) for name, value_type in types.items()}
    count = len(next(iter(inputs.values()), ()))
    found = {}
    for name, text in features.items():
        expression = _compiled(text, tuple(types.items()))
        found[name] = values_of(expression.evaluate(read, count).storable(), expression.type)
    return found


def column_of(name: str, values: Sequence[object], value_type: ValueType) -> ColumnValues:
    """Python's values as a column.

    Args:
        name: of the column, for messages.
        values: N values, None where null.
        value_type: a scalar type. Whole numbers may be integers or doubles where the type is either.

    Returns:
        The column; what no source could hold, such as a double that is no finite number, is null.

    Raises:
        InvalidRequest: a value is of another type.
    """
    valid = np.fromiter((value is not None for value in values), dtype=np.bool_, count=len(values))
    column = np.zeros(len(values), dtype=_DTYPES.get(value_type, np.dtype(np.int64)))
    if value_type is ValueType.STRING:
        column[:] = b""
    for row, value in enumerate(values):
        if value is None:
            continue
        stored = _stored(value, value_type)
        if stored is None:
            raise InvalidRequest(
                f'column "{name}" must be {value_type.value}, and has {_shown(value)}',
                hint=f"send {WRITTEN_AS[value_type]}, or null",
            )
        column[row] = stored
    return ColumnValues(column, None if valid.all() else valid).storable()


def values_of(column: ColumnValues, value_type: ValueType) -> list[RequestValue]:
    """A column as Python's values, None where null; a TIMESTAMP is a datetime."""
    assert not isinstance(column.values, BlobRow), "expressions give plain values"
    found: list[Any] = column.values.tolist()
    if value_type is ValueType.STRING:
        found = [value.decode(errors="replace") for value in found]
    elif value_type is ValueType.BOOL:
        found = [bool(value) for value in found]
    elif value_type is ValueType.TIMESTAMP:
        found = [_moment(value) for value in found]
    if column.valid is None:
        return found
    return [value if is_valid else None for value, is_valid in zip(found, column.valid.tolist(), strict=True)]


def valid_rows(column: ColumnValues, count: int) -> BoolArray:
    """(N,) False where null."""
    return np.ones(count, dtype=np.bool_) if column.valid is None else column.valid


def _stored(value: object, value_type: ValueType) -> int | float | bytes | None:
    """A value as columns hold it; None where it is of another type."""
    if value_type is ValueType.STRING:
        return value.encode(errors="replace") if isinstance(value, str) else None
    if value_type is ValueType.TIMESTAMP and isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return (aware - _EPOCH) // _MILLISECOND
    if value_type is ValueType.BOOL:
        return int(value) if isinstance(value, bool) or value in (0, 1) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if value_type is ValueType.FLOAT64:
        try:
            return float(value)
        except OverflowError:
            return None
    if isinstance(value, float) and not value.is_integer():
        return None
    return int(value) if -_INT64_MAX - 1 <= value <= _INT64_MAX else None


def _shown(value: object) -> str:
    """A value of another type, for a message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _moment(value: object) -> datetime | None:
    """Milliseconds as a time; those outside of the calendar are none."""
    assert isinstance(value, int)
    try:
        return _EPOCH + value * _MILLISECOND
    except OverflowError:
        return None


@lru_cache(maxsize=1_024)
def _compiled(text: str, columns: tuple[tuple[str, ValueType], ...]) -> Expression:
    """SQL, compiled once: Feast calls for each request."""
    return compile_expression(text, dict(columns))
