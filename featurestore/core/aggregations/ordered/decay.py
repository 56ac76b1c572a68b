"""ewma_sum, ewma_count and ewma_mean: exponentially decayed to the read time, with a half-life.

    ewma_sum(h)     sum of x_i 2**-((t - t_i) / h) over the events of the window         0 over no values
    ewma_count(h)   the same with x_i = 1                                                0 over no events
    ewma_mean(h)    ewma_sum / ewma_count                                                null over no values

A tile keeps the sum decayed to its own newest event, which never underflows for that event; merging decays all tiles
to the newest event of them all, and lowering decays that to the read time t. So the state does not depend on when
anybody reads. Events many half-lives older weigh nothing in doubles, and adding that nothing is harmless. In the mean
the last decay cancels, so it is right however long ago the newest event was.

Source: Cormode, Shkapenyuk, Srivastava and Xu, "Forward decay: a practical time decay model for streaming systems",
ICDE 2009, with the newest event as landmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featurestore.core.aggregations.base import ANY_TYPE, NUMBERS, AggregationBase, Lowered
from featurestore.core.aggregations.ordered.times import EventTime
from featurestore.core.compiled import FLOAT_MATRIX, INT, INT_MATRIX, INTS, compiled
from featurestore.core.events import Float64Array, Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import (
    Array,
    Field,
    FieldValues,
    Lift,
    Merge,
    Part,
    PartBase,
    RangeFamily,
    Storage,
)
from featurestore.core.tiles.ranges import Ask, Gathered
from featurestore.core.windows.durations import format_duration

if TYPE_CHECKING:
    from featurestore.core.tiles.tiles import TileLayout, TileTable


@dataclass(frozen=True, slots=True)
class DecayedSum(PartBase):
    """Sum of values (or of ones), decayed to the newest event that has one.

    Attributes:
        column: the input; None takes all events, of which only ones can be added up.
        half_life_ms: time in which a value loses half its weight.
        counts: whether ones are added up.
    """

    column: str | None
    half_life_ms: int
    counts: bool

    @property
    def key(self) -> str:
        """Canonical text."""
        return f"decayed_{'count' if self.counts else 'sum'}({self.column or ''}, {self.half_life_ms})"

    @property
    def fields(self) -> tuple[Field, ...]:
        """One float."""
        lift = Lift.VALUE if not self.counts else Lift.ONE if self.column is None else Lift.VALID
        return (Field("sum", Storage.FLOAT, Merge.OWN, 0.0, lift, self.column),)

    @property
    def requires(self) -> tuple[Part, ...]:
        """The time to which the sum is decayed."""
        return (EventTime(self.column, is_newest=True),)

    @property
    def family(self) -> RangeFamily | None:
        """All decayed sums of a view."""
        return DecayedRanges

    def merge_groups(
        self, mine: Sequence[FieldValues], required: Sequence[FieldValues], starts: Int64Array
    ) -> tuple[FieldValues, ...]:
        """Each run decayed to its newest time, and added up."""
        sums, times = np.asarray(mine[0]), np.asarray(required[0])
        newest = np.maximum.reduceat(times, starts)
        ages = np.repeat(newest, np.diff(starts, append=len(times))) - times
        # A tile without values has no time; its sum is 0, whatever the wrapped age makes of it.
        weights = np.exp2(np.where(sums == 0.0, 0, ages) / -float(self.half_life_ms))
        return (np.add.reduceat(sums * weights, starts),)


@dataclass(frozen=True, slots=True)
class DecayedValues(AggregationBase):
    """ewma_sum: sum of the values, decayed to the read time; 0 over none."""

    half_life_ms: int
    input_types = NUMBERS
    ages = True

    @property
    def name(self) -> str:
        """The catalog's name with the half-life."""
        return f"ewma_sum({format_duration(self.half_life_ms)})"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """FLOAT64."""
        return ValueType.FLOAT64 if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """The newest time, and the sum as of then."""
        assert column is not None
        return (EventTime(column.name, is_newest=True), DecayedSum(column.name, self.half_life_ms, counts=False))

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The sum at the read time."""
        return Lowered(_decay(fields, as_of_ms, self.half_life_ms))


@dataclass(frozen=True, slots=True)
class DecayedCount(AggregationBase):
    """ewma_count: number of events (or of values of a column), decayed to the read time; 0 over none."""

    half_life_ms: int
    requires_column = False
    input_types = ANY_TYPE
    ages = True

    @property
    def name(self) -> str:
        """The catalog's name with the half-life."""
        return f"ewma_count({format_duration(self.half_life_ms)})"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """FLOAT64."""
        return ValueType.FLOAT64 if column_type is None or column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """The newest time, and the count as of then."""
        name = None if column is None else column.name
        return (EventTime(name, is_newest=True), DecayedSum(name, self.half_life_ms, counts=True))

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The count at the read time."""
        return Lowered(_decay(fields, as_of_ms, self.half_life_ms))


@dataclass(frozen=True, slots=True)
class DecayedMean(AggregationBase):
    """ewma_mean: mean of the values, each weighing as much as is left of it."""

    half_life_ms: int
    input_types = NUMBERS

    @property
    def name(self) -> str:
        """The catalog's name with the half-life."""
        return f"ewma_mean({format_duration(self.half_life_ms)})"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """FLOAT64."""
        return ValueType.FLOAT64 if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """Sum and count as of the newest value, where the count is at least 1."""
        assert column is not None
        return tuple(DecayedSum(column.name, self.half_life_ms, counts) for counts in (False, True))

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """Their quotient."""
        sums, counts = fields
        null = counts == 0.0
        return Lowered(sums / np.where(null, 1.0, counts), null)


