"""The stream on Avro and JSON with schemas of a real registry, from a real Kafka."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from dataflows.logs.schemas import SchemaRegistries
from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.errors import InvalidRequest, SourceUnavailable
from featurestore.testing.servers import KafkaBroker, SchemaRegistry, free_port
from featurestore.wire.iso8601 import parse_text
from tests.dataflows.conftest import StartStream, applied_repo
from tests.dataflows.payments import REPO, TOPIC, Payments, assert_every_value_is_exact, make_payments

pytestmark = pytest.mark.kafka

FIRST: dict[str, Any] = {
    "type": "record",
    "name": "Payment",
    "namespace": "test.payments",
    "fields": [
        {"name": "payment_id", "type": "string"},
        {"name": "paid_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {
            "name": "card",
            "type": {"type": "record", "name": "Card", "fields": [{"name": "id", "type": "string"}]},
        },
        {"name": "merchant_id", "type": "int"},
        {"name": "amount", "type": ["null", "long"], "default": None},
        {"name": "is_declined", "type": "boolean"},
    ],
}
SECOND = {
    **FIRST,
    "fields": [
        {"name": "tags", "type": {"type": "map", "values": "string"}, "default": {}},
        *FIRST["fields"],
        {"name": "channel", "type": {"type": "enum", "name": "Channel", "symbols": ["POS", "WEB"]}, "default": "POS"},
    ],
}


@pytest.fixture
def topic(kafka: KafkaBroker) -> Iterator[KafkaBroker]:
    """The broker, with an empty topic of payments that is gone after the test."""
    kafka.create_topic(TOPIC, partitions=4)
    yield kafka
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(TOPIC)]
    for deletion in admin.delete_topics(names, operation_timeout=30).values():
        deletion.result(timeout=30)


def repo_of(directory: Path, format_name: str, url: str) -> Path:
    """The registry of the tests' repo, its source in another format."""
    fields = '{"card_id": "card.id"}' if format_name == "avro" else "{}"
    more = f'format="{format_name}", registry="{url}", fields={fields},'
    assert 'event_time="paid_at",' in REPO
    return applied_repo(directory, repo=REPO.replace('event_time="paid_at",', f'event_time="paid_at", {more}'))


def as_avro(payments: Payments, schema: dict[str, Any], url: str) -> list[list[bytes]]:
    """The same records as Confluent's own serializer writes them; what is no JSON stays as it is."""
    serialize = AvroSerializer(SchemaRegistryClient({"url": url}), json.dumps(schema))
    context = SerializationContext(TOPIC, MessageField.VALUE)

    def written(payload: bytes) -> bytes:
        try:
            record = json.loads(payload)
        except json.JSONDecodeError:
            return payload
        record["paid_at"], record["card"] = parse_text(record["paid_at"]), {"id": record["card_id"]}
        return serialize({name: value for name, value in record.items() if name != "unknown"}, context) or b""

    return [[written(payload) for payload in partition] for partition in payments.records]


def test_every_value_of_an_avro_topic_is_the_oracles(
    start_stream: StartStream,
    topic: KafkaBroker,
    registry_of_schemas: SchemaRegistry,
    redis_url: str,
    tmp_path: Path,
) -> None:
    """Nested keys, a schema that changes in mid-stream, an id that the registry does not know."""
    url, use_registry = registry_of_schemas.url, repo_of(tmp_path / "repo", "avro", registry_of_schemas.url)
    before, after = make_payments(600, seed=1), make_payments(600, seed=2, first=600)
    unknown = [[b"\0\0\1\0\0" + b"x" * 20], [], [], []]
    for records in (as_avro(before, FIRST, url), unknown, as_avro(after, SECOND, url)):
        topic.append(TOPIC, records)

    options = ["--bootstrap-servers", topic.bootstrap_servers, "--dead-letter-dir", str(tmp_path / "letters")]
    stream = start_stream("--until-end", *options, use_registry=use_registry)

    assert stream.wait() == 0, stream.output
    assert_every_value_is_exact(redis_url, before, after)
    letters = [
        json.loads(line) for path in (tmp_path / "letters").rglob("*.jsonl") for line in path.read_text().splitlines()
    ]
    reasons = [letter["detail"] for letter in letters]
    assert reasons.count("is of schema 65536, which the registry does not know") == 1
    assert len(reasons) == 1 + before.bad + after.bad


def test_a_registry_that_does_not_answer_is_waited_for_and_a_wrong_option_is_named(
    registry_of_schemas: SchemaRegistry,
) -> None:
    """What is known stays known; `url` stands for those of all sources."""
    source = SourceSpec("s", "t", (Column("at", ValueType.INT64),), "at", format="avro", schema_registry="http://x:1")
    silent = SchemaRegistries({"url": f"http://127.0.0.1:{free_port()}"}).of(source)
    with pytest.raises(SourceUnavailable, match=r"schema registry http://127\.0\.0\.1:\d+ does not answer"):
        silent(1)
    assert SchemaRegistries({"url": registry_of_schemas.url}).of(source)(999_999) is None
    with pytest.raises(InvalidRequest, match="schema registry options are not usable"):
        SchemaRegistries({"ssl.key.location": "/nowhere"}).of(source)
