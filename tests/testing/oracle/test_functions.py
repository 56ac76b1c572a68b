"""The oracle's functions, on values whose answers can be done in one's head."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from featurestore.core.aggregations.catalog import CATALOG
from featurestore.core.spec import FeatureSpec, ValueType, Window
from featurestore.testing.oracle.functions import FUNCTIONS
from featurestore.testing.oracle.naive import INT64_MAX, NaiveEvent, NaiveValue, naive_value


def answer(function: str, events: Sequence[NaiveEvent], as_of_ms: int, *, column: str = "amount") -> object:
    """The function over everything before the read time."""
    return naive_value(FeatureSpec("f", function, column, Window(None), ValueType.INT64), events, as_of_ms)


def over(function: str, *values: NaiveValue | None) -> object:
    """The function over values a millisecond apart, read just after the last."""
    events = [NaiveEvent(b"card", at, b"%03d" % at, {"amount": value}) for at, value in enumerate(values)]
    return answer(function, events, len(values))


ANSWERS: dict[str, object] = {
    "count": 4,
    "sum": 8,
    "mean": 2.0,
    "min": 1,
    "max": 5,
    "var_pop": 3.0,
    "var_samp": 4.0,
    "stddev_pop": math.sqrt(3),
    "stddev_samp": 2.0,
    "skew": pytest.approx(2 / math.sqrt(3)),
    "kurtosis": pytest.approx(-2 / 3),
    "first": 5,
    "last": 1,
    "first_n(3)": [5, 1, 1],
    "last_n(3)": [1, 1, 1],
    "first_distinct_n(3)": [5, 1],
    "last_distinct_n(3)": [1, 5],
    "first_event_time": 10,
    "last_event_time": 90,
    "time_since_first": 90,
    "time_since_last": 10,
    "mean_gap": pytest.approx(80 / 3),
    "max_gap(4)": 40,
    "max_gap(3)": None,
    "min_gap(4)": 10,
    "min_gap(3)": None,
    "ewma_sum(10ms)": 5 / 512 + 1 / 256 + 1 / 32 + 1 / 2,
    "ewma_count(10ms)": 1 / 512 + 1 / 256 + 1 / 32 + 1 / 2,
    "ewma_mean(10ms)": pytest.approx((5 + 2 + 16 + 256) / (1 + 2 + 16 + 256)),
    "count_distinct(2)": 2,
    "count_distinct(1)": 2,
    "histogram(2)": {"5": 1, "1": 3},
    "histogram(1)": None,
    "mode(2)": 1,
    "mode(1)": None,
    "entropy(2)": pytest.approx(1 / 4 * 2 + 3 / 4 * math.log2(4 / 3)),
    "entropy(1)": None,
    "approx_heavy_hitters(1)": {"1": 3},
    "top_k(2)": [5, 1],
    "bottom_k(2)": [1, 1],
    "top_k_by(9, rank)": [1, 5, 1],
    "bottom_k_by(2, rank)": [1, 5],
    "approx_percentile(0.75)": pytest.approx(1, rel=0.01),
    "approx_percentile(0, 0.76)": [pytest.approx(1, rel=0.01), pytest.approx(5, rel=0.01)],
    "median": pytest.approx(1, rel=0.01),
    "approx_count_distinct(12)": 2,
    "count by market(2)": {"DE": 2, "SE": 1},
    "mean by market(2)": {"DE": 3.0, "SE": 1.0},
    "sum by market(1)": None,
}
"""What each function answers on the timeline below."""


@pytest.mark.parametrize("function", ANSWERS)
def test_every_function_has_the_answer_of_its_timeline(function: str) -> None:
    """Mean 2; deviations 3 -1 -1 -1; gaps 10 30 40; half-lives 9 8 5 1; ranks 1 2 2.

    time        10      20      50      90      95          read at 100
    amount      5       1       1       1       null
    market      DE      SE      DE      null    FI
    rank        2       1       2       NaN     9
    """
    events = [
        NaiveEvent(b"card", time_ms, b"%d" % time_ms, {"amount": amount, "market": market, "rank": rank})
        for time_ms, amount, market, rank in (
            (10, 5, "DE", 2),
            (20, 1, "SE", 1),
            (50, 1, "DE", 2),
            (90, 1, None, math.nan),
            (95, None, "FI", 9),
        )
    ]

    assert ANSWERS[function] == answer(function, events[::-1], 100)


def test_every_function_of_the_catalog_has_a_timeline() -> None:
    """A function that joins the catalog joins the oracle, and the table above."""
    names = {entry.name for entry in CATALOG}

    assert names == set(FUNCTIONS)
    assert names == {function.partition("(")[0] for function in ANSWERS if " by " not in function}


def test_among_equal_ranks_the_newest_or_the_oldest_event_comes_first() -> None:
    """Three events of one rank: newest first from the top, oldest first from the bottom."""
    markets = ("DE", "SE", "FI")
    events = [NaiveEvent(b"c", at, b"%d" % at, {"market": market, "rank": 7}) for at, market in enumerate(markets)]

    assert ["FI", "SE"] == answer("top_k_by(2, rank)", events, 9, column="market")
    assert ["DE", "SE"] == answer("bottom_k_by(2, rank)", events, 9, column="market")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("count", 0),
        ("sum", 0),
        ("mean", None),
        ("min", None),
        ("max", None),
        ("stddev_pop", None),
        ("stddev_samp", None),
        ("first", None),
        ("last", None),
        ("last_n(3)", None),
        ("mean_gap", None),
        ("ewma_count(1h)", 0),
        ("ewma_mean(1h)", None),
        ("count_distinct(2)", 0),
        ("approx_count_distinct(12)", 0),
        ("histogram(2)", None),
        ("median", None),
        ("count by amount(2)", None),
    ],
)
def test_over_no_value_counts_and_sums_are_zero_and_the_rest_null(function: str, expected: int | None) -> None:
    """A null is skipped, so a window of nulls answers like an empty one."""
    for values in ([], [None], [math.nan]):
        assert expected == over(function, *values)


def test_an_integer_sum_beyond_64_bits_is_null() -> None:
    """It never wraps around, and comes back when the total fits again."""
    assert over("sum", INT64_MAX, 1) is None
    assert over("sum", INT64_MAX, 1, -2) == INT64_MAX - 1


def test_floats_are_added_up_exactly_and_rounded_once() -> None:
    """One cent is not lost behind a large number that goes away again."""
    assert over("sum", 1e300, 0.01, -1e300) == 0.01
    assert over("mean", 1e300, 0.01, -1e300) == 0.01 / 3


def test_standard_deviations_are_those_of_the_textbook() -> None:
    """2 4 4 4 5 5 7 9 has mean 5 and population deviation 2; one value has no sample deviation."""
    values = (2, 4, 4, 4, 5, 5, 7, 9)

    assert (5.0, 2.0) == (over("mean", *values), over("stddev_pop", *values))
    assert over("stddev_samp", *values) == pytest.approx(math.sqrt(32 / 7))
    assert (0.0, None) == (over("stddev_pop", 2), over("stddev_samp", 2))


def test_few_or_constant_values_have_no_shape() -> None:
    """Skew takes three, kurtosis four; floats that differ by their own rounding do not differ, integers always do."""
    assert (None, None) == (over("skew", 1, 2), over("kurtosis", 1, 2, 4))
    assert (None, None) == (over("skew", 7, 7, 7, 7), over("kurtosis", 7, 7, 7, 7))
    assert over("skew", 1.0, 1.0, 1.0, 1.0 + 9 * 2.0**-52) is None
    for base, step in ((1.0, 10 * 2.0**-52), (2**60, 1)):
        assert over("skew", base, base, base, base + step) == pytest.approx(2 / math.sqrt(3))


def test_first_and_last_break_ties_by_event_id() -> None:
    """Neither arrival nor values decide."""
    events = [NaiveEvent(b"card", 5, event_id, {"amount": amount}) for event_id, amount in ((b"c", 1), (b"a", 3))]

    for arrival in (events, events[::-1]):
        assert (3, 1) == (answer("first", arrival, 10), answer("last", arrival, 10))
        assert ([3, 1], [1, 3]) == (answer("first_n(2)", arrival, 10), answer("last_n(2)", arrival, 10))


def test_equally_frequent_values_are_told_apart_by_themselves() -> None:
    """The smallest comes first; texts in the order of their UTF-8 bytes."""
    assert (1, {"1": 2}) == (over("mode(9)", 3, 1, 3, 1), over("approx_heavy_hitters(1)", 3, 1, 3, 1))
    assert over("mode(9)", "💳", "\ue000") == "\ue000"


def test_keys_of_maps_are_texts_without_a_negative_zero() -> None:
    """Truths are words, and -0.0 is 0.0 wherever it is shown or hashed."""
    assert over("histogram(9)", True, False, True) == {"true": 2, "false": 1}
    assert over("histogram(9)", -0.0, 0.0, 2.5) == {"0.0": 2, "2.5": 1}
    assert str(over("top_k(2)", -0.0, -1.0)) == "[0.0, -1.0]"
    assert [over("approx_count_distinct(12)", *zeros) for zeros in ((-0.0, 0.0), (-0.0,))] == [1, 1]


def test_a_mean_outlives_the_decay_of_all_its_weights() -> None:
    """After a thousand half-lives sum and count are nothing, and the mean is as it was."""
    events = [NaiveEvent(b"card", 0, b"a", {"amount": 8}), NaiveEvent(b"card", 1, b"b", {"amount": 2})]

    for as_of_ms in (2, 10_000):
        assert answer("ewma_mean(1ms)", events, as_of_ms) == (8 / 2 + 2) / (1 / 2 + 1)
    assert answer("ewma_sum(1ms)", events, 10_000) == 0.0


def test_distinct_values_are_counted_up_to_the_bound_or_a_thousand() -> None:
    """Above, the estimate: no less than one more than the bound, even where it is too low."""
    numbers = range(1, 3_001)
    estimates = {size: over("approx_count_distinct(12)", *numbers[:size]) for size in range(1_101, 3_000, 100)}
    low = next(size for size, estimate in estimates.items() if isinstance(estimate, int) and estimate < size)

    assert [over("count_distinct(2)", *numbers[:size]) for size in (999, 1_000)] == [999, 1_000]
    assert over("count_distinct(2)", *numbers[:1_501]) == estimates[1_501] != 1_501
    assert over("count_distinct(3000)", *numbers) == 3_000
    assert over(f"count_distinct({low - 1})", *numbers[:low]) == low


def test_sketches_are_as_near_as_they_promise() -> None:
    """The numbers 1 to 20,000: three standard errors of 1.04 / 2**(lg_k / 2), one percent of a value; few are exact."""
    numbers = range(1, 20_001)

    for lg_k in (8, 12):
        estimate = over(f"approx_count_distinct({lg_k})", *numbers)
        assert estimate == pytest.approx(20_000, rel=3 * 1.04 / 2 ** (lg_k / 2))
        assert estimate != 20_000
    assert over("approx_count_distinct(12)", *numbers[:1_000]) == 1_000
    assert [over(f"count_distinct({bound})", *numbers) for bound in (2, 1_500, 10_000)] == [estimate] * 3
    assert [over("median", value) for value in (-1.99, 0.0, 2**62)] == pytest.approx([-1.99, 0.0, 2**62], rel=0.01)
    assert over("approx_percentile(0.01, 0.5, 0.99)", *numbers) == pytest.approx([200, 10_000, 19_800], rel=0.01)
