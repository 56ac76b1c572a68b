"""Payments in flight of sources that nothing is stored of yet: the service is asked in one way before and after."""

import re
from dataclasses import replace
from typing import Any

import pytest

from featurestore.core.spec import (
    Column,
    FeatureReference,
    FeatureSpec,
    RepoSpec,
    ServiceSpec,
    SourceSpec,
    ValueType,
    ViewSpec,
)
from featurestore.errors import InvalidRequest
from featurestore.online.answer.schema import FeatureStatus
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.testing.strategies import SOURCE
from tests.serving.payments import (
    CARD_ACTIVITY,
    CARD_ID,
    HOUR,
    MERCHANT_ID,
    NOW_MS,
    PAYMENT,
    REPO,
    Payments,
    RegistryInMemory,
    event_of,
    references,
    windowed,
)
from tests.serving.sampling.feature_logs import Table, logging_server

LOGINS = replace(SOURCE, name="logins", topic="logins")
CARD_LOGINS = ViewSpec(
    "card_logins",
    (CARD_ID,),
    LOGINS,
    (windowed("count", None, HOUR, ValueType.INT64), FeatureSpec("dear", "count", None, HOUR, ValueType.INT64)),
    None,
    where="amount > 10",
)
LOGIN: dict[str, Any] = {"event_time": NOW_MS, "amount": 40}

WIDER = replace(SOURCE, columns=(*SOURCE.columns, Column("device", ValueType.STRING)))
DEVICES = FeatureSpec("devices_1h", "count_distinct", "device", HOUR, ValueType.INT64)
CARD_WIDER = replace(CARD_ACTIVITY, source=WIDER, features=(*CARD_ACTIVITY.features, DEVICES))
AT_ANOTHER_TIME = replace(WIDER, event_time_column="opened_at")


def serve(server: FeatureServer, registry: RegistryInMemory, service: ServiceSpec, *views: ViewSpec) -> None:
    """Register views beside the others, or in their place, and a service."""
    mine = {view.name: view for view in (*REPO.views, *views)}
    registry.change(RepoSpec(REPO.project, tuple(mine.values()), REPO.plain_views, (*REPO.services, service)))
    server._catalog.poll()


LOGINS_SERVICE = ServiceSpec("logins", references("card_logins", views={"card_logins": CARD_LOGINS}), (CARD_ID,))


def test_a_source_of_awaited_views_takes_payments_as_it_will(
    client: LookupClient, server: FeatureServer, payments: Payments, registry: RegistryInMemory
) -> None:
    """NOT_READY at the payment's time, described as ever; when the view serves, the same request is answered."""
    serve(server, registry, LOGINS_SERVICE, CARD_LOGINS)
    both = {"logins": {"event_time": [NOW_MS, NOW_MS], "amount": [40, 1]}}

    before = client.lookup("logins", {"card_id": ["c-1", "c-2"]}, events=both)
    described = client.describe("logins").event_sources
    [shown] = client.explain("logins", {"card_id": "c-1"}, events={"logins": LOGIN}, features=["dear"]).features
    payments.write(CARD_LOGINS, [event_of(b"c-1", NOW_MS - 60_000, amount=70)])
    server._catalog.poll()
    after = client.lookup("logins", {"card_id": ["c-1", "c-2"]}, events=both)

    for name in before.names:
        assert [FeatureStatus.NOT_READY] * 2 == before.status(name)
    assert (NOW_MS, NOW_MS) == before.as_of_ms
    assert (FeatureStatus.NOT_READY, None) == (shown.status, shown.value)
    assert described == client.describe("logins").event_sources
    assert [("logins", ["event_time", "amount"])] == [
        (one.name, [each.name for each in one.columns]) for one in described
    ]
    assert [2, 0] == [row["dear"] for row in after.rows()]


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ({"login": LOGIN}, 'no features of source "login".*did you mean "logins"'),
        ({"logins": {**LOGIN, "amuont": 1}}, 'no column "amuont".*did you mean "amount"'),
        ({"logins": {"amount": 1}}, 'lacks column "event_time"'),
        ({"logins": {**LOGIN, "amount": "12"}}, '"amount" of source "logins" must be int64'),
        ({"logins": {**LOGIN, "amount": [1, 2]}}, "has 2 values for 1 rows"),
        ({"logins": {**LOGIN, "card_id": "c-2"}}, 'in row 0 is of another "card_id"'),
        ({"logins": LOGIN, "events": PAYMENT}, 'no features of source "events"'),
    ],
)
def test_what_is_wrong_with_a_payment_is_said_before_the_fill(
    client: LookupClient, server: FeatureServer, registry: RegistryInMemory, events: Any, said: str
) -> None:
    """A client finds its mistakes before anything depends on them."""
    serve(server, registry, LOGINS_SERVICE, CARD_LOGINS)

    with pytest.raises(InvalidRequest) as caught:
        client.lookup("logins", {"card_id": "c-1"}, events=events)

    assert re.search(said, str(caught.value), re.DOTALL), str(caught.value)


