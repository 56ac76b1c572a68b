"""The authoring helpers write what an author would have written by hand."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import fastavro
import pytest
from feast import Entity, Field, KafkaSource, StreamFeatureView, ValueType
from feast.aggregation import Aggregation
from feast.types import Float64, Int64, PrimitiveFeastType, String

from featurestore.definitions.authoring import LIFETIME, aggregate, count, kafka_source, stream_view
from featurestore.errors import InvalidRequest

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)


@pytest.fixture
def payments() -> KafkaSource:
    """A small stream."""
    return kafka_source(
        name="payments",
        topic="payments",
        columns={"id": "string", "at": "timestamp", "card_id": "string", "amount": "bigint", "market": "string"},
        event_time="at",
        event_id="id",
        dedup_horizon="2h",
    )


def test_columns_times_functions_times_windows_are_named_and_ordered() -> None:
    """Columns first, then functions, then windows; the name says all three."""
    names = [each.name for each in aggregate(["amount", "fee"], ["sum", "mean"], over=["1h", LIFETIME])]

    assert names == [
        "amount_sum_1h",
        "amount_sum_lifetime",
        "amount_mean_1h",
        "amount_mean_lifetime",
        "fee_sum_1h",
        "fee_sum_lifetime",
        "fee_mean_1h",
        "fee_mean_lifetime",
    ]


def test_counts_names_and_offsets_read_as_one_would_say_them() -> None:
    """count_7d, declines_5m, count_1h_offset_7d."""
    features = [
        *count(over="7d"),
        *aggregate("is_declined", "sum", over="5m", name="declines"),
        *count(over="1h", offset="7d"),
    ]

    assert ["count_7d", "declines_5m", "count_1h_offset_7d"] == [each.name for each in features]


def test_one_name_for_several_functions_is_refused() -> None:
    """It would stand for several features."""
    with pytest.raises(InvalidRequest, match='one name, "spend", for several columns or functions'):
        aggregate("amount", ["sum", "mean"], over="1h", name="spend")


def test_a_view_is_made_of_plain_feast_objects(payments: KafkaSource) -> None:
    """Each feature is an Aggregation and a Field of the answer's type; nothing else is left behind."""
    view = stream_view(
        name="activity",
        entities=[card],
        source=payments,
        prefix="card_",
        features=[
            *count(over="1d", hop="1s"),
            *aggregate("amount", ["sum", "mean"], over="1h"),
            *aggregate("market", "last", over=LIFETIME),
            *aggregate("amount", "max", over="1h", offset="7d"),
        ],
        lookback="5m",
    )
    expected: list[tuple[Aggregation, PrimitiveFeastType, dict[str, str]]] = [
        (Aggregation("", "count", timedelta(days=1), timedelta(seconds=1), "card_count_1d"), Int64, {}),
        (Aggregation("amount", "sum", timedelta(hours=1), timedelta(minutes=1), "card_amount_sum_1h"), Int64, {}),
        (Aggregation("amount", "mean", timedelta(hours=1), timedelta(minutes=1), "card_amount_mean_1h"), Float64, {}),
        (Aggregation("market", "last", None, None, "card_market_last_lifetime"), String, {"window": "lifetime"}),
        (
            Aggregation("amount", "max", timedelta(hours=1), timedelta(minutes=1), "card_amount_max_1h_offset_7d"),
            Int64,
            {"offset": "7d"},
        ),
    ]

    assert type(view) is StreamFeatureView
    assert [aggregation for aggregation, _, _ in expected] == view.aggregations
    assert [Field(name=a.name, dtype=dtype, tags=tags) for a, dtype, tags in expected] == view.features
    assert view.tags == {"lookback": "5m"}
    assert view.timestamp_field == "at"


def test_a_source_keeps_its_schema_and_its_tags(payments: KafkaSource) -> None:
    """The columns as Spark would read them, and what Feast has no field for as tags."""
    schema = payments.to_proto().kafka_options.message_format.json_format.schema_json

    assert schema == "id string, at timestamp, card_id string, amount bigint, market string"
    assert payments.tags == {"event_id": "id", "dedup_horizon": "2h"}
    assert payments.batch_source is not None
    assert payments.batch_source.timestamp_field == "at"


def test_a_source_with_an_unknown_type_is_refused() -> None:
    """With the types that there are."""
    with pytest.raises(InvalidRequest, match="columns of unknown type: amount money") as caught:
        kafka_source(name="payments", topic="payments", columns={"amount": "money"}, event_time="at")
    assert "bigint" in caught.value.hint


def test_mistakes_are_left_for_the_plan_to_report(payments: KafkaSource) -> None:
    """An unknown function or column raises nothing while the repo is imported, so that all of them are reported."""
    features = [*aggregate("amuont", "sum", over="1h"), *aggregate("amount", "summ", over="1h")]
    view = stream_view(name="activity", entities=[card], source=payments, features=features)

    assert ["amuont_sum_1h", "amount_summ_1h"] == [field.name for field in view.features]


def test_a_source_of_a_registry_is_plain_feast_objects() -> None:
    """Avro is Feast's AvroFormat, whose schema has what is read, in records as the paths say."""
    source = kafka_source(
        name="payments",
        topic="payments",
        columns={"id": "string", "at": "timestamp", "bin": "string", "country": "string"},
        fields={"bin": "card.bin", "country": "card.bank.country"},
        format="avro",
        registry="http://schemas.test",
        event_time="at",
    )
    payload = source.to_proto().kafka_options.message_format.avro_format

    card = json.loads(payload.schema_json)["fields"][2]["type"][1]
    assert [field["name"] for field in card["fields"]] == ["bin", "bank"]
    assert source.field_mapping == {"card.bin": "bin", "card.bank.country": "country"}
    assert source.tags["columns"] == "id string, at timestamp, `card.bin` string, `card.bank.country` string"
    assert source.tags["schema_registry"] == "http://schemas.test"
    fastavro.parse_schema(json.loads(payload.schema_json))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"format": "thrift"}, 'source "payments" is of a format "thrift"'),
        ({"fields": {"gone": "card.bin"}}, 'source "payments" names fields of no column: gone'),
    ],
)
def test_a_format_or_a_field_that_is_none_is_named(more: dict[str, Any], message: str) -> None:
    """Where it is written, as an unknown type is."""
    with pytest.raises(InvalidRequest, match=message):
        kafka_source(name="payments", topic="payments", columns={"at": "timestamp"}, event_time="at", **more)
