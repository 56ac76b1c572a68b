"""Where records go that could not be folded: a topic beside the source's topic, or a file beside its log.

    Kafka      <topic>.dead-letters, value = the original bytes, headers: reason, detail, topic, partition, offset, view
    files      DIR/<topic>.dead-letters/<partition>.jsonl, one JSON object a line, the payload in base64

`write` returns when the letters are durable. After a crash the records behind the last commit are read again and their
letters written again; (topic, partition, offset, view) tells the repeats.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from featurestore.errors import SourceUnavailable
from featurestore.wire.events import DeadLetter

TOPIC_SUFFIX = ".dead-letters"
FLUSH_TIMEOUT_SECONDS = 30.0
QUEUE_LETTERS_MAX = 10_000
"""Letters handed to the producer before their delivery is awaited; below librdkafka's own queue of 100,000."""


class DeadLetterWriter(Protocol):
    """Keeps dead letters."""

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Write letters; they are durable when this returns.

        Raises:
            SourceUnavailable: they could not be written.
        """
        ...


class FileDeadLetters:
    """Dead letters as JSON Lines files.

    Args:
        directory: where `<topic>.dead-letters` directories are made.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Append the letters of each partition in one write, and sync."""
        by_file: dict[Path, list[bytes]] = {}
        for letter in letters:
            path = self._directory / f"{letter.topic}{TOPIC_SUFFIX}" / f"{letter.partition}.jsonl"
            by_file.setdefault(path, []).append(_encode(letter))
        for path, lines in by_file.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Opened for each write: letters are rare, and two stages may append to the same file.
            with path.open("ab", buffering=0) as file:
                # A line torn by a crash must not swallow the first letter after it.
                torn = b"\n" if _lacks_newline(path) else b""
                file.write(torn + b"".join(lines))
                os.fsync(file.fileno())


class KafkaDeadLetters:
    """Dead letters as a Kafka topic.

    Args:
        bootstrap_servers: addresses by source topic.
        options: librdkafka settings passed through.
    """

    def __init__(self, bootstrap_servers: Mapping[str, str], options: Mapping[str, str]) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._options = options
        self._producers: dict[str, Producer] = {}

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Produce the letters and wait for every acknowledgement."""
        for begin in range(0, len(letters), QUEUE_LETTERS_MAX):
            part = letters[begin : begin + QUEUE_LETTERS_MAX]
            failures: list[KafkaError] = []
            producers = {letter.topic: self._producer(letter.topic) for letter in part}

            def on_delivery(error: KafkaError | None, _: Message, failures: list[KafkaError] = failures) -> None:
                """Remember what was not acknowledged."""
                if error is not None:
                    failures.append(error)

            for letter in part:
                producers[letter.topic].produce(
                    letter.topic + TOPIC_SUFFIX, value=letter.payload, headers=_headers(letter), on_delivery=on_delivery
                )
            for topic, producer in producers.items():
                if producer.flush(FLUSH_TIMEOUT_SECONDS) or failures:
                    raise SourceUnavailable(
                        f'dead letters of topic "{topic}" cannot be written',
                        detail=str(failures[0]) if failures else "Kafka did not acknowledge them in time.",
                        hint=f'check that topic "{topic}{TOPIC_SUFFIX}" may be created and written',
                    )

    def _producer(self, topic: str) -> Producer:
        """The producer for a source topic's letters, made with its topic when the first letter comes."""
        servers = self._bootstrap_servers[topic]
        if topic not in self._producers:
            settings = {**self._options, "bootstrap.servers": servers}
            _create_topic(topic + TOPIC_SUFFIX, settings)
            self._producers[topic] = Producer({**settings, "enable.idempotence": True, "linger.ms": 1})
        return self._producers[topic]


def _create_topic(topic: str, settings: Mapping[str, str]) -> None:
    """Create the topic unless it exists or the broker will not let us; producing then tells."""
    admin = AdminClient(dict(settings))
    try:
        # No number of partitions or copies: the broker's own defaults are the operator's wish.
        for future in admin.create_topics([NewTopic(topic)], operation_timeout=10).values():
            future.result(timeout=FLUSH_TIMEOUT_SECONDS)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS and error.args[0].retriable():
            raise SourceUnavailable(f'topic "{topic}" cannot be created', detail=str(error)) from error


def _headers(letter: DeadLetter) -> list[tuple[str, str | bytes | None]]:
    """Everything but the payload."""
    return [
        ("reason", str(letter.reason)),
        ("detail", letter.detail),
        ("topic", letter.topic),
        ("partition", str(letter.partition)),
        ("offset", str(letter.offset)),
        ("view", letter.view or ""),
    ]


def _encode(letter: DeadLetter) -> bytes:
    """One line of a dead-letter file."""
    fields = {
        "reason": str(letter.reason),
        "detail": letter.detail,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "view": letter.view,
        "payload": base64.b64encode(letter.payload).decode("ascii"),
    }
    return msgspec.json.encode(fields) + b"\n"


def _lacks_newline(path: Path) -> bool:
    """The file ends in the middle of a line."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
