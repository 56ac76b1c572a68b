"""Sessions: where the session that is open at the read time began, found in tiles.

    hop, at most the gap   |         |         |         |         |
    events                  a   b         c                d e       t
    tiles: first, last     [a   b]  [     c]              [d e]
    walk, newest to oldest                <── c is more than a gap before d: the session is d e

A tile keeps its first and its last event time. As no tile is wider than a hop, and a hop no longer than the gap, events
of one hop always belong together: silence is to be looked for between hops only, from the newest backwards. Tiles of
one hop may overlap (a late event beside a rolled-up tile), so they are taken together.

Ordering required: rows ascending by start. Time: O(rows of the session), in one compiled loop for all sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.compiled import INT, INT_MATRIX, INTS, compiled
from featurestore.core.events import Int64Array
from featurestore.core.spec import Window
from featurestore.core.tiles.parts import Field, Lift, Merge, PartBase, Storage
from featurestore.core.tiles.tiles import TileLayout, TileTable

INT64_MIN = -(1 << 63)
INT64_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class EventSpan(PartBase):
    """First and last event time, of all events: conditions and nulls choose what is counted in a session, not which."""

    @property
    def key(self) -> str:
        """Canonical text."""
        return "span"

    @property
    def fields(self) -> tuple[Field, ...]:
        """Two integers; only the walk looks at them."""
        return (
            Field("first_ms", Storage.INT, Merge.MIN, INT64_MAX, Lift.TIME, is_read=False),
            Field("last_ms", Storage.INT, Merge.MAX, INT64_MIN, Lift.TIME, is_read=False),
        )


class Sessions:
    """The session windows of a view.

    Args:
        layout: of the view's tiles; has an EventSpan where there are sessions.
        windows: all windows of the view, as their bounds are numbered.

    Attributes:
        picks: (S, 3) window, hop, gap of each session.
        first, last: the fields of the EventSpan.
    """

    def __init__(self, layout: TileLayout, windows: Sequence[Window]) -> None:
        picks = [(index, window.hop_ms, window.gap_ms) for index, window in enumerate(windows) if window.gap_ms]
        self.picks = np.array(picks, dtype=np.int64).reshape(-1, 3)
        self.first, self.last = (at.row for at in layout.position_of(EventSpan()).fields) if picks else (0, 0)

    def narrow(self, table: TileTable, as_of_ms: int, bounds: Int64Array) -> None:
        """Move the first row of each session window from the oldest that it may have to where the session begins.

        Args:
            table: N tiles, ascending by start.
            as_of_ms: read time.
            bounds: (2W,) first row of each window, then the end of each; changed in place.
        """
        if len(self.picks):
            narrow_sessions(table.start_ms, table.ints, self.first, self.last, as_of_ms, self.picks, bounds)

    def ends_ms(self, table: TileTable, as_of_ms: int, bounds: Int64Array) -> list[int]:
        """When each open session is over by itself: the first read time that is more than a gap behind its last event.

        Args:
            table: N tiles, ascending by start.
            as_of_ms: read time.
            bounds: (2W,) before they are narrowed.
        """
        if not len(self.picks):
            return []
        count, lasts = len(bounds) // 2, table.ints[self.last]
        spans = [(slice(bounds[window], bounds[count + window]), gap) for window, _, gap in self.picks.tolist()]
        return [int(lasts[span].max()) + gap + 1 for span, gap in spans if span.start < span.stop]

    def blurred(self, table: TileTable, bounds: Int64Array) -> list[int]:
        """Session windows that hold a tile (before they are narrowed) which is wide enough to hide a gap."""
        widths, count = table.end_ms - table.start_ms, len(bounds) // 2
        return [
            window
            for window, hop_ms, _ in self.picks.tolist()
            if (widths[bounds[window] : bounds[count + window]] > hop_ms).any()
        ]


@compiled(INT, INTS, INT_MATRIX, INT, INT, INT, INT_MATRIX, INTS, allocates=False)
def narrow_sessions(
    start_ms: Int64Array,
    ints: Int64Array,
    first: int,
    last: int,
    as_of_ms: int,
    picks: Int64Array,
    bounds: Int64Array,
) -> int:
    """See `Sessions.narrow`.

    Args:
        start_ms: (N,) ascending.
        ints: (fields, N).
        first: which field is the first event time.
        last: which field is the last one.
        as_of_ms: read time.
        picks: (S, 3) window, hop, gap.
        bounds: (2W,) changed.
    """
    count = len(bounds) // 2
    for index in range(len(picks)):
        window, hop, gap = picks[index, 0], picks[index, 1], picks[index, 2]
        low, begin = bounds[window], bounds[count + window]
        oldest = as_of_ms
        while begin > low:
            hop_start = start_ms[begin - 1] - start_ms[begin - 1] % hop
            hop_first, hop_last = ints[first, begin - 1], ints[last, begin - 1]
            row = begin - 1
            while row > low and start_ms[row - 1] >= hop_start:
                row -= 1
                hop_first = min(hop_first, ints[first, row])
                hop_last = max(hop_last, ints[last, row])
            if oldest - hop_last > gap:
                break
            oldest = hop_first
            begin = row
        bounds[window] = begin
    return 0
