"""Series: one feature whose answer is a list, the value of each of its windows, oldest first.

    windows      [t-3h, t-2h)  [t-2h, t-1h)  [t-1h, t)         three elements, merged and lowered as any feature
    answer       [          4,            0,         7]        put together afterwards

Lists hold no null (Feast's cannot), so an element without a value is NaN in a list of floats. Integers have no such
number: series of functions that answer null over no events are refused when they are defined, and a list of which one
sum does not fit into 64 bits is null as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import Aggregation
from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, Storage

LIST_TYPES = {ValueType.INT64: ValueType.INT64_LIST, ValueType.FLOAT64: ValueType.FLOAT64_LIST}
"""Type of a series by the type of its elements."""

ELEMENT_TYPES = {list_type: element for element, list_type in LIST_TYPES.items()}

_DTYPES = {Storage.INT: np.int64, Storage.FLOAT: np.float64, Storage.BLOB: np.object_}


def series_type(
    aggregation: Aggregation, output_type: ValueType, column: Column | None, further: Sequence[Column] = ()
) -> ValueType | None:
    """Type of a series of a function's answers; None where a list cannot hold them.

    Args:
        aggregation: the function.
        output_type: type of one answer.
        column: what it reads; None counts rows.
        further: its further columns.
    """
    if output_type is ValueType.INT64 and _is_null_over_nothing(aggregation, column, further):
        return None
    return LIST_TYPES.get(output_type)


@dataclass(frozen=True, slots=True)
class SeriesRows:
    """The elements of one series among lowered features.

    Attributes:
        feature: index of the series among all features.
        elements: its elements among all elements.
        is_float: whether its elements are floats.
    """

    feature: int
    elements: slice
    is_float: bool


def float_lists(values: Float64Array, null: BoolArray) -> list[object]:
    """R lists of (n, R) floats, NaN where null."""
    lists: list[object] = np.where(null, np.nan, values).T.tolist()
    return lists


def int_lists(values: Int64Array, null: BoolArray) -> list[object]:
    """R lists of (n, R) integers; None where an element is null."""
    lists: list[object] = values.T.tolist()
    if not null.any():
        return lists
    has_null: list[bool] = np.any(null, axis=0).tolist()
    return [None if gone else one for one, gone in zip(lists, has_null, strict=True)]


def _is_null_over_nothing(aggregation: Aggregation, column: Column | None, further: Sequence[Column]) -> bool:
    """Whether a function's answer over no events is null."""
    fields: list[Array] = [
        np.full((1, 1), field.identity, dtype=_DTYPES[field.storage])
        for part in aggregation.parts(column, further)
        for field in part.fields
        if field.is_read
    ]
    lowered = aggregation.lower(fields, np.zeros(1, dtype=np.int64))
    return lowered.null is not None and bool(lowered.null[0, 0])
