"""Features of the Fraud Detection Handbook: count and mean of amount over 1, 7 and 30 days, exact windows."""

from feast import Entity, FeatureService, StreamFeatureView, ValueType

from featurestore.definitions.authoring import aggregate, count, kafka_source, stream_view

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

handbook = FeatureService(name="handbook", features=[customer_spending, terminal_spending])
