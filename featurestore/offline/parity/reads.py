"""What some reads could have seen: features of each from just the events that had been applied when it was made.

    reads       r0: card c-1, payments/0 below 17     r1: card c-1, payments/0 below 42     r2: card c-9, ...
    history     offset 12 of c-1 ──> r0, r1           offset 20 of c-1 ──> r1               (once for each read)
    engine      a view like the real one, whose only join key is the number of the read

So every read is an entity of its own, and the engine of training sets does the rest: same parts, windows and lowering,
out of core where it must be. The cost is that of the reads' events, not of the log; see `HistoryAtReads`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.core.spec import Column, FeatureSpec, PlainViewSpec, RepoSpec, SourceSpec, ValueType, ViewSpec
from featurestore.core.tolerance import RELATIVE_TOLERANCE, SHAPE_TOLERANCE
from featurestore.offline.event_log.table import Positions
from featurestore.offline.parity.feature_log import LoggedSource, LogLayout
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.entity_numbers import EntityNumbers
from featurestore.offline.training_set.histories import EVENT_TIME, EventLogHistory, History, enriched_history

AS_OF = "__as_of"
"""Column of the read times in the label tables that are made here."""

READ = Column("__read", ValueType.INT64)
"""Join key of the view of reads."""

EXPANDED_ROWS_MAX = 1 << 18
"""Rows of a batch after each event was given to all reads that see it."""

_PLACE_COLUMNS = ("topic", "partition", "offset")


class PinnedEventLogs(EventLogHistory):
    """The event logs below a root, each at one version; a `History` that knows positions.

    Args:
        root: as `featurestore event-log run` was given.
    """

    def positions(self, source: SourceSpec) -> Positions:
        """Where the source's log ends."""
        return self.log(source).positions()

    def begin_ms(self, source: SourceSpec) -> int | None:
        """The log is complete from this event time on; None when it is from the source's first offset."""
        return self.log(source).complete_from_ms()


@dataclass(frozen=True, slots=True)
class ReadPositions:
    """How far the sources had been applied when each of R reads was made.

    Attributes:
        columns: (topic, partition) -> column of the matrix.
        next_offset: (R, P + 1) next offsets, 0 where nothing had been; the last column is for all other partitions.
    """

    columns: dict[tuple[str, int], int]
    next_offset: Int64Array

    @staticmethod
    def of(array: pa.Array | pa.ChunkedArray) -> ReadPositions:
        """From a column of `feature_log.POSITIONS_TYPE`."""
        lists = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        rows = np.asarray(pc.list_parent_indices(lists).to_numpy(), dtype=np.int64)
        entries = pc.list_flatten(lists)
        topics = entries.field("topic").to_pylist()
        places = list(zip(topics, entries.field("partition").to_pylist(), strict=True))
        columns = {place: index for index, place in enumerate(dict.fromkeys(places))}
        matrix = np.zeros((len(lists), len(columns) + 1), dtype=np.int64)
        matrix[rows, [columns[place] for place in places]] = entries.field("next_offset").to_numpy()
        return ReadPositions(columns, matrix)

    def take(self, rows: Int64Array) -> ReadPositions:
        """Those of some reads."""
        return ReadPositions(self.columns, self.next_offset[rows])


@dataclass(frozen=True, slots=True)
class ServedReads:
    """R reads of one view.

    Attributes:
        keys: R rows with the view's join keys; with payments in flight, their columns too.
        as_of_ms: (R,) read times.
        positions: how far each could see.
        event_sources: names of sources of which each read brought an event.
    """

    keys: pa.Table
    as_of_ms: Int64Array
    positions: ReadPositions
    event_sources: tuple[str, ...] = ()

    def take(self, rows: Int64Array) -> ServedReads:
        """Some of them."""
        keys = self.keys.take(pa.array(rows))
        return ServedReads(keys, self.as_of_ms[rows], self.positions.take(rows), self.event_sources)


