"""The values of a column and how often each occurs: what exact distinct counts, histograms, mode and entropy share.

    amounts       5, 7, 5, 5          state   5: 3, 7: 1

A tile that holds more distinct values than the bound forgets them all and says so, for ever: whatever it is merged
into holds too many as well. So whether an answer is given depends on the set of values in the window and on nothing
else. All bounds up to SHARED_BOUND share one part, so a column's values are stored once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from featurestore.core.aggregations.keyed.states import Entries, ValueCounts, is_too_many, read_state
from featurestore.core.events import ObjectArray
from featurestore.core.spec import Column
from featurestore.core.tiles.parts import Array

SHARED_BOUND = 1_000
"""Smallest bound of a part; answers with a lower bound are null above it all the same."""

DISTINCT_MAX = 10_000
"""Highest bound: some 100 KB a tile of numbers."""


class Multiset(ValueCounts):
    """Non-null values of a column with their counts.

    Args:
        column: whose values.
        bound: number of distinct values of which an answer is wanted.
    """

    def __init__(self, column: Column, bound: int) -> None:
        held = max(bound, SHARED_BOUND)
        super().__init__(f"multiset({column.name},{held})", column, limit=held)


def each_multiset(states: Array, bound: int) -> Iterator[tuple[tuple[int, int], Entries]]:
    """Place and entries of every state that is not empty and holds at most `bound` values; (K, R) states."""
    for place, state in np.ndenumerate(states):
        if state and not is_too_many(state):
            entries = read_state(state)
            if len(entries) <= bound:
                yield (place[0], place[1]), entries


def no_answers(shape: Sequence[int]) -> ObjectArray:
    """(K, R) objects to fill in; 0 stands where there is no answer."""
    answers: ObjectArray = np.empty(tuple(shape), dtype=np.object_)
    answers.fill(0)
    return answers
