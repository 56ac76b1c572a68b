"""What happens at a terminal: a compromised one shows as a burst of unlike cards and declines."""

from entities import terminal
from sources import transactions

from featurestore.features import aggregate, count, stream_view

terminal_activity = stream_view(
    name="terminal_activity",
    entities=[terminal],
    source=transactions,
    prefix="terminal_",
    features=[
        *count(over=["1m", "5m", "1h", "1d", "7d", "30d"]),
        *aggregate("amount", "sum", over=["1h", "1d", "7d", "30d"]),
        *aggregate("amount", "mean", over=["1d", "30d"]),
        *aggregate("is_declined", "sum", over=["1m", "5m", "1h", "1d", "7d", "30d"], name="declines"),
        *aggregate("is_declined", "mean", over=["1d", "30d"], name="decline_share"),
    ],
    description="Activity of a terminal, seconds old.",
)
