"""approx_percentile and median: values below which a given share of all values lies, within one percent.

    theory            DDSketch: a value falls into the bucket of its logarithm, so each bucket is a relative error wide.
                      Here an octave [2**e, 2**(e + 1)) is cut into 35 buckets at 2**(j / 35), computed once in exact
                      integers; the exponent and a search among the 34 cuts find the bucket without any logarithm. So
                      every machine puts a value into the same bucket, and merging adds counts: the answer is the same
                      to the bit whatever was merged first
    error             a bucket answers with a value at most 0.991 % from all that are in it; zero is exact
    space             one entry (about 2 bytes) for each bucket in use: amounts from 0.01 to 1,000,000 use at most 933.
                      Nothing is ever collapsed: doubles have 2 x 73,430 buckets, integers 2 x 2,205
    which value       the smallest whose rank is at least p n (nearest rank, PERCENTILE_DISC of SQL)

Source: Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
VLDB 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from featurestore.core.aggregations.base import AggregationBase, Lowered
from featurestore.core.aggregations.keyed.kernels import ADD
from featurestore.core.aggregations.keyed.states import INT_TAG, ONCE, KeyedPart, StateLayout, no_answers, read_state
from featurestore.core.aggregations.parameters import number_text
from featurestore.core.events import ColumnValues, Float64Array, Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, EventRows, FieldValues, Part

RELATIVE_ERROR = 0.01
"""Of an answer, at most."""

BUCKETS_PER_OCTAVE = 35
"""The fewest whose buckets are narrow enough: 2**(1/35) < 1.01 / 0.99."""

_EXPONENT_SHIFT = 1_100
"""Makes the bucket number of every positive double positive; negative values have it negated, zero is 0."""

_LARGEST = float(np.finfo(np.float64).max)


class LogBuckets(KeyedPart):
    """Counts of values by the bucket of their logarithm."""

    def __init__(self, column: Column) -> None:
        super().__init__(f"logarithms({column.name})", StateLayout(INT_TAG, (ADD,)))
        self.column = column

    def lift(self, rows: EventRows) -> Mapping[str, FieldValues]:
        """Each value's bucket once."""
        values = rows.columns[self.column.name]
        buckets = buckets_of(np.asarray(values.values).astype(np.float64))
        return {"state": self.lift_entries(ColumnValues(buckets), values.valid, [ONCE])}


@dataclass(frozen=True, slots=True)
class Percentile(AggregationBase):
    """The smallest value whose rank is at least p n, to within 1 %: one p gives a number, several give a list.

    Null over no values. Zero is exact, negative values are as near as positive ones. Exactly mergeable.
    """

    shares: tuple[float, ...]
    input_types = frozenset({ValueType.INT64, ValueType.FLOAT64})
    is_median: bool = False

    @property
    def name(self) -> str:
        """The catalog's name with its shares."""
        return "median" if self.is_median else f"approx_percentile({', '.join(map(number_text, self.shares))})"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """FLOAT64 or a list of them."""
        if column_type not in self.input_types:
            return None
        return ValueType.FLOAT64 if len(self.shares) == 1 else ValueType.FLOAT64_LIST

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """The buckets."""
        assert column is not None
        return (LogBuckets(column),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The middle of the bucket in which the wanted rank is."""
        (states,) = fields
        is_one = len(self.shares) == 1
        answers: Array = np.zeros(states.shape) if is_one else no_answers(states.shape)
        null = np.ones(states.shape, dtype=np.bool_)
        shares = [Fraction(repr(share)) for share in self.shares]  # as written, not as the nearest double
        for place, state in np.ndenumerate(states):
            if state:
                entries = read_state(state)
                reached = np.cumsum(entries.ints[0])
                ranks = [max(1, math.ceil(share * int(reached[-1]))) for share in shares]
                values = middles_of(entries.numbers[np.searchsorted(reached, ranks)]).tolist()
                answers[place] = values[0] if is_one else values
                null[place] = False
        return Lowered(answers, null)


def buckets_of(values: Float64Array) -> Int64Array:
    """(N,) bucket numbers, ascending with the values; infinities count as the largest double."""
    mantissa, exponent = np.frexp(np.minimum(np.abs(values), _LARGEST))
    within = np.searchsorted(_CUTS, mantissa, side="right")
    number = (exponent.astype(np.int64) + _EXPONENT_SHIFT) * BUCKETS_PER_OCTAVE + within
    return np.where(values == 0, 0, np.where(values < 0, -number, number))


def middles_of(buckets: Int64Array) -> Float64Array:
    """(N,) the value that each bucket answers with: as far, relatively, from its lower end as from its upper."""
    exponent, within = np.divmod(np.abs(buckets), BUCKETS_PER_OCTAVE)
    size = np.ldexp(_MIDDLES[within], (exponent - _EXPONENT_SHIFT).astype(np.int32))
    return np.where(buckets == 0, 0.0, np.copysign(size, buckets))


def _cut(number: int) -> float:
    """The double at or just below 2**(number / BUCKETS_PER_OCTAVE - 1), by bisection in integers."""
    wanted = 1 << (number + 52 * BUCKETS_PER_OCTAVE)
    low, high = 1 << 52, 1 << 53
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**BUCKETS_PER_OCTAVE <= wanted else (low, middle)
    return low / (1 << 53)


_EDGES: Float64Array = np.array([_cut(number) for number in range(BUCKETS_PER_OCTAVE)] + [1.0])
"""Lower ends of the buckets of [0.5, 1), where frexp's mantissa lies, and the upper end of the last."""

_CUTS = _EDGES[1:-1]
_MIDDLES = 2 * _EDGES[:-1] * _EDGES[1:] / (_EDGES[:-1] + _EDGES[1:])
