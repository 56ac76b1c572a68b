"""Vectors as a Kafka topic: messages and the source's positions in one transaction.

    begin ── messages ── positions as the offsets of a consumer group ── commit

The transactional id is that of the publication: a second process takes it over, and the first one is fenced at its next
transaction. What a message says beside its value is in its headers, so that the next run needs nothing else.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as KafkaMessage
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from dataflows.log_to_features.changes import Place
from dataflows.log_to_features.encoding import Encoding
from dataflows.log_to_features.publisher import LastPublished, Message, last_of
from dataflows.logs.kafka_log import FENCED, of_kafka
from dataflows.logs.whole_topic import messages_of
from featurestore.errors import FeatureStoreError, InvalidRequest, SourceUnavailable, WriterFenced

TIMEOUT_SECONDS = 30.0

_logger = logging.getLogger(__name__)


class KafkaOutput:
    """One topic of vectors.

    Args:
        servers: addresses of the cluster that has the topic and the source.
        topic: made, as one that is compacted, unless it is there.
        publication: name of the consumer group, and of the transactions.
        options: librdkafka settings passed through.
        encoding: makes values of messages.
        places: partitions of the source.

    Raises:
        SourceUnavailable: Kafka does not answer.
        InvalidRequest: it refuses.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        publication: str,
        options: Mapping[str, str],
        encoding: Encoding,
        places: Sequence[Place],
    ) -> None:
        self._topic, self._publication, self._encoding, self._places = topic, publication, encoding, places
        self._common: dict[str, Any] = {**options, "bootstrap.servers": servers}
        _create(AdminClient(self._common), topic)
        # It reads nothing: the group keeps the positions.
        self._group = Consumer({**self._common, "group.id": publication, "enable.auto.commit": False}, logger=_logger)
        self._run, self._number = uuid.uuid4().hex[:8], 0
        self._open: str | None = None
        # Whoever published before is fenced from here on, and what it left open is aborted.
        self._producer = self._take_over()

    def positions(self) -> Mapping[Place, int]:
        """See Output; those that were never committed are left out."""
        return {(one.topic, one.partition): one.offset for one in self._committed() if one.offset >= 0}

    def published(self) -> Iterator[tuple[bytes, LastPublished]]:
        """See Output: the whole topic is read."""
        for message in messages_of(self._topic, self._common, group=self._publication):
            given: Any = message.headers() or ()
            last = last_of({name: value for name, value in given if isinstance(value, bytes)})
            if last is not None and isinstance(key := message.key(), bytes):
                yield key, last

    def commit(self, messages: Sequence[Message], positions: Mapping[Place, int]) -> None:
        """See Output."""
        if self._open is not None:
            self._producer = self._take_over()
            is_committed = any(one.metadata == self._open for one in self._committed())
            self._open = None
            if is_committed:
                return
        self._number += 1
        self._open = mark = f"{self._run}-{self._number}"
        self._do(self._fact, self._producer.begin_transaction)
        failures: list[KafkaError] = []
        for message in messages:
            self._produce(message, failures)
        offsets = [TopicPartition(topic, partition, offset, mark) for (topic, partition), offset in positions.items()]
        try:
            group = self._group.consumer_group_metadata()
            self._do(self._fact, self._producer.send_offsets_to_transaction, offsets, group, TIMEOUT_SECONDS)
            self._do(self._fact, self._producer.commit_transaction, TIMEOUT_SECONDS)
        except SourceUnavailable:
            if failures:
                # The transaction's own error only says that there was one.
                raise of_kafka(failures[0], self._fact) from None
            raise
        self._open = None

    def close(self) -> None:
        """Leave the broker; an open transaction is aborted by whoever comes next."""
        self._group.close()

    @property
    def _fact(self) -> str:
        return f'vectors cannot be published to topic "{self._topic}"'

    def _take_over(self) -> Producer:
        """A client whose transactions count from now on; those of any other one do not."""
        ours: dict[str, Any] = {
            "transactional.id": self._publication,
            "enable.idempotence": True,
            # As Java's clients deal keys out: what is joined by key lies in partitions of the same number.
            "partitioner": "murmur2_random",
            "linger.ms": 1,
        }
        producer = Producer({"compression.type": "lz4", **self._common, **ours}, logger=_logger)
        self._do("the publication cannot be taken over", producer.init_transactions, TIMEOUT_SECONDS)
        return producer

    def _committed(self) -> list[TopicPartition]:
        """The group's offsets, with the marks of the transactions that set them."""
        asked = [TopicPartition(topic, partition) for topic, partition in self._places]
        found: list[TopicPartition] = self._do(
            "positions are not known", lambda: self._group.committed(asked, timeout=TIMEOUT_SECONDS)
        )
        for one in found:
            if one.error is not None:
                raise of_kafka(one.error, f"the position of {one.topic}[{one.partition}] is not known")
        return found

    def _produce(self, message: Message, failures: list[KafkaError]) -> None:
        """Hand one message to the client."""

        def on_delivery(error: KafkaError | None, _: KafkaMessage) -> None:
            """Remember the reason."""
            if error is not None:
                failures.append(error)

        vector = message.vector
        headers: dict[str, str | bytes | None] = {**message.headers}
        value = None if message.is_removal else self._encoding.encode(vector, is_event=message.is_event)
        while True:
            try:
                self._producer.produce(
                    self._topic, value=value, key=vector.key, headers=headers, on_delivery=on_delivery
                )
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise _of_transaction(error, self._fact) from error

    def _do(self, fact: str, action: Any, *arguments: object) -> Any:
        """Something that Kafka may refuse."""
        try:
            return action(*arguments)
        except KafkaException as error:
            raise _of_transaction(error, fact) from error


def _of_transaction(error: KafkaException, fact: str) -> FeatureStoreError:
    """What a refusal means: another process has taken over, it may go away, or it will not."""
    cause = error.args[0]
    if cause.code() in FENCED:
        return WriterFenced(f"{fact}: another process publishes this service there", detail=cause.str())
    return of_kafka(error, fact)


def _create(admin: AdminClient, topic: str) -> None:
    """Create the topic, compacted, unless it exists."""
    made = NewTopic(topic, config={"cleanup.policy": "compact"})
    try:
        admin.create_topics([made], operation_timeout=TIMEOUT_SECONDS)[topic].result(timeout=2 * TIMEOUT_SECONDS)
    except TimeoutError as error:
        raise SourceUnavailable(f'topic "{topic}" cannot be created', detail="Kafka did not answer in time.") from error
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return
        found = of_kafka(error, f'topic "{topic}" cannot be created')
        if isinstance(found, InvalidRequest) and _is_there(admin, topic):
            return  # somebody who may has made it
        raise found from error


def _is_there(admin: AdminClient, topic: str) -> bool:
    """Whether a topic can be seen."""
    try:
        return admin.list_topics(topic, timeout=TIMEOUT_SECONDS).topics[topic].error is None
    except KafkaException:
        return False
