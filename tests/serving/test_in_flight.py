"""Payments in flight over real gRPC and real Redis, against the naive oracle."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from featurestore.core.spec import (
    ComputedColumn,
    FeatureReference,
    FeatureSpec,
    RepoSpec,
    ServiceSpec,
    ValueType,
    ViewSpec,
)
from featurestore.errors import InvalidRequest
from featurestore.online.answer.schema import FeatureStatus
from featurestore.serving.client.clients import LookupClient
from featurestore.testing.oracle.naive import NaiveEvent, naive_value, naive_values
from featurestore.testing.oracle.tolerance import agrees
from featurestore.wire.entity_key import encode_key
from tests.serving.catalog.test_catalog import eventually
from tests.serving.payments import (
    CARD_ACTIVITY,
    CARD_ID,
    FRAUD_DETECTION,
    HOUR,
    LIFETIME,
    NOW_MS,
    PAYMENT,
    REPO,
    Payments,
    RegistryInMemory,
    event_of,
    references,
)

Entities = dict[str, str | int | Sequence[str] | Sequence[int]]

MARKETS = ViewSpec(
    "card_markets",
    (CARD_ID,),
    CARD_ACTIVITY.source,
    (
        FeatureSpec("swedish", "count", None, HOUR, ValueType.INT64, "market = 'SE'"),
        FeatureSpec("dearest", "max", "amount", LIFETIME, ValueType.INT64),
        FeatureSpec("dearest_before", "max", "amount", LIFETIME, ValueType.INT64, in_flight=False),
        FeatureSpec("silence_ms", "time_since_last", None, LIFETIME, ValueType.INT64, in_flight=False),
    ),
    None,
    where="is_declined",
)


def naive(card_id: str, columns: dict[str, Any]) -> NaiveEvent:
    """A payment as the oracle takes it."""
    return NaiveEvent(encode_key([card_id]), columns["event_time"], b"in flight", columns)


def test_a_payment_counts_for_those_of_its_entities_that_are_of_its_source(
    client: LookupClient, payments: Payments
) -> None:
    """Every feature of every view: the oracle's value over the events before the payment, and it."""
    cards = ["c-1", "c-2", "nobody"]
    entities: Entities = {"card_id": cards, "merchant_id": [7, 7, 404]}
    amounts: list[int | None] = [5_000, None, -3]

    events = {"events": {**{name: [value] * 3 for name, value in PAYMENT.items()}, "amount": amounts}}
    result = client.lookup("fraud_detection", entities, events=events)

    assert (NOW_MS,) * 3 == result.as_of_ms
    for index, (row, card_id, amount) in enumerate(zip(result.rows(), cards, amounts, strict=True)):
        payment = naive(card_id, {**PAYMENT, "amount": amount})
        stored = payments.events.get(("card_activity", payment.key), [])
        expected = naive_values(CARD_ACTIVITY, stored, NOW_MS, in_flight=payment)
        for reference in FRAUD_DETECTION.features:
            if reference.view == "card_activity":
                assert agrees(expected[reference.feature], row[reference.output_name]), reference
                status = FeatureStatus.NULL_VALUE if expected[reference.feature] is None else FeatureStatus.PRESENT
                assert result.status(reference.output_name)[index] is status
    assert [6, 6, 1] == [row["count_lifetime"] for row in result.rows()]


def test_the_answer_is_the_same_when_the_stream_was_faster(client: LookupClient, payments: Payments) -> None:
    """The payment's copy in the store has its time and is not before it: nothing counts twice."""
    entities: Entities = {"card_id": "c-1", "merchant_id": 7}
    before = client.lookup("fraud_detection", entities, events={"events": PAYMENT}).rows()

    payments.write(CARD_ACTIVITY, [event_of(b"c-1", NOW_MS, amount=5_000, market="SE")])

    assert before == client.lookup("fraud_detection", entities, events={"events": PAYMENT}).rows()
    assert before == client.lookup("fraud_detection", entities, events={"events": PAYMENT}, as_of_ms=NOW_MS).rows()


