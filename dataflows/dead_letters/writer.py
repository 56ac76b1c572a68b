"""Where records go that could not be folded: a topic beside the source's topic, or a file beside its log.

    Kafka      <topic>.dead-letters, value = the original bytes, headers: reason, detail, topic, partition, offset, view
               (value = their beginning, and a header payload_bytes, where they are more than the broker takes)
    files      DIR/<topic>.dead-letters/<partition>.jsonl, one JSON object a line, the payload in base64

Where payloads are dropped or encrypted (policy.py), `payloads` says how, and `payload_bytes` how many there were.

`write` returns when the letters are durable. After a crash the records behind the last commit are read again and their
letters written again; (topic, partition, offset, view) tells the repeats.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from dataflows.dead_letters.policy import PayloadPolicy, Payloads
from dataflows.logs.kafka_log import of_kafka
from dataflows.logs.sources import Shared
from dataflows.logs.whole_topic import create_topic
from dataflows.retry import patiently
from featurestore.clock import Clock, SystemClock
from featurestore.errors import SourceUnavailable
from featurestore.offline.disk import append_lines, drop_lines, of_disk
from featurestore.wire.payloads import DeadLetter

TOPIC_SUFFIX = ".dead-letters"

FILE_RETENTION_MS = 30 * 86_400_000
"""How long letters in files are kept unless somebody says otherwise: they hold what their records hold."""

PRUNING_INTERVAL_NS = 3_600_000_000_000
FLUSH_TIMEOUT_SECONDS = 30.0
MESSAGE_BYTES_MAX = 1_000_000_000
"""What librdkafka lets pass at most: how large a letter may be is for the broker to say, as it was for the record."""

CUT_PAYLOAD_BYTES = (100_000, 1_000, 0)
"""Bytes that are kept of a payload that the broker refuses for its size, each tried until one is taken."""

QUEUE_LETTERS_MAX = 10_000
"""Letters handed to the producer before their delivery is awaited; below librdkafka's own queue of 100,000."""


_logger = logging.getLogger(__name__)


class DeadLetterWriter(Protocol):
    """Keeps dead letters."""

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Write letters; they are durable when this returns.

        Raises:
            SourceUnavailable: they cannot be written now; to be called again with the same letters.
            InvalidRequest: they can never be written there.
        """
        ...


def write_letters(dead_letters: DeadLetterWriter, letters: Sequence[DeadLetter], shared: Shared) -> None:
    """Write letters durably, then count them; where there is no room for them the flow stands still until there is.

    Raises:
        FeatureStoreError: they cannot be written, or could not for longer than the patience; nothing is lost.
    """
    patiently(
        shared,
        lambda: dead_letters.write(letters),
    )
    shared.progress.dead_lettered(letters)


class FileDeadLetters:
    """Dead letters as JSON Lines files.

    Args:
        directory: where `<topic>.dead-letters` directories are made.
        policy: what is kept of payloads.
        clock: says when a letter is written; default: the machine's.
        retention_ms: how long letters are kept.
    """

    def __init__(
        self,
        directory: Path,
        policy: PayloadPolicy | None = None,
        clock: Clock | None = None,
        retention_ms: int = FILE_RETENTION_MS,
    ) -> None:
        self._retention_ms, self._next_look_ns = retention_ms, 0
        self._directory = directory
        self._policy = policy or PayloadPolicy()
        self._clock = clock or SystemClock()
        self._written: set[DeadLetter] = set()

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Append the letters of each partition, all of them or none; those that the last try wrote are left out."""
        by_file: dict[Path, list[DeadLetter]] = {}
        for letter in letters:
            if letter not in self._written:
                path = self._directory / f"{letter.topic}{TOPIC_SUFFIX}" / f"{letter.partition}.jsonl"
                by_file.setdefault(path, []).append(letter)
        now_ms = self._clock.now_ms()
        for path, of_file in by_file.items():
            try:
                append_lines(path, b"".join(_encode(letter, self._policy, now_ms) for letter in of_file))
            except OSError as error:
                raise of_disk(error, "dead letters cannot be written", path, unavailable=SourceUnavailable) from error
            self._written.update(of_file)
        self._written.clear()

    def tick(self) -> None:
        """Drop letters that are older than the retention, now and then: those of the whole directory."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._next_look_ns:
            return
        self._next_look_ns = now_ns + PRUNING_INTERVAL_NS
        since_ms = self._clock.now_ms() - self._retention_ms
        for path in sorted(self._directory.glob(f"*{TOPIC_SUFFIX}/*.jsonl")):
            try:
                drop_lines(path, partial(_first_since, since_ms))
            except OSError as error:
                _logger.warning("old dead letters are kept until the next look: %s: %s", path, error)


class KafkaDeadLetters:
    """Dead letters as a Kafka topic.

    Args:
        bootstrap_servers: addresses by source topic.
        options: librdkafka settings passed through.
        policy: what is kept of payloads.
        retention_ms: how long a topic that is made here keeps letters; None leaves it to the broker.
    """

    def __init__(
        self,
        bootstrap_servers: Mapping[str, str],
        options: Mapping[str, str],
        policy: PayloadPolicy | None = None,
        retention_ms: int | None = None,
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._options = options
        self._policy = policy or PayloadPolicy()
        self._retention_ms = retention_ms
        self._producers: dict[str, Producer] = {}
        self._acknowledged: set[DeadLetter] = set()

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Produce the letters and wait for every acknowledgement; those that had one at the last try are left out."""
        letters = [letter for letter in letters if letter not in self._acknowledged]
        for begin in range(0, len(letters), QUEUE_LETTERS_MAX):
            too_large: Sequence[DeadLetter] = letters[begin : begin + QUEUE_LETTERS_MAX]
            for payload_bytes in (None, *CUT_PAYLOAD_BYTES):
                too_large = self._write(too_large, payload_bytes)
            if too_large:
                raise _not_written(too_large[0].topic, "Kafka refuses even letters without a payload for their size.")
        self._acknowledged.clear()

    def _write(self, letters: Sequence[DeadLetter], payload_bytes: int | None) -> list[DeadLetter]:
        """Write letters, with so much of their payloads; returns those that the broker found too large."""
        too_large: list[DeadLetter] = []
        failures: list[tuple[str, KafkaError]] = []
        producers: dict[str, Producer] = {}
        for letter in letters:

            def on_delivery(error: KafkaError | None, _: Message | None, letter: DeadLetter = letter) -> None:
                """Remember what was not acknowledged."""
                if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    too_large.append(letter)
                elif error is not None:
                    failures.append((letter.topic, error))
                else:
                    self._acknowledged.add(letter)

            producer = producers[letter.topic] = self._producer(letter.topic)
            try:
                _produce(producer, letter, self._policy, payload_bytes, on_delivery)
            except KafkaException as error:
                on_delivery(error.args[0], None)
            except BufferError as error:
                raise _not_written(letter.topic, str(error)) from error
        for topic, producer in producers.items():
            if producer.flush(FLUSH_TIMEOUT_SECONDS):
                raise _not_written(topic, "Kafka did not acknowledge them in time.")
        if failures:
            topic, refusal = failures[0]
            raise of_kafka(refusal, f'dead letters of topic "{topic}" cannot be written', hint=_remedy(topic))
        return too_large

    def _producer(self, topic: str) -> Producer:
        """The producer for a source topic's letters, made with its topic when the first letter comes."""
        servers = self._bootstrap_servers[topic]
        if topic not in self._producers:
            settings = {**self._options, "bootstrap.servers": servers}
            config = {} if self._retention_ms is None else {"retention.ms": str(self._retention_ms)}
            create_topic(topic + TOPIC_SUFFIX, settings, config)
            ours = {"enable.idempotence": True, "linger.ms": 1}
            self._producers[topic] = Producer({"message.max.bytes": MESSAGE_BYTES_MAX, **settings, **ours})
        return self._producers[topic]


