"""Values with a payment in flight are the oracle's: those over the events before it, and it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import names
from featurestore.core.spec import ViewSpec
from featurestore.definitions.compile.storage_groups import plan_storage, storage_group
from featurestore.errors import AsOfTooOld
from featurestore.online.answer.in_flight.columns import GivenColumn
from featurestore.online.answer.in_flight.reader import EventReader
from featurestore.online.answer.selection import EventsInFlight, Selection
from featurestore.online.generation import Generation
from featurestore.online.serving_view import views_of
from featurestore.testing.answers import all_of, answer_values
from featurestore.testing.oracle.events import NaiveValue
from featurestore.testing.oracle.naive import NaiveEvent, naive_found, naive_values
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import StreamCase, event_streams, stream_cases
from featurestore.wire.codecs.view_json import definition_hash
from tests.online.test_storage_groups import CONDITIONS, companions, stored


def lifted(selection: Selection, view: ViewSpec, event: NaiveEvent) -> EventsInFlight:
    """An event in flight, as a request brings it."""
    reader = EventReader(view.source, {0: selection}, {})
    given = {name: given_column(event.columns.get(name)) for name in reader.read}
    given[view.source.event_time_column] = given_column(event.event_time_ms)
    return reader.take(given, (), 1).seen[0]


def given_column(value: NaiveValue | None) -> GivenColumn:
    """A column of one row."""
    return ((), b"\x01") if value is None else ([value], b"")


def distinct(events: tuple[NaiveEvent, ...]) -> list[NaiveEvent]:
    """The first event of each id."""
    return list({event.event_id: event for event in reversed(events)}.values())[::-1]


def in_flight_of(events: list[NaiveEvent], oldest_ms: int, data: st.DataObject) -> NaiveEvent:
    """One of the events itself, which the stream has or has not committed, or another at the time of one."""
    event, other = (data.draw(st.sampled_from(events)) for _ in range(2))
    later_ms = data.draw(st.sampled_from((0, 0, 1, 1_000)))
    is_itself = data.draw(st.booleans())
    return (
        event
        if is_itself and event.event_time_ms >= oldest_ms
        else replace(other, event_time_ms=max(event.event_time_ms, oldest_ms) + later_ms, event_id=b"in flight")
    )


@pytest.mark.parametrize("function", names())
@settings(max_examples=15, deadline=None)  # for each of some fifty functions
@given(data=st.data())
def test_a_payment_in_flight_counts_as_the_oracle_says(function: str, data: st.DataObject) -> None:
    """Every function over every window, with features beside it that do not count the payment."""
    case: StreamCase = data.draw(stream_cases(functions=(function,)))
    events = distinct(case.events)
    if not events:
        return
    view = case.view
    generation = Generation("test", view, 1, definition_hash(view))
    selection = all_of(views_of(generation)[0])
    newest_ms = max(event.event_time_ms for event in events)
    event = in_flight_of(events, newest_ms - view.lookback_ms, data)
    as_of_ms = event.event_time_ms
    mine = [one for one in events if one.key == event.key]
    cut = data.draw(st.integers(0, len(mine)), label="compacted")
    body, head = stored(view, mine[:cut], mine[cut:])

    answer = selection.answer_in_flight(body, head, lifted(selection, view, event), 0)

    assert answer.found
    expected, actual = naive_values(view, mine, as_of_ms, in_flight=event), answer_values(view, answer)
    for feature in view.features:
        scale = magnitude(feature, mine, as_of_ms, event)
        assert agrees(expected[feature.name], actual[feature.name], scale=scale), feature


@settings(deadline=None)
@given(views=companions(), data=st.data())
def test_views_that_are_stored_together_each_see_the_payments_that_are_theirs(
    views: list[ViewSpec], data: st.DataObject
) -> None:
    """Conditions of views and of features decide about a payment in flight as they do about any event."""
    plan = plan_storage(views)
    if not plan.groups:
        return
    [(name, members)] = plan.groups.items()
    group = storage_group(name, members)
    events = distinct(data.draw(event_streams(data.draw(st.sampled_from(members)))))
    if not events:
        return
    event = in_flight_of(events, max(one.event_time_ms for one in events) - group.lookback_ms, data)
    mine = [one for one in events if one.key == event.key]
    cut = data.draw(st.integers(0, len(mine)), label="compacted")
    body, head = stored(group, mine[:cut], mine[cut:])
    for serving in views_of(Generation("test", group, 1, definition_hash(group))):
        selection, view = all_of(serving), serving.view
        conditions = [CONDITIONS[text] for text in (view.required, view.where) if text]
        of_view = [one for one in mine if all(is_met(one.columns) for is_met in conditions)]
        is_of_view = all(is_met(event.columns) for is_met in conditions)
        try:
            answer = selection.answer_in_flight(body, head, lifted(selection, view, event), 0)
        except AsOfTooOld:
            continue

        in_flight = event if is_of_view else None
        assert answer.found == (is_of_view or naive_found(view, of_view, event.event_time_ms))
        expected = naive_values(view, of_view, event.event_time_ms, CONDITIONS, in_flight)
        actual = answer_values(view, answer)
        for feature in view.features:
            scale = magnitude(feature, of_view, event.event_time_ms, in_flight)
            assert agrees(expected[feature.name], actual[feature.name], scale=scale), feature
