"""Conditions, computed columns and undoing events, held against the oracle over events filtered in plain Python."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.events import TEXT_BYTES_MAX
from featurestore.core.lowering.lowering import Lowering
from featurestore.core.spec import Column, ComputedColumn, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.core.tiles.parts import EventRows
from featurestore.core.view import CompiledView, ViewAnswer
from featurestore.testing.answers import answer_values
from featurestore.testing.batches import keyed_batch
from featurestore.testing.oracle.naive import NaiveEvent, naive_value
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import ANCHOR_MS, SOURCE, StreamCase, stream_cases
from featurestore.wire.codecs.body import decode_entity
from featurestore.wire.codecs.head import head_codec

Columns = Mapping[str, Any]


def _is(value: object) -> bool:
    """Neither null nor NaN."""
    return value is not None and value == value


CONDITIONS: dict[str, Callable[[Columns], bool]] = {
    "is_declined": lambda row: row["is_declined"] == 1,
    "NOT is_declined": lambda row: row["is_declined"] == 0,
    "amount > 1000": lambda row: _is(row["amount"]) and row["amount"] > 1000,
    "market = 'DE'": lambda row: row["market"] == "DE",
    "price IS NULL": lambda row: not _is(row["price"]),
    "amount >= 0 OR is_declined": lambda row: (_is(row["amount"]) and row["amount"] >= 0) or row["is_declined"] == 1,
}
"""SQL and what it means, by hand, null being neither true nor false."""

COMPUTED = (
    ComputedColumn("half", ValueType.FLOAT64, "amount / 2"),
    ComputedColumn("is_big", ValueType.BOOL, "half > 500.0"),
    ComputedColumn("place", ValueType.STRING, "lower(market)"),
)


def test_a_computed_text_that_no_event_could_hold_is_null() -> None:
    """A short payload must not become a head row that cannot be stored: that would end the stream at every start."""
    longer = "concat(market, market, market, market, market)"
    source = replace(SOURCE, computed=(ComputedColumn("place", ValueType.STRING, longer),))
    features = (FeatureSpec("last", "last", "place", Window(None), ValueType.STRING),)
    view = ViewSpec("v", (Column("card_id", ValueType.STRING),), source, features, None)
    texts = ["x" * (TEXT_BYTES_MAX // 5), "y" * (TEXT_BYTES_MAX // 5 + 1)]
    events = [NaiveEvent(b"c", ANCHOR_MS + at, b"%d" % at, {"market": text}) for at, text in enumerate(texts)]

    assert {0: 5 * texts[0]} == answer_of(view, events, ANCHOR_MS + 10).objects


def computed_row(row: Columns) -> dict[str, Any]:
    """The same columns, by hand."""
    half = row["amount"] / 2 if _is(row["amount"]) else None
    market = row["market"]
    return {
        **row,
        "half": half,
        "is_big": None if half is None else int(half > 500.0),
        "place": None if market is None else "".join(c.lower() if c.isascii() else c for c in str(market)),
    }


@given(data=st.data(), case=stream_cases(functions=("count", "sum", "mean", "min", "last", "stddev_pop")))
def test_only_events_for_which_the_condition_is_true_count(data: st.DataObject, case: StreamCase) -> None:
    """A feature with a condition has the value of the same feature without it over the chosen events."""
    conditions = [data.draw(st.sampled_from(("", *CONDITIONS))) for _ in case.view.features]
    features = tuple(
        replace(feature, where=where) for feature, where in zip(case.view.features, conditions, strict=True)
    )
    where, required = (data.draw(st.sampled_from(("", *CONDITIONS))) for _ in range(2))
    view = replace(case.view, features=features, where=where, required=required)
    texts = [text for text in (where, required) if text]
    selected = [event for event in distinct(case.events) if all(CONDITIONS[one](event.columns) for one in texts)]

    for key in {event.key for event in case.events}:
        mine = [event for event in selected if event.key == key]
        for as_of_ms in case.as_of_ms:
            answer = answer_of(view, [event for event in distinct(case.events) if event.key == key], as_of_ms)
            actual_of = answer_values(view, answer)
            for feature in features:
                # Asked with all events of the view: those that a feature does not count make sessions all the same.
                expected = naive_value(feature, mine, as_of_ms, CONDITIONS)
                actual = actual_of[feature.name]
                assert agrees(expected, actual, scale=magnitude(feature, mine)), (feature, expected, actual)


@given(case=stream_cases(functions=("count",)), feature=st.sampled_from(("half", "is_big", "place")))
def test_computed_columns_are_columns_like_any_other(case: StreamCase, feature: str) -> None:
    """Aggregating a computed column is aggregating the value that the expression has, nulls included."""
    source = replace(SOURCE, computed=COMPUTED)
    types = {column.name: column.type for column in COMPUTED}
    functions = {
        "half": (("sum", ValueType.FLOAT64), ("max", ValueType.FLOAT64)),
        "is_big": (("sum", ValueType.INT64), ("count", ValueType.INT64)),
        "place": (("last", ValueType.STRING), ("count", ValueType.INT64)),
    }[feature]
    features = tuple(FeatureSpec(name, name, feature, Window(None), type_) for name, type_ in functions)
    view = replace(case.view, source=source, features=features, retention_ms=None)
    events = [replace(event, columns=ascii_markets(event.columns)) for event in distinct(case.events)]
    by_hand = [replace(event, columns=computed_row(event.columns)) for event in events]

    for as_of_ms in case.as_of_ms:
        for key in {event.key for event in events}:
            answer = answer_of(view, [event for event in events if event.key == key], as_of_ms)
            actual_of = answer_values(view, answer)
            mine = [event for event in by_hand if event.key == key]
            for spec in features:
                expected = naive_value(spec, mine, as_of_ms)
                assert agrees(expected, actual_of[spec.name], scale=magnitude(spec, mine))
    assert {ValueType.FLOAT64, ValueType.BOOL, ValueType.STRING} == set(types.values())


@given(
    amounts=st.lists(
        st.tuples(st.integers(0, 50_000), st.one_of(st.integers(-9, 9), st.none()), st.booleans()), max_size=30
    )
)
def test_an_undoing_event_takes_back_what_an_equal_one_added(amounts: list[tuple[int, int | None, bool]]) -> None:
    """Counts, sums and means are those of the events with a sign of -1 for the undoing ones."""
    window = Window(20_000, 1_000)
    features = (
        FeatureSpec("n", "count", None, window, ValueType.INT64),
        FeatureSpec("sum", "sum", "amount", window, ValueType.INT64),
        FeatureSpec("mean", "mean", "amount", window, ValueType.FLOAT64),
    )
    view = ViewSpec("v", (Column("card_id", ValueType.STRING),), SOURCE, features, 40_000, undo="is_declined")
    events = [
        NaiveEvent(b"c", ANCHOR_MS + at_ms, b"%d" % number, {"amount": amount, "is_declined": int(undoes)})
        for number, (at_ms, amount, undoes) in enumerate(amounts)
    ]
    as_of_ms = ANCHOR_MS + 50_001
    inside = [event for event in events if event.event_time_ms >= (as_of_ms - 20_000) // 1_000 * 1_000]
    rows: list[Columns] = [event.columns for event in inside]
    signed = [(1 - 2 * row["is_declined"], row["amount"]) for row in rows]
    count = sum(sign for sign, _ in signed)
    values = sum(sign for sign, amount in signed if amount is not None)
    total = sum(sign * amount for sign, amount in signed if amount is not None)

    answer = answer_of(view, events, as_of_ms)

    assert (count, total) == (answer.ints[0], answer.ints[1])
    assert (values <= 0) == answer.null[2]
    if values > 0:
        assert agrees(total / values, float(answer.floats[2]))


def answer_of(view: ViewSpec, events: Sequence[NaiveEvent], as_of_ms: int) -> ViewAnswer:
    """The answer from a head that holds all events, as a lookup gets it; checked against folding them as columns."""
    compiled = CompiledView(view)
    batch = keyed_batch(view, events)
    rows = EventRows(batch.event_time_ms, batch.event_ids, batch.columns)
    head = head_codec(compiled).encode(rows).buffer
    table = decode_entity(compiled, None, head)
    lifted = compiled.layout.lift(rows)
    lifted = lifted.take(lifted.start_ms.argsort(kind="stable"))
    assert np.array_equal(lifted.ints, table.ints)
    assert lifted.floats.tobytes() == table.floats.tobytes()
    return compiled.answer(table, as_of_ms)


def distinct(events: Sequence[NaiveEvent]) -> list[NaiveEvent]:
    """The first event of each id."""
    return list({event.event_id: event for event in reversed(events)}.values())[::-1]


def ascii_markets(row: Columns) -> dict[str, Any]:
    """Lower case beyond ASCII is the expressions' own test."""
    market = row["market"]
    return {**row, "market": market if market is None or str(market).isascii() else "Zz"}


