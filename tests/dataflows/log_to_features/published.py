"""A topic of vectors as a consumer sees it that reads what is committed, and what lookups say."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from featurestore.clock import Deadline, SystemClock
from featurestore.definitions.registry import open_registry
from featurestore.online.redis.store import connect
from featurestore.serving.catalog.catalog import CatalogSource
from featurestore.serving.http.lookups import named_features
from featurestore.serving.lookup import FeatureLookup
from featurestore.serving.request.steps import run_blocking
from featurestore.testing.servers import KafkaBroker
from tests.dataflows.payments import PROJECT


@dataclass(frozen=True, slots=True)
class Seen:
    """A message."""

    key: bytes
    value: bytes | None
    headers: dict[str, bytes]

    @property
    def fields(self) -> dict[str, Any]:
        """Of a message in JSON."""
        assert self.value is not None, "it is a removal"
        found: dict[str, Any] = json.loads(self.value)
        return found


def read_topic(kafka: KafkaBroker, topic: str) -> list[Seen]:
    """All messages of committed transactions, those of a key in order."""
    settings: dict[str, Any] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": str(uuid.uuid4()),
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    }
    consumer = Consumer(settings)
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        seen: list[Seen] = []
        ended: set[int | None] = set()
        while len(ended) < len(partitions):
            for message in [consumer.poll(10), *consumer.consume(10_000, timeout=0)]:
                assert message is not None, f"nothing comes of {topic}"
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    ended.add(message.partition())
                    continue
                headers: Any = message.headers() or []
                seen.append(Seen(message.key() or b"", message.value(), dict(headers)))
        return seen
    finally:
        consumer.close()


def looked_up(redis_url: str, registry: Path, cards: list[str], as_of_ms: list[int]) -> list[dict[str, Any]]:
    """What a lookup answers, card by card."""
    store = connect(redis_url)
    try:
        clock = SystemClock()
        snapshot = CatalogSource(open_registry(str(registry), PROJECT), store).snapshot()
        plan = snapshot.plan_of_service("cards_service")
        rows: list[dict[str, Any]] = []
        for begin in range(0, len(cards), 500):
            some, times = cards[begin : begin + 500], as_of_ms[begin : begin + 500]
            steps = FeatureLookup(clock).answer(
                snapshot.reader, plan, {"card_id": some}, deadline=Deadline.after(clock, 30_000), as_of_ms=times
            )
            features = named_features(plan.schema, run_blocking(steps, store))
            rows += [{name: one.values[row] for name, one in features.items()} for row in range(len(some))]
        return rows
    finally:
        store.close()


def last_of(messages: Sequence[Seen]) -> dict[str, dict[str, Any]]:
    """The last message of each card."""
    return {one.fields["card_id"]: one.fields for one in messages}


def assert_last_is_looked_up(redis_url: str, registry: Path, messages: Sequence[Seen]) -> None:
    """The last value of each card equals the lookup, at the moment that it says."""
    last = last_of(messages)
    cards = sorted(last)
    found = looked_up(redis_url, registry, cards, [last[card]["as_of_ms"] for card in cards])
    assert [last[card]["features"] for card in cards] == found
