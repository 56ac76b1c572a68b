"""Columns of values compared by the rule of `core.agreement`; scalars all at once, lists and maps one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.core.events import BoolArray, Float64Array
from featurestore.core.tolerance import RELATIVE_TOLERANCE, SMALLEST_DIFFERENCE, agrees


def differing(logged: pa.ChunkedArray, recomputed: pa.ChunkedArray, scale: Float64Array | None = None) -> BoolArray:
    """(N,) whether two columns of one type hold different values; two nulls are the same.

    Floats may differ by 1e-9 of the recomputed one, elements of lists and maps likewise.

    Args:
        logged: N values.
        recomputed: those to trust.
        scale: (N,) magnitude of the numbers that went in: floats may differ by 1e-9 of that, too.
    """
    kind = logged.type
    if scale is None:
        scale = np.zeros(len(logged))
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        rows = zip(_as_python(logged), _as_python(recomputed), scale.tolist(), strict=True)
        return np.array([not agrees(right, left, scale=size) for left, right, size in rows], dtype=np.bool_)
    left_null, right_null = _is_null(logged), _is_null(recomputed)
    if pa.types.is_floating(kind):
        left = np.asarray(logged.fill_null(0.0).to_numpy(), dtype=np.float64)
        right = np.asarray(recomputed.fill_null(0.0).to_numpy(), dtype=np.float64)
        with np.errstate(invalid="ignore"):  # infinities: they are equal to themselves, which the next line says
            allowed = np.maximum(RELATIVE_TOLERANCE * np.maximum(np.abs(right), scale), SMALLEST_DIFFERENCE)
            is_near = np.abs(left - right) <= allowed
        is_same = is_near | (left == right) | (np.isnan(left) & np.isnan(right))
    else:
        cast = recomputed if recomputed.type == kind else recomputed.cast(kind)
        is_same = np.asarray(pc.equal(logged, cast).fill_null(False).to_numpy(), dtype=np.bool_)
    differs: BoolArray = np.where(left_null | right_null, left_null != right_null, ~is_same)
    return differs


def value_at(column: pa.ChunkedArray, row: int) -> Any:
    """One value as Python has it; moments as milliseconds."""
    value = _as_python(column.slice(row, 1))[0]
    return round(value.timestamp() * 1_000) if pa.types.is_timestamp(column.type) and value is not None else value


def _as_python(column: pa.ChunkedArray) -> list[Any]:
    """Values; maps as dicts."""
    return list(column.to_pylist(maps_as_pydicts="strict") if pa.types.is_map(column.type) else column.to_pylist())


def _is_null(column: pa.ChunkedArray) -> BoolArray:
    return np.asarray(column.is_null().to_numpy(), dtype=np.bool_)
