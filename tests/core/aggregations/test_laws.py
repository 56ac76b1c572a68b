"""The laws of the algebra, for every aggregation over every column type that it takes.

An aggregation that joins the catalog is picked up here by itself.
"""

from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import names, resolve
from featurestore.core.spec import SCALAR_TYPES, Column, FeatureSpec, ValueType, Window
from featurestore.errors import InvalidRequest
from featurestore.testing.laws import Accumulator, Algebra
from featurestore.testing.oracle.naive import NaiveEvent, naive_value
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import ANCHOR_MS, SOURCE, column_values

CASES = {
    function: [
        column_type
        for column_type in (*SCALAR_TYPES, None)
        if (column_type is not None or not resolve(function).requires_column)
        and resolve(function).output_type(column_type) is not None
    ]
    for function in names()
}
"""The column types that each function takes; None where it can do without a column."""

ZERO_OVER_NOTHING = {"count", "sum", "ewma_count", "ewma_sum", "count_distinct", "approx_count_distinct"}
"""Functions that are 0 over no events; all others are null."""

AS_OF_MS = ANCHOR_MS + 10
"""When answers are read, where that matters."""

every_function = pytest.mark.parametrize("function", CASES)
few_examples = settings(max_examples=15, deadline=None)  # of each law, for each of some fifty functions


def algebra_of(data: st.DataObject, function: str) -> Algebra:
    """The aggregation over a column `value` of any type that it takes."""
    return _algebra(function, data.draw(st.sampled_from(CASES[function]), label="column type"))


def _algebra(function: str, column_type: ValueType | None) -> Algebra:
    """The aggregation over a column `value` of that type; further columns are those of the strategies' source."""
    further = [SOURCE.column(name) for name in resolve(function).further_columns]
    return Algebra(
        function,
        Column("value", column_type) if column_type else None,
        [column for column in further if column is not None],
    )


@st.composite
def events_of(draw: st.DrawFn, algebra: Algebra) -> list[NaiveEvent]:
    """Distinct events in any order, with ties, nulls and extremes."""
    values = {"value": column_values(algebra.column.type if algebra.column else ValueType.INT64)}
    values |= {column.name: column_values(column.type) for column in algebra.further}
    times = draw(st.lists(st.integers(0, 3), max_size=12))
    ids = draw(st.permutations(range(len(times))))
    return [
        NaiveEvent(b"k", ANCHOR_MS + time_ms, b"%d" % number, draw(st.fixed_dictionaries(values)))
        for time_ms, number in zip(times, ids, strict=True)
    ]


def fold(algebra: Algebra, events: list[NaiveEvent]) -> Accumulator:
    """All events, one after another."""
    return reduce(algebra.merge, map(algebra.lift, events), algebra.identity())


def feature_of(algebra: Algebra) -> FeatureSpec:
    """The aggregation over all events."""
    output_type = algebra.aggregation.output_type(algebra.column.type if algebra.column else None)
    assert output_type is not None
    column = algebra.column.name if algebra.column else None
    return FeatureSpec("f", algebra.aggregation.name, column, Window(None), output_type)


def assert_same(algebra: Algebra, left: Accumulator, right: Accumulator, events: list[NaiveEvent]) -> None:
    """Answers agree; where no float was added up and nothing dropped, the accumulators are equal to the bit."""
    scale = magnitude(feature_of(algebra), events, AS_OF_MS)
    assert agrees(algebra.lower(left, AS_OF_MS), algebra.lower(right, AS_OF_MS), scale=scale)
    if algebra.is_exact:
        assert left.content() == right.content()


@every_function
@few_examples
@given(data=st.data())
def test_identity_changes_nothing(function: str, data: st.DataObject) -> None:
    """merge(identity, a) == a == merge(a, identity)."""
    algebra = algebra_of(data, function)
    events = data.draw(events_of(algebra))
    folded = fold(algebra, events)

    assert_same(algebra, folded, algebra.merge(algebra.identity(), folded), events)
    assert_same(algebra, folded, algebra.merge(folded, algebra.identity()), events)