def recompute_at_reads(
    view: ViewSpec, features: Sequence[str], reads: ServedReads, logs: PinnedEventLogs, *, memory_bytes: int
) -> pa.Table:
    """Features of a view as each read should have answered them.

    Args:
        view: the view.
        features: names.
        reads: R reads.
        logs: the events.
        memory_bytes: see `build_training_set`.

    Returns:
        (R rows) a column for each feature, by its name.
    """
    # What events get from tables comes with them.
    source = replace(view.source, columns=(*view.source.columns, READ), enrichments=())
    by_read = replace(view, join_keys=(READ,), source=source)
    repo = RepoSpec("", (by_read,), (), ())
    labels = reads.keys.append_column(READ.name, pa.array(np.arange(len(reads.as_of_ms))))
    found = build_training_set(
        repo,
        [f"{view.name}:{name}" for name in features],
        labels.append_column(AS_OF, times_array(reads.as_of_ms)),
        history=HistoryAtReads(view, reads, logs),
        timestamp_column=AS_OF,
        full_names=True,
        event_sources=reads.event_sources,
        memory_bytes=memory_bytes,
    )
    return pa.table([found.column(f"{view.name}__{name}") for name in features], names=list(features))


def magnitudes_at_reads(
    view: ViewSpec, features: Sequence[str], reads: ServedReads, logs: PinnedEventLogs, *, memory_bytes: int
) -> dict[str, Float64Array]:
    """How large the numbers were that went into float features: rounding is relative to these, not to what is left.

    The sum of 0.1, 0.2 and -0.3 is 0 or 5e-17, as the order has it.

    Args:
        view: the view.
        features: names of windowed float features that read a column; others have no answer here.
        reads: R reads.
        logs: the events.
        memory_bytes: see `build_training_set`.

    Returns:
        (R,) magnitudes by feature: the largest absolute value in the window, its square for variances, and what one
        rounding of it means to skew and kurtosis.
    """
    measured = [
        one for one in view.features if one.name in features and one.column and _is_float(one) and not view.undo
    ]
    if not measured:
        return {}
    added = [
        FeatureSpec(f"__{function}__{one.name}", function, one.column, one.window, kind, one.where, one.in_flight)
        for one in measured
        for function, kind in (
            ("min", _column_type(view, one)),
            ("max", _column_type(view, one)),
            ("stddev_pop", ValueType.FLOAT64),
        )
    ]
    # As single windows: of a series the newest one stands for all.
    added = [replace(one, window=replace(one.window, series=0)) for one in added]
    widened = replace(view, features=(*view.features, *added))
    names = [one.name for one in added]
    found = recompute_at_reads(widened, names, reads, logs, memory_bytes=memory_bytes)
    return {one.name: _magnitude(one, found) for one in measured}


def _is_float(feature: FeatureSpec) -> bool:
    return feature.type in (ValueType.FLOAT64, ValueType.FLOAT64_LIST, ValueType.FLOAT64_MAP)


def _column_type(view: ViewSpec, feature: FeatureSpec) -> ValueType:
    """Type of the column that a feature reads."""
    column = view.source.column(feature.column or "")
    assert column is not None, "only features that read a column are measured"
    return column.type


def _magnitude(feature: FeatureSpec, found: pa.Table) -> Float64Array:
    """(R,) from smallest, largest and deviation."""
    low, high, deviation = (
        np.asarray(found.column(f"__{name}__{feature.name}").cast(pa.float64()).fill_null(0.0).to_numpy())
        for name in ("min", "max", "stddev_pop")
    )
    largest: Float64Array = np.maximum(np.abs(low), np.abs(high))
    function = feature.function.partition("(")[0].partition(" ")[0]
    if function in ("var_pop", "var_samp"):
        return largest**2
    if function in ("skew", "kurtosis"):
        shape: Float64Array = np.divide(largest, deviation, out=np.zeros_like(largest), where=deviation > 0)
        return shape * (SHAPE_TOLERANCE / RELATIVE_TOLERANCE)
    return largest


def rows_of_view(
    layout: LogLayout, table: pa.Table, view: ViewSpec | PlainViewSpec
) -> tuple[pa.Table, tuple[str, ...]]:
    """What logged rows say to a view: their join keys, and the columns of their payments in flight, if of its source.

    A column that is a join key of another view may say something else of the payment than of the row.

    Args:
        layout: of the rows; each has an event of all its sources.
        table: N rows.
        view: the view.

    Returns:
        The columns, and the name of the source, or nothing.
    """
    columns = {key.name: table.column(key.name) for key in layout.join_keys}
    source = event_source(layout, view)
    if source is None:
        return pa.table(columns), ()
    events = table.column(source.column)
    columns |= {column.name: pc.struct_field(events, column.name) for column in source.columns}
    return pa.table(columns), (source.name,)


def event_source(layout: LogLayout, view: ViewSpec | PlainViewSpec) -> LoggedSource | None:
    """The payments in flight that are events to a view."""
    if not isinstance(view, ViewSpec):
        return None
    return next((one for one in layout.events if one.name == view.source.name), None)