def test_two_payments_of_one_card_each_see_themselves_alone(client: LookupClient, payments: Payments) -> None:
    """Rows of one entity and one millisecond do not see each other's payment."""
    events = {"events": {**{name: [value] * 2 for name, value in PAYMENT.items()}, "amount": [1_000, 9_000]}}

    rows = client.lookup("fraud_detection", {"card_id": ["c-1"] * 2, "merchant_id": [7] * 2}, events=events).rows()

    [before] = client.lookup("fraud_detection", {"card_id": "c-1", "merchant_id": 7}).rows()
    assert [219, 2] == [before["amount_sum_1h"], before["card_activity__count_1h"]]
    assert [219 + 1_000, 219 + 9_000] == [row["amount_sum_1h"] for row in rows]
    assert [3, 3] == [row["card_activity__count_1h"] for row in rows]


def test_who_counts_the_payment_is_the_registrys_word_of_now(
    client: LookupClient, payments: Payments, registry: RegistryInMemory
) -> None:
    """A feature that stops counting it needs no new generation."""
    event = event_of(b"c-1", NOW_MS - 60_000, amount=70, market="SE")
    event.columns["is_declined"] = 1
    payments.write(MARKETS, [event])
    service = ServiceSpec("markets", references("card_markets", views={"card_markets": MARKETS}), (CARD_ID,))
    _serve(registry, MARKETS, service)
    eventually(lambda: "markets" in client.services())

    counting = client.lookup("markets", {"card_id": "c-1"}, events={"events": PAYMENT}).rows()
    accepted = client.lookup("markets", {"card_id": "c-1"}, events={"events": {**PAYMENT, "is_declined": 0}}).rows()
    new = client.lookup("markets", {"card_id": "new"}, events={"events": PAYMENT})
    swedish = replace(MARKETS.features[0], in_flight=False)
    _serve(registry, replace(MARKETS, features=(swedish, *MARKETS.features[1:])), service)

    usual = {"swedish": 1, "dearest": 70, "dearest_before": 70, "silence_ms": 60_000}
    assert [{**usual, "swedish": 2, "dearest": 5_000}] == counting
    assert [usual] == accepted
    assert [{"swedish": 1, "dearest": 5_000, "dearest_before": None, "silence_ms": None}] == new.rows()
    assert [FeatureStatus.NULL_VALUE] == new.status("silence_ms")
    eventually(
        lambda: (
            client.lookup("markets", {"card_id": "c-1"}, events={"events": PAYMENT}).rows()
            == [{**usual, "dearest": 5_000}]
        )
    )


@pytest.mark.parametrize("counts", [True, False])
def test_a_service_says_who_counts_the_payment_where_features_leave_it_open(
    client: LookupClient, payments: Payments, registry: RegistryInMemory, counts: bool
) -> None:
    """Two services of one generation: each feature's own word holds, then the service's, then its function's."""
    fixed = FeatureSpec("fixed", "sum", "amount", HOUR, ValueType.INT64, in_flight=not counts, fixes_in_flight=True)
    tripled = ComputedColumn("tripled", ValueType.INT64, "amount_sum_1h * 3")
    view = replace(CARD_ACTIVITY, features=(*CARD_ACTIVITY.features, fixed), derived=(tripled,))
    names = [each.name for each in view.answers]
    usual = ServiceSpec("usual", tuple(FeatureReference(view.name, name, name) for name in names), (CARD_ID,))
    saying = replace(usual, name="saying", in_flight=counts)
    stored = list(payments.events["card_activity", b"c-1"])
    payments.catalog.promote(payments.write(view, stored))
    registry.change(RepoSpec(REPO.project, (view, *REPO.views[1:]), REPO.plain_views, (usual, saying)))
    eventually(lambda: client.services() == ["usual", "saying"])

    found = {
        name: client.lookup(name, {"card_id": "c-1"}, events={"events": PAYMENT}).rows()[0]
        for name in ("usual", "saying")
    }

    payment = naive("c-1", PAYMENT)
    for name, row in found.items():
        for feature in view.features:
            own = feature.in_flight if name == "usual" or feature.fixes_in_flight else counts
            expected = naive_value(replace(feature, in_flight=own), stored, NOW_MS, in_flight=payment)
            assert agrees(expected, row[feature.name]), (name, feature)
        assert row["tripled"] == 3 * int(str(row["amount_sum_1h"]))
    explained = client.explain("saying", {"card_id": "c-1"}, events={"events": PAYMENT}).features
    assert {**dict.fromkeys(names, counts), "fixed": not counts} == {one.name: one.counts_event for one in explained}


