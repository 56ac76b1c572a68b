"""A repo with a list or map of every type, windowed and materialized, and what is stored of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from featurestore.core.spec import (
    Column,
    FeatureSpec,
    PlainViewSpec,
    RepoSpec,
    ServiceSpec,
    ValueType,
    ViewSpec,
    Window,
)
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import DAY_MS, SOURCE
from featurestore.wire.codecs.plain_row import encode_values, stored_value
from featurestore.wire.entity_key import lane_of
from featurestore.wire.feast.protos import message_class
from featurestore.wire.store_layout import plain_key
from tests.serving.payments import (
    CARD_ID,
    HOUR_MS,
    LANES,
    NOW_MS,
    PROJECT,
    WEEK,
    Payments,
    event_of,
    references,
)

Value: Any = message_class("feast.types.Value")

BY_THE_HOUR = Window(HOUR_MS, 60_000, series=3)

HABITS = ViewSpec(
    "card_habits",
    (CARD_ID,),
    SOURCE,
    (
        FeatureSpec("count_7d", "count", None, WEEK, ValueType.INT64),
        FeatureSpec("amounts", "last_n(3)", "amount", WEEK, ValueType.INT64_LIST),
        FeatureSpec("prices", "top_k(2)", "price", WEEK, ValueType.FLOAT64_LIST),
        FeatureSpec("markets", "last_n(4)", "market", WEEK, ValueType.STRING_LIST),
        FeatureSpec("counts_by_hour", "count", None, BY_THE_HOUR, ValueType.INT64_LIST),
        FeatureSpec("prices_by_hour", "mean", "price", BY_THE_HOUR, ValueType.FLOAT64_LIST),
        FeatureSpec("count_by_market", "count by market(10)", None, WEEK, ValueType.INT64_MAP),
        FeatureSpec("price_by_market", "mean by market(10)", "price", WEEK, ValueType.FLOAT64_MAP),
    ),
    7 * DAY_MS,
)

ALERTS = PlainViewSpec(
    "card_alerts",
    (CARD_ID,),
    (
        Column("alert_codes", ValueType.INT64_LIST),
        Column("alert_scores", ValueType.FLOAT64_LIST),
        Column("alert_reasons", ValueType.STRING_LIST),
    ),
)

CARD_REVIEW = ServiceSpec(
    "card_review",
    references(HABITS.name, ALERTS.name, views={HABITS.name: HABITS, ALERTS.name: ALERTS}),
    (CARD_ID,),
)

REPO = RepoSpec(PROJECT, (HABITS,), (ALERTS,), (CARD_REVIEW,))

CARDS = ["c-1", "c-2", "c-3", "nobody"]

ALERTS_OF: dict[str, dict[str, Any]] = {
    "c-1": {
        "alert_codes": Value(int64_list_val={"val": [3, -(2**63)]}),
        "alert_scores": Value(float_list_val={"val": [0.5]}),
        "alert_reasons": Value(string_list_val={"val": ["velocity", "", "новое устройство"]}),
    },
    "c-2": {
        "alert_codes": Value(int32_list_val={}),
        "alert_scores": Value(double_list_val={}),
        "alert_reasons": Value(string_list_val={}),
    },
    # The type changed since it was materialized, so two of them read as null.
    "c-3": {"alert_codes": Value(int64_val=3), "alert_scores": Value(double_list_val={"val": [1.0]})},
}


def habit_events() -> dict[str, Sequence[NaiveEvent]]:
    """Payments of three cards; the second's have neither amount nor price, the third's are old."""
    ages_ms = [5 * DAY_MS, 3 * HOUR_MS - 60_000, 100_000, 7]
    return {
        "c-1": [
            event_of(b"c-1", NOW_MS - age_ms, amount=index * 50 - 20, price=index / 3, market=("SE", "ÖL")[index % 2])
            for index, age_ms in enumerate(ages_ms)
        ],
        "c-2": [event_of(b"c-2", NOW_MS - 1_000, amount=None, price=None, market="")],
        "c-3": [event_of(b"c-3", NOW_MS - 6 * DAY_MS)],
    }


def write_habits(payments: Payments) -> dict[str, Sequence[NaiveEvent]]:
    """Fill both views; what was written of the windowed one, by card."""
    events = habit_events()
    payments.write(HABITS, [event for mine in events.values() for event in mine])
    for card, values in ALERTS_OF.items():
        key = plain_key(PROJECT, lane_of(card.encode(), LANES), ALERTS.name, card.encode())
        stored = encode_values({name: stored_value(value) for name, value in values.items()})
        payments.store.write_newer([(key, NOW_MS - DAY_MS, stored, 0)])
    return events
