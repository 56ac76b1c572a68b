"""What this project knows of a card: a stream of payments, a view of it, and a service that a model asks.

Everything here is plain Feast; the helpers only keep it short. After a change: `featurestore plan`.
"""

from feast import Entity, FeatureService, ValueType

from featurestore.features import LIFETIME, aggregate, count, derive, kafka_source, stream_view

card = Entity(
    name="card",
    join_keys=["card_id"],
    value_type=ValueType.STRING,
    description="A payment card, by its token (never its number).",
)

payments = kafka_source(
    name="payments",
    topic="payments",
    columns={
        "payment_id": "string",
        "event_time": "timestamp",
        "card_id": "string",
        "amount": "bigint",  # minor units of the currency: 4550 is 45.50
        "is_declined": "boolean",
    },
    event_time="event_time",
    event_id="payment_id",  # a payment that is sent twice counts once
    bootstrap_servers="127.0.0.1:9092",
    description="Every payment, as authorised or declined.",
)

card_activity = stream_view(
    name="card_activity",
    entities=[card],
    source=payments,
    features=[
        *count(over=["1h", "30d", LIFETIME]),
        *aggregate("amount", "sum", over=["1h", "30d"]),
        *aggregate("amount", "max", over="30d"),
        *count(over="1h", where="is_declined", name="declines"),
        *derive("decline_share_1h", "declines_1h / nullif(count_1h, 0)"),
    ],
    description="What a card has been doing, seconds old.",
)

card_risk = FeatureService(
    name="card_risk",
    features=[card_activity],
    description="Asked while a payment waits: is this the card's holder?",
)
