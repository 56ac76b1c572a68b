"""Edges of every kind of window, in a form that one compiled loop finds the rows of.

    edge = (t - shift) floored to grid          tails first, then heads; two arrays of 2W numbers

Sliding, offset and lifetime windows have shifts that never change. The tail of a calendar window depends on the read
time, so its shift is put in for every read. A session is narrowed after its rows are found, see `core.sessions`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from featurestore.core.events import Int64Array
from featurestore.core.spec import DEFAULT_SESSION_GAPS, HOP_LADDER_MS, SESSION_MS_DEFAULT_MAX, Window
from featurestore.core.windows.calendar_windows import GRID_SINCE_MS, begin_ms
from featurestore.core.windows.time_zones import BLOCK_MS, DAY_MS

_ALL_SINCE_MS = GRID_SINCE_MS + 400 * DAY_MS
"""Units of moments from here on began after GRID_SINCE_MS."""

_LIKELY_READ_TIMES_MS = (1_767_225_600_000, 1_767_225_600_000 + BLOCK_MS)
"""2026 and 2036: one moment of each ten years for which a table is made in advance."""

BEGINNING_MS = -(1 << 61)
"""Older than any event; the tail of a lifetime window is older still."""


def session_window(gap_ms: int, longest_ms: int | None = None) -> Window:
    """The window of the session that is open at the read time.

    Args:
        gap_ms: two events further apart belong to two sessions.
        longest_ms: how far back a session is followed, at least the gap; None takes a hundred gaps, but no more than a
            day or the gap itself, if that is longer.

    Returns:
        A window whose hop is the widest rung within the gap: no tile can hide a longer silence.
    """
    if longest_ms is None:
        longest_ms = max(gap_ms, min(DEFAULT_SESSION_GAPS * gap_ms, SESSION_MS_DEFAULT_MAX))
    assert longest_ms >= gap_ms > 0
    hop_ms = max((rung for rung in HOP_LADDER_MS if rung <= gap_ms), default=1)
    return Window(longest_ms, hop_ms, gap_ms=gap_ms)


def element_windows(window: Window) -> tuple[Window, ...]:
    """The windows of a series, oldest first; any other window alone."""
    if not window.series:
        return (window,)
    assert window.length_ms is not None, "a series has a length"
    return tuple(
        replace(window, offset_ms=window.offset_ms + index * window.length_ms, series=0)
        for index in reversed(range(window.series))
    )


class WindowEdges:
    """Edges of W windows, none of them a series.

    Args:
        windows: in the order in which edges are numbered.

    Attributes:
        grid_ms: (2W,) grid of each edge.
    """

    def __init__(self, windows: Sequence[Window]) -> None:
        tails, heads = [], []
        for window in windows:
            if window.length_ms is None:
                tails.append((-2 * BEGINNING_MS, 1))
            elif window.calendar is not None:
                tails.append((window.length_ms, 1))
            else:
                tails.append((window.length_ms + window.offset_ms, window.hop_ms))
            heads.append((window.offset_ms, window.hop_ms) if window.offset_ms else (0, 1))
        shift, grid = zip(*tails, *heads, strict=True)
        self._fixed_ms: Int64Array = np.array(shift, dtype=np.int64)
        self.grid_ms: Int64Array = np.array(grid, dtype=np.int64)
        self._calendars = tuple(
            (index, window.calendar, window.timezone)
            for index, window in enumerate(windows)
            if window.calendar is not None
        )
        # Tables of the decades that payments are read in are made now, not while the first payment waits for one.
        for _, unit, timezone in self._calendars:
            for time_ms in _LIKELY_READ_TIMES_MS:
                begin_ms(unit, timezone, time_ms)

    def shift_ms(self, as_of_ms: int) -> Int64Array:
        """(2W,) how far before the read time each edge lies, before it is floored to its grid; not to be changed."""
        if not self._calendars:
            return self._fixed_ms
        shift_ms = self._fixed_ms.copy()
        for index, unit, timezone in self._calendars:
            shift_ms[index] = as_of_ms - begin_ms(unit, timezone, as_of_ms)
        return shift_ms

    def passes_ms(self, rows_ms: Int64Array, as_of_ms: int) -> Int64Array:
        """(2W,) the first read time at which each edge lies behind a row that it does not lie behind yet.

        Args:
            rows_ms: (2W,) when each edge's row begins, at or after the edge.
            as_of_ms: the read time now.
        """
        passes = (rows_ms // self.grid_ms + 1) * self.grid_ms + self._fixed_ms
        for index, unit, timezone in self._calendars:
            assert unit is not None, "chosen by it"
            begin, longest_ms = begin_ms(unit, timezone, as_of_ms), int(self._fixed_ms[index])
            later = range(as_of_ms, as_of_ms + longest_ms + 1)
            turns = bisect_right(later, begin, key=lambda moment: begin_ms(unit, timezone, moment))
            passes[index] = as_of_ms + turns
        return passes

    def are_on_grid(self, as_of_ms: int) -> bool:
        """Whether every edge lies where rolled-up tiles never reach across; calendars of long ago kept no grid."""
        return not self._calendars or as_of_ms >= _ALL_SINCE_MS
