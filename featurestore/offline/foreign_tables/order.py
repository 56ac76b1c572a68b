"""Rows of one event time in the order of their positions, without holding more than a slice of event time in memory.

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

from featurestore.definitions.limits import DAY_MS

SLICE_ROWS = 1 << 22
"""Rows that are put in order at once, about."""

BATCH_ROWS = 131_072
"""Most rows of a batch of the answer."""


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


def in_order(
    batches: Iterable[pa.RecordBatch], positions: Sequence[str], from_ms: int, to_ms: int
) -> Iterator[pa.RecordBatch]:
    """The rows of one slice in the order of their positions; a record that is there twice comes once.

    Args:
        batches: rows, whose last column is the event time.
        positions: names of the columns that order them.
        from_ms: first event time of the slice.
        to_ms: its end.
    """
    kept = [_within(batch, from_ms, to_ms) for batch in batches]
    if not any(batch.num_rows for batch in kept):
        return
    table = pa.Table.from_batches(kept)
    numbers = [table.schema.get_field_index(name) for name in positions] + [table.num_columns - 1]
    keys = pa.table([table.column(number) for number in numbers], names=[str(number) for number in numbers])
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
    table, keys = table.take(order), keys.take(order)
    # A sink that delivers at least once may have written a record twice; the same position and time make it the same.
    is_new = np.zeros(table.num_rows, dtype=np.bool_)
    is_new[0] = True
    for column in keys.columns:
        values = column.combine_chunks()
        is_other = pc.fill_null(pc.not_equal(values[1:], values[:-1]), True)
        is_new[1:] |= np.asarray(is_other.to_numpy(zero_copy_only=False), dtype=np.bool_)
    if not is_new.all():
        table = table.take(pa.array(np.flatnonzero(is_new)))
    yield from table.to_batches(BATCH_ROWS)


def _within(batch: pa.RecordBatch, from_ms: int, to_ms: int) -> pa.RecordBatch:
    """The rows of a slice."""
    times_ms = batch.column(batch.num_columns - 1).to_numpy()
    is_wanted = (times_ms >= from_ms) & (times_ms < to_ms)
    return batch if is_wanted.all() else batch.take(pa.array(np.flatnonzero(is_wanted)))