def times_array(times_ms: Int64Array) -> pa.Array:
    """Moments as Arrow's timestamps."""
    return pa.array(times_ms).cast(pa.timestamp("ms", tz="UTC"))


class HistoryAtReads:
    """The events of a view's source, once for each read that saw them; a `History` of the view of reads.

    Args:
        view: the real view.
        reads: R reads of it.
        logs: where the events are.
    """

    def __init__(self, view: ViewSpec, reads: ServedReads, logs: PinnedEventLogs) -> None:
        self._view, self._reads = view, reads
        self._logs: History = enriched_history(logs, [view], None)
        self._numbers = EntityNumbers(view.join_keys, {key.name: reads.keys.column(key.name) for key in view.join_keys})
        # Reads of one entity lie side by side in `_order`, from `_begins[entity]` on.
        self._order = np.argsort(self._numbers.of_labels, kind="stable")
        self._counts = np.bincount(self._numbers.of_labels, minlength=self._numbers.count)
        self._begins = np.cumsum(self._counts) - self._counts

    def scan(self, source: SourceSpec, columns: Sequence[str], *, from_ms: int, to_ms: int) -> Iterator[pa.RecordBatch]:
        """See `History`."""
        wanted = [name for name in columns if name != READ.name]
        keys = [key.name for key in self._view.join_keys]
        names = list(dict.fromkeys([*wanted, *keys, *_PLACE_COLUMNS]))
        for batch in self._logs.scan(self._view.source, names, from_ms=from_ms, to_ms=to_ms):
            entity = self._numbers.of_events(batch)
            rows = np.flatnonzero(entity >= 0)
            for event, read in self._pairs(rows, entity[rows]):
                is_seen = self._is_seen(batch, event, read)
                found = batch.select([*wanted, EVENT_TIME]).take(pa.array(event[is_seen]))
                if found.num_rows:
                    yield found.append_column(READ.name, pa.array(read[is_seen]))

    def row_count(self, source: SourceSpec) -> int:
        """See `History`; as if all entities had the same number of events."""
        return self._logs.row_count(source) * -(-len(self._order) // max(self._numbers.count, 1))

    def version(self, source: SourceSpec) -> str:
        """See `History`."""
        return self._logs.version(source)

    def _pairs(self, rows: Int64Array, entity: Int64Array) -> Iterator[tuple[Int64Array, Int64Array]]:
        """(event, read) pairs of one entity, some at a time."""
        ends = np.cumsum(self._counts[entity])
        begin = 0
        while begin < len(rows):
            before = int(ends[begin - 1]) if begin else 0
            end = max(int(np.searchsorted(ends, before + EXPANDED_ROWS_MAX, side="right")), begin + 1)
            counts = self._counts[entity[begin:end]]
            first = np.repeat(self._begins[entity[begin:end]] - (np.cumsum(counts) - counts), counts)
            yield np.repeat(rows[begin:end], counts), self._order[first + np.arange(int(counts.sum()))]
            begin = end

    def _is_seen(self, batch: pa.RecordBatch, event: Int64Array, read: Int64Array) -> BoolArray:
        """Whether each event had been applied when the read was made, and happened before its read time."""
        positions = self._reads.positions
        place = _places(batch, positions.columns)
        offsets = np.asarray(batch.column("offset").to_numpy())
        times_ms = np.asarray(batch.column(EVENT_TIME).to_numpy())
        is_seen = offsets[event] < positions.next_offset[read, place[event]]
        is_seen &= times_ms[event] < self._reads.as_of_ms[read]
        return np.asarray(is_seen)


def _places(batch: pa.RecordBatch, columns: dict[tuple[str, int], int]) -> Int64Array:
    """(N,) column of each event's partition; the last one for partitions that are not in `columns`."""
    topics = batch.column("topic").dictionary_encode()
    partitions = np.asarray(batch.column("partition").to_numpy(), dtype=np.int64)
    pairs = np.stack([np.asarray(topics.indices.to_numpy(), dtype=np.int64), partitions])
    distinct, inverse = np.unique(pairs, axis=1, return_inverse=True)
    names = topics.dictionary.to_pylist()
    known = [columns.get((names[topic], partition), len(columns)) for topic, partition in distinct.T.tolist()]
    return np.array(known, dtype=np.int64)[inverse.ravel()]
