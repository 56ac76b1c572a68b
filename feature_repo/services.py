"""The feature vectors that models ask for, one service a use case."""

from card_views import card_activity
from feast import FeatureService
from merchant_views import merchant_activity, merchant_profile
from payment_views import payment_habits
from terminal_views import terminal_activity

fraud_detection = FeatureService(
    name="fraud_detection",
    features=[card_activity, merchant_activity, terminal_activity, merchant_profile],
    description="Asked while a payment waits: is this the card's holder?",
)

payment_decision = FeatureService(
    name="payment_decision",
    features=[card_activity, merchant_activity, terminal_activity, merchant_profile, payment_habits],
    description="Asked with the payment itself: it counts beside those before it, and is compared with what is usual.",
)

merchant_monitoring = FeatureService(
    name="merchant_monitoring",
    features=[
        merchant_activity,
        merchant_profile[["home_market", "is_online_only", "chargeback_share"]],
    ],
    description="Asked round the clock for every merchant: does anything look unlike yesterday?",
)

merchant_recommendations = FeatureService(
    name="merchant_recommendations",
    features=[
        card_activity[
            ["card_merchant_category_last_1d", "card_market_last_1d", "card_amount_mean_30d", "card_count_30d"]
        ],
        merchant_activity[
            ["merchant_count_7d", "merchant_count_30d", "merchant_amount_mean_30d", "merchant_refund_share_30d"]
        ],
        merchant_profile[["merchant_category", "home_market", "is_online_only"]],
    ],
    description="Asked when a cardholder opens the app: which merchants might they like?",
)

card_watch = FeatureService(
    name="card_watch",
    features=[card_activity[["card_count_1h", "card_amount_sum_1h", "card_declines_1h"]]],
    description="Published as payments come: who calls the holders of cards that are declined again and again?",
)
