"""What happens at a merchant: live activity, and the profile that sales keeps."""

from datetime import timedelta

from entities import merchant
from feast import FeatureView, Field
from feast.types import Bool, Float64, Int64, String
from sources import merchant_table, transactions

from featurestore.features import LIFETIME, aggregate, count, stream_view

merchant_activity = stream_view(
    name="merchant_activity",
    entities=[merchant],
    source=transactions,
    prefix="merchant_",
    features=[
        *count(over=["1m", "5m", "1h", "1d", "7d", "30d", LIFETIME]),
        *count(over="1d", offset="7d", hop="1h"),  # the same day a week ago, to tell a busy day from an odd one
        *aggregate("amount", "sum", over=["5m", "1h", "1d", "7d", "30d", "90d"]),
        # What the shop usually takes: a payment in flight is compared with it, and is no part of it.
        *aggregate("amount", "mean", over=["1h", "1d", "30d"], in_flight=False),
        *aggregate("amount", ["min", "max"], over="1d"),
        *aggregate("amount", "stddev_samp", over="30d", in_flight=False),
        *aggregate("is_declined", "sum", over=["5m", "1h", "1d"], name="declines"),
        *aggregate("is_refund", "sum", over=["1h", "1d", "30d"], name="refunds"),
        *aggregate("is_refund", "mean", over="30d", name="refund_share"),
    ],
    description="Activity of a merchant, seconds old.",
)

merchant_profile = FeatureView(
    name="merchant_profile",
    entities=[merchant],
    ttl=timedelta(days=7),
    schema=[
        Field(name="merchant_category", dtype=String),
        Field(name="home_market", dtype=String),
        Field(name="is_online_only", dtype=Bool),
        Field(name="onboarded_days", dtype=Int64),
        Field(name="chargeback_share", dtype=Float64),
    ],
    source=merchant_table,
    description="What sales knows of a merchant; materialized every night.",
)
