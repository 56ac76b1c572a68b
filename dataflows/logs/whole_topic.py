"""A topic of Kafka as a whole: made, and read once to the end of what was written and committed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from dataflows.logs.kafka_log import METADATA_TIMEOUT_SECONDS, of_kafka
from featurestore.errors import SourceUnavailable

MESSAGES_TOGETHER_MAX = 10_000
CREATION_TIMEOUT_SECONDS = 30.0

_SILENCE_SECONDS = 60.0

_logger = logging.getLogger(__name__)


def create_topic(topic: str, settings: Mapping[str, str], config: Mapping[str, str]) -> None:
    """Create a topic unless it exists or the broker will not let us; producing then tells.

    Raises:
        SourceUnavailable: Kafka does not answer.
    """
    admin = AdminClient(dict(settings))  # kept: one that is gone asks nothing
    # No number of partitions or copies: the broker's own defaults are the operator's wish.
    made = NewTopic(topic, config=dict(config))
    try:
        future = admin.create_topics([made], operation_timeout=10)[topic]
        future.result(timeout=CREATION_TIMEOUT_SECONDS)
    except TimeoutError as error:
        raise SourceUnavailable(f'topic "{topic}" cannot be created', detail="Kafka did not answer in time.") from error
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS and error.args[0].retriable():
            raise SourceUnavailable(f'topic "{topic}" cannot be created', detail=str(error)) from error


def messages_of(topic: str, settings: Mapping[str, str | int | float | bool], *, group: str) -> Iterator[Message]:
    """Messages of committed transactions, or of none, in order by partition; nothing of a topic that is not there.

    Args:
        topic: its name.
        settings: of librdkafka, "bootstrap.servers" among them.
        group: a client names one; nothing is committed to it.

    Raises:
        SourceUnavailable: Kafka does not answer.
        InvalidRequest: it refuses.
    """
    fixed = {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
    }
    consumer = Consumer({**settings, **fixed}, logger=_logger)
    fact = f'topic "{topic}" cannot be read'
    try:
        found = consumer.list_topics(topic, timeout=METADATA_TIMEOUT_SECONDS).topics[topic]
        waiting = set(found.partitions)
        if not waiting or found.error is not None:
            return
        consumer.assign([TopicPartition(topic, number, 0) for number in sorted(waiting)])
        while waiting:
            first = consumer.poll(_SILENCE_SECONDS)
            if first is None:
                raise SourceUnavailable(fact, detail="Kafka did not answer in time.")
            # With a timeout, it would wait for as many as are asked for.
            for message in (first, *consumer.consume(MESSAGES_TOGETHER_MAX, timeout=0)):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.discard(cast(int, message.partition()))
                else:
                    raise of_kafka(error, fact)
    except KafkaException as error:
        raise of_kafka(error, fact) from error
    finally:
        consumer.close()
