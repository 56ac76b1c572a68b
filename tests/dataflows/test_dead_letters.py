"""Dead letters of any size, on a real broker and on a disk: kept, or an error that can be waited out."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from dataflows.dead_letters import CUT_PAYLOAD_BYTES, TOPIC_SUFFIX, FileDeadLetters, KafkaDeadLetters
from featurestore.errors import SourceUnavailable
from featurestore.testing.servers import KafkaBroker
from featurestore.wire.payloads import DeadLetter, DeadLetterReason

LARGE = bytes(range(256)) * 8_000
"""2 MB: a broker takes 1 MB unless its topic says otherwise."""


@pytest.fixture
def topic(kafka: KafkaBroker) -> Iterator[str]:
    """A source topic's name; its dead letters are deleted after the test."""
    name = f"large-{uuid.uuid4().hex[:8]}"
    yield name
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.delete_topics([name + TOPIC_SUFFIX], operation_timeout=30).values():
        future.result(timeout=30)


def letter(topic: str, offset: int, payload: bytes) -> DeadLetter:
    """A record that could not be decoded."""
    return DeadLetter(DeadLetterReason.UNDECODABLE, "no JSON", topic, 0, offset, payload)


def kept(kafka: KafkaBroker, topic: str, count: int) -> dict[str, tuple[bytes, str | None]]:
    """Payload, and its length where it is not whole, by offset header."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "any", "fetch.max.bytes": 9_000_000})
    consumer.assign([TopicPartition(topic + TOPIC_SUFFIX, 0, 0)])
    found: dict[str, tuple[bytes, str | None]] = {}
    for message in consumer.consume(count, timeout=30):
        headers = dict(cast(list[tuple[str, bytes]], message.headers()))
        length = headers.get("payload_bytes")
        found[headers["offset"].decode()] = (message.value() or b"", None if length is None else length.decode())
    consumer.close()
    return found


@pytest.mark.kafka
def test_a_letter_that_the_broker_refuses_for_its_size_is_kept_without_its_end(kafka: KafkaBroker, topic: str) -> None:
    """A record that the source's topic took must not stop the stream for ever; the letters beside it are whole."""
    writer = KafkaDeadLetters({topic: kafka.bootstrap_servers}, {})
    writer.write([letter(topic, 0, b"{"), letter(topic, 1, LARGE), letter(topic, 2, b"}")])
    writer.write([letter(topic, 3, b"after")])

    assert kept(kafka, topic, 4) == {
        "0": (b"{", None),
        "1": (LARGE[: CUT_PAYLOAD_BYTES[0]], str(len(LARGE))),
        "2": (b"}", None),
        "3": (b"after", None),
    }


@pytest.mark.kafka
def test_a_topic_that_takes_large_letters_gets_them_whole(kafka: KafkaBroker, topic: str) -> None:
    """The producer's own limit does not stand in the way."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    made = NewTopic(topic + TOPIC_SUFFIX, 1, config={"max.message.bytes": "5000000"})
    for future in admin.create_topics([made]).values():
        future.result(timeout=30)
    KafkaDeadLetters({topic: kafka.bootstrap_servers}, {}).write([letter(topic, 1, LARGE)])

    assert kept(kafka, topic, 1) == {"1": (LARGE, None)}


@pytest.mark.kafka
def test_more_large_letters_than_the_producers_queue_holds_are_written(kafka: KafkaBroker, topic: str) -> None:
    """A full queue is emptied, and not an error."""
    options = {"queue.buffering.max.kbytes": "1024"}
    letters = [letter(topic, offset, LARGE[:400_000]) for offset in range(8)]
    KafkaDeadLetters({topic: kafka.bootstrap_servers}, options).write(letters)

    assert kept(kafka, topic, 8) == {str(offset): (LARGE[:400_000], None) for offset in range(8)}


def test_a_directory_that_cannot_be_written_is_a_source_that_does_not_answer(tmp_path: Path) -> None:
    """The stream waits for it, and then says what is wrong."""
    (tmp_path / f"payments{TOPIC_SUFFIX}").touch()
    with pytest.raises(SourceUnavailable, match="cannot be written") as raised:
        FileDeadLetters(tmp_path).write([letter("payments", 0, b"{")])
    assert "check permissions and space" in str(raised.value)
