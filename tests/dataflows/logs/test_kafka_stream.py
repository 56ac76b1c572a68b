"""The stream on real Apache Kafka and real Redis."""

from __future__ import annotations

import time
import uuid
from typing import cast

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from dataflows.logs import kafka_log
from dataflows.logs.kafka_log import KafkaLog
from featurestore.clock import Deadline, SystemClock
from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.errors import EventsLost, SourceUnavailable
from featurestore.testing.servers import KafkaBroker
from tests.dataflows.conftest import Fill, StartStream
from tests.dataflows.payments import TOPIC, assert_every_value_is_exact, make_payments

pytestmark = pytest.mark.kafka

SOURCE = SourceSpec("payments", TOPIC, (Column("paid_at", ValueType.INT64),), "paid_at")


def dead_letters(kafka: KafkaBroker) -> list[tuple[dict[str, str], bytes]]:
    """Headers and payload of every message in the dead-letter topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": str(uuid.uuid4()),
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    consumer.subscribe([f"{TOPIC}.dead-letters"])
    letters: list[tuple[dict[str, str], bytes]] = []
    ended, deadline = False, time.monotonic() + 30
    while not ended and time.monotonic() < deadline:
        for message in consumer.consume(1_000, timeout=0.1):
            if message.error() is not None:
                ended = True
                continue
            pairs = cast(list[tuple[str, bytes]], message.headers() or [])
            headers = {name: value.decode() for name, value in pairs}
            letters.append((headers, message.value() or b""))
    consumer.close()
    return letters


def test_every_value_of_a_topic_is_the_oracles(
    start_stream: StartStream, kafka: KafkaBroker, fill: Fill, redis_url: str
) -> None:
    """After one run to the end of all partitions; bad records are in the dead-letter topic with position and bytes."""
    payments = make_payments(20_000, seed=31)
    fill(payments)

    stream = start_stream("--bootstrap-servers", kafka.bootstrap_servers, "--until-end")

    assert stream.wait() == 0, stream.output
    assert_every_value_is_exact(redis_url, payments)
    letters = dead_letters(kafka)
    assert len(letters) == payments.bad
    for headers, payload in letters:
        assert headers["reason"] == "undecodable"
        assert payments.records[int(headers["partition"])][int(headers["offset"])] == payload


def test_live_events_are_followed_and_positions_published(
    start_stream: StartStream, kafka: KafkaBroker, fill: Fill, redis_url: str
) -> None:
    """SIGTERM ends in order, a restart goes on from the store, and lag tools see the committed positions."""
    first, second = make_payments(3_000, seed=32), make_payments(3_000, seed=33, first=3_000)
    fill(first)
    options = ["--bootstrap-servers", kafka.bootstrap_servers, "--kafka-group", "watched"]
    stream = start_stream(*options)
    stream.wait_for("lag 0")
    fill(second)
    stream.wait_for(f"{sum(len(lines) for lines in first.records + second.records):,} read")
    stream.terminate()

    assert stream.wait() == 0, stream.output
    again = start_stream(*options, "--until-end")
    assert again.wait() == 0, again.output
    assert " 0 read" in again.output
    assert_every_value_is_exact(redis_url, first, second)


def test_the_ends_of_a_topic_are_asked_of_the_broker(
    kafka: KafkaBroker, fill: Fill, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the partitions asked for, 0 where nothing was written; no broker is no answer."""
    payments = make_payments(50, seed=36, partitions=2)
    payments.records.append([])
    fill(payments)
    log = KafkaLog(bootstrap_servers=kafka.bootstrap_servers, options={}, group="", clock=SystemClock())

    assert log.ends(SOURCE, [0, 2]) == {0: len(payments.records[0]), 2: 0}
    monkeypatch.setattr(kafka_log, "METADATA_TIMEOUT_SECONDS", 0.5)
    nowhere = KafkaLog(bootstrap_servers=f"127.0.0.1:{port}", options={}, group="", clock=SystemClock())
    with pytest.raises(SourceUnavailable, match="not known"):
        nowhere.ends(SOURCE, [0])


