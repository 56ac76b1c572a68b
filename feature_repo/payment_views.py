"""What only the payment itself tells: it comes with the question, and is compared with what is usual."""

from card_views import card_activity
from feast import Field, RequestSource
from feast.types import Int64
from merchant_views import merchant_activity

from featurestore.features import request_features

payment = RequestSource(
    name="payment",
    schema=[Field(name="amount", dtype=Int64)],  # minor units of the currency; null while it is open
)

payment_habits = request_features(
    name="payment_habits",
    request=payment,
    sources=[card_activity, merchant_activity],
    features={
        "amount_to_card_mean": "amount / nullif(card_amount_mean_30d, 0)",
        "amount_to_shop_mean": "amount / nullif(merchant_amount_mean_30d, 0)",
    },
    description="A payment beside what its card and its shop usually do; computed when it is asked for.",
)
