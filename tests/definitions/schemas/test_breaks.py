"""What a schema would break, by view and feature."""

from __future__ import annotations

import json
from typing import Any

import pytest

from featurestore.core.spec import Column, FeatureSpec, SourceSpec, ValueType, ViewSpec, Window
from featurestore.definitions.schemas.breaks import Break, find_breaks
from featurestore.errors import InvalidRequest

COLUMNS = {
    "payment_id": ValueType.STRING,
    "paid_at": ValueType.TIMESTAMP,
    "card_id": ValueType.STRING,
    "amount": ValueType.FLOAT64,
    "channel": ValueType.STRING,
    "note": ValueType.STRING,
}
SOURCE = SourceSpec(
    name="payments",
    topic="payments",
    columns=tuple(Column(name, of) for name, of in COLUMNS.items()),
    event_time_column="paid_at",
    event_id_column="payment_id",
    renamed=(("card_id", "card.id"),),
    format="avro",
    schema_registry="http://schemas.test",
)
HOUR = Window(3_600_000, 60_000)
VIEW = ViewSpec(
    "cards",
    (Column("card_id", ValueType.STRING),),
    SOURCE,
    (
        FeatureSpec("count_1h", "count", None, HOUR, ValueType.INT64),
        FeatureSpec("amount_sum_1h", "sum", "amount", HOUR, ValueType.FLOAT64),
        FeatureSpec("web_count_1h", "count", None, HOUR, ValueType.INT64, "channel = 'WEB'"),
    ),
    retention_ms=None,
    lookback_ms=0,
)
EVERY = {"cards": ("count_1h", "amount_sum_1h", "web_count_1h")}
AVRO: dict[str, Any] = {
    "payment_id": "string",
    "paid_at": {"type": "long", "logicalType": "timestamp-millis"},
    "card": {"type": "record", "name": "Card", "fields": [{"name": "id", "type": "string"}]},
    "amount": ["null", "double"],
    "channel": "string",
}


def avro(**changes: Any) -> str:
    """A schema that breaks nothing, with other types of some fields; None takes one out."""
    fields = {name: of for name, of in {**AVRO, **changes}.items() if of is not None}
    return json.dumps(
        {"type": "record", "name": "Payment", "fields": [{"name": name, "type": of} for name, of in fields.items()]}
    )


def test_a_schema_that_has_what_is_read_breaks_nothing() -> None:
    """Whatever else it has; a column that nobody reads may be missing."""
    assert find_breaks(SOURCE, [VIEW], avro(more={"type": "map", "values": "int"}), {}) == ()


def test_what_is_dropped_or_changed_is_told_with_who_reads_it() -> None:
    """Worst first: keys, times and ids lose their records, and so does a type that does not fit."""
    assert find_breaks(SOURCE, [VIEW], avro(card=None, channel=None, amount="string"), {}) == (
        Break(
            "payments",
            "amount",
            "amount is a string, which no column of type float64 holds",
            True,
            {"cards": ("amount_sum_1h",)},
        ),
        Break("payments", "card_id", 'the schema has no field "card.id"', True, EVERY),
        Break("payments", "channel", 'the schema has no field "channel"', False, {"cards": ("web_count_1h",)}),
    )


def test_protobuf_is_checked_as_it_is_read() -> None:
    """By the file's first message, with what the file imports."""
    source = SourceSpec(**{name: getattr(SOURCE, name) for name in SOURCE.__slots__} | {"format": "protobuf"})
    text = """
        syntax = "proto3";
        import "card.proto";
        message Payment {
            string payment_id = 1; int64 paid_at = 2; Card card = 3; repeated double amount = 4; string channel = 5;
        }
    """
    card = 'syntax = "proto3"; message Card { string id = 1; }'

    (broken,) = find_breaks(source, [VIEW], text, {"card.proto": card})

    assert (broken.column, broken.loses_records) == ("amount", True)
    assert broken.what_follows == "every record would be a dead letter"


def test_a_text_that_is_no_schema_is_an_error() -> None:
    """And nothing that breaks."""
    with pytest.raises(InvalidRequest, match="an Avro schema is not JSON"):
        find_breaks(SOURCE, [VIEW], "{", {})
