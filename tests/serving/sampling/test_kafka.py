"""The feature log as a topic of a real Kafka, and the option that opens it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from confluent_kafka import Consumer

from dataflows.feature_log_topic import KafkaFeatureLog, open_topic
from featurestore.cli.processes.observing import open_feature_log
from featurestore.errors import InvalidRequest, SourceUnavailable
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.testing.clock import ManualClock
from featurestore.testing.servers import KafkaBroker
from featurestore.wire.codecs.view_json import definition_hash
from tests.serving.payments import CARD_ACTIVITY, NOW_MS, Payments, RegistryInMemory


def consume(kafka: KafkaBroker, topic: str, count: int) -> list[tuple[str, Any]]:
    """Key and JSON of so many messages."""
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": str(uuid.uuid4()), "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    found: list[tuple[str, Any]] = []
    for _ in range(300):
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            found.append((bytes(message.key() or b"").decode(), json.loads(message.value() or b"")))
        if len(found) == count:
            break
    consumer.close()
    return found


@pytest.mark.kafka
def test_rows_become_messages_that_say_all(
    kafka: KafkaBroker, payments: Payments, registry: RegistryInMemory, clock: ManualClock
) -> None:
    """Values of all types, statuses, keys, hash and positions; keyed by request, all acknowledged at the end."""
    topic = f"served-{uuid.uuid4()}"
    kafka.create_topic(topic, partitions=2)
    log = open_feature_log(f"kafka://{kafka.bootstrap_servers}/{topic}", 1.0, 60.0, clock)
    server = FeatureServer(registry, payments.store, clock, ServerSettings(port=0), feature_log=log)
    with LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client:
        result = client.lookup("fraud_detection", {"card_id": ["c-1", "c-2"], "merchant_id": [7, 404]})
    server.stop(drain_seconds=1.0)
    messages = consume(kafka, topic, 2)

    assert 2 == len(messages)
    (first_key, first), (second_key, second) = messages
    assert first_key == second_key == first["request_id"]
    assert (0, "fraud_detection", NOW_MS, NOW_MS) == tuple(
        first[name] for name in ("request_row", "service", "as_of_ms", "logged_at_ms")
    )
    assert {"card_id": "c-1", "merchant_id": 7} == first["entities"]
    values = {
        f"{view}__{name}": cell["value"]
        for view, part in first["views"].items()
        for name, cell in part["features"].items()
    }
    answered = result.rows()[0]
    assert answered["card_activity__count_1h"] == values["card_activity__count_1h"]
    assert answered["amount_stddev_pop_7d"] == values["card_activity__amount_stddev_pop_7d"]
    assert answered["opened_at_max_7d"] == values["card_activity__opened_at_max_7d"]
    assert answered["risk_tier"] == values["merchant_profile__risk_tier"]
    assert {"value": None, "type": "string", "status": 3} == second["views"]["merchant_profile"]["features"][
        "risk_tier"
    ]
    assert {
        "definition_hash": definition_hash(CARD_ACTIVITY),
        "event_time_ms": NOW_MS - 7,
        "positions": [["events", 0, 6]],
    } == {name: part for name, part in first["views"]["card_activity"].items() if name != "features"}
    assert first["views"]["merchant_profile"]["positions"] is None


@pytest.mark.kafka
def test_a_topic_that_is_missing_is_an_error_of_the_log_alone(kafka: KafkaBroker, clock: ManualClock) -> None:
    """Rows are lost, and it says how many and why."""
    writer = KafkaFeatureLog(
        "no-such-topic", {"bootstrap.servers": kafka.bootstrap_servers, "message.timeout.ms": "1500"}
    )
    writer._producer.produce("no-such-topic", value=b"{}", on_delivery=writer._delivered)

    with pytest.raises(SourceUnavailable, match="no-such-topic") as failure:
        writer.close(0)
    assert "1 rows are lost" in failure.value.detail


@pytest.mark.parametrize("address", ["kafka://", "kafka://host:9092", "kafka://host:9092/", "kafka://topic"])
def test_an_address_without_topic_or_servers_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is served, with how to write it."""
    monkeypatch.delenv("FEATURESTORE_BOOTSTRAP_SERVERS", raising=False)

    with pytest.raises(InvalidRequest, match="does not name a topic") as failure:
        open_topic(address)
    assert "kafka://HOST:PORT/TOPIC" in failure.value.hint


def test_servers_of_the_environment_stand_in_where_the_address_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the stream, whose settings these are."""
    monkeypatch.setenv("FEATURESTORE_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("FEATURESTORE_KAFKA_OPTION", "client.id=test\nlog_level=0")

    assert "served" == open_topic("kafka://served")._topic
    assert "served" == open_topic("kafka:///served")._topic
