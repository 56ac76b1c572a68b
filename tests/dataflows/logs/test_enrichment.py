"""Events that get columns from tables, on a real Kafka: a topic and files, followed, and read anew at a start."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer

from featurestore.definitions.registry import read_registry
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import EventLogHistory
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.probe import free_port
from featurestore.online.read.reader import Reader
from featurestore.online.redis.store import connect
from featurestore.testing.answers import AnswerValues, stored_answers
from featurestore.testing.servers import KafkaBroker
from featurestore.wire.entity_key import encode_key
from tests.dataflows.conftest import StartStream, applied_repo
from tests.dataflows.payments import BEGIN_MS, PROJECT, iso

pytestmark = pytest.mark.kafka

REPO = """
from feast import Entity, FeatureService, FileSource, ValueType
from featurestore.features import aggregate, count, kafka_source, stream_view, table

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)

rates = kafka_source(
    name="rates", topic="enrichment-rates", event_time="since",
    columns={"currency": "string", "since": "timestamp", "rate": "double"},
)
cards = FileSource(name="cards", path="CARDS", timestamp_field="issued_at")
payments = kafka_source(
    name="payments", topic="enrichment-payments", event_time="paid_at", event_id="payment_id",
    columns={
        "payment_id": "string", "paid_at": "timestamp", "card": "string", "cents": "bigint", "currency": "string",
    },
    enrich={
        "fx": table(rates, on="currency", columns=["rate"]),
        "card": table(cards, on="card", columns={"customer_id": "string"}, names={"customer_id": "customer_id"}),
    },
    computed={"euros": "cents * fx_rate"},
)
spending = stream_view(
    name="spending", entities=[customer], source=payments,
    features=[
        *count(over="1d"), *aggregate("euros", "sum", over="1d"), *count(over="1d", where="fx_rate < 1", name="weak"),
    ],
)
check = FeatureService(name="check", features=[spending])
"""


def test_events_get_what_was_in_force_while_the_stream_runs_and_after_a_kill(
    start_stream: StartStream, kafka: KafkaBroker, tmp_path: Path, redis_url: str
) -> None:
    """By event time, also late ones; a missing row is null and counted; history has the same of the event logs."""
    write_cards(tmp_path / "cards.parquet")
    registry = applied_repo(tmp_path / "repo", repo=REPO.replace("CARDS", str(tmp_path / "cards.parquet")))
    kafka.create_topic("enrichment-rates", partitions=2, settings={"cleanup.policy": "compact"})
    kafka.create_topic("enrichment-payments", partitions=1)
    options = ("--bootstrap-servers", kafka.bootstrap_servers)
    send(kafka, "enrichment-rates", b"no rate", None, rate("EUR", 0, 1.0), rate("USD", 10, 0.5))
    send(
        kafka,
        "enrichment-payments",
        payment(1, "k1", 9, "USD"),  # before there was a rate
        payment(2, "k1", 10, "USD"),
        payment(3, "k2", 0, "EUR"),
    )

    metrics = free_port()
    stream = start_stream(*options, "--metrics-port", str(metrics), use_registry=registry)
    stream.wait_until(lambda: of_customer(redis_url, "ann").get("count_1d") == 3)
    send(kafka, "enrichment-rates", rate("USD", 20, 0.25))
    time.sleep(1.0)  # that the stream has it before the payment is all that the payment can ask for
    send(
        kafka,
        "enrichment-payments",
        payment(4, "k1", 20, "USD"),
        payment(5, "k1", 19, "USD"),  # late: an older rate is its own
        payment(6, "x", 20, "USD"),
    )
    stream.wait_until(lambda: of_customer(redis_url, "ann").get("count_1d") == 5)
    counted = urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics").read().decode()
    stream.kill()
    send(kafka, "enrichment-rates", rate("USD", 30, 2.0))
    send(kafka, "enrichment-payments", payment(7, "k2", 30, "USD"))
    stream = start_stream(*options, "--until-end", use_registry=registry)

    assert stream.wait() == 0, stream.output
    expected = {"count_1d": 6, "euros_sum_1d": 50.0 + 100.0 + 25.0 + 50.0 + 200.0, "weak_1d": 3}
    assert expected == of_customer(redis_url, "ann")
    assert 'featurestore_enriched_events_without_row_total{source="payments",table="rates"} 1.0' in counted
    assert 'featurestore_enriched_events_without_row_total{source="payments",table="cards"} 1.0' in counted
    assert 'featurestore_table_records_refused_total{reason="undecodable",table="rates"}' in counted
    event_log = ("--event-log", str(tmp_path / "event_log"), "--until-end")
    logged = start_stream(*options, *event_log, use_registry=registry, program=("-m", "dataflows.log_to_table"))
    assert logged.wait() == 0, logged.output
    assert "1 dead letters" in logged.output, "a tombstone is none"
    labels = pa.table({"customer_id": ["ann"], "event_timestamp": [BEGIN_MS + 60_000]})
    history = EventLogHistory(tmp_path / "event_log")
    found = build_training_set(read_registry(str(registry), project=PROJECT), "check", labels, history=history)
    assert expected == {name: found[name][0].as_py() for name in expected}


def rate(currency: str, since: int, value: float) -> bytes:
    """A version of a rate."""
    return json.dumps({"currency": currency, "since": iso(BEGIN_MS + since * 1_000), "rate": value}).encode()


def payment(number: int, card: str, at: int, currency: str) -> bytes:
    """A payment of a hundred cents."""
    paid_at = iso(BEGIN_MS + at * 1_000)
    record = {"payment_id": f"p{number}", "paid_at": paid_at, "card": card, "cents": 100, "currency": currency}
    return json.dumps(record).encode()


def send(kafka: KafkaBroker, topic: str, *records: bytes | None) -> None:
    """Records by a key, as a compacted topic wants them; None is a tombstone."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for record in records:
        producer.produce(topic, record, key=b"one")
    assert producer.flush(30) == 0


def write_cards(path: Path) -> None:
    """Two cards of one customer."""
    since = pa.array([BEGIN_MS - 1_000, BEGIN_MS - 1_000], pa.timestamp("ms", tz="UTC"))
    pq.write_table(pa.table({"card": ["k1", "k2"], "customer_id": ["ann", "ann"], "issued_at": since}), path)


def of_customer(url: str, name: str) -> AnswerValues:
    """What a lookup a minute later says; nothing before a generation serves."""
    store = connect(url)
    catalog = GenerationCatalog(store, PROJECT)
    generation = catalog.serving("spending")
    found: AnswerValues = {}
    if generation is not None:
        reader = Reader(store, catalog.lane_count())
        [found] = stored_answers(reader, generation, [encode_key([name])], BEGIN_MS + 60_000)
    store.close()
    return found