@every_function
@few_examples
@given(data=st.data())
def test_merge_is_associative(function: str, data: st.DataObject) -> None:
    """merge(merge(a, b), c) == merge(a, merge(b, c))."""
    algebra = algebra_of(data, function)
    events = [_from_source(source, data.draw(events_of(algebra))) for source in (b"a", b"b", b"c")]
    a, b, c = (fold(algebra, some) for some in events)

    left, right = algebra.merge(algebra.merge(a, b), c), algebra.merge(a, algebra.merge(b, c))
    assert_same(algebra, left, right, [event for some in events for event in some])


@every_function
@few_examples
@given(data=st.data())
def test_merge_is_commutative_where_it_says_so(function: str, data: st.DataObject) -> None:
    """merge(a, b) == merge(b, a): arrival order never decides."""
    algebra = algebra_of(data, function)
    assert algebra.aggregation.is_commutative
    first, second = (_from_source(source, data.draw(events_of(algebra))) for source in (b"a", b"b"))
    a, b = fold(algebra, first), fold(algebra, second)

    assert_same(algebra, algebra.merge(a, b), algebra.merge(b, a), first + second)


@every_function
@few_examples
@given(data=st.data(), cut=st.integers(0, 12))
def test_any_split_gives_the_same_answer(function: str, data: st.DataObject, cut: int) -> None:
    """Merging the accumulators of two halves equals folding all events at once."""
    algebra = algebra_of(data, function)
    events = data.draw(events_of(algebra))

    halves = algebra.merge(fold(algebra, events[:cut]), fold(algebra, events[cut:]))
    assert_same(algebra, fold(algebra, events), halves, events)


@every_function
@few_examples
@given(data=st.data())
def test_lower_after_folding_is_the_oracles_answer(function: str, data: st.DataObject) -> None:
    """The algebra alone, without windows or tiles, equals two plain loops."""
    algebra = algebra_of(data, function)
    events = data.draw(events_of(algebra))
    feature = feature_of(algebra)
    expected, actual = naive_value(feature, events, AS_OF_MS), algebra.lower(fold(algebra, events), AS_OF_MS)

    assert agrees(expected, actual, scale=magnitude(feature, events, AS_OF_MS)), (expected, actual)


@every_function
def test_the_answer_over_no_events_is_zero_or_null(function: str) -> None:
    """Counts and sums are 0, everything else null."""
    for column_type in CASES[function]:
        algebra = _algebra(function, column_type)
        name = function.partition("(")[0].removesuffix(" over last_events")

        assert algebra.lower(algebra.identity(), AS_OF_MS) == (0 if name in ZERO_OVER_NOTHING else None)


def _from_source(source: bytes, events: list[NaiveEvent]) -> list[NaiveEvent]:
    """The events with ids of their own: two events of one id cannot both be there."""
    return [NaiveEvent(e.key, e.event_time_ms, source + (e.event_id or b""), e.columns) for e in events]


def test_a_constant_column_has_no_deviation() -> None:
    """A thousand times 1e9 gives exactly 0, not noise."""
    algebra = Algebra("stddev_pop", Column("value", ValueType.INT64))
    events = [NaiveEvent(b"k", ANCHOR_MS + n, b"%d" % n, {"value": 10**9 + 7}) for n in range(1_000)]

    assert algebra.lower(fold(algebra, events)) == 0.0


def test_deviations_of_large_numbers_keep_nine_digits() -> None:
    """Epoch milliseconds around 1.8e12 deviate by sqrt(2) / 3; the rounding of their mean must not show."""
    algebra = Algebra("stddev_pop", Column("value", ValueType.INT64))
    events = [NaiveEvent(b"k", ANCHOR_MS + n, b"%d" % n, {"value": 1_764_000_000_000 + min(n, 1)}) for n in range(3)]
    deviation = algebra.lower(fold(algebra, events))

    assert isinstance(deviation, float)
    assert abs(deviation - 2**0.5 / 3) < 1e-9


def test_unknown_functions_are_refused_with_near_names() -> None:
    """A typing slip gets the name that was meant."""
    with pytest.raises(InvalidRequest, match='unknown aggregation function "cuont"') as refused:
        resolve("cuont")

    assert 'did you mean "count"' in refused.value.hint
