"""A view ready to compute: its tile layout, its windows, and what lowers its features.

    tiles, oldest first      [      ][   ][   ][   ][ ][ ][ ]|||     body .. head
    windows at t             ..............(30 d.............)t
                                      (1 h...................)t
                                                   (1 min....)t

Every window is a range of one sorted list, most of them suffixes: two binary searches a window find them, and one
compiled loop for each kind of merge answers all windows and features. Time: O(tiles + windows) for integer sums,
O(tiles x windows) for the rest, with a few hundred tiles at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from featurestore.core.aggregations.base import Aggregation
from featurestore.core.aggregations.catalog import resolve
from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.core.inputs import view_inputs
from featurestore.core.lowering.derived import derived_feature
from featurestore.core.lowering.lowering import Lowering
from featurestore.core.lowering.view_input import FeatureFields, LoweredView
from featurestore.core.spec import FeatureSpec, ViewSpec, Window
from featurestore.core.tiles.parts import Part
from featurestore.core.tiles.ranges import find_bounds
from featurestore.core.tiles.roll_up import RollUp
from featurestore.core.tiles.sessions import EventSpan, Sessions
from featurestore.core.tiles.tiles import TileLayout, TileTable
from featurestore.core.windows.windows import BEGINNING_MS, WindowEdges, element_windows
from featurestore.errors import AsOfTooOld


@dataclass(frozen=True, slots=True)
class ViewAnswer:
    """Values of the F features of a view for one entity key at one read time.

    Attributes:
        ints: (F,) answers of INT64, BOOL and TIMESTAMP features at their index, 0 elsewhere and where null.
        floats: (F,) answers of FLOAT64 features, likewise.
        objects: feature index -> answer, for features of the other types that are not null.
        null: (F,) True where there is no answer.
        found: False when the entity has no event within the view's retention.
        newest_event_time_ms: event time of the newest event in reach, 0 when not found; when only rolled-up tiles are
            in reach, the start of the newest of them, which is earlier by less than that tile's width.
    """

    ints: Int64Array
    floats: Float64Array
    objects: dict[int, object]
    null: BoolArray
    found: bool
    newest_event_time_ms: int


class Reach(NamedTuple):
    """What of an entity's tiles counts at a read time.

    Attributes:
        bounds: (2W,) first row of each window, then the row behind the last of each.
        newest_event_time_ms: see `ViewAnswer`.
    """

    bounds: Int64Array
    newest_event_time_ms: int


@dataclass(frozen=True, slots=True)
class WindowsAt:
    """Where the W windows of a view are in an entity's tiles, whether or not a read is refused there.

    Attributes:
        begin_ms, end_ms: (W,) edges; a session begins where the longest one would.
        bounds: (2W,) first row of each window, then the row behind its last; `reach` narrows those of sessions.
        is_unclear: (W,) whether tiles cannot tell what lies in the window: read at an old moment, it is refused.
    """

    begin_ms: Int64Array
    end_ms: Int64Array
    bounds: Int64Array
    is_unclear: BoolArray


class ReachInFlight(NamedTuple):
    """What counts at the time of an event in flight.

    Attributes:
        bounds: as in `Reach`, of 2W windows: each as it is, then each with the event, if it ends at the read time.
        newest_event_time_ms: as in `Reach`; None where it would be None.
    """

    bounds: Int64Array
    newest_event_time_ms: int | None


class CompiledView:
    """A ViewSpec ready to fold, roll up and answer.

    Args:
        spec: a valid view (definitions/ checks it).

    Attributes:
        spec: the view.
        layout: the tiles' fields.
        roll_up: when tiles may widen.
        windows: distinct windows, those of series one by one, (W,); the presence window is last.
        event_columns: what it stores and lifts of an event, ascending by name.
        edges: of the windows.
        sessions: those of the windows that are sessions.
        ends_at_read: (W,) 1 for windows that end at the read time, 0 for others.
        lowered: all its features, for a `Lowering`.
    """

    def __init__(self, spec: ViewSpec) -> None:
        self.spec = spec
        inputs = view_inputs(spec)
        self.event_columns = inputs.event_columns
        needed: list[tuple[FeatureSpec, Aggregation, tuple[Part, ...]]] = []
        for feature in spec.features:
            aggregation = resolve(feature.function)
            further = [inputs.column(name) for name in aggregation.further_columns]
            needed.append((feature, aggregation, aggregation.parts(inputs.input_of(feature), further)))
        has_sessions = any(feature.window.gap_ms for feature in spec.features)
        shared: list[Part] = [EventSpan()] if has_sessions else []
        self.layout = TileLayout(
            shared + [part for _, _, parts in needed for part in parts], inputs.conditional, inputs.undo
        )
        self.roll_up = RollUp(spec)
        self.windows = (
            *sorted({one for feature in spec.features for one in element_windows(feature.window)}, key=_window_order),
            _presence_window(self.roll_up),
        )
        # The presence window may equal one that a feature has; features then use the first of the two.
        window_index = {window: index for index, window in reversed(tuple(enumerate(self.windows)))}
        self.edges = WindowEdges(self.windows)
        self.sessions = Sessions(self.layout, self.windows)
        self.ends_at_read = np.array([not window.offset_ms for window in self.windows], dtype=np.int64)
        self.lowered = LoweredView.of(
            self.layout,
            len(self.windows),
            [
                FeatureFields(
                    feature,
                    aggregation,
                    tuple(self.layout.position_of(part) for part in parts),
                    tuple(window_index[one] for one in element_windows(feature.window)),
                )
                for feature, aggregation, parts in needed
            ],
            [derived_feature(feature, spec.features) for feature in spec.derived],
        )
        self._lowering = Lowering([self.lowered])

    def answer(self, table: TileTable, as_of_ms: int) -> ViewAnswer:
        """Every feature of one entity key at one read time.

        Args:
            table: the entity's tiles, ascending by start (see `wire.codecs.body.decode_entity`).
            as_of_ms: read time, event time, exclusive.

        Raises:
            AsOfTooOld: an edge of a window lies inside a tile that was rolled up, or before what was dropped, or such
                a tile may hide the begin of a session.
        """
        reach = self.reach(table, as_of_ms)
        merged = self._lowering.gathered(1)
        if reach is None:
            self._lowering.gather_nothing(0, merged, 0)
        else:
            self._lowering.gather(0, table, reach.bounds, merged, 0)
        lowered = self._lowering.lower(merged, np.array([as_of_ms], dtype=np.int64))
        return ViewAnswer(
            lowered.ints[:, 0],
            lowered.floats[:, 0],
            {feature: values[0] for feature, values in lowered.objects.items() if values[0] is not None},
            lowered.null[:, 0],
            reach is not None,
            0 if reach is None else reach.newest_event_time_ms,
        )

    def reach(self, table: TileTable, as_of_ms: int) -> Reach | None:
        """Where the windows are; None when no tile is within the view's retention.

        Raises:
            AsOfTooOld: as `answer`.
        """
        if not len(table.start_ms):
            return None
        bounds = self._bounds(table, as_of_ms)
        end = int(bounds[-1])
        if end <= bounds[len(self.windows) - 1]:
            return None
        return Reach(bounds, int(table.start_ms[end - 1]))

    def reach_in_flight(self, table: TileTable, as_of_ms: int) -> ReachInFlight:
        """Where the windows are, and where they are with the event in flight.

        The event is the newest of every window that ends at the read time, which is its own: events of the same
        millisecond, its copy in the stream among them, lie outside.

        Args:
            table: the entity's tiles with the event, which stands behind those before it and before all others.
            as_of_ms: the event's time.

        Raises:
            AsOfTooOld: as `answer`.
        """
        found = self._bounds(table, as_of_ms)
        end = int(found[-1])
        is_found = end > found[len(self.windows) - 1]
        return ReachInFlight(self.bounds_in_flight(found), int(table.start_ms[end - 1]) if is_found else None)

    def bounds_in_flight(self, found: Int64Array) -> Int64Array:
        """(4W,) the bounds of `ReachInFlight` from those without the event."""
        count = len(self.windows)
        bounds = np.empty(4 * count, dtype=np.int64)
        bounds[:count] = bounds[count : 2 * count] = found[:count]
        bounds[2 * count : 3 * count] = found[count:]
        bounds[3 * count :] = found[count:] + self.ends_at_read
        return bounds

    def _bounds(self, table: TileTable, as_of_ms: int) -> Int64Array:
        """(2W,) see `Reach`."""
        start_ms = table.start_ms
        shift_ms, grid_ms = self.edges.shift_ms(as_of_ms), self.edges.grid_ms
        bounds = np.empty(len(shift_ms), dtype=np.int64)
        find_bounds(start_ms, as_of_ms, shift_ms, grid_ms, bounds)
        # A read within the lookback of the newest tile cannot cut a rolled-up one (see core.roll_up.RollUp).
        if as_of_ms < int(start_ms[-1]) - self.spec.lookback_ms or not self.edges.are_on_grid(as_of_ms):
            edges = as_of_ms - shift_ms
            self._refuse_cut_tiles(table, bounds, edges - edges % grid_ms, as_of_ms)
        self.sessions.narrow(table, as_of_ms, bounds)
        return bounds

    def next_change_ms(self, table: TileTable, as_of_ms: int) -> int | None:
        """A read time before which no window holds anything else than now; None if none ever will by itself.

        It is that of the change, or earlier: the next edge of any window that passes a tile, a feature's or not.

        Args:
            table: the entity's tiles.
            as_of_ms: the read time now.
        """
        if not table.count:
            return None
        bounds = np.empty(2 * len(self.windows), dtype=np.int64)
        find_bounds(table.start_ms, as_of_ms, self.edges.shift_ms(as_of_ms), self.edges.grid_ms, bounds)
        has_row = bounds < table.count
        rows_ms = table.start_ms[np.minimum(bounds, table.count - 1)]
        moments = self.edges.passes_ms(rows_ms, as_of_ms)[has_row].tolist()
        moments += self.sessions.ends_ms(table, as_of_ms, bounds)
        return min((moment for moment in moments if as_of_ms < moment < -BEGINNING_MS), default=None)

    def windows_at(self, table: TileTable, as_of_ms: int) -> WindowsAt:
        """Where the windows are at a read time, also at one that `reach` refuses."""
        shift_ms, grid_ms = self.edges.shift_ms(as_of_ms), self.edges.grid_ms
        bounds = np.empty(len(shift_ms), dtype=np.int64)
        find_bounds(table.start_ms, as_of_ms, shift_ms, grid_ms, bounds)
        edges = as_of_ms - shift_ms
        edges -= edges % grid_ms
        begin_ms, end_ms = edges.reshape(2, -1)
        return WindowsAt(begin_ms, end_ms, bounds, self._unclear(table, bounds, edges))

    def _refuse_cut_tiles(self, table: TileTable, at: Int64Array, edges: Int64Array, as_of_ms: int) -> None:
        """Pair assertion of the roll-up: an answer is exact or it is refused."""
        if self._unclear(table, at, edges).any():
            raise AsOfTooOld(
                f"as_of {as_of_ms} is older than the tiles of this entity can tell apart",
                detail=f'feature view "{self.spec.name}" keeps reads exact down to {self.spec.lookback_ms} ms '
                f"before the entity's newest event ({int(table.start_ms[-1])}).",
                hint='read at a later time, or declare a longer "lookback" on the feature view',
            )

    def _unclear(self, table: TileTable, at: Int64Array, edges: Int64Array) -> BoolArray:
        """(W,) whether an edge of a window is inside a tile or before what was dropped, or a session is blurred."""
        if not table.count:
            return np.zeros(len(self.windows), dtype=np.bool_)
        # A wide old tile may reach beyond a late event behind it, hence the running maximum of the ends.
        reached = np.maximum.accumulate(table.end_ms)
        cut = (at > 0) & (reached[at - 1] > edges)
        dropped = (edges < table.dropped_before_ms) & (edges > BEGINNING_MS)
        is_unclear = np.asarray((cut | dropped).reshape(2, -1).any(axis=0))
        is_unclear[self.sessions.blurred(table, at)] = True
        return is_unclear


def _presence_window(roll_up: RollUp) -> Window:
    """The window that decides whether an entity is found."""
    if roll_up.retention_ms is None:
        return Window(None)
    return Window(roll_up.retention_ms, roll_up.retention_hop_ms)


def _window_order(window: Window) -> tuple[int | str, ...]:
    """Shortest first, lifetime last; any fixed order would do."""
    length_ms = -BEGINNING_MS if window.length_ms is None else window.length_ms
    return (length_ms, window.hop_ms, window.offset_ms, window.gap_ms, window.calendar or "", window.timezone)
