"""A topic of vectors as a consumer sees it that reads what is committed."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from featurestore.testing.servers import KafkaBroker


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