def test_a_client_is_told_what_a_payment_must_say(client: LookupClient, payments: Payments) -> None:
    """The description of a service has the columns that its features read, the event time first."""
    [source] = client.describe("fraud_detection").event_sources

    assert ("events", "event_time") == (source.name, source.event_time_column)
    assert list(PAYMENT) == sorted((column.name for column in source.columns), key=list(PAYMENT).index)
    assert "event_time" == source.columns[0].name


def test_moments_and_nulls_are_sent_as_python_has_them(client: LookupClient, payments: Payments) -> None:
    """Datetimes become milliseconds, whole numbers do for a column of doubles, None and NaN are null."""
    moment = datetime.fromtimestamp(NOW_MS / 1_000, tz=UTC)
    entities: Entities = {"card_id": "c-1", "merchant_id": 7}
    payment = {**PAYMENT, "event_time": moment, "price": 2, "amount": None, "market": None}

    [row] = client.lookup("fraud_detection", entities, events={"events": payment}).rows()

    stored = payments.events[("card_activity", b"c-1")]
    expected = naive_values(CARD_ACTIVITY, stored, NOW_MS, in_flight=naive("c-1", {**payment, "event_time": NOW_MS}))
    for reference in FRAUD_DETECTION.features:
        if reference.view == "card_activity":
            assert agrees(expected[reference.feature], row[reference.output_name]), reference
    without = client.lookup("fraud_detection", entities, events={"events": {**payment, "price": float("nan")}}).rows()
    before = client.lookup("fraud_detection", entities).rows()
    assert before[0]["price_mean_7d"] == without[0]["price_mean_7d"] != row["price_mean_7d"]


@pytest.mark.parametrize(
    ("events", "as_of_ms", "said"),
    [
        ({"event": PAYMENT}, None, 'no features of source "event".*did you mean "events"'),
        ({"events": {**PAYMENT, "amuont": 1}}, None, 'no column "amuont".*did you mean "amount"'),
        ({"events": {"event_time": NOW_MS}}, None, 'lacks column "amount".*send it as integers'),
        ({"events": {"amount": 1}}, None, 'lacks column "event_time"'),
        ({"events": {**PAYMENT, "event_time": None}}, None, '"event_time" of source "events" is null'),
        ({"events": {**PAYMENT, "event_time": NOW_MS // 1_000}}, None, "looks like seconds"),
        ({"events": {**PAYMENT, "amount": "12"}}, None, '"amount" of source "events" must be int64'),
        ({"events": {**PAYMENT, "amount": 1.5}}, None, '"amount" of source "events" must be int64'),
        ({"events": {**PAYMENT, "is_declined": 2}}, None, '"is_declined" of source "events" must be bool'),
        ({"events": {**PAYMENT, "market": 1}}, None, '"market" of source "events" must be string'),
        ({"events": {**PAYMENT, "price": float("inf")}}, None, '"price" of source "events" is infinite'),
        ({"events": {**PAYMENT, "market": "x" * 70_000}}, None, "70000 bytes long in row 0"),
        ({"events": {**PAYMENT, "amount": [1, 2]}}, None, "has 2 values for 1 rows"),
        ({"events": {**PAYMENT, "card_id": "c-2"}}, None, 'in row 0 is of another "card_id"'),
        ({"events": {**PAYMENT, "amount": [None, 2]}}, None, "2 null marks for 1 rows"),
        ({"events": PAYMENT}, NOW_MS - 1, f"as_of_ms is {NOW_MS - 1} in row 0, whose event in flight is of {NOW_MS}"),
    ],
)
def test_what_is_wrong_with_a_payment_is_said(
    client: LookupClient, payments: Payments, events: Any, as_of_ms: int | None, said: str
) -> None:
    """The message names source and column, and what to do."""
    with pytest.raises(InvalidRequest) as caught:
        client.lookup("fraud_detection", {"card_id": "c-1", "merchant_id": 7}, events=events, as_of_ms=as_of_ms)

    assert re.search(said, str(caught.value), re.DOTALL), str(caught.value)


def _serve(registry: RegistryInMemory, view: ViewSpec, service: ServiceSpec) -> None:
    """Register a view and its service."""
    registry.change(RepoSpec(REPO.project, (*REPO.views, view), REPO.plain_views, (*REPO.services, service)))
