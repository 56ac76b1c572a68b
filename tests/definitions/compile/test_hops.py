"""A hop is what the author wrote: also one as long as its window, which Feast cannot tell from none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from feast import Entity, StreamFeatureView, ValueType

from featurestore.core.spec import Window
from featurestore.definitions.authoring import (
    LIFETIME,
    NamedWindow,
    WindowedFeature,
    aggregate,
    count,
    kafka_source,
    session,
    stream_view,
    today,
)
from featurestore.definitions.compile.repo import Compilation, compile_repo
from featurestore.definitions.registry import compile_registry
from featurestore.testing.oracle.naive import NaiveEvent, naive_value
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.feast.protos import message_class
from tests.definitions.records import HOUR_NS, MS_NS, aggregation, field, repo, view

MINUTE_MS, HOUR_MS = 60_000, 3_600_000


def written(features: Sequence[WindowedFeature]) -> StreamFeatureView:
    """A view of these features, as the helpers write it."""
    source = kafka_source(
        name="payments",
        topic="payments",
        columns={"at": "timestamp", "card_id": "string", "amount": "bigint"},
        event_time="at",
    )
    card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
    return stream_view(name="activity", entities=[card], source=source, features=features)


def compiled(features: Sequence[WindowedFeature]) -> Compilation:
    """The same, through the bytes of a registry and back."""
    return registered(written(features))


def registered(activity: Any) -> Compilation:
    """A view, through the bytes of a registry and back."""
    registry: Any = message_class("feast.core.Registry")()
    registry.projects.add().spec.name = "test"
    registry.entities.add().spec.MergeFrom(
        message_class("feast.core.EntitySpecV2")(name="card", join_key="card_id", value_type=2)
    )
    registry.stream_feature_views.add().ParseFromString(activity.to_proto().SerializeToString())
    return compile_registry(bytes(registry.SerializeToString()))


def windows(features: Sequence[WindowedFeature]) -> list[Window]:
    """Their windows."""
    (only,) = compiled(features).require_sound().views
    return [feature.window for feature in only.features]


def test_a_hop_as_long_as_its_window_is_kept() -> None:
    """At 23:30 `over="1h", hop="1h"` reaches back to 22:00, and has the events of 22:10 and of 22:50."""
    (only,) = compiled(count(over="1h", hop="1h")).require_sound().views
    events = [NaiveEvent(b"c", 22 * HOUR_MS + minute * MINUTE_MS) for minute in (10, 50)]

    assert Window(HOUR_MS, HOUR_MS) == only.features[0].window
    assert naive_value(only.features[0], events, 23 * HOUR_MS + 30 * MINUTE_MS) == 2


def test_a_hop_beside_several_windows_is_kept_where_it_equals_one_of_them() -> None:
    """Each window has the hop that was asked for; in other units too, and with an offset."""
    assert [Window(HOUR_MS, HOUR_MS), Window(24 * HOUR_MS, HOUR_MS)] == windows(count(over=["1h", "1d"], hop="60m"))
    assert [Window(HOUR_MS, HOUR_MS, HOUR_MS)] == windows(count(over="1h", hop="1h", offset="1h"))


def test_features_without_such_a_hop_keep_their_definition() -> None:
    """The hash by which the store knows a generation is that of the same view with slide_interval left out."""
    features = [*count(over=["1m", "1h", "90d"], offset="7d"), *aggregate("amount", "sum", over=["1h", LIFETIME])]
    bare = written(features)
    for each in bare.aggregations:
        each.slide_interval = each.time_window
    (by_helpers,) = compiled(features).require_sound().views
    (by_hand,) = registered(bare).require_sound().views

    assert definition_hash(by_hand) == definition_hash(by_helpers)
    assert all(not {"hop"} & set(each.tags) for each in written(features).features)


@pytest.mark.parametrize(
    ("over", "what"), [(LIFETIME, "a lifetime"), (today("UTC"), '"today"'), (session(gap="5m"), "a session")]
)
def test_a_hop_of_what_has_no_grid_is_reported(over: str | NamedWindow, what: str) -> None:
    """It would change nothing; the other windows of the same call keep it."""
    (problem,) = compiled(count(over=["1h", over], hop="1h")).problems

    assert f'tag "hop" does not go with {what}' in problem.fact
    assert "without hop" in problem.remedy


def test_a_slide_interval_of_what_has_no_grid_is_reported() -> None:
    """Written by hand."""
    (problem,) = compile_repo(
        repo(view([aggregation(window_ns=None, slide_ns=MS_NS)], [field(tags={"window": "lifetime"})]))
    ).problems

    assert "slide_interval does not go with a lifetime" in problem.fact


@pytest.mark.parametrize("hop", ["0s", "0ms"])
def test_a_hop_of_nothing_is_reported(hop: str) -> None:
    """Feast takes it for none."""
    (problem,) = compiled(count(over="1h", hop=hop)).problems

    assert "its hop is 0 ms" in problem.fact


def test_a_tag_that_contradicts_the_slide_interval_is_reported() -> None:
    """Two hops of one window."""
    (problem,) = compile_repo(repo(view([aggregation(slide_ns=MS_NS)], [field(tags={"hop": "1m"})]))).problems

    assert problem.fact == 'its tag "hop" is 1m, but its slide_interval is 1ms'
    assert compile_repo(repo(view([aggregation(slide_ns=MS_NS)], [field(tags={"hop": "1ms"})]))).problems == ()
    assert compile_repo(repo(view([aggregation()], [field(tags={"hop": "soon"})]))).problems != ()


def test_a_plain_aggregation_of_equal_intervals_has_the_default_hop_and_the_plan_says_so() -> None:
    """Written by hand Feast fills one with the other; one note a view, and none for what the helpers write."""
    views = compile_repo(
        repo(view([aggregation(), aggregation(slide_ns=HOUR_NS // 4, name="b")], [field(), field("b")]))
    )
    (note,) = views.notes

    assert [MINUTE_MS, HOUR_MS // 4] == [feature.window.hop_ms for feature in views.spec.views[0].features]
    assert note.startswith('feature view "activity", feature "total"')
    assert 'slide_interval=1m, or the Field\'s tag "hop": "1h"' in note
    assert '"b"' not in note
    assert compiled([*count(over=["1h", "1m", LIFETIME]), *count(over="2h", hop="2h")]).notes == ()
