"""`Explain` over real gRPC and real Redis: what it shows is what a lookup of the same moment answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from featurestore.core.spec import FeatureReference
from featurestore.errors import (
    AsOfTooOld,
    CorruptData,
    InvalidRequest,
    LimitExceeded,
    UnknownFeatureService,
    UnknownJoinKey,
)
from featurestore.online.answer.explaining.explanation import ExplainedFeature, Explanation
from featurestore.online.answer.schema import FeatureStatus
from featurestore.serving.client.clients import AsyncLookupClient, LookupClient
from featurestore.serving.server import FeatureServer
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.entity_key import fingerprint, lane_of
from tests.serving.payments import (
    CARD_ACTIVITY,
    FRAUD_DETECTION,
    HOUR_MS,
    LANES,
    NOW_MS,
    PAYMENT,
    REPO,
    Payments,
    RegistryInMemory,
    event_of,
    with_feature,
)

Entity = dict[str, str | int | Sequence[str] | Sequence[int]]

CARD: Entity = {"card_id": "c-1", "merchant_id": 7}


def by_name(explanation: Explanation) -> dict[str, ExplainedFeature]:
    """Its features."""
    return {feature.name: feature for feature in explanation.features}


@pytest.mark.parametrize(
    "entity", [CARD, {"card_id": "c-2", "merchant_id": 7}, {"card_id": "nobody", "merchant_id": 9}]
)
def test_an_explanation_has_the_values_of_a_lookup(client: LookupClient, entity: Entity) -> None:
    """Every value and status of every kind of view and feature, known or not, in the same order."""
    explanation = client.explain("fraud_detection", entity, as_of_ms=NOW_MS)
    looked_up = client.lookup("fraud_detection", entity, as_of_ms=NOW_MS, with_metadata=True)

    assert looked_up.names == [feature.name for feature in explanation.features]
    assert (explanation.service, explanation.entity, explanation.as_of_ms) == ("fraud_detection", entity, NOW_MS)
    assert explanation.refusal == ""
    for feature in explanation.features:
        assert repr(looked_up.rows()[0][feature.name]) == repr(feature.value), feature
        assert looked_up.status(feature.name)[0] is feature.status
    for view, metadata in zip(explanation.views, looked_up.views, strict=True):
        assert view.name == metadata.view
        assert (view.event_time_ms, view.freshness_ms) == (
            metadata.event_time_ms.tolist()[0],
            metadata.freshness_ms.tolist()[0],
        )
        positions = metadata.positions[0] if metadata.positions else ()
        assert [(at.topic, at.partition, at.next_offset) for at in view.positions] == [
            (at.topic, at.partition, at.next_offset) for at in positions
        ]


def test_a_payment_in_flight_is_explained(client: LookupClient) -> None:
    """Every value and status of a lookup with it; views of its source have it as their newest row."""
    events = {"events": PAYMENT}
    unknown: Entity = {"card_id": "nobody", "merchant_id": 9}
    for entity in (CARD, unknown):
        explanation = client.explain("fraud_detection", entity, events=events)
        looked_up = client.lookup("fraud_detection", entity, events=events)

        assert explanation.as_of_ms == NOW_MS
        assert explanation.events == events
        for feature in explanation.features:
            assert repr(looked_up.rows()[0][feature.name]) == repr(feature.value), feature
            assert looked_up.status(feature.name)[0] is feature.status
        views = {view.name: view for view in explanation.views}
        assert [True] == [tile.is_in_flight for tile in views["card_activity"].tiles[-1:]]
        assert (entity is CARD) == (views["card_activity"].state == "the entity is known")
        assert by_name(explanation)["risk_tier"].counts_event is None
        assert by_name(explanation)["card_activity__count_1h"].counts_event is True


def test_every_view_says_which_definition_answers(client: LookupClient) -> None:
    """Hash and generation of stream views, nothing of materialized ones; the entity by its own keys."""
    views = {view.name: view for view in client.explain("fraud_detection", CARD).views}

    assert views["card_activity"].definition_hash == definition_hash(CARD_ACTIVITY)
    assert (views["card_activity"].generation, views["card_activity"].stored_as) == (1, "card_activity")
    assert (views["merchant_profile"].definition_hash, views["merchant_profile"].generation) == ("", 0)
    assert views["card_activity"].entity == {"card_id": "c-1"}
    assert views["pair_activity"].entity == CARD
    assert views["merchant_profile"].state == "materialized with a time 24.0 h before the read time"


def test_a_profile_that_is_too_old_or_too_new_says_so(client: LookupClient) -> None:
    """Its age beside what the view allows."""
    late = client.explain("fraud_detection", CARD, as_of_ms=NOW_MS + 40 * 86_400_000, features=["risk_tier"])
    early = client.explain("fraud_detection", CARD, as_of_ms=NOW_MS - 2 * 86_400_000, features=["risk_tier"])
    never = client.explain("fraud_detection", {"card_id": "c-1", "merchant_id": 8}, features=["risk_tier"])

    assert late.features[0].status is FeatureStatus.OUTSIDE_MAX_AGE
    assert late.views[0].state.endswith("which is older than the 30 days that the view holds for")
    assert never.views[0].state == "nothing was materialized for this entity"
    assert early.views[0].state.endswith("after the read time")


def test_a_feature_that_is_not_computed_yet_says_so(
    client: LookupClient, payments: Payments, registry: RegistryInMemory
) -> None:
    """One that was just added is explained by its registered definition, without a value."""
    view = with_feature(CARD_ACTIVITY, replace(CARD_ACTIVITY.features[1], name="new_1h", function="max"))
    service = replace(
        FRAUD_DETECTION,
        features=(*FRAUD_DETECTION.features, FeatureReference("card_activity", "new_1h", "new_1h")),
    )
    registry.change(replace(REPO, views=(view, *REPO.views[1:]), services=(service,)))
    feature = by_name(_once_described(client, "new_1h"))["new_1h"]

    assert (feature.value, feature.status, feature.windows) == (None, FeatureStatus.NOT_READY, ())
    assert feature.meaning.startswith("largest amount in the events of a card_id over 1 h")


def _once_described(client: LookupClient, name: str) -> Explanation:
    """The server polls its registry; ask until it knows the feature."""
    for _ in range(200):
        explanation = client.explain("fraud_detection", CARD)
        if name in by_name(explanation):
            return explanation
        time.sleep(0.1)
    raise AssertionError(f"the server never saw {name}")


def test_a_refused_moment_is_explained(client: LookupClient, payments: Payments) -> None:
    """A lookup raises; the explanation says the same, and which windows are the reason."""
    payments.write(CARD_ACTIVITY, [event_of(b"c-9", NOW_MS - 20 * HOUR_MS + 1_000 * number) for number in range(900)])
    payments.write(CARD_ACTIVITY, [event_of(b"c-9", NOW_MS)])
    entity: Entity = {"card_id": "c-9", "merchant_id": 7}
    as_of_ms = NOW_MS - 20 * HOUR_MS + 60_001

    explanation = client.explain("fraud_detection", entity, as_of_ms=as_of_ms)
    cuts = {feature.name for feature in explanation.features if any(window.cut for window in feature.windows)}
    views = {view.name: view for view in explanation.views}

    with pytest.raises(AsOfTooOld, match=fingerprint(b"c-9")) as raised:
        client.lookup("fraud_detection", entity, as_of_ms=as_of_ms)
    assert raised.value.message.splitlines()[0] in explanation.refusal
    assert {(None, None)} == {(feature.value, feature.status) for feature in explanation.features}
    assert cuts >= {"card_activity__count_1h", "amount_sum_1h", "amount_mean_7d"}
    assert views["card_activity"].state.startswith("this moment lies more than the lookback of 1 min before")
    assert views["merchant_activity"].state == "the entity is known"


def test_wrong_requests_are_named(client: LookupClient) -> None:
    """As a lookup names them; and what an explanation cannot do."""
    with pytest.raises(UnknownFeatureService, match="fraud_detectio"):
        client.explain("fraud_detectio", CARD)
    with pytest.raises(UnknownJoinKey, match="merchant_id"):
        client.explain("fraud_detection", {"card_id": "c-1"})
    with pytest.raises(InvalidRequest, match='has no feature "count"'):
        client.explain("fraud_detection", CARD, features=["count"])
    with pytest.raises(InvalidRequest, match="several rows"):
        client.explain("fraud_detection", {"card_id": ["c-1", "c-2"], "merchant_id": [7, 7]})
    with pytest.raises(LimitExceeded, match="bytes long"):
        client.explain("fraud_detection", {"card_id": "x" * 5_000, "merchant_id": 7})


def test_damaged_bytes_are_refused_and_named(client: LookupClient, payments: Payments) -> None:
    """Nothing is explained from bytes that are wrong."""
    generation = payments.catalog.serving("card_activity")
    assert generation is not None
    head = generation.keys.head_prefix(lane_of(b"c-1", LANES)) + b"c-1"
    [stored] = payments.store.read_groups([[head]])
    payments.store.compare_and_set(head, stored, b"\x01\x02\x03")

    with pytest.raises(CorruptData, match=fingerprint(b"c-1")):
        client.explain("fraud_detection", CARD)


def test_asyncio_explains_the_same(server: FeatureServer, client: LookupClient) -> None:
    """Both clients get one answer."""

    async def ask() -> Explanation:
        async with AsyncLookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as asynchronous:
            return await asynchronous.explain("fraud_detection", CARD, as_of_ms=NOW_MS)

    assert asyncio.run(ask()) == client.explain("fraud_detection", CARD, as_of_ms=NOW_MS)
