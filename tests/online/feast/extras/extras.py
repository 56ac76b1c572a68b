"""What a team may add to the payments example: pushed, paired and on-demand features, and lists and maps."""

from datetime import timedelta
from typing import Any

from card_views import card_activity
from entities import card, merchant
from feast import FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp
from merchant_views import merchant_profile
from sources import transactions

from featurestore.definitions.authoring import aggregate, count, request_features, series, stream_view

alerts_history = FileSource(name="alerts_history", path="data/alerts.parquet", timestamp_field="raised_at")

merchant_alerts = FeatureView(
    name="merchant_alerts",
    entities=[merchant],
    ttl=timedelta(0),
    schema=[
        Field(name="alert_count", dtype=Int64),
        Field(name="alert_level", dtype=Int32),
        Field(name="alert_score", dtype=Float32),
        Field(name="alert_reasons", dtype=Array(String)),
        Field(name="alert_codes", dtype=Array(Int64)),
        Field(name="alert_scores", dtype=Array(Float32)),
        Field(name="alert_token", dtype=Bytes),
        Field(name="alert_seen_at", dtype=UnixTimestamp),
    ],
    source=PushSource(name="merchant_alerts_push", batch_source=alerts_history),
)

pair_limits = FeatureView(
    name="pair_limits",
    entities=[merchant, card],
    # Feast keeps join keys in the order of the schema: not the order of the entities, on purpose.
    schema=[
        Field(name="card_id", dtype=String),
        Field(name="merchant_id", dtype=Int64),
        Field(name="pair_limit", dtype=Float64),
    ],
    source=FileSource(name="limits_history", path="data/limits.parquet", timestamp_field="set_at"),
)

payment = RequestSource(name="payment", schema=[Field(name="payment_amount", dtype=Int64)])


@on_demand_feature_view(  # type: ignore[untyped-decorator]  # Feast declares no types here
    sources=[card_activity, merchant_profile, payment],
    schema=[Field(name="times_usual", dtype=Float64), Field(name="merchant_risk", dtype=Float64)],
    mode="python",
)
def payment_oddity(inputs: dict[str, Any]) -> dict[str, Any]:
    """How large the payment is beside the card's daily mean, and the merchant's chargeback share."""
    amounts, means = inputs["payment_amount"], inputs["card_amount_mean_1d"]
    return {
        "times_usual": [amount / mean if mean else None for amount, mean in zip(amounts, means, strict=True)],
        "merchant_risk": [share or 0.0 for share in inputs["chargeback_share"]],
    }


fraud_with_oddity = FeatureService(
    name="fraud_with_oddity",
    features=[card_activity[["card_count_1d"]], merchant_profile[["home_market"]], payment_oddity],
)

checkout = RequestSource(
    name="checkout", schema=[Field(name="paid_amount", dtype=Float64), Field(name="paid_in", dtype=String)]
)
payment_checks = request_features(
    name="payment_checks",
    request=checkout,
    sources=[card_activity, merchant_profile],
    features={
        "amount_ratio": "paid_amount / nullif(card_amount_mean_1d, 0)",
        "is_abroad": "paid_in <> home_market",
        "count_or_days": "coalesce(card_count_1d, 0) + coalesce(merchant_profile__onboarded_days, 0)",
        "route": "paid_in || ' to ' || home_market",
    },
)
fraud_with_checks = FeatureService(
    name="fraud_with_checks", features=[card_activity[["card_count_1h"]], payment_checks]
)

card_habits = stream_view(
    name="card_habits",
    entities=[card],
    source=transactions,
    prefix="habit_",
    features=[
        *aggregate("amount", "last_n(3)", over="1d", name="amounts"),
        *aggregate("market", "last_distinct_n(3)", over="1d", name="markets"),
        *aggregate("amount", "mean", over=series("1h", 3), name="mean"),
        *count(over=series("1h", 3), name="counts"),
        *aggregate("", "count by market(10)", over="1d", name="market_counts"),
        *aggregate("amount", "mean by market(10)", over="1d", name="market_means"),
    ],
)

card_review = FeatureService(
    name="card_review",
    features=[card_habits, merchant_alerts[["alert_reasons", "alert_codes", "alert_scores"]]],
)
