"""What stands behind one answered row, from the very bytes that were read for it.

    bytes ── Selection.decode, reach ──> tiles, bounds ── Lowering ──> the value over all of a window's tiles
                                             └─ the same, tile by tile ──> the value over each

Nothing is computed in another way than a lookup does: a tile's share is its window's answer when the window holds just
that tile. Where a lookup is refused, the bounds are shown all the same, with the tile that is in the way. A payment in
flight is one tile more, behind those before it; windows are there twice then, and a feature's definition says which of
the two is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from featurestore.core.events import BlobRow, ColumnValues, Int64Array
from featurestore.core.inputs import flag_name, python_values
from featurestore.core.lowering.lowering import INT_TYPES, LoweredFeatures, Lowering
from featurestore.core.lowering.view_input import FeatureFields, LoweredView
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import EventRows, RowCount
from featurestore.core.tiles.ranges import Gathered
from featurestore.core.tiles.sessions import EventSpan
from featurestore.core.tiles.tiles import TileTable
from featurestore.core.view import WindowsAt
from featurestore.errors import AsOfTooOld
from featurestore.online.answer.explaining.explanation import (
    CutKind,
    ExplainedCut,
    ExplainedTile,
    ExplainedValue,
    ExplainedWindow,
)
from featurestore.online.answer.selection import EventsInFlight
from featurestore.online.answer.service_plan import StreamPart
from featurestore.online.read.reader import EntityBytes
from featurestore.wire.codecs.body import decode_entity
from featurestore.wire.codecs.head import head_codec

TILES_SHOWN_MAX = 256
"""Of a view. The newest stand alone; older ones between two edges of windows are shown as one."""


@dataclass(frozen=True, slots=True)
class FeatureEvidence:
    """What one lowered feature was merged from.

    Attributes:
        value: of the feature over its windows; of one that is refused, None.
        windows: as tiles of the table that is shown.
        partials: over each of these tiles alone, from the first window's first to the last window's last.
    """

    value: ExplainedValue
    windows: tuple[ExplainedWindow, ...]
    partials: tuple[ExplainedValue, ...]


@dataclass(frozen=True, slots=True)
class EventInFlight:
    """The payment in flight of one row, as the views that are stored together see it.

    Attributes:
        seen: one row.
        columns: as it was sent, and what they compute from that.
    """

    seen: EventsInFlight
    columns: Mapping[str, ColumnValues]

    def values(self, columns: Sequence[Column]) -> dict[str, ExplainedValue]:
        """Some columns of it."""
        return {one.name: python_values(self.columns[one.name], one.type)[0] for one in columns}


class PartEvidence:
    """What stands behind the share of stream views that are stored together.

    Args:
        part: the share.
        found: what was read.
        as_of_ms: the read time.
        event: the payment in flight, if there is one of their source.

    Attributes:
        is_refused: whether the tiles cannot answer that moment.
        is_presence_unclear: whether they cannot even tell if the entity had an event within the retention.
        newest_ms: newest event before the read time that is stored, whosever it is; 0 for none.

    Raises:
        CorruptData: the bytes are damaged.
    """

    def __init__(self, part: StreamPart, found: EntityBytes, as_of_ms: int, event: EventInFlight | None = None) -> None:
        selection = part.selection
        self._part, self._found, self._as_of_ms, self._event = part, found, as_of_ms, event
        # The payment of another view's condition is nothing to these.
        self._is_in_flight = event is not None and (event.seen.is_event is None or bool(event.seen.is_event[0]))
        tiles = event.seen.tiles if event is not None and self._is_in_flight else None
        self._table = selection.codec.decode(found.body, found.head, tiles)
        self._at: WindowsAt = selection.compiled.windows_at(self._table, as_of_ms)
        self._bounds = selection.compiled.bounds_in_flight(self._at.bounds) if self._is_in_flight else self._at.bounds
        self.is_refused = False
        try:
            if self._is_in_flight:
                self._bounds = selection.compiled.reach_in_flight(self._table, as_of_ms).bounds
            else:
                reach = selection.reach(self._table, as_of_ms)
                self._bounds = np.zeros_like(self._bounds) if reach is None else reach.bounds
        except AsOfTooOld:
            self.is_refused = True
        self.is_presence_unclear = self.is_refused and bool(self._at.is_unclear[-1])
        before = int(self._at.bounds[-1])
        self.newest_ms = int(self._table.start_ms[before - 1]) if before else 0
        lowered = selection.lowered
        # Everything that is computed on the way, also what only derived features read.
        self._lowering = Lowering(
            [LoweredView.of(lowered.layout, lowered.window_count, lowered.features, lowered.derived)]
        )
        self._features: Sequence[FeatureFields] = lowered.features

    @property
    def stored_count(self) -> int:
        """Tiles and events that the store holds of the entity."""
        return self._table.count - self._is_in_flight

    def index_of(self, output: int) -> int:
        """Where a feature that is asked is among everything that is computed; derived ones are behind the others."""
        return self._part.selection.lowered.outputs[output]

    def read_by(self, index: int) -> Mapping[str, int]:
        """Features that a derived one reads, by their names in its view; none of a windowed one."""
        derived = index - len(self._features)
        reads = self._part.selection.lowered.derived[derived].reads if derived >= 0 else {}
        return {name: at for name, (at, _) in reads.items()}

    def hop_ms(self, index: int) -> int:
        """Grid of the windowed feature's old edge; 0 for none."""
        return self._features[index].feature.window.hop_ms if index < len(self._features) else 0

    def counts_event(self, index: int) -> bool | None:
        """Whether the payment in flight is among what a feature covers, or one that it reads; None where there is none.

        Args:
            index: see `index_of`.
        """
        if self._event is None:
            return None
        if not self._is_in_flight:
            return False
        if index >= len(self._features):
            return any(self.counts_event(read) for read in self.read_by(index).values())
        feature = self._features[index].feature
        is_its = not feature.where or bool(np.asarray(self._event.columns[flag_name(feature.where)].values)[0])
        width = len(self._bounds) // 2
        reaches = any(self._bounds[width + one] > self._in_flight_row for one in self._windows_of(index))
        return is_its and reaches

    def show(self, indices: Sequence[int]) -> tuple[tuple[ExplainedTile, ...], dict[int, FeatureEvidence]]:
        """The tiles of the windows of some features, and what they come to.

        Args:
            indices: see `index_of`.
        """
        windowed = [index for index in indices if index < len(self._features)]
        cuts = self._cuts({window for index in windowed for window in self._windows_of(index)})
        tiles = tuple(self._tile(first, end) for first, end in pairwise(cuts))
        shares, whole = self._shares(cuts), self._whole
        found = {}
        for index in indices:
            windows = self._windows(index, cuts) if index < len(self._features) else ()
            held = [one for one in windows if not one.is_empty]
            span = range(
                min((one.first_tile for one in held), default=0), max((one.end_tile for one in held), default=0)
            )
            value_type = self._type_of(index)
            found[index] = FeatureEvidence(
                None if self.is_refused else _value(whole, index, 0, value_type),
                windows,
                tuple(self._share(shares, index, tile) for tile in span),
            )
        return tiles, found

    @cached_property
    def _whole(self) -> LoweredFeatures:
        """Every feature over its windows: one row."""
        merged = self._lowering.gathered(1)
        self._gather(self._table, self._bounds, merged, 0)
        return self._lowering.lower(merged, np.array([self._as_of_ms], dtype=np.int64))

    def _shares(self, cuts: Sequence[int]) -> LoweredFeatures:
        """Every feature over each tile that is shown: a row for each."""
        count = len(cuts) - 1
        merged = self._lowering.gathered(count)
        width = len(self._bounds) // 2
        for row, (first, end) in enumerate(pairwise(cuts)):
            bounds = np.repeat(np.array([0, end - first], dtype=np.int64), width)
            self._gather(self._table.take(slice(first, end)), bounds, merged, row)
        return self._lowering.lower(merged, np.full(count, self._as_of_ms, dtype=np.int64))

    def _gather(self, table: TileTable, bounds: Int64Array, merged: Gathered, row: int) -> None:
        """Merge the windows for one row."""
        gather = self._lowering.gather_in_flight if self._is_in_flight else self._lowering.gather
        gather(0, table, bounds, merged, row)

    def _windows_of(self, index: int) -> list[int]:
        """A feature's windows, by their place among the bounds; those with the payment are behind the others."""
        first = 0
        if self._is_in_flight and self._features[index].feature.in_flight:
            first = self._part.selection.lowered.window_count
        return [first + window for window in self._features[index].windows]

    def _share(self, shares: LoweredFeatures, index: int, tile: int) -> ExplainedValue:
        """A feature's value over one tile; of a series, whose windows all hold it then, one element."""
        value = _value(shares, index, tile, self._type_of(index))
        if index >= len(self._features) or not self._features[index].feature.window.series:
            return value
        element = value[-1] if isinstance(value, list) else None
        return None if element != element else element

    def _cuts(self, windows: set[int]) -> list[int]:
        """Rows of the table at which the tiles that are shown begin, and the row behind the last."""
        width = len(self._bounds) // 2
        spans = [(int(self._bounds[one]), int(self._bounds[width + one])) for one in windows]
        edges = {edge for span in spans if span[0] < span[1] for edge in span}
        if not edges:
            return [0]
        first, end = min(edges), max(edges)
        alone = range(max(first, end - TILES_SHOWN_MAX), end + 1)
        return sorted(edges.union(alone))

    def _windows(self, index: int, cuts: Sequence[int]) -> tuple[ExplainedWindow, ...]:
        """A feature's windows, by the tiles that are shown."""
        width = len(self._bounds) // 2
        found = []
        for at, window in zip(self._windows_of(index), self._features[index].windows, strict=True):
            low, high = int(self._bounds[at]), int(self._bounds[width + at])
            spec = self._part.selection.compiled.windows[window]
            begin_ms: int | None = int(self._at.begin_ms[window])
            if spec.length_ms is None:
                begin_ms = None
            elif spec.gap_ms and not self.is_refused:
                first_ms = self._table.layout.position_of(EventSpan()).fields[0].row
                begin_ms = int(self._table.ints[first_ms, low:high].min(initial=self._as_of_ms))
            first, end = np.searchsorted(cuts, [low, high]).tolist() if low < high else (0, 0)
            cut = self._cut(window) if self.is_refused else None
            found.append(ExplainedWindow(begin_ms, int(self._at.end_ms[window]), first, end, cut))
        return tuple(found)

    def _cut(self, window: int) -> ExplainedCut | None:
        """Why the tiles cannot tell what is in a window; None where they can."""
        if not self._at.is_unclear[window]:
            return None
        table, width = self._table, len(self._at.bounds) // 2
        for edge_ms, row in (
            (int(self._at.begin_ms[window]), int(self._at.bounds[window])),
            (int(self._at.end_ms[window]), int(self._at.bounds[width + window])),
        ):
            reaching = np.flatnonzero(table.end_ms[:row] > edge_ms)
            if len(reaching):
                tile = int(reaching[-1])
                return ExplainedCut(CutKind.EDGE, int(table.start_ms[tile]), int(table.end_ms[tile]))
        if self._at.begin_ms[window] < table.dropped_before_ms:
            return ExplainedCut(CutKind.DROPPED, table.dropped_before_ms, table.dropped_before_ms)
        rows = slice(int(self._at.bounds[window]), int(self._at.bounds[width + window]))
        tile = rows.start + int((table.end_ms[rows] - table.start_ms[rows]).argmax())
        return ExplainedCut(CutKind.SESSION, int(table.start_ms[tile]), int(table.end_ms[tile]))

    def _tile(self, first: int, end: int) -> ExplainedTile:
        """Some rows of the table as they are shown."""
        counts, table = self._event_counts, self._table
        if first == self._in_flight_row and end == first + 1 and self._event is not None:
            return ExplainedTile(
                start_ms=self._as_of_ms,
                end_ms=self._as_of_ms + 1,
                event_count=None if counts is None else 1,
                merged=1,
                is_event=True,
                columns=self._event.values(self._part.selection.compiled.event_columns),
                is_in_flight=True,
            )
        event = int(self._event_of_row[first]) if end == first + 1 else -1
        return ExplainedTile(
            start_ms=int(table.start_ms[first]),
            end_ms=int(table.end_ms[first:end].max()),
            event_count=None if counts is None else int(counts[first:end].sum()),
            merged=end - first,
            is_event=event >= 0,
            columns={} if event < 0 else {name: values[event] for name, values in self._event_columns.items()},
        )

    @cached_property
    def _event_counts(self) -> Int64Array | None:
        """(N,) events in each tile; None where what is stored does not count them."""
        stored = self._part.generation.compiled
        if not any(placed.part.key == RowCount().key for placed in stored.layout.parts):
            return None
        (at,) = stored.layout.position_of(RowCount()).fields
        whole: TileTable = decode_entity(stored, self._found.body, self._found.head)
        counts: Int64Array = whole.ints[at.row]
        return np.insert(counts, self._in_flight_row, 1) if self._is_in_flight else counts

    @cached_property
    def _in_flight_row(self) -> int:
        """Where the payment is among the rows of the table: before all that is not before it; -1 for none."""
        return int(np.searchsorted(self._table.start_ms, self._as_of_ms)) if self._is_in_flight else -1

    @cached_property
    def _event_of_row(self) -> Int64Array:
        """(N,) which event of the head each row of the table is, -1 for tiles of the body.

        Rows are sorted by start, those of the body first and then those of the head as they arrived: so of the rows
        that begin in one millisecond the last are the head's.
        """
        events = np.full(self._table.count, -1, dtype=np.int64)
        order = self._head.event_time_ms.argsort(kind="stable")
        times = self._head.event_time_ms[order]
        behind = np.searchsorted(times, times, side="right") - np.arange(len(times))
        events[np.searchsorted(self._table.start_ms, times, side="right") - behind] = order
        return events

    @cached_property
    def _event_columns(self) -> dict[str, list[ExplainedValue]]:
        """What the head keeps of each event, by column."""
        types = {column.name: column.type for column in self._part.generation.compiled.event_columns}
        found: dict[str, list[ExplainedValue]] = {}
        if self._head.event_ids is not None:
            ids = python_values(ColumnValues(BlobRow.of(self._head.event_ids)), ValueType.STRING)
            found["event id"] = list(ids)
        for name, values in self._head.columns.items():
            found[name] = list(python_values(values, types[name]))
        return found

    @cached_property
    def _head(self) -> EventRows:
        """The events of the head, in order of arrival."""
        return head_codec(self._part.generation.compiled).decode(self._found.head or b"")

    def _type_of(self, index: int) -> ValueType:
        """Type of what is computed."""
        count = len(self._features)
        if index < count:
            return self._features[index].feature.type
        return self._part.selection.lowered.derived[index - count].expression.type


def _value(lowered: LoweredFeatures, index: int, row: int, value_type: ValueType) -> ExplainedValue:
    """One answer as Python has it."""
    if lowered.null[index, row]:
        return None
    if value_type is ValueType.FLOAT64:
        return float(lowered.floats[index, row])
    if value_type in INT_TYPES:
        number = int(lowered.ints[index, row])
        return bool(number) if value_type is ValueType.BOOL else number
    found: ExplainedValue = lowered.objects[index][row]  # type: ignore[assignment]  # of the feature's type
    return found
