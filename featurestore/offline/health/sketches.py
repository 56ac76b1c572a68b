"""The values of a feature as tiles: an hour is a handful of sketches, and merging hours is merging tiles.

    numbers     count, sum, second moment, extremes; logarithmic buckets (DDSketch), so every quantile within 1 %;
                distinct values (HyperLogLog), frequent values (Misra-Gries)
    texts       distinct and frequent values
    flags       share of true, frequent values
    lists, maps as numbers: their lengths
    moments     as numbers: their age at the row's time in ms, which does not grow with the calendar

They are parts of `core/aggregations`, the same that features are made of: nothing is summed twice in this project.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featurestore.core.aggregations.base import Lowered
from featurestore.core.aggregations.catalog import resolve
from featurestore.core.aggregations.keyed.approx_percentile import LogBuckets
from featurestore.core.aggregations.keyed.heavy_hitters import COUNTERS_PER_ANSWER, HeavyCounters
from featurestore.core.aggregations.keyed.states import Entries, read_state
from featurestore.core.events import BlobRow, BoolArray, ColumnValues, Int64Array
from featurestore.core.spec import SCALAR_TYPES, Column, ValueType
from featurestore.core.tiles.parts import Array, EventRows, Part, Storage
from featurestore.core.tiles.tiles import TileLayout, TileTable, concatenate
from featurestore.offline.training_set.arrow_columns import column_values

HOUR_MS = 3_600_000

SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Of the quantiles that are shown."""

TOP_VALUES = 10

QUANTILES = f"approx_percentile({', '.join(map(str, SHARES))})"
DISTINCT = "approx_count_distinct"
FREQUENT = f"approx_heavy_hitters({TOP_VALUES})"

FUNCTIONS = {
    ValueType.INT64: ("mean", "stddev_pop", "min", "max", QUANTILES, DISTINCT, FREQUENT),
    ValueType.FLOAT64: ("mean", "stddev_pop", "min", "max", QUANTILES, DISTINCT, FREQUENT),
    ValueType.BOOL: ("mean", FREQUENT),
    ValueType.STRING: (DISTINCT, FREQUENT),
}
"""Kind of the values -> what is kept of them."""

_VALUE = "value"
_SIZED = (pa.types.is_list, pa.types.is_large_list, pa.types.is_map)


@dataclass(frozen=True, slots=True)
class FeatureKey:
    """A feature as it was at some time.

    Attributes:
        view: without a version.
        feature: its name.
        type: of its values; another one is another feature.
    """

    view: str
    feature: str
    type: ValueType

    @property
    def kind(self) -> ValueType:
        """As what its values are kept: of FUNCTIONS."""
        return ValueType.INT64 if self.type not in FUNCTIONS else self.type


@dataclass(frozen=True, slots=True)
class Sketches:
    """H hours of a feature.

    Attributes:
        kind: of the values.
        rows: (H,) that were answered.
        missing: (H,) of them without a value: null, or no finite number.
        not_found: (H,) of them whose entity was not found; -1 where that is not known.
        table: H tiles, ascending, each an hour wide.
    """

    kind: ValueType
    rows: Int64Array
    missing: Int64Array
    not_found: Int64Array
    table: TileTable

    @property
    def hours_ms(self) -> Int64Array:
        """(H,) when each begins."""
        return self.table.start_ms

    def within(self, since_ms: int, until_ms: int) -> Sketches:
        """The hours that begin in [since_ms, until_ms)."""
        return self.take((self.hours_ms >= since_ms) & (self.hours_ms < until_ms))

    def take(self, rows: BoolArray | Int64Array) -> Sketches:
        """Some hours."""
        return Sketches(
            self.kind, self.rows[rows], self.missing[rows], self.not_found[rows], self.table.take(np.asarray(rows))
        )

    def whole(self) -> Sketches:
        """All hours as one; of no hours none."""
        return self if len(self.rows) < 2 else _merged(self, np.zeros(1, dtype=np.int64))

    def answers(self, function: str) -> Lowered:
        """(1, H) what a function of FUNCTIONS says of each hour."""
        aggregation = resolve(function)
        parts = aggregation.parts(Column(_VALUE, self.kind))
        fields = [field for part in parts for field in self._fields(part)]
        return aggregation.lower(fields, self.table.end_ms)

    def entries(self, part: Part) -> Entries | None:
        """The keyed state of one hour, which there must be; None where it is empty."""
        (state,) = self.table.fields(self.table.layout.position_of(part).fields)
        assert isinstance(state, BlobRow), "it is keyed"
        (data,) = state.values()
        return read_state(data) if data else None

    def _fields(self, part: Part) -> Iterable[Array]:
        """(1, H) of each field that lowering reads."""
        for field, at in zip(part.fields, self.table.layout.position_of(part).fields, strict=True):
            if not field.is_read:
                continue
            if at.storage is Storage.BLOB:
                values = np.empty((1, self.table.count), dtype=np.object_)
                values[0, :] = self.table.blobs.row(at.row).values()
                yield values
            else:
                yield (self.table.ints if at.storage is Storage.INT else self.table.floats)[at.row][np.newaxis]