def test_a_read_says_when_its_first_record_was_written(kafka: KafkaBroker, fill: Fill) -> None:
    """So that a stream can tell how long records waited for it."""
    clock = SystemClock()
    begun_ms = clock.now_ms()
    fill(make_payments(50, seed=36, partitions=1))
    reader = KafkaLog(bootstrap_servers=kafka.bootstrap_servers, options={}, group="", clock=clock).open(
        SOURCE, 0, None
    )
    deadline = Deadline.after(clock, 30_000)
    while (batch := reader.read(1_000)) is None:
        deadline.remaining_ms("read a record")
    reader.close()

    assert batch.written_ms is not None
    assert begun_ms <= batch.written_ms <= clock.now_ms()


def test_a_topic_that_was_trimmed_reaches_back_as_far_as_its_oldest_record(kafka: KafkaBroker, fill: Fill) -> None:
    """One that lost nothing reaches back for ever; an emptied one says nothing of when its last record came."""
    from confluent_kafka import TopicPartition

    fill(make_payments(100, seed=36, partitions=2))
    log = KafkaLog(bootstrap_servers=kafka.bootstrap_servers, options={}, group="", clock=SystemClock())
    now_ms = SystemClock().now_ms()
    hour_ms = 3_600_000
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})

    def forget(before: int) -> None:
        for future in admin.delete_records([TopicPartition(TOPIC, 0, before)]).values():
            future.result(timeout=30)

    assert log.reaches_back(SOURCE, [0, 1], 0)
    forget(10)
    assert not log.reaches_back(SOURCE, [0, 1], now_ms - hour_ms)
    assert log.reaches_back(SOURCE, [1], now_ms - hour_ms)
    assert log.reaches_back(SOURCE, [0, 1], now_ms + hour_ms)
    forget(log.ends(SOURCE, [0])[0])
    assert not log.reaches_back(SOURCE, [0, 1], now_ms + hour_ms)


def test_events_that_kafka_deleted_before_they_were_applied_are_an_error(
    start_stream: StartStream, kafka: KafkaBroker, fill: Fill
) -> None:
    """The stream refuses to go on over a hole, and says what to do."""
    from confluent_kafka import TopicPartition

    first, second = make_payments(500, seed=34, partitions=1), make_payments(500, seed=35, first=500, partitions=1)
    fill(first)
    assert start_stream("--bootstrap-servers", kafka.bootstrap_servers, "--until-end").wait() == 0
    fill(second)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    end = len(first.records[0]) + len(second.records[0])
    for future in admin.delete_records([TopicPartition(TOPIC, 0, end - 10)]).values():
        future.result(timeout=30)

    log = KafkaLog(bootstrap_servers=kafka.bootstrap_servers, options={}, group="", clock=SystemClock())

    assert {0: True} == {number: "begins at" in str(error) for number, error in log.lost(SOURCE, {0: end - 11}).items()}
    assert {0: True} == {number: "ends at" in str(error) for number, error in log.lost(SOURCE, {0: end + 1}).items()}
    assert {} == log.lost(SOURCE, {0: end - 10}) == log.lost(SOURCE, {0: end})
    with pytest.raises(EventsLost, match=f"begins at offset {end - 10}"):
        log.open(SOURCE, 0, None, end - 11)
    log.open(SOURCE, 0, None, end - 10).close()
    stream = start_stream("--bootstrap-servers", kafka.bootstrap_servers, "--until-end")
    assert stream.wait() == 1, stream.output
    assert f"begins at offset {end - 10}" in stream.output


def test_a_new_store_begins_at_the_oldest_record_that_kafka_still_has(
    start_stream: StartStream, kafka: KafkaBroker, fill: Fill
) -> None:
    """Deleted records that nobody had read are no error: the log simply begins later."""
    from confluent_kafka import TopicPartition

    fill(make_payments(500, seed=36, partitions=1))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(TOPIC, 0, 100)]).values():
        future.result(timeout=30)

    stream = start_stream("--bootstrap-servers", kafka.bootstrap_servers, "--until-end")

    assert stream.wait() == 0, stream.output
    assert "lag 0" in stream.output