def test_derived_features_are_null_where_what_they_read_is() -> None:
    """A ratio of two features, a text and a truth; dividing by nothing is null, and hidden features stay hidden."""
    window = Window(20_000, 1_000)
    features = (
        FeatureSpec("n", "count", None, window, ValueType.INT64),
        FeatureSpec("declined", "count", None, window, ValueType.INT64, "is_declined"),
        FeatureSpec("market", "last", "market", window, ValueType.STRING),
    )
    derived = (
        ComputedColumn("decline_rate", ValueType.FLOAT64, "declined / n"),
        ComputedColumn("is_abroad", ValueType.BOOL, "market <> 'DE'"),
        ComputedColumn("label", ValueType.STRING, "market || '!'"),
    )
    view = ViewSpec("v", (Column("card_id", ValueType.STRING),), SOURCE, features, 40_000, derived=derived)
    events = [
        NaiveEvent(b"c", ANCHOR_MS + at, b"%d" % at, {"is_declined": at % 2, "market": "SE" if at == 2 else None})
        for at in range(3)
    ]

    answer = answer_of(view, events, ANCHOR_MS + 10)
    later = answer_of(view, events, ANCHOR_MS + 60_000)

    assert [3, 1] == answer.ints[:2].tolist()
    assert (1 / 3, 1, "SE!") == (answer.floats[3], answer.ints[4], answer.objects[5])
    assert [False] * 6 == answer.null.tolist()
    assert [False, False, True, True, True, True] == later.null.tolist()

    compiled = CompiledView(view)
    chosen = compiled.lowered.choose([5, 3, 0])
    lowering = Lowering([chosen, compiled.lowered.choose([4])])
    merged = lowering.gathered(1)
    lowering.gather_nothing(0, merged, 0)
    lowering.gather_nothing(1, merged, 0)
    lowered = lowering.lower(merged, np.array([ANCHOR_MS]))
    assert (4, 1) == lowered.null.shape
    assert [True, True, False, True] == lowered.null[:, 0].tolist()
    assert {0: [None]} == lowered.objects
