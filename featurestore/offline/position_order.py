"""Rows in the order of their positions in the stream, without holding more than a slice of event time in memory.

    days          1st: 2 M    2nd: 3 M    3rd: 9 M                       rows
    slices       [---------][---------][----|----|----]                  about SLICE_ROWS each
    a slice       read, put in the order of its positions, handed on

Nothing else about the order of arrival decides about a feature.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.core.events import BoolArray, Int64Array
from featurestore.definitions.limits import DAY_MS

SLICE_ROWS = 1 << 22
"""Rows that are put in order at once, about."""

BATCH_ROWS = 131_072
"""Most rows of a batch of the answer."""

RUN_ROWS_MIN = 1 << 10
"""Runs of rows that are in order are put in order as they are when they are this long, on average."""

_OFFSET_BITS = 44
"""Offsets below 2**44 and partitions below 2**19 make one integer; others are sorted by columns."""


def rows_by_day(times: Iterable[pa.Array]) -> dict[int, int]:
    """How many event times there are of each day since 1970."""
    found: Counter[int] = Counter()
    for each in times:
        days, counts = np.unique(each.to_numpy() // DAY_MS, return_counts=True)
        found.update(dict(zip(days.tolist(), counts.tolist(), strict=True)))
    return dict(sorted(found.items()))


def time_slices(days: Mapping[int, int], from_ms: int, to_ms: int) -> Iterator[tuple[int, int]]:
    """[from_ms, to_ms) in slices of about SLICE_ROWS rows; days without rows are in none.

    Args:
        days: rows of each day, ascending.
        from_ms: begin of the first slice, at the earliest.
        to_ms: end of the last one, at the latest.
    """
    begin_ms = end_ms = rows = 0
    for day, count in days.items():
        low_ms, high_ms = max(day * DAY_MS, from_ms), min((day + 1) * DAY_MS, to_ms)
        if low_ms >= high_ms:
            continue
        if rows and rows + count > SLICE_ROWS:
            yield begin_ms, end_ms
            rows = 0
        if count > SLICE_ROWS:
            step_ms = -(-DAY_MS * SLICE_ROWS // count)
            for part_ms in range(low_ms, high_ms, step_ms):
                yield part_ms, min(part_ms + step_ms, high_ms)
            continue
        begin_ms = begin_ms if rows else low_ms
        end_ms, rows = high_ms, rows + count
    if rows:
        yield begin_ms, end_ms


def in_order(table: pa.Table, positions: Sequence[str]) -> Iterator[pa.Table]:
    """Rows in the order of their positions, in pieces; those of one position stay as they are, and in one piece.

    Files are often written in that order, and put one behind the other. So there are runs of rows that are in order,
    and to put them one behind the other costs nothing; single rows are moved only where runs are short or overlap.

    Args:
        table: the rows.
        positions: which of the columns topic, partition and offset order them; the offset always does.
    """
    if table.num_rows < 2:
        yield table
        return
    keys = _as_integers(table, positions)
    if keys is None:
        yield table.take(_sorted_by(table.select(list(positions))))
        return
    steps = np.diff(keys)
    if (steps >= 0).all():
        yield table
        return
    # A run ends where another partition begins, so that runs of one partition can be put together.
    edges = np.flatnonzero((steps < 0) | (keys[1:] >> _OFFSET_BITS != keys[:-1] >> _OFFSET_BITS)) + 1
    begins, ends = np.append(0, edges), np.append(edges, len(keys))
    runs = np.argsort(keys[begins], kind="stable")
    overlap = bool((keys[ends[runs[:-1]] - 1] >= keys[begins[runs[1:]]]).any())
    if overlap or len(runs) * RUN_ROWS_MIN > len(keys):
        yield table.take(pa.array(np.argsort(keys, kind="stable")))
        return
    for run in runs.tolist():
        yield table.slice(int(begins[run]), int(ends[run] - begins[run]))


def slice_in_order(
    batches: Iterable[pa.RecordBatch], positions: Sequence[str], from_ms: int, to_ms: int, told_by: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """The rows of one slice in the order of their positions; a record that is there twice comes once.

    Args:
        batches: rows, whose last column is the event time.
        positions: see `in_order`.
        told_by: columns that tell rows of one position and event time apart.
        from_ms: first event time of the slice.
        to_ms: its end.
    """
    kept = [_within(batch, from_ms, to_ms) for batch in batches]
    if not any(batch.num_rows for batch in kept):
        return
    table = pa.Table.from_batches(kept)
    order = [name for name in positions if name != "topic" or len(table[name].unique()) > 1]
    for piece in in_order(table, order):
        yield from _each_once(piece, order, told_by).to_batches(BATCH_ROWS)


def _as_integers(table: pa.Table, positions: Sequence[str]) -> Int64Array | None:
    """(N,) integers that are ordered as the rows; None when their positions do not fit into integers."""
    if "topic" in positions or any(table[name].null_count for name in positions):
        return None
    offsets: Int64Array = table["offset"].to_numpy()
    if int(offsets.min()) < 0 or int(offsets.max()) >> _OFFSET_BITS:
        return None
    offsets = offsets.astype(np.int64, copy=False)
    if "partition" not in positions:
        return offsets
    partitions: Int64Array = table["partition"].to_numpy()
    if int(partitions.min()) < 0 or int(partitions.max()) >> (63 - _OFFSET_BITS):
        return None
    return partitions.astype(np.int64) << _OFFSET_BITS | offsets


def _sorted_by(keys: pa.Table) -> pa.Array:
    """Numbers of the rows in the order of all columns; equal ones stay as they are."""
    return pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])


def _each_once(table: pa.Table, positions: Sequence[str], told_by: Sequence[str]) -> pa.Table:
    """Rows in the order of their positions, without those that are of another one's position, event time and so on.

    A sink that delivers at least once may have written a record twice; the same position and time make it the same.
    """
    keys = table.select(list(positions))
    if not _is_as_before(keys).any():
        return table
    keys = keys.append_column("", table.column(table.num_columns - 1))
    for number, name in enumerate(told_by):
        keys = keys.append_column(f"told by {number}", table.column(name))
    order = _sorted_by(keys)
    is_first = np.append(True, ~_is_as_before(keys.take(order)))
    return table.take(order.take(pa.array(np.flatnonzero(is_first))))


def _is_as_before(keys: pa.Table) -> BoolArray:
    """(N - 1,) which rows but the first have all the values of the one before; null is like nothing."""
    found = np.ones(keys.num_rows - 1, dtype=np.bool_)
    for column in keys.columns:
        values = column.combine_chunks()
        is_same = pc.fill_null(pc.equal(values[1:], values[:-1]), False)
        found &= np.asarray(is_same.to_numpy(zero_copy_only=False), dtype=np.bool_)
    return found


def _within(batch: pa.RecordBatch, from_ms: int, to_ms: int) -> pa.RecordBatch:
    """The rows of a slice."""
    times_ms = batch.column(batch.num_columns - 1).to_numpy()
    is_wanted = (times_ms >= from_ms) & (times_ms < to_ms)
    return batch if is_wanted.all() else batch.take(pa.array(np.flatnonzero(is_wanted)))
