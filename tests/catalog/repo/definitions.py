"""A repo with something of every kind that a catalog shows."""

from feast import Entity, FeatureService, Field, RequestSource, ValueType
from feast.permissions.action import AuthzedAction
from feast.permissions.permission import Permission
from feast.permissions.policy import RoleBasedPolicy
from feast.types import Int64

from featurestore.features import about, aggregate, count, derive, expect, kafka_source, request_features, stream_view

RISK, GROWTH = "payments-risk", "merchant-growth"

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
merchant = Entity(name="merchant", join_keys=["merchant_id"], value_type=ValueType.INT64)

payments = kafka_source(
    name="payments",
    topic="payments",
    columns={
        "payment_id": "string",
        "paid_at": "timestamp",
        "card_id": "string",
        "merchant_id": "bigint",
        "market": "string",
        "email": "string",
        "amount": "bigint",
        "is_declined": "boolean",
    },
    computed={"amount_in_euro": "amount / 100.0", "is_large": "amount_in_euro > 500"},
    event_time="paid_at",
    event_id="payment_id",
    dedup_horizon="1h",
    expectations=[
        expect("amount >= 0", name="a price", on_fail="dead_letter"),
        expect("market IS NOT NULL", on_fail="count"),
    ],
    description="Every card payment, as it was authorised or declined.",
    owner="payments-platform",
    tags=about(on_call="#platform", tier=1, pii_columns={"card_id": "pseudonymous", "email": "personal"}),
)

card_activity = stream_view(
    name="card_activity",
    entities=[card],
    source=payments,
    features=[
        *count(over=["1h", "1d"], description="Bursts."),
        *aggregate("amount", ["sum", "mean"], over="1d", where="not is_declined"),
        *count(over="1h", where="is_declined", name="declines"),
        *count(over="1d", where="is_large", name="large"),
        *aggregate("email", "last", over="1d"),
        *derive("decline_share_1h", "declines_1h / nullif(count_1h, 0)", tags=about(use_case="churn")),
    ],
    freshness="30s",
    description="What a card has been doing, seconds old.",
    owner=RISK,
    tags=about(on_call="#risk-oncall", tier=1, use_case="fraud", docs="https://wiki.example/cards"),
)

merchant_activity = stream_view(
    name="merchant_activity",
    entities=[merchant],
    source=payments,
    where="market <> 'XX'",
    features=[*count(over="1d"), *aggregate("amount_in_euro", "max", over="7d", offset="1d")],
    description="What happens at a merchant.",
    owner=GROWTH,
    tags=about(tier=2) | {"quarter": "q3-goals"},
)

payment = RequestSource(name="payment", schema=[Field(name="amount", dtype=Int64)])

payment_habits = request_features(
    name="payment_habits",
    request=payment,
    sources=[card_activity],
    features={"amount_to_mean": "amount / nullif(amount_mean_1d, 0)"},
    description="A payment beside what its card usually does.",
    owner=RISK,
)

card_check = FeatureService(
    name="card_check",
    features=[card_activity, payment_habits],
    description="Is this the card's holder? <script>alert(1)</script>",
    owner=RISK,
    tags=about(tier=1),
)

merchant_watch = FeatureService(name="merchant_watch", features=[merchant_activity], owner=GROWTH)

risk_reads = Permission(
    name="risk_reads",
    types=[FeatureService],  # type: ignore[list-item]  # Feast means the class, and says the object
    name_patterns=["card_check"],
    actions=[AuthzedAction.READ_ONLINE, AuthzedAction.DESCRIBE],
    policy=RoleBasedPolicy(roles=["risk"]),
)