@functools.cache
def layout_of(kind: ValueType) -> TileLayout:
    """What is kept of values of a kind."""
    column = Column(_VALUE, kind)
    return TileLayout([part for function in FUNCTIONS[kind] for part in resolve(function).parts(column)])


def buckets_part(kind: ValueType) -> Part:
    """The logarithmic buckets of numbers."""
    return LogBuckets(Column(_VALUE, kind))


def frequent_part(kind: ValueType) -> Part:
    """The counters of frequent values."""
    return HeavyCounters(Column(_VALUE, kind), COUNTERS_PER_ANSWER * TOP_VALUES)


def sketch(
    key: FeatureKey,
    values: pa.Array,
    times_ms: Int64Array,
    *,
    as_of_ms: Int64Array | None = None,
    not_found: BoolArray | None = None,
) -> Sketches:
    """The values of N rows.

    Args:
        key: the feature.
        values: (N,) of its type, or one that can be cast to it without loss.
        times_ms: (N,) when each row was answered: its hour.
        as_of_ms: (N,) for when; None where that is the same.
        not_found: (N,) whose entity was not found; None where that is not known.

    Raises:
        InvalidRequest: the values are of another type.
    """
    column = _numbers(key, values, times_ms if as_of_ms is None else as_of_ms)
    events = EventRows(times_ms, None, {_VALUE: column})
    ones = np.ones(len(times_ms), dtype=np.int64)
    missing = np.zeros_like(ones) if column.valid is None else 1 - column.valid.astype(np.int64)
    absent = -ones if not_found is None else not_found.astype(np.int64)
    return by_hour(Sketches(key.kind, ones, missing, absent, layout_of(key.kind).lift(events)))


def merge(sketches: Sequence[Sketches]) -> Sketches:
    """All hours of one feature."""
    first = sketches[0]
    if len(sketches) == 1:
        return first
    rows, missing, not_found = (
        np.concatenate([getattr(one, name) for one in sketches]) for name in ("rows", "missing", "not_found")
    )
    return by_hour(Sketches(first.kind, rows, missing, not_found, concatenate([one.table for one in sketches])))


def by_hour(sketches: Sketches) -> Sketches:
    """Tiles of one hour as one tile, ascending."""
    hours = sketches.table.start_ms // HOUR_MS
    ordered = sketches.take(np.argsort(hours, kind="stable"))
    starts = np.flatnonzero(np.diff(ordered.table.start_ms // HOUR_MS, prepend=-1))
    return _merged(ordered, starts) if len(starts) else sketches


def _merged(sketches: Sketches, starts: Int64Array) -> Sketches:
    """Runs of tiles as one each."""
    table = sketches.table
    begin_ms = table.start_ms[starts] // HOUR_MS * HOUR_MS
    end_ms = -(-np.maximum.reduceat(table.end_ms, starts) // HOUR_MS) * HOUR_MS
    not_found = np.add.reduceat(sketches.not_found, starts)
    is_unknown = np.minimum.reduceat(sketches.not_found, starts) < 0
    return Sketches(
        sketches.kind,
        np.add.reduceat(sketches.rows, starts),
        np.add.reduceat(sketches.missing, starts),
        np.where(is_unknown, -1, not_found),
        table.merge_groups(starts, begin_ms, end_ms).normalize(),
    )


def _numbers(key: FeatureKey, values: pa.Array, as_of_ms: Int64Array) -> ColumnValues:
    """Values of a kind of FUNCTIONS; what has a length is it, and a moment is its age."""
    if key.type in FUNCTIONS:
        found = column_values(values, Column(_VALUE, key.type))
        # The compiled loops take what may be written to, which Arrow's own buffers may not.
        lent = found.values
        return found if isinstance(lent, BlobRow) or lent.flags.writeable else ColumnValues(lent.copy(), found.valid)
    if key.type is ValueType.TIMESTAMP:
        moments = column_values(values, Column(_VALUE, key.type))
        ages = as_of_ms - np.asarray(moments.values)
        return ColumnValues(ages if moments.valid is None else np.where(moments.valid, ages, 0), moments.valid)
    assert key.type not in SCALAR_TYPES, "all others have a length"
    return _lengths(values)


def _lengths(values: pa.Array) -> ColumnValues:
    """(N,) lengths of lists or maps; null where there is none."""
    is_there = np.asarray(values.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    if not any(is_sized(values.type) for is_sized in _SIZED):
        assert not is_there.any(), "a column without any type has no values"
        return ColumnValues(np.zeros(len(values), dtype=np.int64), is_there)
    return ColumnValues(np.where(is_there, np.diff(np.asarray(values.offsets, dtype=np.int64)), 0), is_there)
