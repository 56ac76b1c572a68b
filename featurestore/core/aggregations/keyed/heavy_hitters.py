"""approx_heavy_hitters: the most frequent values with their counts, of any number of distinct values.

    algorithm         Misra-Gries summary of m = 10 n counters; merging adds the counters of equal values and, when more
                      than m are left, takes the count of the heaviest that has to go from all of them
    error             a count is never too high, and too low by at most N / (m + 1) for N values; exact while a window
                      holds at most m distinct values
    laws              commutative, but not associative to the bit: no mergeable summary of bounded size is both exact
                      about what it drops and independent of when it dropped it. Online and history may differ within
                      the error, which is all that they promise
    space             m entries

Source: Misra and Gries, "Finding repeated elements", 1982; Agarwal, Cormode, Huang, Phillips, Wei and Yi, "Mergeable
summaries", PODS 2012, section 3 (the merge, and that its error bound survives any number of merges).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.base import ANY_TYPE, AggregationBase, Lowered
from featurestore.core.aggregations.keyed.kernels import HEAVIEST
from featurestore.core.aggregations.keyed.states import ValueCounts, no_answers, read_state
from featurestore.core.events import Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, Part

COUNTERS_PER_ANSWER = 10
"""m / n: ten times as many counters as answers, so that an answer of 10 is off by less than a hundredth of all."""

LENGTH_MAX = 1_000
"""Most values in an answer."""


class HeavyCounters(ValueCounts):
    """Up to m values with counts that are too low by at most N / (m + 1)."""

    def __init__(self, column: Column, counters: int) -> None:
        super().__init__(f"heaviest({column.name},{counters})", column, policy=HEAVIEST, limit=counters)


@dataclass(frozen=True, slots=True)
class HeavyHitters(AggregationBase):
    """The n most frequent values and their counts as a map, most frequent first; equally frequent ones by value.

    From a summary of m = 10 n counters: exact up to m distinct values; beyond, a count over N values is never too high
    and too low by at most N / (m + 1). Null over no values.
    """

    length: int
    input_types = ANY_TYPE
    is_exactly_mergeable = False

    @property
    def name(self) -> str:
        """The catalog's name with its length."""
        return f"approx_heavy_hitters({self.length})"

    def output_type(self, column_type: ValueType | None) -> ValueType | None:
        """A map from text to INT64."""
        return ValueType.INT64_MAP if column_type in self.input_types else None

    def parts(self, column: Column | None, further: Sequence[Column] = ()) -> tuple[Part, ...]:
        """The counters."""
        assert column is not None
        return (HeavyCounters(column, COUNTERS_PER_ANSWER * self.length),)

    def lower(self, fields: Sequence[Array], as_of_ms: Int64Array) -> Lowered:
        """The highest counters."""
        (states,) = fields
        maps, null = no_answers(states.shape), np.ones(states.shape, dtype=np.bool_)
        for place, state in np.ndenumerate(states):
            if state:
                entries = read_state(state)
                counts, texts = entries.ints[0], entries.texts()
                heaviest = (-counts).argsort(kind="stable")[: self.length].tolist()
                maps[place] = {texts[entry]: int(counts[entry]) for entry in heaviest}
                null[place] = False
        return Lowered(maps, null)
