"""A view ready to compute: its tile layout, its windows, and the plan that turns merged windows into answers.

    tiles, oldest first      [      ][   ][   ][ ][ ][ ]|||     body .. head
    windows at t             ..............(30 d.............)t
                                      (1 h...................)t
                                                   (1 min....)t

Every window is a range of one sorted list, most of them suffixes. One call answers them all: two binary searches a
window, one running sum, and one numpy call for each kind of merge and each aggregation, however many features share
them. Time: O(tiles + windows) for sums, O(tiles x windows) for the rest, with a few hundred tiles at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import Aggregation
from featurestore.core.aggregations.catalog import resolve
from featurestore.core.events import BoolArray, Float64Array, Int64Array
from featurestore.core.lowering import FeatureFields, Lowering
from featurestore.core.parts import Part, RowCount
from featurestore.core.roll_up import RollUp
from featurestore.core.spec import Column, FeatureSpec, ViewSpec, Window
from featurestore.core.tiles import TileLayout, TileTable
from featurestore.errors import AsOfTooOld, InvariantBroken

BEGINNING_MS = -(1 << 61)
"""Older than any event; the tail of a lifetime window is older still."""


@dataclass(frozen=True, slots=True)
class ViewAnswer:
    """Values of the F features of a view for one entity key at one read time.

    Attributes:
        ints: (F,) answers of INT64, BOOL and TIMESTAMP features at their index, 0 elsewhere and where null.
        floats: (F,) answers of FLOAT64 features, likewise.
        texts: feature index -> answer, for STRING features that are not null.
        null: (F,) True where there is no answer.
        found: False when the entity has no event within the view's retention.
        newest_event_time_ms: event time of the newest event in reach, 0 when not found; when only rolled-up tiles are
            in reach, the start of the newest of them, which is earlier by less than that tile's width.
    """

    ints: Int64Array
    floats: Float64Array
    texts: dict[int, str]
    null: BoolArray
    found: bool
    newest_event_time_ms: int


class CompiledView:
    """A ViewSpec ready to fold, roll up and answer.

    Args:
        spec: a valid view (definitions/ checks it).

    Attributes:
        spec: the view.
        layout: the tiles' fields.
        roll_up: when tiles may widen.
        windows: distinct windows, (W,); the presence window is last.
        columns: names of the source columns that its aggregations read.
    """

    def __init__(self, spec: ViewSpec) -> None:
        self.spec = spec
        presence = RowCount()
        needed: list[tuple[FeatureSpec, Aggregation, tuple[Part, ...]]] = []
        for feature in spec.features:
            aggregation = resolve(feature.function)
            needed.append((feature, aggregation, aggregation.parts(_column_of(spec, feature))))
        self.layout = TileLayout([presence, *(part for _, _, parts in needed for part in parts)])
        self.roll_up = RollUp(spec)
        self.windows = (
            *sorted({feature.window for feature in spec.features}, key=_window_order),
            _presence_window(self.roll_up),
        )
        # The presence window may equal one that a feature has; features then use the first of the two.
        self._window_index = {window: index for index, window in reversed(tuple(enumerate(self.windows)))}
        self.columns = tuple(sorted({feature.column for feature in spec.features if feature.column is not None}))
        self._presence_row = self.layout.position_of(presence).fields[0].row
        self._shift, self._grid = _edge_arithmetic(self.windows)
        self._lowering = Lowering(
            [
                FeatureFields(
                    feature,
                    aggregation,
                    tuple(at for part in parts for at in self.layout.position_of(part).fields),
                    self._window_index[feature.window],
                )
                for feature, aggregation, parts in needed
            ],
            len(self.windows),
        )
        self._own_windows = self._windows_of_own_parts(needed)
        self._no_windows = {key: np.empty(0, dtype=np.int64) for key in self._own_windows}
        self._nothing = self._answer_over_nothing()

    def answer(self, table: TileTable, as_of_ms: int) -> ViewAnswer:
        """Every feature of one entity key at one read time.

        Args:
            table: the entity's tiles, ascending by start (see `wire.tile_codec.decode_entity`).
            as_of_ms: read time, event time, exclusive.

        Raises:
            AsOfTooOld: an edge of a window lies inside a tile that was rolled up, or before what was dropped.
        """
        if table.count == 0:
            return self._nothing
        edges = as_of_ms - self._shift
        edges -= edges % self._grid
        at = table.start_ms.searchsorted(edges)
        # A read within the lookback of the newest tile cannot cut a rolled-up one (see core.roll_up.RollUp).
        if as_of_ms < int(table.start_ms[-1]) - self.spec.lookback_ms:
            self._refuse_cut_tiles(table, edges, at, as_of_ms)
        merged = table.merge_ranges(at, self._own_windows)
        if merged.ints[self._presence_row, -1] == 0:
            return self._nothing
        newest_event_time_ms = int(table.start_ms[at[-1] - 1])
        lowered = self._lowering.lower(merged)
        return ViewAnswer(lowered.ints, lowered.floats, lowered.texts, lowered.null, True, newest_event_time_ms)

    def _refuse_cut_tiles(self, table: TileTable, edges: Int64Array, at: Int64Array, as_of_ms: int) -> None:
        """Pair assertion of the roll-up: an answer is exact or it is refused."""
        # A wide old tile may reach beyond a late event behind it, hence the running maximum of the ends.
        reached = np.maximum.accumulate(table.end_ms)
        cut = (at > 0) & (reached[at - 1] > edges)
        dropped = (edges < table.dropped_before_ms) & (edges > BEGINNING_MS)
        if cut.any() or dropped.any():
            raise AsOfTooOld(
                f"as_of {as_of_ms} is older than the tiles of this entity can tell apart",
                detail=f'feature view "{self.spec.name}" keeps reads exact down to {self.spec.lookback_ms} ms '
                f"before the entity's newest event ({int(table.start_ms[-1])}).",
                hint='read at a later time, or declare a longer "lookback" on the feature view',
            )

    def _answer_over_nothing(self) -> ViewAnswer:
        """Counts and sums are 0, everything else null, as lowering the identities gives them."""
        nothing = np.zeros(2 * len(self.windows), dtype=np.int64)
        lowered = self._lowering.lower(self.layout.empty().merge_ranges(nothing, self._no_windows))
        return ViewAnswer(lowered.ints, lowered.floats, lowered.texts, lowered.null, False, 0)

    def _windows_of_own_parts(
        self, needed: Sequence[tuple[FeatureSpec, Aggregation, tuple[Part, ...]]]
    ) -> dict[str, Int64Array]:
        """Which windows ask for each part with OWN fields: the costly ones answer only what is asked."""
        asked: dict[str, set[int]] = {placed.part.key: set() for placed in self.layout.own_parts}
        for feature, _, parts in needed:
            for part in parts:
                if part.key in asked:
                    asked[part.key].add(self._window_index[feature.window])
        return {key: np.array(sorted(windows), dtype=np.int64) for key, windows in asked.items()}


def _edge_arithmetic(windows: Sequence[Window]) -> tuple[Int64Array, Int64Array]:
    """How to get all edges of a read time at once: edge = (t - shift) floored to its grid; tails first, then heads."""
    tails, heads = [], []
    for window in windows:
        if window.length_ms is None:
            tails.append((-2 * BEGINNING_MS, 1))
        else:
            tails.append((window.length_ms + window.offset_ms, window.hop_ms))
        heads.append((window.offset_ms, window.hop_ms) if window.offset_ms else (0, 1))
    shift, grid = zip(*tails, *heads, strict=True)
    return np.array(shift, dtype=np.int64), np.array(grid, dtype=np.int64)


def _presence_window(roll_up: RollUp) -> Window:
    """The window that decides whether an entity is found."""
    if roll_up.retention_ms is None:
        return Window(None)
    return Window(roll_up.retention_ms, roll_up.retention_hop_ms)


def _window_order(window: Window) -> tuple[int, int, int]:
    """Shortest first, lifetime last; any fixed order would do."""
    return (BEGINNING_MS if window.length_ms is None else window.length_ms, window.hop_ms, window.offset_ms)


def _column_of(spec: ViewSpec, feature: FeatureSpec) -> Column | None:
    """The source column of a feature."""
    if feature.column is None:
        return None
    column = spec.source.column(feature.column)
    if column is None:
        raise InvariantBroken(
            f'feature view "{spec.name}" reads column "{feature.column}" that its source does not have'
        )
    return column
