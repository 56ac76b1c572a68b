"""Point-in-time values: every feature of a view for many (entity, moment) pairs at once, from its events.

    events      sorted by (entity, event time), lifted to one row each     e1 e1 e1 e1 | e2 e2 | e3 ...
    moments     sorted alike                                                   t     t |    t  |
    windows     ranges of rows, found by searches that only ever move on   [.......)     [..)
    merging     sums by differences of running sums that lose nothing; extremes, first, last and moments in one pass;
                all other parts by a tree of merged rows, so that a window costs the logarithm of its events
    lowering    once for all moments, by the same code that answers a lookup

The value is exactly that of `CompiledView.answer` over tiles of one millisecond of all events before the moment: parts,
lifting, windows and lowering are the same objects, only the way to merge a range differs.

Ordering required: none. Time: O(N log N + R log N) for N events and R moments; space: O(N + R) for each field of a
chunk, and a chunk can be as small as one entity. Chunks are independent of each other, so callers may run them in
threads: nearly all of the time is spent in compiled loops and numpy, which let other threads run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from featurestore.core.aggregations.numbers.moments import Moment
from featurestore.core.aggregations.ordered.first_last import EdgeValue
from featurestore.core.inputs import view_inputs
from featurestore.core.lowering.lowering import LoweredFeatures, Lowering
from featurestore.core.point_in_time.bounds import find_windows
from featurestore.core.point_in_time.first_last import EdgeMerges
from featurestore.core.point_in_time.moments import MomentMerges
from featurestore.core.point_in_time.ranges import BlockMerges
from featurestore.core.point_in_time.rows import Chunk, EventsInFlight
from featurestore.core.point_in_time.tree import TreeMerges
from featurestore.core.spec import Window
from featurestore.core.tiles.parts import EventRows, Merge
from featurestore.core.tiles.ranges import Ask
from featurestore.core.tiles.tiles import TileLayout
from featurestore.core.view import CompiledView
from featurestore.core.windows.windows import WindowEdges


class PointInTime:
    """Computes features of one view.

    Args:
        compiled: the view.
        outputs: which of its features to answer, in this order, derived ones counting on behind the windowed ones;
            None answers all.
        counts_in_flight: whether moments have events in flight. What counts them and is no sum or extreme is then
            merged by the tree, to which an event more is a node more.
    """

    def __init__(
        self, compiled: CompiledView, outputs: Sequence[int] | None = None, *, counts_in_flight: bool = False
    ) -> None:
        lowered = compiled.lowered if outputs is None else compiled.lowered.choose(outputs)
        inputs = view_inputs(compiled.spec)
        self.compiled = compiled
        self._lowering = Lowering([lowered])
        self._windows = compiled.windows
        self._edges = WindowEdges(compiled.windows)
        (asks,) = self._lowering.asks
        asks = [replace(ask, in_flight=counts_in_flight and _counts(ask, compiled.windows)) for ask in asks]
        blocks, edges, moments, others = _by_kind(asks)
        row_layout = TileLayout([ask.part.part for ask in (*blocks, *edges, *moments)], inputs.conditional, inputs.undo)
        tree_layout = TileLayout([ask.part.part for ask in others], inputs.conditional, inputs.undo)
        self._row_layout, self._tree_layout = row_layout, tree_layout
        self._blocks = BlockMerges(row_layout, blocks)
        self._row_edges = EdgeMerges(row_layout, edges)
        self._moments = MomentMerges(row_layout, moments)
        self._tree = TreeMerges(tree_layout, others)
        self._horizon_ms = compiled.spec.source.dedup_horizon_ms
        self._asked_windows = sorted({ask.window for ask in asks})

    @property
    def reads_event_ids(self) -> bool:
        """Whether a part is lifted from ids: which of two events of one time is first."""
        return self._row_layout.reads_event_ids or self._tree_layout.reads_event_ids

    def answer(self, chunk: Chunk, in_flight: EventsInFlight | None = None) -> LoweredFeatures:
        """All features at all moments of a chunk, (F, R) in the order of the outputs and of the chunk's moments.

        Args:
            chunk: some entities.
            in_flight: of all moments that were cut into chunks, in their order.
        """
        events, moments = chunk.sorted_events(self._horizon_ms), chunk.moments
        windows = find_windows(events, moments, self._windows, self._edges, self._asked_windows)
        merged = self._lowering.gathered(moments.count)
        rows = EventRows(events.event_time_ms, events.event_ids, events.columns)
        own, more = None, None
        if in_flight is not None:
            own = in_flight.take(chunk.moment_rows)
            more = EventRows(moments.as_of_ms, None, own.columns)
        if self._row_layout.parts:
            table = self._row_layout.lift(rows)
            self._blocks.merge(table, events.entity, windows, merged)
            if own is not None and more is not None:
                self._blocks.add(self._row_layout.lift(more), own.is_event, merged)
            self._row_edges.merge(table, events.entity, windows, merged)
            self._moments.merge(table, windows, merged)
        if self._tree.is_asked:
            tiles = self._tree_layout.lift(rows)
            if own is None or more is None:
                self._tree.merge(tiles, windows, merged)
            else:
                self._tree.merge(tiles, windows, merged, self._tree_layout.lift(more), own.is_event)
        return self._lowering.lower(merged, moments.as_of_ms)


def _counts(ask: Ask, windows: Sequence[Window]) -> bool:
    """Whether an event at the read time is in what is asked for."""
    return ask.in_flight and not windows[ask.window].offset_ms


def _by_kind(asks: Sequence[Ask]) -> tuple[list[Ask], list[Ask], list[Ask], list[Ask]]:
    """Asks of blocks, of first and last values, of moments, and the rest."""
    blocks: list[Ask] = []
    edges: list[Ask] = []
    moments: list[Ask] = []
    others: list[Ask] = []
    for ask in asks:
        fields = ask.part.part.fields
        if all(field.merge is not Merge.OWN for field in fields):
            blocks.append(ask)
        elif ask.in_flight:
            others.append(ask)
        elif isinstance(ask.part.part, EdgeValue):
            edges.append(ask)
        elif isinstance(ask.part.part, Moment):
            moments.append(ask)
        else:
            others.append(ask)
    return blocks, edges, moments, others
