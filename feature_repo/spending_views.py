"""What a card spends in euros, in whichever currencies, and who asks for it: all that reads the table of rates."""

from entities import card
from feast import FeatureService
from sources import transactions

from featurestore.features import LIFETIME, aggregate, stream_view

card_spending = stream_view(
    name="card_spending",
    entities=[card],
    source=transactions,
    prefix="card_",
    storage="own",  # so that what reads no table is filled, published and restored without one
    features=[
        # Amounts of a dozen currencies, each at the rate of its day; declined payments and refunds are not spent.
        *aggregate(
            "euros", "sum", over=["1d", "7d", "30d", LIFETIME], where="NOT is_declined AND NOT is_refund", name="spent"
        ),
    ],
    description="What a card spends, in euros, in whichever currency it pays.",
)

spending_limits = FeatureService(
    name="spending_limits",
    features=[card_spending],
    description="Asked when a limit is reviewed: what does this card spend, all its currencies together?",
)
