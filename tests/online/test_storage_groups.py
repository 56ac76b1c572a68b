"""Views that are stored together answer as if each were stored alone, which is as the oracle says."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import resolve
from featurestore.core.spec import ViewSpec
from featurestore.core.tiles.parts import EventRows
from featurestore.core.view import CompiledView
from featurestore.definitions.compile.storage_groups import member_views, plan_storage, storage_group
from featurestore.online.generation import Generation
from featurestore.online.serving_view import views_of
from featurestore.testing.answers import all_of, answer_values
from featurestore.testing.batches import keyed_batch
from featurestore.testing.oracle.events import Conditions, NaiveValue
from featurestore.testing.oracle.naive import NaiveEvent, naive_found, naive_values
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import event_streams, read_times, view_specs
from featurestore.wire.codecs.body import beside_each_other, encode_body
from featurestore.wire.codecs.head import head_codec
from featurestore.wire.codecs.view_json import definition_hash

DECLINED, GERMAN, SMALL = "is_declined", "market = 'DE'", "amount < 100"


def _is_small(columns: Mapping[str, NaiveValue | None]) -> bool:
    amount = columns["amount"]
    return amount is not None and float(amount) < 100


CONDITIONS: Conditions = {
    DECLINED: lambda columns: columns["is_declined"] is True,
    GERMAN: lambda columns: columns["market"] == "DE",
    SMALL: _is_small,
}


@st.composite
def companions(draw: st.DrawFn) -> list[ViewSpec]:
    """Two or three views of SOURCE by card, most of them of some events only, some with conditional features."""
    views, required = [], draw(st.sampled_from(("", SMALL)))
    for number in range(draw(st.integers(2, 3))):
        view = draw(view_specs(features_max=3))
        wheres = st.sampled_from(("", "", DECLINED, SMALL))
        features = tuple(
            feature if resolve(feature.function).keeps_nulls else replace(feature, where=draw(wheres))
            for feature in view.features
        )
        where = draw(st.sampled_from(("", DECLINED, GERMAN)))
        views.append(replace(view, name=f"view_{number}", where=where, required=required, features=features))
    return views


def stored(view: ViewSpec, old: Sequence[NaiveEvent], new: Sequence[NaiveEvent]) -> tuple[bytes | None, bytes | None]:
    """Body and head of an entity whose older events were compacted."""
    compiled = CompiledView(view)
    body = head = None
    if old := selected(view, old):
        batch = keyed_batch(view, old)
        rows = EventRows(batch.event_time_ms, batch.event_ids, batch.columns)
        newest_ms = np.array([batch.event_time_ms.max()])
        tiles = compiled.roll_up.compact(compiled.layout.lift(rows), np.zeros(len(old), dtype=np.int64), newest_ms)
        if tiles.table.count:
            dropped_ms = compiled.roll_up.dropped_before_ms(int(newest_ms[0]))
            body = encode_body(replace(tiles.table.normalize(), dropped_before_ms=dropped_ms))
    if new := selected(view, new):
        batch = keyed_batch(view, new)
        head = head_codec(compiled).encode(EventRows(batch.event_time_ms, batch.event_ids, batch.columns)).buffer
    return beside_each_other(body, head) if body and head else (body, head)


def selected(view: ViewSpec, events: Sequence[NaiveEvent]) -> list[NaiveEvent]:
    """Those that the view, or some member of the group, takes."""
    return [one for one in events if any(is_of(member, one) for member in member_views(view))]


def is_of(view: ViewSpec, event: NaiveEvent) -> bool:
    """Whether an event is a view's: it keeps the source's contract, and fulfils the view's own condition."""
    return all(CONDITIONS[text](event.columns) for text in (view.required, view.where) if text)


@given(views=companions(), data=st.data())
def test_a_member_of_a_group_answers_as_the_oracle_does(views: list[ViewSpec], data: st.DataObject) -> None:
    """Values, presence, whatever is compacted and whoever shares: equal to two loops over the member's own events."""
    plan = plan_storage(views)
    if not plan.groups:
        return
    [(name, members)] = plan.groups.items()
    group = storage_group(name, members)
    drawn = data.draw(event_streams(data.draw(st.sampled_from(members))))
    events = list({event.event_id: event for event in reversed(drawn)}.values())[::-1]
    compacted = data.draw(st.integers(0, len(events)))
    generation = Generation("test", group, 1, definition_hash(group))
    for serving in views_of(generation):
        selection, view = all_of(serving), serving.view
        for key in {event.key for event in events}:
            mine = [event for event in events if event.key == key]
            early = {event.event_id for event in events[:compacted]}
            old, new = ([one for one in mine if (one.event_id in early) is is_early] for is_early in (True, False))
            body, head = stored(group, old, new)
            of_view = [event for event in mine if is_of(view, event)]
            for as_of_ms in data.draw(read_times(view, mine)):
                answer = selection.answer(selection.decode(body, head), as_of_ms)
                actual = answer_values(view, answer)
                expected = naive_values(view, of_view, as_of_ms, CONDITIONS)

                assert answer.found == naive_found(view, of_view, as_of_ms)
                for feature in view.features:
                    scale = magnitude(feature, of_view, as_of_ms)
                    assert agrees(expected[feature.name], actual[feature.name], scale=scale), feature
