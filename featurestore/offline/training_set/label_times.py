"""Label times of any column type as integer milliseconds UTC, or a refusal that says what to do.

    timestamp with a zone      that moment
    timestamp without one      UTC, as everywhere here (and in Feast)
    string                     ISO 8601; without a zone UTC
    date                       its midnight UTC
    integer                    milliseconds since 1970
    null                       no moment: the row's features are null

Finer parts than a millisecond are cut off towards the past: a row never sees more than was known. Moments outside of
the years 1 to 9999 are refused.

Integers of another unit are told by their size, and refused. As milliseconds, seconds are of January 1970, and
microseconds of the year 50,000. In a label table every integer must be a moment from March 1973 on (or as long before
1970): one row of seconds among others, or 0 for "none", would have the features of a time without events. An event that
has none is left out, as the stream has a dead letter of it, and a column is refused when all are so; a source can
declare another unit (`wire.moments`). Who means a moment of those three years gives a timestamp.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.core.events import BoolArray, Int64Array
from featurestore.errors import InvalidRequest
from featurestore.wire.formats import iso8601
from featurestore.wire.moments import (
    EVENT_TIME_MS_MAX,
    EVENT_TIME_MS_MIN,
    SECONDS_BELOW,
    are_moments,
    as_ms,
    not_a_moment,
)

_MS_PER_DAY = 86_400_000
_INT64_MAX = (1 << 63) - 1


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
    return _moments_ms(column, name, refuse=_refuse_other_units)


def label_moments_ms(column: pa.ChunkedArray | pa.Array, name: str) -> tuple[Int64Array, BoolArray]:
    """As `moments_ms`, for the label times themselves: every single integer must be possible."""
    return _moments_ms(column, name, refuse=_refuse_any_other_unit)


def event_moments_ms(column: pa.ChunkedArray | pa.Array, name: str, unit: str) -> tuple[Int64Array, BoolArray]:
    """As `moments_ms`, of events whose integers are of the unit that their source declares.

    An integer that is no moment is no time, as the stream has a dead letter of its record; a column of nothing else is
    of another unit.
    """
    kind = column.type
    if not pa.types.is_integer(kind):
        return moments_ms(column, name)
    numbers = _integers(column)
    valid = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    times_ms = as_ms(numbers, unit)
    is_time = valid & are_moments(times_ms)
    given = numbers[valid & (numbers != 0)]
    if len(given) and not is_time.any():
        raise InvalidRequest(f'event-time column "{name}" {not_a_moment(int(given[0]), unit)}')
    times_ms[~is_time] = 0
    return times_ms, is_time


def check_moment(moment_ms: int) -> None:
    """The one moment of all rows must be possible as well.

    Raises:
        InvalidRequest: it looks like another unit.
    """
    unit = "seconds" if abs(moment_ms) < SECONDS_BELOW else "micro- or nanoseconds"
    if unit == "seconds" or not EVENT_TIME_MS_MIN <= moment_ms <= EVENT_TIME_MS_MAX:
        raise InvalidRequest(
            f"the moment {moment_ms} looks like {unit}", hint="give milliseconds since 1970, in the years 1973 to 9999"
        )


def _moments_ms(
    column: pa.ChunkedArray | pa.Array, name: str, *, refuse: Callable[[Int64Array, BoolArray, str], None]
) -> tuple[Int64Array, BoolArray]:
    """Moments; integers are looked at by `refuse` (values, valid, name)."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    valid = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    if pa.types.is_null(kind):
        return np.zeros(len(column), dtype=np.int64), valid
    if pa.types.is_timestamp(kind):
        times_ms = as_ms(_integers(column.cast(pa.int64())), kind.unit)
    elif pa.types.is_date32(kind):
        times_ms = _integers(column.cast(pa.int32())) * _MS_PER_DAY
    elif pa.types.is_date64(kind):
        times_ms = _integers(column.cast(pa.int64())) // _MS_PER_DAY * _MS_PER_DAY
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        times_ms = _parsed(column, valid, name)
    elif pa.types.is_string_view(kind):
        times_ms = _parsed(column.cast(pa.string()), valid, name)
    elif pa.types.is_integer(kind):
        times_ms = _integers(column)
        refuse(times_ms, valid, name)
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
    """(N,) integers, 0 where null, and the largest there is for larger ones; a copy."""
    if pa.types.is_uint64(column.type):
        column = pc.min_element_wise(column, pa.scalar(_INT64_MAX, pa.uint64()), skip_nulls=False).cast(pa.int64())
    return np.array(pc.fill_null(column, 0).to_numpy(), dtype=np.int64)


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


def _refuse_other_units(times: Int64Array, valid: BoolArray, name: str) -> None:
    """Integers are milliseconds; what would all be long before any data, or any long after, is another unit."""
    hint = "give milliseconds since 1970, or a column of timestamps"
    is_large = valid & ((times >= SECONDS_BELOW) | (times <= -SECONDS_BELOW))
    if (times[valid] != 0).any() and not is_large.any():
        raise InvalidRequest(f'the integers of column "{name}" look like seconds', hint=hint)
    if (valid & ((times > EVENT_TIME_MS_MAX) | (times < -EVENT_TIME_MS_MAX))).any():
        raise InvalidRequest(f'the integers of column "{name}" look like micro- or nanoseconds', hint=hint)


def _refuse_any_other_unit(times: Int64Array, valid: BoolArray, name: str) -> None:
    """The same, and of each row by itself."""
    _refuse_other_units(times, valid, name)
    is_small = valid & (times > -SECONDS_BELOW) & (times < SECONDS_BELOW)
    if is_small.any():
        row = int(np.flatnonzero(is_small)[0])
        raise InvalidRequest(
            f'row {row} of column "{name}" is {times[row]}, which looks like seconds',
            detail="As milliseconds since 1970, which integers are, it would be before March 1973.",
            hint="multiply seconds by 1000, let rows that have no time be null, or give a column of timestamps",
        )
