"""What a run wrote to the dead-letter topic."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping

from confluent_kafka import Consumer, TopicPartition

from tests.system.load import TOPIC, Letter

LETTER_TOPIC = f"{TOPIC}.dead-letters"


def letter_ends(bootstrap_servers: str) -> dict[int, int]:
    """Partition -> next offset of the dead-letter topic; nothing when there is no such topic yet."""
    consumer = _consumer(bootstrap_servers)
    try:
        if LETTER_TOPIC not in consumer.list_topics(timeout=10).topics:
            return {}
        partitions = consumer.list_topics(LETTER_TOPIC, timeout=10).topics[LETTER_TOPIC].partitions
        return {
            partition: consumer.get_watermark_offsets(TopicPartition(LETTER_TOPIC, partition), timeout=10)[1]
            for partition in partitions
        }
    finally:
        consumer.close()


def letters_since(bootstrap_servers: str, begins: Mapping[int, int]) -> list[tuple[Letter, bytes]]:
    """Every letter written since `begins` was taken, and the original bytes it carries."""
    ends = letter_ends(bootstrap_servers)
    wanted = sum(end - begins.get(partition, 0) for partition, end in ends.items())
    consumer = _consumer(bootstrap_servers)
    consumer.assign([TopicPartition(LETTER_TOPIC, partition, begins.get(partition, 0)) for partition in ends])
    letters: list[tuple[Letter, bytes]] = []
    deadline = time.monotonic() + 30
    while len(letters) < wanted and time.monotonic() < deadline:
        for message in consumer.consume(1_000, timeout=0.1):
            assert message.error() is None, message.error()
            header = {
                name: value.decode() if isinstance(value, bytes) else value or ""
                for name, value in dict(message.headers() or ()).items()
            }
            letter = (int(header["partition"]), int(header["offset"]), header["reason"], header["view"])
            letters.append((letter, message.value() or b""))
    consumer.close()
    assert len(letters) == wanted
    return letters


def _consumer(bootstrap_servers: str) -> Consumer:
    """A consumer that remembers nothing."""
    return Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": str(uuid.uuid4()), "enable.auto.commit": False}
    )
