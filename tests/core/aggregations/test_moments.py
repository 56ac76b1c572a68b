"""Variance, skew and kurtosis where doubles lose digits: constants, near-constants, huge and tiny numbers."""

import math
import random
from collections.abc import Sequence

import duckdb
import numpy as np
import pytest

from featurestore.core.events import ColumnValues
from featurestore.core.spec import Column, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.core.tiles.parts import EventRows
from featurestore.core.view import CompiledView
from featurestore.testing.laws import Algebra
from featurestore.testing.oracle.naive import NaiveEvent, naive_value
from featurestore.testing.strategies import ANCHOR_MS, SOURCE

MOMENTS = ("var_pop", "var_samp", "skew", "kurtosis")


def answer(function: str, values: Sequence[float], *, tile_events: int = 3) -> object:
    """The function over values of one column, folded as tiles of a few events that are then merged."""
    are_whole = all(isinstance(value, int) for value in values)
    column = Column("value", ValueType.INT64 if are_whole else ValueType.FLOAT64)
    algebra = Algebra(function, column)
    events = events_of(values)
    tiles = [algebra.identity()]
    for begin in range(0, len(events), tile_events):
        tile = algebra.identity()
        for event in events[begin : begin + tile_events]:
            tile = algebra.merge(tile, algebra.lift(event))
        tiles.append(tile)
    merged = tiles[0]
    for tile in tiles[1:]:
        merged = algebra.merge(merged, tile)
    return algebra.lower(merged)


def looked_up(function: str, values: Sequence[float]) -> object:
    """The same by the loop that serves lookups, over single events."""
    column = "amount" if all(isinstance(value, int) for value in values) else "price"
    feature = FeatureSpec("f", function, column, Window(None), ValueType.FLOAT64)
    view = CompiledView(ViewSpec("v", (), SOURCE, (feature,), None))
    times = ANCHOR_MS + np.arange(len(values))
    is_whole = column == "amount"
    numbers = ColumnValues(np.array(values, dtype=np.int64) if is_whole else np.array(values, dtype=np.float64))
    rows = EventRows(times, None, {column: numbers})
    found = view.answer(view.layout.lift(rows), ANCHOR_MS + len(values))
    return None if found.null[0] else float(found.floats[0])


def events_of(values: Sequence[float]) -> list[NaiveEvent]:
    """One event a value, a millisecond apart."""
    return [NaiveEvent(b"k", ANCHOR_MS + n, b"%d" % n, {"value": value}) for n, value in enumerate(values)]


def oracle(function: str, values: Sequence[float]) -> object:
    """The answer in exact arithmetic."""
    feature = FeatureSpec("f", function, "value", Window(None), ValueType.FLOAT64)
    return naive_value(feature, events_of(values), ANCHOR_MS + len(values))


@pytest.mark.parametrize("value", [10**9 + 7, 1e9 + 0.1, 0.1, -3e-5, 2**62 + 1])
def test_a_constant_column_has_no_variance_and_no_shape(value: float) -> None:
    """Two hundred equal values give exactly 0 as integers and at most their rounding as floats; never noise's shape."""
    values = [value] * 200
    variance = answer("var_pop", values)

    assert isinstance(variance, float)
    assert variance <= (0.0 if isinstance(value, int) else (200 * 2.0**-52 * abs(value)) ** 2)
    assert (None, None) == (answer("skew", values), answer("kurtosis", values))
    assert (None, None) == (looked_up("skew", values), looked_up("kurtosis", values))


@pytest.mark.parametrize("base", [10**9, 1_764_000_000_000, 2**60, -(2**63)])
@pytest.mark.parametrize("function", MOMENTS)
def test_nearly_constant_large_integers_keep_nine_digits(function: str, base: int) -> None:
    """Steps of one on a huge base are as visible as without it, far beyond what sums of squares could hold."""
    steps = [0, 1, 0, 0, 2, 0, 1, 0, 0, 5, 0]
    expected, values = oracle(function, steps), [base + step for step in steps]

    assert isinstance(expected, float)
    assert answer(function, values) == pytest.approx(expected, rel=1e-9)
    assert looked_up(function, values) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("function", MOMENTS)
def test_a_shift_of_floats_costs_no_more_digits_than_its_size(function: str) -> None:
    """A spread of 1 around 1e6 keeps nine digits."""
    values = [1e6 + value for value in (0.0, 0.25, 0.25, 1.0, 0.5, -0.75, 3.0)]
    expected = oracle(function, values)

    assert isinstance(expected, float)
    assert answer(function, values) == pytest.approx(expected, rel=1e-9)


def test_variances_and_kurtosis_equal_those_of_a_database() -> None:
    """An independent engine over the same numbers; its skewness is the sample's, which g1 gives by a known factor."""
    source = random.Random(7)
    values = [source.lognormvariate(3, 1) for _ in range(500)]
    listed = ", ".join(f"({value!r}::DOUBLE)" for value in values)
    query = f"SELECT var_pop(v), var_samp(v), skewness(v), kurtosis_pop(v) FROM (VALUES {listed}) AS t(v)"
    ((var_pop, var_samp, sample_skew, kurtosis),) = duckdb.connect().execute(query).fetchall()
    count = len(values)

    assert answer("var_pop", values) == pytest.approx(var_pop, rel=1e-9)
    assert answer("var_samp", values) == pytest.approx(var_samp, rel=1e-9)
    assert answer("skew", values) == pytest.approx(sample_skew * (count - 2) / math.sqrt(count * (count - 1)), rel=1e-9)
    assert answer("kurtosis", values) == pytest.approx(kurtosis, rel=1e-9)


def test_too_few_values_have_no_shape() -> None:
    """Skew takes three values, kurtosis four, the sample's variance two."""
    values = [1, 2, 4, 8]

    assert [None, None, True, True] == [
        answer("skew", values[:n]) if n < 3 else answer("skew", values[:n]) is not None for n in (1, 2, 3, 4)
    ]
    assert [None, None, None] == [answer("kurtosis", values[:n]) for n in (1, 2, 3)]
    assert answer("kurtosis", values) is not None
    assert [None, 0.5] == [answer("var_samp", values[:n]) for n in (1, 2)]
    assert [0.0, 0.25] == [answer("var_pop", values[:n]) for n in (1, 2)]


def test_shapes_beyond_the_range_of_doubles_are_null() -> None:
    """A fourth power of 1e90 is no double, nor is one of 1e-90; neither is answered with infinity or noise."""
    for factor in (1e90, 1e-90):
        values = [factor * value for value in (1.0, 2.0, 5.0, 3.0, 1.0)]

        assert None is answer("kurtosis", values)
        assert None is looked_up("kurtosis", values)