@pytest.mark.parametrize("wider", [WIDER, AT_ANOTHER_TIME], ids=["the same time", "another time"])
def test_an_awaited_feature_wants_nothing_of_a_payment_and_takes_it(
    client: LookupClient, server: FeatureServer, payments: Payments, registry: RegistryInMemory, wider: SourceSpec
) -> None:
    """Whoever adds a feature breaks no request of those who send what the others read."""
    view = replace(CARD_WIDER, source=wider)
    names = [*(each.name for each in CARD_ACTIVITY.features), DEVICES.name]
    service = ServiceSpec("wider", tuple(FeatureReference("card_activity", name, name) for name in names), (CARD_ID,))
    usual = client.lookup("fraud_detection", {"card_id": "c-1", "merchant_id": 7}, events={"events": PAYMENT}).rows()[0]
    serve(server, registry, service, view)

    with_it = client.lookup("wider", {"card_id": "c-1"}, events={"events": {**PAYMENT, "device": "d"}})
    without = client.lookup("wider", {"card_id": "c-1"}, events={"events": PAYMENT})
    with pytest.raises(InvalidRequest, match='"device" of source "events" must be string'):
        client.lookup("wider", {"card_id": "c-1"}, events={"events": {**PAYMENT, "device": 7}})

    assert with_it.rows() == without.rows()
    assert [FeatureStatus.NOT_READY] == without.status(DEVICES.name)
    assert usual["amount_sum_1h"] == without.rows()[0]["amount_sum_1h"]
    assert [FeatureStatus.PRESENT] == without.status("amount_sum_1h")
    [source] = client.describe("wider").event_sources
    assert "event_time" == source.event_time_column == source.columns[0].name
    assert "device" in {column.name for column in source.columns}


def test_views_that_serve_and_views_that_are_awaited_take_one_payment(
    client: LookupClient, server: FeatureServer, payments: Payments, registry: RegistryInMemory
) -> None:
    """Of one source or of two, by one key or by two."""
    merchants = ViewSpec("merchant_logins", (MERCHANT_ID,), LOGINS, CARD_LOGINS.features, None)
    mine = {"card_activity": CARD_ACTIVITY, "card_logins": CARD_LOGINS, "merchant_logins": merchants}
    service = ServiceSpec("mixed", references(*mine, views=mine), (CARD_ID, MERCHANT_ID))
    serve(server, registry, service, CARD_LOGINS, merchants)
    keys: dict[str, Any] = {"card_id": "c-1", "merchant_id": 7}

    both = client.lookup("mixed", keys, events={"events": PAYMENT, "logins": LOGIN})
    one = client.lookup("mixed", keys, events={"events": PAYMENT})
    with pytest.raises(InvalidRequest, match="have different times"):
        client.lookup("mixed", keys, events={"events": PAYMENT, "logins": {**LOGIN, "event_time": NOW_MS - 1}})

    assert both.rows() == one.rows()
    assert [3] == [row["card_activity__count_1h"] for row in both.rows()]
    assert [FeatureStatus.NOT_READY] == both.status("merchant_logins__dear")


def test_the_log_has_what_was_sent_before_the_fill(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock
) -> None:
    """The payment stands beside NOT_READY, null where nothing was sent; nothing that is logged is lost."""
    table = Table()
    table.may_write.set()
    registry.change(replace(REPO, views=(*REPO.views, CARD_LOGINS), services=(LOGINS_SERVICE,)))

    with logging_server(payments, registry, clock, table) as server, LookupClient(f"127.0.0.1:{server.port}") as client:
        for event in (LOGIN, {"event_time": NOW_MS}):
            client.lookup("logins", {"card_id": "c-1"}, events={"logins": event})

    assert [40, None] == [row["__event__logins"]["amount"] for row in table.rows]
    assert {int(FeatureStatus.NOT_READY)} == {row["card_logins__dear__status"] for row in table.rows}
