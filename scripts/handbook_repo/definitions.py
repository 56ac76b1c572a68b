"""Features of the Fraud Detection Handbook, in exact windows of 1, 7 and 30 days.

Count and mean of amount for customers and terminals, and the risk of a terminal: the share of frauds in a window that
ended seven days ago, because it takes a week until a fraud is known.
"""

from feast import Entity, FeatureService, StreamFeatureView, ValueType

from featurestore.features import aggregate, count, derive, kafka_source, stream_view

WINDOWS = ["1d", "7d", "30d"]

EXACT = "1ms"
"""A hop of 1 s would do for reads at whole seconds, where the events are; handbook.py reads between them too."""

LOOKBACK = "30d"
"""A stage of handbook.py, four weeks, is read when all of it has been streamed."""

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
terminal = Entity(name="terminal", join_keys=["terminal_id"], value_type=ValueType.INT64)

transactions = kafka_source(
    name="transactions",
    topic="handbook_transactions",
    columns={
        "transaction_id": "bigint",
        "paid_at": "timestamp",
        "customer_id": "bigint",
        "terminal_id": "bigint",
        "amount": "bigint",  # cents
        "is_fraud": "boolean",
    },
    event_time="paid_at",
    event_id="transaction_id",
    dedup_horizon="1h",
)


def spending(entity: Entity) -> StreamFeatureView:
    """The same features for any entity."""
    return stream_view(
        name=f"{entity.name}_spending",
        entities=[entity],
        source=transactions,
        features=[*count(over=WINDOWS, hop=EXACT), *aggregate("amount", "mean", over=WINDOWS, hop=EXACT)],
        prefix=f"{entity.name}_",
        lookback=LOOKBACK,
    )


customer_spending, terminal_spending = spending(customer), spending(terminal)

DELAY = "7d"

terminal_risk = stream_view(
    name="terminal_risk",
    entities=[terminal],
    source=transactions,
    features=[
        *count(over=WINDOWS, hop=EXACT, offset=DELAY, name="known"),
        *count(over=WINDOWS, hop=EXACT, offset=DELAY, where="is_fraud", name="frauds"),
        *(
            feature
            for window in WINDOWS
            for feature in derive(
                f"risk_{window}", f"terminal_frauds_{window}_offset_{DELAY} / terminal_known_{window}_offset_{DELAY}"
            )
        ),
    ],
    prefix="terminal_",
    lookback=LOOKBACK,
)

KNOWN = [f"terminal_known_{window}_offset_{DELAY}" for window in WINDOWS]
RISK = [f"terminal_risk_{window}" for window in WINDOWS]

handbook = FeatureService(name="handbook", features=[customer_spending, terminal_spending, terminal_risk[RISK]])

handbook_model = FeatureService(name="handbook_model", features=[customer_spending, terminal_risk[[*KNOWN, *RISK]]])
"""What the models of the book are told beside the payment itself."""
