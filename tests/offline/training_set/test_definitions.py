"""Training sets of random definitions from the whole catalog: the oracle's values, a lookup's values, and no leak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.spec import ComputedColumn, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.core.view import CompiledView
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import FileHistory
from featurestore.testing.answers import answer_values
from featurestore.testing.oracle.naive import NaiveEvent, naive_value
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE, event_streams, stream_cases
from featurestore.wire.entity_key import decode_key, encode_key
from tests.core.test_inputs import COMPUTED, CONDITIONS, ascii_markets, computed_row
from tests.core.test_tiles_against_naive import by_start, distinct, fold
from tests.offline.training_set.label_tables import history_table, plain_values, repo_of

Asks = Sequence[tuple[bytes, int]]
"""Entity keys and label times."""

NUMBERS = (ValueType.INT64, ValueType.FLOAT64)
COMPUTING = replace(SOURCE, computed=COMPUTED)
IN_MEMORY, IN_FILES = 1 << 30, 1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_history_lookup_and_oracle_agree_on_any_definitions(data: st.DataObject) -> None:
    """Functions, windows, conditions, contracts, computed columns, derived features; asked at, beside, after events."""
    case = data.draw(stream_cases(events_max=25))
    view = decorated(data, case.view)
    events = [replace(event, columns=ascii_markets(event.columns)) for event in case.events]
    asks = asks_of(data, events)

    answers = answers_of(view, events, asks, memory_bytes=data.draw(st.sampled_from((IN_MEMORY, IN_FILES))))

    compiled = CompiledView(view)
    by_hand = [replace(event, columns=computed_row(event.columns)) for event in distinct(events)]
    texts = [text for text in (view.required, view.where) if text]
    chosen = [event for event in by_hand if all(CONDITIONS[text](event.columns) for text in texts)]
    for row, (key, as_of_ms) in enumerate(asks):
        table = by_start(fold(compiled, [event for event in distinct(events) if event.key == key]))
        looked_up = looked_up_values(view, compiled, table, as_of_ms)
        mine = [event for event in chosen if event.key == key]
        for feature in view.features:
            counted = [replace(event, columns=counted_columns(feature, event.columns)) for event in mine]
            plain = replace(feature, column="counted", where="")
            scale = magnitude(plain, counted, as_of_ms)
            actual = answers[feature.name][row]
            assert agrees(naive_value(plain, counted, as_of_ms), actual, scale=scale), (feature, row, actual)
            assert agrees(looked_up[feature.name], actual, scale=scale), (feature, row, actual)
        for derived in view.derived:
            source = derived.name.removesuffix("_derived")
            expected = EXPRESSIONS[derived.expression.replace(source, "it")](answers[source][row])
            assert agrees(expected, answers[derived.name][row]), (derived, row)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_event_at_or_after_a_label_changes_its_row(data: st.DataObject) -> None:
    """Leakage: the row is the same, to the last bit, when everything from its moment on is taken away or made up."""
    case = data.draw(stream_cases(events_max=20))
    view = decorated(data, case.view)
    as_of_ms = data.draw(st.sampled_from(sorted({each.event_time_ms for each in case.events} | {ANCHOR_MS})))
    asks = [(key, as_of_ms) for key in sorted({event.key for event in case.events} | {encode_key(["nobody"])})]
    before = [event for event in case.events if event.event_time_ms < as_of_ms]
    drawn = data.draw(event_streams(case.view, events_max=20))
    made_up = [
        replace(event, event_time_ms=as_of_ms + number // 2, event_id=b"later-%d" % number)
        for number, event in enumerate(drawn)
    ]
    cut = data.draw(st.integers(0, len(before)))

    known = answers_of(view, before, asks)
    later = answers_of(view, case.events, asks)
    leaking = answers_of(view, [*before[:cut], *made_up, *before[cut:]], asks)

    assert repr(known) == repr(later)
    assert repr(known) == repr(leaking)


def test_undoing_events_take_back_what_equal_ones_added() -> None:
    """Counts, sums and means of events with a sign, +7 +5 -7 -5, asked before each and after the last."""
    types = {"count": ValueType.INT64, "sum": ValueType.INT64, "mean": ValueType.FLOAT64}
    features = tuple(
        FeatureSpec(name, name, None if name == "count" else "amount", Window(10_000, 1), kind)
        for name, kind in types.items()
    )
    view = ViewSpec("card", (SOURCE.columns[2],), SOURCE, features, None, undo="is_declined")
    signed = ((0, 7, False), (1, 5, False), (2, 7, True), (3, 5, True))
    events = [
        NaiveEvent(encode_key(["c"]), ANCHOR_MS + at, b"%d" % at, {"amount": amount, "is_declined": int(is_undoing)})
        for at, amount, is_undoing in signed
    ]

    answers = answers_of(view, events, [(encode_key(["c"]), ANCHOR_MS + at) for at in range(5)])

    expected = {"count": [0, 1, 2, 1, 0], "sum": [0, 7, 12, 5, 0], "mean": [None, 7.0, 6.0, 5.0, None]}
    assert expected == answers


def test_only_what_is_asked_for_is_read() -> None:
    """A short window of a view with a lifetime one neither reads old events nor the columns of other features."""
    features = (
        FeatureSpec("count_1h", "count", None, Window(3_600_000, 60_000), ValueType.INT64),
        FeatureSpec("ever", "sum", "amount", Window(None), ValueType.INT64),
        FeatureSpec("market", "last", "market", Window(None), ValueType.STRING),
    )
    derived = (ComputedColumn("often", ValueType.BOOL, "count_1h > 1"),)
    view = ViewSpec("card", (SOURCE.columns[2],), SOURCE, features, None, derived=derived)
    events = [NaiveEvent(encode_key(["c"]), ANCHOR_MS + at, b"%d" % at, {"amount": 5}) for at in range(3)]
    history = history_table(view, events)
    labels = pa.table({"card_id": ["c"], "event_timestamp": [ANCHOR_MS + 2]})
    repo = repo_of(view)

    few = FileHistory(history.select(["event_id", "event_time", "card_id"]))
    found = build_training_set(repo, ["card:often", "card:count_1h"], labels, history=few)

    assert [[True], [2]] == [found["often"].to_pylist(), found["count_1h"].to_pylist()]
    every = build_training_set(repo, "all", labels, history=FileHistory(history))
    assert [2, 10, None, True] == [every[name][0].as_py() for name in ("count_1h", "ever", "market", "often")]


def counted_columns(feature: FeatureSpec, columns: Mapping[str, Any]) -> dict[str, Any]:
    """What a feature counts of an event, null for nothing: such an event may still make a session longer."""
    value = 1 if feature.column is None else columns.get(feature.column)
    return {**columns, "counted": value if not feature.where or CONDITIONS[feature.where](columns) else None}


EXPRESSIONS: Mapping[str, Any] = {
    "it IS NULL": lambda value: int(value is None),
    "it * 0.5": lambda value: None if value is None else value * 0.5,
    "it > 1": lambda value: None if value is None else int(value > 1),
}
"""Derived features, and what they mean, by hand."""


def decorated(data: st.DataObject, view: ViewSpec) -> ViewSpec:
    """The view with conditions, a computed column where a price was read, and features derived from numbers."""
    features = tuple(
        replace(
            feature,
            where=data.draw(st.sampled_from(("", "", *CONDITIONS))),
            column="half" if feature.column == "price" and data.draw(st.booleans()) else feature.column,
        )
        for feature in view.features
    )
    derived = tuple(
        ComputedColumn(f"{feature.name}_derived", kind, expression.replace("it", feature.name, 1))
        for feature in features
        if feature.type in NUMBERS
        for expression, kind in [data.draw(st.sampled_from(tuple(zip(EXPRESSIONS, DERIVED_TYPES, strict=True))))]
    )
    where, required = (data.draw(st.sampled_from(("", "", *CONDITIONS))) for _ in range(2))
    return replace(view, source=COMPUTING, features=features, derived=derived, where=where, required=required)


DERIVED_TYPES = (ValueType.BOOL, ValueType.FLOAT64, ValueType.BOOL)
"""Types of EXPRESSIONS."""


def asks_of(data: st.DataObject, events: Sequence[NaiveEvent]) -> Asks:
    """Rows of entities with and without events."""
    times = {event.event_time_ms + beside for event in events for beside in (0, 1, DAY_MS)} | {ANCHOR_MS}
    keys = sorted({event.key for event in events} | {encode_key(["nobody"])})
    return data.draw(st.lists(st.tuples(st.sampled_from(keys), st.sampled_from(sorted(times))), max_size=8))


def answers_of(
    view: ViewSpec, events: Sequence[NaiveEvent], asks: Asks, *, memory_bytes: int = IN_MEMORY
) -> dict[str, list[object]]:
    """All answers of the training set, as the oracle gives them."""
    labels = pa.table(
        {
            "card_id": pa.array([decode_key(key, view.join_keys)[0] for key, _ in asks], pa.string()),
            "event_timestamp": pa.array([as_of_ms for _, as_of_ms in asks], pa.int64()),
        }
    )
    history = FileHistory(history_table(view, events))
    found = build_training_set(repo_of(view), "all", labels, history=history, memory_bytes=memory_bytes)
    return {column.name: plain_values(found[column.name], column.type) for column in view.answers}


def looked_up_values(view: ViewSpec, compiled: CompiledView, table: Any, as_of_ms: int) -> dict[str, object]:
    """What a lookup says."""
    return {**answer_values(view, compiled.answer(table, as_of_ms))}
