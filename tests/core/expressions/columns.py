"""Columns from Python values and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.core.events import BlobRow, ColumnValues
from featurestore.core.spec import ValueType

DTYPES: dict[ValueType, type[np.generic]] = {ValueType.FLOAT64: np.float64, ValueType.STRING: np.object_}
TO_PYTHON: dict[ValueType, Callable[[Any], object]] = {ValueType.STRING: bytes.decode, ValueType.BOOL: bool}


def column_of(values: Sequence[object], value_type: ValueType, *, as_spans: bool = False) -> ColumnValues:
    """A column as the decoder makes it; `as_spans` gives text as spans of one buffer."""
    column: NDArray[Any] = np.zeros(len(values), dtype=DTYPES.get(value_type, np.int64))
    if value_type is ValueType.STRING:
        column[:] = [b"" if value is None else str(value).encode() for value in values]
    else:
        column[:] = [0 if value is None else value for value in values]
    valid = np.array([value is not None for value in values], dtype=np.bool_)
    stored = BlobRow.of(column) if as_spans and value_type is ValueType.STRING else column
    return ColumnValues(stored, None if valid.all() else valid)


def values_of(column: ColumnValues, value_type: ValueType) -> list[object]:
    """Python values, None for null; checks what a column promises about its null rows."""
    values = column.values.values() if isinstance(column.values, BlobRow) else column.values.tolist()
    valid = [True] * len(values) if column.valid is None else column.valid.tolist()
    assert all(ok or value in {0, b""} for value, ok in zip(values, valid, strict=True))
    convert = TO_PYTHON.get(value_type)
    return [(convert(value) if convert else value) if ok else None for value, ok in zip(values, valid, strict=True)]
