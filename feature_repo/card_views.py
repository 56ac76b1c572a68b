"""What a card has been doing: bursts within minutes, habits over months."""

from entities import card
from sources import transactions

from featurestore.features import LIFETIME, aggregate, count, stream_view

card_activity = stream_view(
    name="card_activity",
    entities=[card],
    source=transactions,
    prefix="card_",
    features=[
        *count(over=["1m", "5m", "15m", "1h", "6h", "1d", "7d", "30d", "90d", LIFETIME]),
        *aggregate("amount", "sum", over=["5m", "1h", "1d", "7d", "30d", "90d", LIFETIME]),
        # What is usual for the card: a payment in flight is compared with it, and is no part of it.
        *aggregate("amount", "mean", over=["1d", "7d", "30d", "90d"], in_flight=False),
        *aggregate("amount", "max", over=["1h", "1d", "30d", "90d"]),
        *aggregate("amount", "stddev_pop", over=["7d", "30d", "90d"], in_flight=False),
        *aggregate("is_declined", "sum", over=["1m", "5m", "1h", "1d", "7d"], name="declines"),
        *aggregate("is_card_present", "mean", over=["1d", "30d"], name="present_share"),
        *aggregate(["market", "merchant_category"], "last", over="1d"),
        *aggregate("event_time", ["first", "last"], over=LIFETIME),
    ],
    description="Activity of a card, seconds old.",
)