def _produce(
    producer: Producer,
    letter: DeadLetter,
    policy: PayloadPolicy,
    payload_bytes: int | None,
    on_delivery: Callable[[KafkaError | None, Message | None], None],
) -> None:
    """Hand a letter to the producer; waits once when its queue is full, as large letters can fill it."""
    headers, stored = _headers(letter), policy.stored(letter.payload[:payload_bytes])
    if stored != letter.payload:
        headers.append(("payload_bytes", str(len(letter.payload))))
    if policy.payloads is not Payloads.KEEP:
        headers.append(("payloads", str(policy.payloads)))
    for is_last in (False, True):
        try:
            producer.produce(
                letter.topic + TOPIC_SUFFIX,
                value=stored,
                headers=headers,
                on_delivery=on_delivery,
            )
            return
        except BufferError:
            if is_last:
                raise
            producer.flush(FLUSH_TIMEOUT_SECONDS)


def _not_written(topic: str, detail: str) -> SourceUnavailable:
    """What is wrong, and what to do."""
    return SourceUnavailable(
        f'dead letters of topic "{topic}" cannot be written',
        detail=detail,
        hint=_remedy(topic),
    )


def _remedy(topic: str) -> str:
    """What to look at."""
    return f'check that topic "{topic}{TOPIC_SUFFIX}" may be created and written'


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


def _first_since(since_ms: int, file: BinaryIO) -> int:
    """The byte of a file where its letters since a time begin; they are in the order in which they were written.

    Those of an older release say no time: they go with the first ones that do.
    """
    begin, has_times = 0, False
    for line in file:
        written_ms = msgspec.json.decode(line, type=_Written).written_ms if line.endswith(b"\n") else since_ms
        if written_ms is not None and written_ms >= since_ms:
            return begin if has_times else 0
        has_times |= written_ms is not None
        begin += len(line)
    return begin if has_times else 0


class _Written(msgspec.Struct):
    """When a letter was written."""

    written_ms: int | None = None


def _encode(letter: DeadLetter, policy: PayloadPolicy, written_ms: int) -> bytes:
    """One line of a dead-letter file."""
    fields: dict[str, object] = {
        "reason": str(letter.reason),
        "detail": letter.detail,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "view": letter.view,
        "payload": base64.b64encode(policy.stored(letter.payload)).decode("ascii"),
        "written_ms": written_ms,
    }
    if policy.payloads is not Payloads.KEEP:
        fields |= {"payloads": str(policy.payloads), "payload_bytes": len(letter.payload)}
    return msgspec.json.encode(fields) + b"\n"
