"""Transactions of a publication on a real Kafka: whatever comes of one that was sent, each message is there once."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from dataflows.log_to_features.changes import Place
from dataflows.log_to_features.kafka_output import KafkaOutput
from dataflows.log_to_features.publisher import Message
from dataflows.log_to_features.vectors import Vector
from featurestore.errors import SourceUnavailable, WriterFenced
from featurestore.testing.servers import KafkaBroker
from tests.dataflows.log_to_features.published import read_topic

pytestmark = pytest.mark.kafka


class Number:
    """Encodes a vector as its digest."""

    def encode(self, vector: Vector, *, is_event: bool) -> bytes:
        """See Encoding."""
        return b"%d" % vector.digest


class Cut:
    """A client whose commit is not answered: it has arrived, or it has not."""

    def __init__(self, producer: Any, *, arrives: bool) -> None:
        self._producer, self._arrives = producer, arrives

    def commit_transaction(self, timeout: float) -> None:
        """Nobody says what came of it."""
        if self._arrives:
            self._producer.commit_transaction(timeout)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


def message(number: int, key: bytes = b"k") -> Message:
    """The vector of a number."""
    vector = Vector(key, {}, {}, {}, 1_000 + number, None, {}, {}, number, None, True)
    return Message(vector, is_removal=False, is_event=True)


@pytest.fixture
def place(kafka: KafkaBroker) -> Place:
    """A partition of a source."""
    topic = f"source-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(topic, partitions=1)
    return topic, 0


def open_output(kafka: KafkaBroker, place: Place) -> KafkaOutput:
    """Of the source's publication."""
    topic = f"{place[0]}-vectors"
    return KafkaOutput(kafka.bootstrap_servers, topic, f"of-{place[0]}", {}, Number(), [place])


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_that_nobody_answered_is_made_once(kafka: KafkaBroker, place: Place, arrives: bool) -> None:
    """Sent again, it is recognised if it had arrived, also where no position has moved."""
    output = open_output(kafka, place)
    output.commit([message(1)], {place: 5})
    for number in (2, 3):
        output._producer = Cut(output._producer, arrives=arrives)  # type: ignore[assignment]  # a stand-in for the wire
        with pytest.raises(SourceUnavailable, match="cannot be published"):
            output.commit([message(number)], {place: 5})
        output.commit([message(number)], {place: 5})
    output.commit([message(4)], {place: 9})

    assert [b"1", b"2", b"3", b"4"] == [one.value for one in read_topic(kafka, f"{place[0]}-vectors")]
    assert {place: 9} == output.positions()
    assert [(b"k", 1, 1_001), (b"k", 2, 1_002), (b"k", 3, 1_003), (b"k", 4, 1_004)] == [
        (key, last.digest, last.as_of_ms) for key, last in output.published()
    ]
    output.close()


def test_whoever_was_taken_over_publishes_nothing_more(kafka: KafkaBroker, place: Place) -> None:
    """It is told so, and what it has begun is not seen."""
    older = open_output(kafka, place)
    older.commit([message(1)], {place: 1})
    newer = open_output(kafka, place)
    with pytest.raises(WriterFenced, match="another process publishes"):
        older.commit([message(2)], {place: 2})
    newer.commit([message(3)], {place: 2})

    assert [b"1", b"3"] == [one.value for one in read_topic(kafka, f"{place[0]}-vectors")]
    older.close()
    newer.close()
