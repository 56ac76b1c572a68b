"""Dead letters in Kafka's topics: read to their end, and replayed in transactions.

A record is given to its topic again and marked in one transaction: whatever dies in between, there is both or neither.
The transactions of a topic's replays have one id, so a replay that begins ends one that still runs, and sees all that
this one has marked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from confluent_kafka import KafkaException, Message, Producer

from dataflows.dead_letters.book import REPLAY_HEADER, REPLAYED, KeptLetter, Wanted, collect, key_of
from dataflows.dead_letters.policy import PayloadPolicy, Payloads
from dataflows.dead_letters.writer import MESSAGE_BYTES_MAX, TOPIC_SUFFIX
from dataflows.logs.kafka_log import FENCED, of_kafka
from dataflows.logs.whole_topic import messages_of
from featurestore.errors import FeatureStoreError, InvalidRequest

TRANSACTION_LETTERS = 500
"""Records that are given and marked in one transaction."""

TRANSACTION_ID_PREFIX = "featurestore-replay."
"""Followed by the topic."""

_TIMEOUT_SECONDS = 60.0

_logger = logging.getLogger(__name__)


class KafkaBook:
    """Letters in the topics that KafkaDeadLetters has written.

    Args:
        bootstrap_servers: addresses by source topic.
        options: librdkafka settings passed through.
        policy: opens payloads.
    """

    def __init__(self, bootstrap_servers: Mapping[str, str], options: Mapping[str, str], policy: PayloadPolicy) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._options = options
        self._policy = policy

    def find(self, topics: Sequence[str], wanted: Wanted) -> list[KeptLetter]:
        """See LetterBook."""
        return collect((one for topic in topics for one in self._letters(topic)), wanted)

    def replay(self, letters: Sequence[KeptLetter]) -> int:
        """See LetterBook."""
        if not letters:
            return 0
        topic = letters[0].topic
        assert all(letter.topic == topic for letter in letters), "a transaction is one topic's"
        producer = Producer(
            {
                "message.max.bytes": MESSAGE_BYTES_MAX,
                **self.settings(topic),
                "transactional.id": TRANSACTION_ID_PREFIX + topic,
                "enable.idempotence": True,
            },
            logger=_logger,
        )
        try:
            # From here on whoever replayed before cannot commit any more, so what is marked is all that is done.
            producer.init_transactions(_TIMEOUT_SECONDS)
            keys = {key_of(letter) for letter in letters}
            rest = [one for one in self.find([topic], lambda one: key_of(one) in keys) if not one.is_replayed]
            for begin in range(0, len(rest), TRANSACTION_LETTERS):
                _give(producer, rest[begin : begin + TRANSACTION_LETTERS])
        except KafkaException as error:
            raise _of_transaction(error, topic) from error
        return len(rest)

    def _letters(self, topic: str) -> Iterator[KeptLetter]:
        """Everything that was written of a topic, by partition; nothing where nothing was refused yet."""
        found = messages_of(topic + TOPIC_SUFFIX, self.settings(topic), group="featurestore-dead-letters")
        return map(self.letter, found)

    def letter(self, message: Message) -> KeptLetter:
        """What a message says."""
        headers = {name: (value or b"").decode() for name, value in cast(list[tuple[str, bytes]], message.headers())}
        stored = message.value() or b""
        payload = self._policy.opened(stored, Payloads(headers.get("payloads", Payloads.KEEP)))
        _, written_ms = message.timestamp()
        return KeptLetter(
            headers["reason"],
            headers["detail"],
            headers["topic"],
            int(headers["partition"]),
            int(headers["offset"]),
            headers["view"] or None,
            written_ms,
            payload,
            int(headers.get("payload_bytes", len(stored))),
        )

    def settings(self, topic: str) -> dict[str, str | int | bool]:
        """Of librdkafka, for who writes or reads letters of a topic."""
        return {**self._options, "bootstrap.servers": self._bootstrap_servers[topic]}


def _give(producer: Producer, letters: Sequence[KeptLetter]) -> None:
    """Give the records of some letters to their topic, and mark them: all or none."""
    producer.begin_transaction()
    for letter in letters:
        place = f"{letter.topic}/{letter.partition}/{letter.offset}"
        headers: list[tuple[str, str | bytes | None]] = [(REPLAY_HEADER, place)]
        producer.produce(letter.topic, value=letter.payload, partition=letter.partition, headers=headers)
        mark: list[tuple[str, str | bytes | None]] = [
            ("reason", REPLAYED),
            ("detail", ""),
            ("topic", letter.topic),
            ("partition", str(letter.partition)),
            ("offset", str(letter.offset)),
            ("view", letter.view or ""),
        ]
        producer.produce(letter.topic + TOPIC_SUFFIX, value=b"", headers=mark)
        producer.poll(0)
    producer.commit_transaction(_TIMEOUT_SECONDS)


def _of_transaction(error: KafkaException, topic: str) -> FeatureStoreError:
    """What the failure of a transaction means; nothing of it is visible."""
    if error.args[0].code() in FENCED:
        return InvalidRequest(
            f'another replay of topic "{topic}" has begun, and this one ends',
            hint="what this one has replayed is marked; nothing is replayed twice",
        )
    return of_kafka(error, f'topic "{topic}" takes no replay', hint="this client needs the right to transactions there")
