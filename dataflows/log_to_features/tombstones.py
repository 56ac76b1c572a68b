"""Published vectors of somebody are taken back: a message without a value for each of their keys.

A compacted topic forgets a key some time after such a message; until then, what was published before can be read. A
process that publishes is not disturbed: it writes what happens to the entity from now on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from confluent_kafka import KafkaException, Producer

from dataflows.logs.kafka_log import of_kafka
from dataflows.logs.whole_topic import messages_of
from featurestore.errors import SourceUnavailable
from featurestore.wire.entity_key import split_key

_TIMEOUT_SECONDS = 60.0


def take_back(
    topic: str,
    settings: Mapping[str, str | int | float | bool],
    *,
    part: int,
    part_count: int,
    value: bytes,
    before_ms: int,
    is_trial: bool = False,
) -> int:
    """Write a message without a value for each key of somebody whose last one has a value; how many keys those are.

    Args:
        topic: what `featurestore publish` has written.
        settings: of librdkafka, "bootstrap.servers" among them.
        part: which part of the entity key is the value.
        part_count: how many parts it has.
        value: canonical bytes.
        before_ms: messages that were written then or later stay.
        is_trial: only look.

    Raises:
        SourceUnavailable: Kafka does not answer.
        InvalidRequest: it refuses.
    """
    last: dict[bytes, int | None] = {}
    for message in messages_of(topic, settings, group="featurestore-erase"):
        key = message.key()
        if isinstance(key, bytes) and _is_of_value(key, part, part_count, value):
            is_older = message.timestamp()[1] < before_ms
            last[key] = cast(int, message.partition()) if message.value() is not None and is_older else None
    wanted = {key: partition for key, partition in last.items() if partition is not None}
    if wanted and not is_trial:
        try:
            producer = Producer({**settings, "enable.idempotence": True})
            failed: list[object] = []
            for key, partition in wanted.items():
                producer.produce(
                    topic,
                    key=key,
                    value=None,
                    partition=partition,
                    on_delivery=lambda error, _: failed.append(error) if error is not None else None,
                )
            if producer.flush(_TIMEOUT_SECONDS) or failed:
                raise SourceUnavailable(
                    f'topic "{topic}" does not take what takes vectors back', detail=str(failed[:1])
                )
        except KafkaException as error:
            raise of_kafka(error, f'topic "{topic}" takes no removals') from error
    return len(wanted)


def _is_of_value(key: bytes, part: int, part_count: int, value: bytes) -> bool:
    """Whether a message's key is an entity of the value; others may have written what is no such key."""
    try:
        return split_key(key, part_count)[part] == value
    except ValueError:
        return False
