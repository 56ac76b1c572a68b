"""A topic of Kafka as it is: everything that was written and committed, read once to the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from dataflows.logs.kafka_log import METADATA_TIMEOUT_SECONDS, of_kafka
from featurestore.errors import SourceUnavailable

MESSAGES_TOGETHER_MAX = 10_000

_SILENCE_SECONDS = 60.0

_logger = logging.getLogger(__name__)


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
