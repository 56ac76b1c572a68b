"""Where data comes from: the live stream of transactions, exchange rates, and the nightly merchant table."""

from feast import FileSource

from featurestore.features import kafka_source, null_share, table

# Exchange rates, a version a quarter: each holds from its time on, until the next one of its currency.
rates = FileSource(
    name="rates",
    path="rates.parquet",
    timestamp_field="valid_from",
    description="How many minor units of each currency are a euro.",
)

transactions = kafka_source(
    name="transactions",
    topic="transactions",
    columns={
        "transaction_id": "string",
        "event_time": "timestamp",
        "card_id": "string",
        "merchant_id": "bigint",
        "terminal_id": "bigint",
        "market": "string",
        "currency": "string",
        "amount": "bigint",  # minor units of the currency; null while a tip or a fuel pump is still open
        "is_declined": "boolean",
        "is_refund": "boolean",
        "is_card_present": "boolean",
        "merchant_category": "string",
    },
    event_time="event_time",
    event_id="transaction_id",
    dedup_horizon="1h",
    bootstrap_servers="127.0.0.1:9092",
    # On a desk `stream --log-dir` brings its own; `--schema-registry-option url=...` stands for another one.
    format="avro",
    registry="http://127.0.0.1:8081/apis/ccompat/v7",
    enrich={"fx": table(rates, on="currency", columns={"minor_units_per_euro": "double"})},  # as of the event's time
    computed={"euros": "amount / fx_minor_units_per_euro"},
    units={"amount": "minor units of the currency"},
    expectations=[null_share("amount", at_most=0.1)],  # `featurestore status` says whether they are met
    history=FileSource(
        name="transactions_history",
        path="data/transactions.parquet",
        timestamp_field="event_time",
    ),
    description="Every card transaction, as authorised, declined or refunded.",
)

merchant_table = FileSource(
    name="merchant_table",
    path="data/merchants.parquet",
    timestamp_field="updated_at",
    description="What sales knows of a merchant, exported every night.",
)
