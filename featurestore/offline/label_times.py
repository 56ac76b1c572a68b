"""Label times of any column type as integer milliseconds UTC, or a refusal that says what to do.

    timestamp with a zone      that moment
    timestamp without one      UTC, as everywhere here (and in Feast)
    string                     ISO 8601; without a zone UTC
    date                       its midnight UTC
    integer                    milliseconds since 1970; numbers that look like seconds or microseconds are refused
    null                       no moment: the row's features are null

Finer parts than a millisecond are cut off towards the past: a row never sees more than was known.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.core.events import BoolArray, Int64Array
from featurestore.errors import InvalidRequest
from featurestore.wire import iso8601
from featurestore.wire.events import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN

SECONDS_BELOW = 100_000_000_000
"""Milliseconds below this are before March 1973: such integers are seconds in all but name."""

_UNITS_PER_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}
_MS_PER_SECOND = 1_000
_MS_PER_DAY = 86_400_000


def moments_ms(column: pa.ChunkedArray | pa.Array, name: str) -> tuple[Int64Array, BoolArray]:
    """Moments of N rows.

    Args:
        column: of any type.
        name: of the column, for messages.

    Returns:
        (N,) milliseconds UTC, 0 where null, and (N,) False where null.

    Raises:
        InvalidRequest: the type is none of times, or a value cannot be meant.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    valid = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    if pa.types.is_null(kind):
        return np.zeros(len(column), dtype=np.int64), valid
    if pa.types.is_timestamp(kind):
        times_ms = _scaled(_integers(column.cast(pa.int64())), kind.unit)
    elif pa.types.is_date(kind):
        days = _integers(column.cast(pa.date32()).cast(pa.int32()))
        times_ms = days * _MS_PER_DAY
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        times_ms = _parsed(column, valid, name)
    elif pa.types.is_integer(kind):
        times_ms = _integers(column)
        _refuse_other_units(times_ms[valid], name)
    else:
        hint = "give timestamps, ISO 8601 texts, dates or integer milliseconds"
        raise InvalidRequest(f'column "{name}" of type {kind} holds no times', hint=hint)
    outside = valid & ((times_ms < EVENT_TIME_MS_MIN) | (times_ms > EVENT_TIME_MS_MAX))
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise InvalidRequest(f'row {row} of column "{name}" is not a moment of the years 1 to 9999')
    times_ms[~valid] = 0
    return times_ms, valid


def _integers(column: pa.ChunkedArray | pa.Array) -> Int64Array:
    """(N,) integers, 0 where null; a copy."""
    if pa.types.is_uint64(column.type):
        column = column.cast(pa.int64())
    return np.array(pc.fill_null(column, 0).to_numpy(), dtype=np.int64)


def _scaled(values: Int64Array, unit: str) -> Int64Array:
    """Arrow's timestamps of a unit as milliseconds."""
    return values * _MS_PER_SECOND if unit == "s" else values // _UNITS_PER_MS[unit]


def _parsed(column: pa.ChunkedArray | pa.Array, valid: BoolArray, name: str) -> Int64Array:
    """ISO 8601 texts."""
    rows = np.flatnonzero(valid)
    texts = column.drop_null().to_pylist()
    found, parsed = iso8601.parse_column(texts)
    if not parsed.all():
        first = int(np.flatnonzero(~parsed)[0])
        raise InvalidRequest(
            f'row {int(rows[first])} of column "{name}" is "{texts[first]}", which is no time',
            hint="write ISO 8601, such as 2026-01-31T12:00:00Z",
        )
    times_ms = np.zeros(len(valid), dtype=np.int64)
    times_ms[rows] = found
    return times_ms


def _refuse_other_units(times: Int64Array, name: str) -> None:
    """Integers are milliseconds; what would be a moment long before or after all data is another unit."""
    if not len(times):
        return
    hint = "give milliseconds since 1970, or a column of timestamps"
    largest = int(np.abs(times).max())
    if 0 < largest < SECONDS_BELOW:
        raise InvalidRequest(f'the integers of column "{name}" look like seconds', hint=hint)
    if largest > EVENT_TIME_MS_MAX:
        raise InvalidRequest(f'the integers of column "{name}" look like micro- or nanoseconds', hint=hint)
