"""Where windows begin and end among sorted events, for many moments at once.

    rows of an entity     0   1   2   3   4   5   6
    moments, ascending        t1      t2          t3
    a window's tail       ───>┴──────>┴──────────>┴       moves on only, so it is searched from where it was

Edges never fall as the moment rises: a grid, a calendar's local midnight and a session's begin all keep the order. So
each edge is found by a galloping search from the last one: O(1) where moments are as many as events, else O(log N).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.compiled import INT, INTS, compiled_for_bulk
from featurestore.core.events import Int64Array
from featurestore.core.point_in_time.rows import EntityEvents, Moments
from featurestore.core.spec import CalendarUnit, Window
from featurestore.core.windows.calendar_windows import begin_ms
from featurestore.core.windows.windows import WindowEdges


@dataclass(frozen=True, slots=True)
class ChunkWindows:
    """W windows at R moments as ranges of rows; ascending with the moments of an entity.

    Attributes:
        lows, highs: by number of the window (R,) first row, and the row behind the last; an empty window has
            high <= low. Windows with a common edge share the array.
    """

    lows: Mapping[int, Int64Array]
    highs: Mapping[int, Int64Array]

    @property
    def moment_count(self) -> int:
        """R."""
        return len(next(iter(self.lows.values())))


def find_windows(
    events: EntityEvents, moments: Moments, windows: Sequence[Window], edges: WindowEdges, wanted: Iterable[int]
) -> ChunkWindows:
    """Ranges of some windows at all moments.

    Args:
        events: ascending by (entity, event time).
        moments: R, ascending by (entity, read time).
        windows: W, none of them a series.
        edges: theirs.
        wanted: numbers of the windows to find.
    """
    lowest = int(moments.entity[0]) if moments.count else 0
    highest = int(moments.entity[-1]) if moments.count else 0
    begins = np.searchsorted(events.entity, np.arange(lowest, highest + 2, dtype=np.int64))
    first, last = begins[moments.entity - lowest], begins[moments.entity - lowest + 1]
    shift_ms = edges.shift_ms(0)
    found: dict[tuple[int, int], Int64Array] = {}

    def rows_at(at_ms: Int64Array, shift_ms: int, grid_ms: int) -> Int64Array:
        """First rows at or after an edge."""
        rows = np.empty(moments.count, dtype=np.int64)
        _find_edges(events.event_time_ms, first, last, at_ms, shift_ms, grid_ms, rows)
        return rows

    def edge(index: int) -> Int64Array:
        """The same, looked for once: most windows end at the moment itself."""
        which = (int(shift_ms[index]), int(edges.grid_ms[index]))
        if which not in found:
            found[which] = rows_at(moments.as_of_ms, *which)
        return found[which]

    lows, highs = {}, {}
    for index in wanted:
        window = windows[index]
        highs[index] = edge(len(windows) + index)
        if window.calendar is not None:
            begins_ms = _calendar_begins(window.calendar, window.timezone, moments.as_of_ms)
            lows[index] = rows_at(begins_ms, 0, int(edges.grid_ms[index]))
            continue
        lows[index] = edge(index)
        if window.gap_ms:
            lows[index] = lows[index].copy()
            _begin_sessions(events.event_time_ms, first, moments.as_of_ms, window.gap_ms, lows[index], highs[index])
    return ChunkWindows(lows, highs)


def _calendar_begins(unit: CalendarUnit, timezone: str, as_of_ms: Int64Array) -> Int64Array:
    """(R,) begin of each moment's unit; asked once for every begin, and some twenty times to find where it changes."""
    distinct, place = np.unique(as_of_ms, return_inverse=True)
    begins = np.empty(len(distinct), dtype=np.int64)
    low = 0
    while low < len(distinct):
        current = begin_ms(unit, timezone, int(distinct[low]))
        # Begins keep the order of moments: double the step until it is another unit, then halve.
        same, step = low, 1
        while same + step < len(distinct) and begin_ms(unit, timezone, int(distinct[same + step])) == current:
            same, step = same + step, step * 2
        while step > 1:
            step //= 2
            if same + step < len(distinct) and begin_ms(unit, timezone, int(distinct[same + step])) == current:
                same += step
        begins[low : same + 1] = current
        low = same + 1
    return begins[place.reshape(-1)]


@compiled_for_bulk(INT, INTS, INTS, INTS, INTS, INT, INT, INTS)
def _find_edges(
    time_ms: Int64Array,
    first: Int64Array,
    last: Int64Array,
    at_ms: Int64Array,
    shift_ms: int,
    grid_ms: int,
    rows: Int64Array,
) -> int:
    """Rows (R,) receives the first row of [first, last) at or after each moment, shifted and floored to the grid."""
    cursor, entity_first = np.int64(0), np.int64(-1)
    for index in range(len(first)):
        begin, end = first[index], last[index]
        if begin != entity_first:
            cursor = entity_first = begin
        edge = at_ms[index] - shift_ms
        if grid_ms > 1:
            edge -= edge % grid_ms
        step = 1
        low = cursor
        while low < end and time_ms[low] < edge:
            cursor = low + 1
            low += step
            step *= 2
        high = min(low, end)
        while cursor < high:
            middle = (cursor + high) >> 1
            if time_ms[middle] < edge:
                cursor = middle + 1
            else:
                high = middle
        rows[index] = cursor
    return 0


@compiled_for_bulk(INT, INTS, INTS, INTS, INT, INTS, INTS)
def _begin_sessions(
    time_ms: Int64Array, first: Int64Array, as_of_ms: Int64Array, gap_ms: int, lows: Int64Array, highs: Int64Array
) -> int:
    """Move each low from the oldest row that the session may have to where it begins.

    The begin of a session moves on with its newest event: what is known of the rows before needs no second look.
    """
    begin, reached, entity_first = np.int64(0), np.int64(0), np.int64(-1)
    for index in range(len(lows)):
        high = highs[index]
        if first[index] != entity_first:
            entity_first = begin = reached = first[index]
        while reached < high:
            if reached > entity_first and time_ms[reached] - time_ms[reached - 1] > gap_ms:
                begin = reached
            reached += 1
        if high <= lows[index] or as_of_ms[index] - time_ms[high - 1] > gap_ms:
            lows[index] = high
        else:
            lows[index] = max(lows[index], begin)
    return 0