def _decay(fields: Sequence[Array], as_of_ms: Int64Array, half_life_ms: int) -> Array:
    """(K, R) sums as of the newest event, taken to the read times."""
    newest, sums = fields
    ages = np.where(sums == 0.0, 0, as_of_ms - newest)  # without values there is no newest time
    return np.asarray(sums * np.exp2(ages / -float(half_life_ms)))


class DecayedRanges:
    """The decayed sums of any number of columns, half-lives and windows in one compiled loop.

    Attributes:
        picks: what `merge_decayed` is asked for.
    """

    def __init__(self, layout: TileLayout, asks: Sequence[Ask]) -> None:
        picks = []
        for ask in asks:
            part = ask.part.part
            assert isinstance(part, DecayedSum)
            (newest,), (total,) = ask.part.required, ask.part.fields
            picks.append((newest.row, total.row, part.half_life_ms, ask.window, ask.slots[0]))
        self.picks = np.array(picks, dtype=np.int64)

    def __call__(self, table: TileTable, bounds: Int64Array, out: Gathered, row: int) -> None:
        """Merge."""
        merge_decayed(table.ints, table.floats, bounds, self.picks, out.floats, row)


@compiled(INT, INT_MATRIX, FLOAT_MATRIX, INTS, INT_MATRIX, FLOAT_MATRIX, INT, allocates=False)
def merge_decayed(
    ints: Int64Array, floats: Float64Array, bounds: Int64Array, picks: Int64Array, out: Float64Array, out_row: int
) -> int:
    """Picks (K, 5): time field, sum field, half-life, window, slot."""
    width = len(bounds) // 2
    for index in range(len(picks)):
        time, total, half_life_ms = picks[index, 0], picks[index, 1], picks[index, 2]
        begin, end = bounds[picks[index, 3]], bounds[width + picks[index, 3]]
        newest = np.int64(-(1 << 63))
        for row in range(begin, end):
            newest = max(newest, ints[time, row])
        merged = 0.0
        for row in range(begin, end):
            # A tile without values has no time: its sum is 0, and its age would wrap.
            if floats[total, row] != 0.0:
                merged += floats[total, row] * 2.0 ** ((newest - ints[time, row]) / -float(half_life_ms))
        out[picks[index, 4], out_row] = merged
    return 0
