"""Vectors published from a real Kafka, Redis and stream: each change once, and the last one is as looked up."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from featurestore.testing.servers import KafkaBroker
from tests.dataflows.conftest import Fill, StartStream
from tests.dataflows.log_to_features.published import Seen, assert_last_is_looked_up, last_of, read_topic
from tests.dataflows.payments import TOPIC, make_payments
from tests.dataflows.stream_process import StreamProcess

pytestmark = pytest.mark.kafka

PROGRAM = ("-m", "dataflows.log_to_features")

Publish = Callable[..., StreamProcess]


@pytest.fixture
def topic() -> str:
    """Of vectors, of its own for each test."""
    return f"vectors-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def publish(start_stream: StartStream, kafka: KafkaBroker, published_registry: Path, topic: str) -> Publish:
    """Starts a process that publishes cards to the topic."""

    def start(*options: str) -> StreamProcess:
        always = ["--bootstrap-servers", kafka.bootstrap_servers, "--service", "cards_service", "--to", topic]
        return start_stream(*always, *options, use_registry=published_registry, program=PROGRAM)

    return start


@pytest.fixture
def stream(start_stream: StartStream, kafka: KafkaBroker, published_registry: Path) -> Publish:
    """Starts the stream that fills the store."""
    return lambda *options: start_stream(
        "--bootstrap-servers", kafka.bootstrap_servers, *options, use_registry=published_registry
    )


def test_every_card_is_published_as_it_is_looked_up(
    stream: Publish,
    publish: Publish,
    fill: Fill,
    kafka: KafkaBroker,
    topic: str,
    redis_url: str,
    published_registry: Path,
) -> None:
    """One run over what is there: each card, with its positions and definition; the next run has nothing to add."""
    payments = make_payments(5_000, seed=71)
    fill(payments)
    assert stream("--until-end").wait() == 0

    run = publish("--until-end", "--batch-records", "700")
    assert run.wait() == 0, run.output

    messages = read_topic(kafka, topic)
    assert_last_is_looked_up(redis_url, published_registry, messages)
    assert len({one.key for one in messages}) == len(last_of(messages)) > 0
    [one, *_] = messages
    assert one.key.decode() == one.fields["card_id"]
    assert set(one.fields["definitions"]) == {"cards"}
    assert {f"{TOPIC}/{partition}" for partition in range(len(payments.records))} == set(one.fields["positions"])
    again = publish("--until-end")
    assert again.wait() == 0, again.output
    assert "0 vectors published" in again.output
    assert len(read_topic(kafka, topic)) == len(messages)


def test_what_the_store_does_not_have_yet_is_waited_for(
    stream: Publish,
    publish: Publish,
    fill: Fill,
    kafka: KafkaBroker,
    topic: str,
    redis_url: str,
    published_registry: Path,
) -> None:
    """Publishing begins before anything serves, and each message has the event that caused it."""
    fill(make_payments(2_000, seed=72))
    publishing = publish()
    publishing.wait_for("publishing cards_service")
    time.sleep(1.0)
    assert read_topic(kafka, topic) == []
    streaming = stream()
    publishing.wait_until(lambda: len(read_topic(kafka, topic)) > 0, "nothing was published")
    fill(make_payments(500, seed=73, first=2_000))
    publishing.terminate()
    assert publishing.wait() == 0, publishing.output
    again = publish("--until-end")
    assert again.wait() == 0, again.output
    streaming.terminate()
    assert streaming.wait() == 0

    assert_last_is_looked_up(redis_url, published_registry, read_topic(kafka, topic))


def test_twenty_kills_lose_nothing_and_repeat_nothing(
    stream: Publish,
    publish: Publish,
    fill: Fill,
    kafka: KafkaBroker,
    topic: str,
    redis_url: str,
    published_registry: Path,
) -> None:
    """Killed at random moments while payments come: consumers see each change of a card once, the last as looked up."""
    rng = random.Random(74)
    fill(make_payments(1_000, seed=75))
    streaming = stream()
    sent = 1_000
    for number in range(20):
        process = publish("--only-changes", "--batch-records", "50")
        payments = make_payments(300, seed=76 + number, first=sent)
        sent += 300
        fill(payments)
        if number % 2:
            process.wait_for("publishing cards_service")
        time.sleep(rng.uniform(0.3, 1.5))
        process.kill()
    last = publish("--only-changes", "--until-end")
    assert last.wait() == 0, last.output
    streaming.terminate()
    assert streaming.wait() == 0

    messages = read_topic(kafka, topic)
    assert_last_is_looked_up(redis_url, published_registry, messages)
    by_card: dict[bytes, list[Seen]] = {}
    for one in messages:
        by_card.setdefault(one.key, []).append(one)
    for seen in by_card.values():
        digests = [one.headers["featurestore.digest"] for one in seen]
        assert all(before != after for before, after in pairwise(digests))
