"""approx_count_distinct: how many different values, of any number of them, from a HyperLogLog sketch.

    few values        the set of their coupons (32 bits of a hash), ascending, about 4 bytes each: the answer is exact
                      but for two values in 2**26 that share a coupon
    many values       above 2**lg_k / 4 coupons a byte for each of 2**lg_k registers: standard error 1.04 / 2**(lg_k/2),
                      1.6 % at the default of 12
    laws              a sketch is a function of the set of values alone: a union of coupons, then a maximum in each
                      register. There is no random bit and no history (as in the HIP estimator, which depends on the
                      order of arrival), so online and history agree to the bit
    hash              XXH64, seed 0, of the UTF-8 text, of the integer in 8 bytes, of the ordered bits of the float

Source: Flajolet, Fusy, Gandouet and Meunier, "HyperLogLog", 2007; Heule, Nunkesser and Hall, "HyperLogLog in
practice", EDBT 2013 (the sparse form); Ertl 2017 (the estimator). Why not a library: docs/decisions/0009-sketches.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import ANY_TYPE, AggregationBase, Lowered
from featurestore.core.aggregations.keyed.distinct_kernels import (
    DENSE,
    SPARSE,
    coupons_of,
    estimate_distinct,
    fill_registers,
)
from featurestore.core.aggregations.keyed.kernels import TOO_MANY
from featurestore.core.aggregations.keyed.states import KeyedPart, StateLayout, keys_of, replace_too_many
from featurestore.core.events import BlobRow, ColumnValues, Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, EventRows, FieldValues, Part

LG_K_MIN, LG_K_MAX = 8, 16
"""256 registers with an error of 6.5 %, 65,536 with 0.4 %."""

REGISTERS_PER_COUPON = 4
"""A sketch is dense as soon as its coupons would take about as many bytes as its registers."""


class DistinctSketch(KeyedPart):
    """Coupons of the distinct values, or registers when there are many; see the module docstring."""

    def __init__(self, column: Column, lg_k: int) -> None:
        limit = (1 << lg_k) // REGISTERS_PER_COUPON
        super().__init__(f"distinct({column.name},{lg_k})", StateLayout(SPARSE, limit=limit))
        self.column = column
        self.lg_k = lg_k

    def lift(self, rows: EventRows) -> Mapping[str, FieldValues]:
        """Each value's coupon."""
        values = rows.columns[self.column.name]
        coupons = coupons_of(keys_of(values, self.column.type))
        return {"state": self.lift_entries(ColumnValues(coupons), values.valid, [])}

    def merge_states(self, states: BlobRow, lows: Int64Array, highs: Int64Array, windows_a_span: int) -> BlobRow:
        """As of any keyed part, but too many coupons become registers."""
        merged = super().merge_states(states, lows, highs, windows_a_span)
        buffer = np.frombuffer(merged.buffer, np.uint8)
        sizes = merged.ends - merged.begins
        many = np.flatnonzero(sizes == 1)
        if not len(many):
            return merged
        assert (buffer[merged.begins[many]] == TOO_MANY).all(), "a sketch with a coupon has more than one byte"
        out = np.empty((len(many), 1 + (1 << self.lg_k)), dtype=np.uint8)
        begins, ends = np.ascontiguousarray(states.begins), np.ascontiguousarray(states.ends)
        data = np.frombuffer(states.buffer, np.uint8)
        fill_registers(data, begins, ends, lows[many], highs[many], self.lg_k, out.reshape(-1))
        return replace_too_many(merged, many, out)


@dataclass(frozen=True, slots=True)
class ApproximateCountDistinct(AggregationBase):
    """Number of distinct non-null values, from a HyperLogLog sketch of 2**lg_k registers; 0 over none.

    Up to 2**lg_k / 4 values the answer is exact but for rare collisions (one value in a thousand at most, in tests);
    above that its standard error is 1.04 / 2**(lg_k / 2), 1.6 % at the default of 12. Exactly mergeable.
    """

    lg_k: int
    input_types = ANY_TYPE

    @property
    def name(self) -> str:
        """The catalog's name with its size."""
        return f"approx_count_distinct({self.lg_k})"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """INT64."""
        return ValueType.INT64 if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """The sketch."""
        assert column is not None
        return (DistinctSketch(column, self.lg_k),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The number of coupons, or Ertl's estimate."""
        (states,) = fields
        counts = np.zeros(states.shape, dtype=np.int64)
        for place, state in np.ndenumerate(states):
            if state:
                counts[place] = count_of(state, self.lg_k)
        return Lowered(counts)


def count_of(state: bytes, lg_k: int) -> int:
    """How many distinct values a sketch that is not empty has seen."""
    data = np.frombuffer(state, np.uint8)
    if data[0] == DENSE:
        return round(estimate_distinct(data, lg_k))
    return int(np.count_nonzero(data[1:] < 0x80))  # a varint ends with such a byte
