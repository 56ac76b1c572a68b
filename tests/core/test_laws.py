"""The laws of the algebra, for every aggregation over every column type that it takes.

An aggregation that joins the catalog is picked up here by itself.
"""

from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import names, resolve
from featurestore.core.spec import Column, FeatureSpec, ValueType, Window
from featurestore.errors import InvalidRequest
from featurestore.testing.agreement import agrees, magnitude
from featurestore.testing.laws import Accumulator, Algebra
from featurestore.testing.naive import NaiveEvent, naive_value
from featurestore.testing.strategies import ANCHOR_MS, column_values

CASES = [
    (function, column_type)
    for function in names()
    for column_type in (*ValueType, None)
    if (column_type is not None or not resolve(function).requires_column)
    and resolve(function).output_type(column_type) is not None
]
every_case = pytest.mark.parametrize(("function", "column_type"), CASES)
few_examples = settings(max_examples=20)  # of each law, for each of some thirty cases


def algebra_of(function: str, column_type: ValueType | None) -> Algebra:
    """The aggregation over a column `value` of that type."""
    return Algebra(function, Column("value", column_type) if column_type else None)


@st.composite
def events_of(draw: st.DrawFn, column_type: ValueType | None, *, min_size: int = 0) -> list[NaiveEvent]:
    """Distinct events in any order, with ties, nulls and extremes."""
    values = column_values(column_type or ValueType.INT64)
    times = draw(st.lists(st.integers(0, 3), min_size=min_size, max_size=12))
    ids = draw(st.permutations(range(len(times))))
    return [
        NaiveEvent(b"k", ANCHOR_MS + time_ms, b"%d" % number, {"value": draw(values)})
        for time_ms, number in zip(times, ids, strict=True)
    ]


def fold(algebra: Algebra, events: list[NaiveEvent]) -> Accumulator:
    """All events, one after another."""
    return reduce(algebra.merge, map(algebra.lift, events), algebra.identity())


def assert_same(algebra: Algebra, left: Accumulator, right: Accumulator, events: list[NaiveEvent]) -> None:
    """Answers agree; where no float was added up, the accumulators are equal to the bit."""
    feature = FeatureSpec("f", algebra.aggregation.name, "value", Window(None), ValueType.FLOAT64)
    assert agrees(algebra.lower(left), algebra.lower(right), scale=magnitude(feature, events))
    if not algebra.layout.float_fields:
        assert left.content() == right.content()


@every_case
@few_examples
@given(data=st.data())
def test_identity_changes_nothing(function: str, column_type: ValueType | None, data: st.DataObject) -> None:
    """merge(identity, a) == a == merge(a, identity)."""
    algebra, events = algebra_of(function, column_type), data.draw(events_of(column_type))
    folded = fold(algebra, events)

    assert_same(algebra, folded, algebra.merge(algebra.identity(), folded), events)
    assert_same(algebra, folded, algebra.merge(folded, algebra.identity()), events)


@every_case
@few_examples
@given(data=st.data())
def test_merge_is_associative(function: str, column_type: ValueType | None, data: st.DataObject) -> None:
    """merge(merge(a, b), c) == merge(a, merge(b, c))."""
    algebra = algebra_of(function, column_type)
    events = [data.draw(events_of(column_type)) for _ in range(3)]
    a, b, c = (fold(algebra, some) for some in events)

    left, right = algebra.merge(algebra.merge(a, b), c), algebra.merge(a, algebra.merge(b, c))
    assert_same(algebra, left, right, [event for some in events for event in some])


@every_case
@few_examples
@given(data=st.data())
def test_merge_is_commutative_where_it_says_so(
    function: str, column_type: ValueType | None, data: st.DataObject
) -> None:
    """merge(a, b) == merge(b, a): arrival order never decides."""
    algebra = algebra_of(function, column_type)
    assert algebra.aggregation.is_commutative
    first, second = data.draw(events_of(column_type)), data.draw(events_of(column_type))
    # Two events of one id cannot both be there, so the sides get ids of their own.
    second = [NaiveEvent(e.key, e.event_time_ms, b"x" + (e.event_id or b""), e.columns) for e in second]
    a, b = fold(algebra, first), fold(algebra, second)

    assert_same(algebra, algebra.merge(a, b), algebra.merge(b, a), first + second)


@every_case
@few_examples
@given(data=st.data(), cut=st.integers(0, 12))
def test_any_split_gives_the_same_answer(
    function: str, column_type: ValueType | None, data: st.DataObject, cut: int
) -> None:
    """Merging the accumulators of two halves equals folding all events at once."""
    algebra, events = algebra_of(function, column_type), data.draw(events_of(column_type))

    halves = algebra.merge(fold(algebra, events[:cut]), fold(algebra, events[cut:]))
    assert_same(algebra, fold(algebra, events), halves, events)


@every_case
@few_examples
@given(data=st.data())
def test_lower_after_folding_is_the_oracles_answer(
    function: str, column_type: ValueType | None, data: st.DataObject
) -> None:
    """The algebra alone, without windows or tiles, equals two plain loops."""
    algebra, events = algebra_of(function, column_type), data.draw(events_of(column_type))
    output_type = algebra.aggregation.output_type(column_type)
    assert output_type is not None
    column = "value" if column_type else None
    feature = FeatureSpec("f", function, column, Window(None), output_type)
    expected = naive_value(feature, events, ANCHOR_MS + 10)

    assert agrees(expected, algebra.lower(fold(algebra, events)), scale=magnitude(feature, events))


@every_case
def test_the_answer_over_no_events_is_zero_or_null(function: str, column_type: ValueType | None) -> None:
    """Count and sum are 0, everything else null."""
    algebra = algebra_of(function, column_type)

    assert algebra.lower(algebra.identity()) == (0 if function in {"count", "sum"} else None)


def test_a_constant_column_has_no_deviation() -> None:
    """A thousand times 1e9 gives exactly 0, not noise."""
    algebra = algebra_of("stddev_pop", ValueType.INT64)
    events = [NaiveEvent(b"k", ANCHOR_MS + n, b"%d" % n, {"value": 10**9 + 7}) for n in range(1_000)]

    assert algebra.lower(fold(algebra, events)) == 0.0


def test_deviations_of_large_numbers_keep_nine_digits() -> None:
    """Epoch milliseconds around 1.8e12 deviate by sqrt(2) / 3; the rounding of their mean must not show."""
    algebra = algebra_of("stddev_pop", ValueType.INT64)
    events = [NaiveEvent(b"k", ANCHOR_MS + n, b"%d" % n, {"value": 1_764_000_000_000 + min(n, 1)}) for n in range(3)]
    deviation = algebra.lower(fold(algebra, events))

    assert isinstance(deviation, float)
    assert abs(deviation - 2**0.5 / 3) < 1e-9


def test_unknown_functions_are_refused_with_near_names() -> None:
    """A typing slip gets the name that was meant."""
    with pytest.raises(InvalidRequest, match='unknown aggregation function "cuont"') as refused:
        resolve("cuont")

    assert "did you mean count" in refused.value.hint
