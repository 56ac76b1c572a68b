"""Two generations at once: one service is answered by a version that it pins, another by the newest."""

from dataclasses import replace

import pytest

from featurestore.core.spec import FeatureReference, PinnedView, ServiceSpec, ViewSpec
from featurestore.definitions.compile.storage_groups import storage_group
from featurestore.errors import UnknownFeatureService
from featurestore.online.answer.schema import FeatureStatus
from featurestore.online.generation import GenerationState
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.oracle.naive import naive_value
from featurestore.testing.oracle.tolerance import agrees
from featurestore.wire.codecs.view_json import definition_hash
from tests.serving.payments import (
    CARD_ACTIVITY,
    CARD_ID,
    NOW_MS,
    REPO,
    Payments,
    RegistryInMemory,
)

HALF_HOUR = replace(CARD_ACTIVITY.features[0].window, length_ms=1_800_000)
NEWEST = replace(
    CARD_ACTIVITY, features=tuple(replace(each, window=HALF_HOUR) for each in CARD_ACTIVITY.features), where=""
)
VERSION = replace(CARD_ACTIVITY, name="card_activity@v1")


def service_of(name: str, *views: str) -> ServiceSpec:
    """All features of some views, under full names."""
    features = [each.name for each in CARD_ACTIVITY.features]
    references = tuple(FeatureReference(view, each, f"{view}__{each}") for view in views for each in features)
    return ServiceSpec(name, references, (CARD_ID,))


PINNED = replace(
    REPO,
    views=tuple(NEWEST if view.name == "card_activity" else view for view in REPO.views),
    services=(
        service_of("both", "card_activity", "card_activity@v1"),
        service_of("newest", "card_activity"),
        service_of("pinning", "card_activity@v1"),
    ),
    pinned=(PinnedView(VERSION, ("pinning", "both")),),
)


def assert_exact(client: LookupClient, payments: Payments, service: str, **views: ViewSpec) -> None:
    """Every value is the oracle's, by the definition that the service asks for."""
    events = payments.events["card_activity", b"c-1"]
    [row] = client.lookup(service, {"card_id": "c-1"}).rows()
    for name, view in views.items():
        for each in view.features:
            asked = f"{name.replace('__', '@')}__{each.name}"
            assert agrees(naive_value(each, events, NOW_MS), row[asked]), asked


def test_a_pinned_version_and_the_newest_are_answered_side_by_side(
    payments: Payments, registry: RegistryInMemory, server: FeatureServer, client: LookupClient
) -> None:
    """Each by its own definition: before the newest is promoted, and from what is stored for the pin after that."""
    registry.change(PINNED)
    server._catalog.poll()
    assert_exact(client, payments, "pinning", card_activity__v1=CARD_ACTIVITY)
    events = payments.events["card_activity", b"c-1"] + payments.events["card_activity", b"c-2"]
    newest = payments.write(NEWEST, events)
    kept = payments.write(replace(CARD_ACTIVITY, name=f"card_activity@{definition_hash(CARD_ACTIVITY)[:8]}"), events)
    payments.catalog.promote(newest)
    payments.events["card_activity", b"c-1"] = [one for one in events if one.key == b"c-1"]
    server._catalog.poll()

    assert kept.state is GenerationState.SERVING
    assert_exact(client, payments, "both", card_activity=NEWEST, card_activity__v1=CARD_ACTIVITY)
    assert_exact(client, payments, "pinning", card_activity__v1=CARD_ACTIVITY)
    assert_exact(client, payments, "newest", card_activity=NEWEST)


def test_a_storage_group_answers_for_the_view_and_its_version(
    payments: Payments, registry: RegistryInMemory, server: FeatureServer, client: LookupClient
) -> None:
    """Two members of one name but for the version, in one read; each by its own definition."""
    version = replace(CARD_ACTIVITY, name=f"card_activity@{definition_hash(CARD_ACTIVITY)[:8]}")
    events = payments.events["card_activity", b"c-1"]
    group = payments.write(storage_group("events:card_id", [NEWEST, version]), events)
    payments.catalog.retire("card_activity")
    registry.change(PINNED)
    server._catalog.poll()

    assert group.state is GenerationState.SERVING
    assert 1 == len(server._catalog.snapshot().plan_of_service("both").stream_parts)
    assert_exact(client, payments, "both", card_activity=NEWEST, card_activity__v1=CARD_ACTIVITY)


def test_a_version_that_nothing_serves_is_not_ready(
    payments: Payments, registry: RegistryInMemory, server: FeatureServer, client: LookupClient
) -> None:
    """Though its view is answered, and by features of the same names and types."""
    registry.change(replace(PINNED, views=REPO.views, pinned=(PinnedView(replace(NEWEST, name=VERSION.name), ("a",)),)))
    server._catalog.poll()

    pinning = client.lookup("pinning", {"card_id": "c-1"})
    assert {FeatureStatus.NOT_READY} == {pinning.status(name)[0] for name in pinning.names}
    assert {None} == set(pinning.rows()[0].values())
    newest = client.lookup("newest", {"card_id": "c-1"})
    assert newest.status("card_activity__count_1h")[0] is FeatureStatus.PRESENT


def test_a_list_may_name_a_version_that_is_pinned(
    payments: Payments, registry: RegistryInMemory, server: FeatureServer
) -> None:
    """As Feast's clients write it; others are unknown."""
    registry.change(PINNED)
    server._catalog.poll()
    snapshot = server._catalog.snapshot()

    plan = snapshot.plan_of_references(["card_activity@v1:count_1h"], full_names=True)
    assert ["card_activity@v1__count_1h"] == [one.name for one in plan.schema.features]
    assert definition_hash(CARD_ACTIVITY) == plan.schema.views[0].definition_hash
    with pytest.raises(UnknownFeatureService, match='"card_activity@v7" is not registered'):
        snapshot.plan_of_references(["card_activity@v7:count_1h"], full_names=True)
    assert server._catalog.newest_event_ms.keys() >= {"card_activity@v1"}


def test_plans_of_others_outlive_a_pin(payments: Payments, registry: RegistryInMemory) -> None:
    """What a service pins is no change to those who do not."""
    server = FeatureServer(registry, payments.store, payments.clock, ServerSettings(port=0))
    try:
        before = server._catalog.snapshot().plan_of_service("merchant_monitoring")
        registry.change(replace(PINNED, services=(*PINNED.services, *REPO.services)))
        server._catalog.poll()
        pinning = server._catalog.snapshot().plan_of_service("pinning")
        registry.change(replace(PINNED, services=(*PINNED.services, *REPO.services[1:])))
        server._catalog.poll()

        assert before is server._catalog.snapshot().plan_of_service("merchant_monitoring")
        assert pinning is server._catalog.snapshot().plan_of_service("pinning")
    finally:
        server.stop(drain_seconds=1.0)
