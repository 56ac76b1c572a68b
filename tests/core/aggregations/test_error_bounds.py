"""What the estimates promise: how far an answer may be from the exact one, and that it is never further.

Streams are seeded, so a failure repeats.
"""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.aggregations.keyed.approx_count_distinct import DistinctSketch, count_of
from featurestore.core.aggregations.keyed.approx_percentile import (
    RELATIVE_ERROR,
    LogBuckets,
    Percentile,
    buckets_of,
    middles_of,
)
from featurestore.core.aggregations.keyed.heavy_hitters import HeavyCounters, HeavyHitters
from featurestore.core.aggregations.keyed.multiset import Multiset
from featurestore.core.aggregations.keyed.multiset import count_of as distinct_of
from featurestore.core.aggregations.keyed.states import KeyedPart
from featurestore.core.events import BlobRow, ColumnValues, Float64Array, Int64Array
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import Array, EventRows

NUMBERS = Column("value", ValueType.INT64)
PRICES = Column("value", ValueType.FLOAT64)

numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    st.integers(-(2**63), 2**63 - 1).map(float),
    st.integers(-1100, 1000).map(lambda exponent: math.ldexp(1.0, max(exponent, -1022))),
)


def merged_in_a_tree(part: KeyedPart, values: Int64Array | Float64Array, seed: int) -> bytes:
    """The state over values, merged in runs and runs of runs."""
    rows = EventRows(np.zeros(len(values), dtype=np.int64), None, {"value": ColumnValues(values)})
    states, random = part.lift(rows)["state"], np.random.default_rng(seed)
    while len(states) > 1:
        cuts = np.unique(random.integers(0, len(states), len(states) // 8))
        (states,) = part.merge_groups([states], [], np.unique(np.append(0, cuts)))
    assert isinstance(states, BlobRow)
    return states[0]


def lowered(aggregation: Percentile | HeavyHitters, state: bytes) -> object:
    """The answer of one state."""
    fields: Array = np.empty((1, 1), dtype=np.object_)
    fields[0, 0] = state
    return aggregation.lower([fields], np.zeros(1, dtype=np.int64)).values[0, 0]


@given(value=numbers)
def test_a_bucket_is_within_one_percent_of_its_values(value: float) -> None:
    """Every normal double, negative ones and zero included."""
    middle = float(middles_of(buckets_of(np.array([value])))[0])

    assert abs(Fraction(middle) - Fraction(value)) <= Fraction(RELATIVE_ERROR) * abs(Fraction(value))


@given(left=numbers, right=numbers)
def test_buckets_are_in_the_order_of_values(left: float, right: float) -> None:
    """So that the bucket of a rank is the bucket of the value of that rank."""
    low, high = buckets_of(np.array([min(left, right), max(left, right)])).tolist()

    assert low <= high


def test_infinities_count_as_the_largest_doubles() -> None:
    """They have a rank but no logarithm."""
    largest = float(np.finfo(np.float64).max)

    assert buckets_of(np.array([-largest, largest])).tolist() == buckets_of(np.array([-np.inf, np.inf])).tolist()


@pytest.mark.parametrize("column", [NUMBERS, PRICES])
def test_percentiles_are_within_one_percent(column: Column) -> None:
    """Of the value of nearest rank, over amounts as payments have them, refunds included."""
    random = np.random.default_rng(7)
    amounts = np.round(random.lognormal(4, 2, 5_000) * np.where(random.random(5_000) < 0.1, -1, 1), 2)
    values = amounts if column is PRICES else amounts.astype(np.int64)
    shares = (0.0, 0.001, 0.07, 0.25, 0.5, 0.95, 0.999, 1.0)
    answers = lowered(Percentile(shares), merged_in_a_tree(LogBuckets(column), values, 3))
    ascending = np.sort(values).tolist()
    exact = [ascending[max(1, math.ceil(Fraction(str(share)) * len(values))) - 1] for share in shares]

    assert isinstance(answers, list)
    assert [] == [
        pair for pair in zip(exact, answers, strict=True) if abs(pair[0] - pair[1]) > RELATIVE_ERROR * abs(pair[0])
    ]


@pytest.mark.parametrize(
    ("lg_k", "count"), [(8, 60), (8, 70), (8, 300), (8, 20_000), (12, 1_000), (12, 4_000), (12, 40_000)]
)
def test_distinct_counts_are_within_their_error(lg_k: int, count: int) -> None:
    """Over thirty streams: the standard error, a third more at most; while sparse, one value in a thousand."""
    part, errors = DistinctSketch(NUMBERS, lg_k), []
    for seed in range(30):
        values = np.random.default_rng(seed).integers(-(2**62), 2**62, count)
        rows = EventRows(np.zeros(count, dtype=np.int64), None, {"value": ColumnValues(values)})
        (states,) = part.merge_groups([part.lift(rows)["state"]], [], np.zeros(1, dtype=np.int64))
        assert isinstance(states, BlobRow)
        errors.append(count_of(states[0], lg_k) / count - 1)
    allowed = 0.001 if count <= 2**lg_k // 4 else 1.04 / math.sqrt(2**lg_k)

    assert math.sqrt(sum(error**2 for error in errors) / len(errors)) <= allowed * 4 / 3
    assert abs(sum(errors) / len(errors)) <= allowed * 3 / math.sqrt(len(errors))


@pytest.mark.parametrize("count", [1_001, 1_500, 6_000, 40_000])
def test_a_distinct_count_beyond_its_bound_is_within_its_error(count: int) -> None:
    """Over thirty streams of neighbouring numbers and of any: the standard error of 1.6 %, a third more at most."""
    part, errors = Multiset(NUMBERS, 1_000), []
    for seed in range(30):
        random = np.random.default_rng(seed)
        values = random.integers(-(2**62), 2**62, count) if seed % 2 else int(random.integers(2**40)) + np.arange(count)
        errors.append(distinct_of(merged_in_a_tree(part, values, seed), 1_000) / count - 1)

    assert math.sqrt(sum(error**2 for error in errors) / len(errors)) <= 1.04 / math.sqrt(2**12) * 4 / 3
    assert abs(sum(errors) / len(errors)) <= 1.04 / math.sqrt(2**12) * 3 / math.sqrt(len(errors))


def test_a_distinct_count_is_the_same_whatever_was_merged_first() -> None:
    """To the bit, across the change from coupons to registers."""
    part = DistinctSketch(NUMBERS, 8)
    values = np.random.default_rng(1).integers(0, 150, 3_000)

    assert 1 == len({merged_in_a_tree(part, values[:size], seed) for seed in range(5) for size in (3_000,)})
    assert 1 == len(
        {merged_in_a_tree(part, np.random.default_rng(seed).permutation(values), seed) for seed in range(5)}
    )


@pytest.mark.parametrize("seed", range(3))
def test_heavy_hitters_are_too_low_by_a_share_at_most(seed: int) -> None:
    """Counts of a skewed stream, merged in any tree: never too high, too low by at most N / (m + 1)."""
    random = np.random.default_rng(seed)
    values = random.zipf(1.3, 20_000) % 5_000
    wanted = 10
    counters = 10 * wanted
    state = merged_in_a_tree(HeavyCounters(NUMBERS, counters), values.astype(np.int64), seed)
    hitters, exact = lowered(HeavyHitters(wanted), state), Counter(str(value) for value in values.tolist())
    error = len(values) / (counters + 1)

    assert isinstance(hitters, dict)
    assert wanted == len(hitters)
    assert [] == [value for value, count in hitters.items() if not exact[value] - error <= count <= exact[value]]
    assert {value for value, count in exact.items() if count > 5 * error} <= set(hitters)
