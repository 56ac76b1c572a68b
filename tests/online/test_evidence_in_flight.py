"""What is shown behind a value with a payment in flight: one row more, and the oracle comes to the same from it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.spec import ViewSpec
from featurestore.definitions.compile.storage_groups import plan_storage
from featurestore.online.answer.explaining.explainer import answered_value, explain
from featurestore.online.answer.explaining.explanation import ExplainedValue
from featurestore.online.read.reader import EntityBytes
from featurestore.testing.oracle.naive import NaiveEvent, naive_value
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import view_specs
from tests.online.test_evidence import as_event, cards_with, spec_of, tiles_of
from tests.online.test_in_flight import in_flight_of
from tests.online.test_storage_groups import CONDITIONS, companions


@settings(max_examples=80)
@given(views=st.one_of(view_specs().map(lambda view: [view]), companions()), data=st.data())
def test_a_payment_in_flight_is_one_row_more(views: list[ViewSpec], data: st.DataObject) -> None:
    """To the bit what is answered; each feature says whether it counts it; the oracle agrees from what is shown."""
    if len(views) > 1 and (len((plan := plan_storage(views)).groups) != 1 or plan.apart):
        return
    asked, rows = cards_with(data, views)
    stored_view = asked.generation.view
    for before, events, _ in rows[:2]:
        event = in_flight_of(events, max(one.event_time_ms for one in events) - stored_view.lookback_ms, data)
        event = replace(event, key=events[0].key)
        (found,) = before.found
        assert isinstance(found, EntityBytes)
        row = asked.row(str(before.entity["card_id"]), found.body, found.head, event.event_time_ms, event)
        if row.answer is None:
            continue
        explanation = explain(row)
        sent = explanation.events[stored_view.source.name]
        assert {name: sent[name] for name in sent if name in event.columns} == {
            name: value for name, value in shown_of(event).items() if name in sent
        }
        for at, (slot, feature) in enumerate(zip(row.plan.schema.features, explanation.features, strict=True)):
            assert repr(feature.value) == repr(answered_value(row.answer, slot, at))
            view = next(one for one in views if one.name == feature.name.split("__")[0])
            spec = spec_of(asked, feature)
            holds = all(CONDITIONS[text](event.columns) for text in (view.required, view.where, spec.where) if text)
            counts = spec.in_flight and not spec.window.offset_ms and holds
            assert feature.counts_event is counts, feature
            tiles = tiles_of(explanation, feature)
            in_flight = [tile for tile in tiles if tile.is_in_flight]
            if counts:
                assert [(event.event_time_ms, True, 1)] == [
                    (one.start_ms, one.is_event, one.merged) for one in in_flight
                ]
            if found.body is not None or spec.window.gap_ms or spec.window.series or len(views) > 1:
                continue
            shown = [as_event(tile, number) for number, tile in enumerate(tiles) if not tile.is_in_flight]
            own = replace(as_event(in_flight[0], -1), event_id=b"in flight") if counts else None
            expected = naive_value(spec, shown, row.as_of_ms, CONDITIONS, view.undo, own)
            scale = magnitude(spec, shown, row.as_of_ms, own)
            assert agrees(expected, feature.value, scale=scale), feature


def shown_of(event: NaiveEvent) -> dict[str, ExplainedValue]:
    """Its columns as they are shown: what is no number is null."""
    return {name: None if value != value else value for name, value in event.columns.items()}
