"""Kafka as an event log: whole batches from librdkafka, positions from the online store.

The partitions are assigned, not subscribed: which process reads which is Bytewax's business, and where to begin is the
online store's. The consumer group's offsets are never read. They can be published for lag tools (`kafka_group`), for
partitions' committed positions, so a monitor shows what is servable rather than what was fetched.

Whatever librdkafka needs for TLS and SASL is passed through: `--kafka-option security.protocol=SASL_SSL` and so on.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its documentation has OffsetSpec here
    AdminClient,
    OffsetSpec,
    TopicDescription,
)

from dataflows.logs.schemas import SchemaRegistries
from dataflows.logs.sources import PartitionReader
from featurestore.clock import Clock
from featurestore.core.spec import SourceSpec
from featurestore.errors import EventsLost, FeatureStoreError, InvalidRequest, SourceUnavailable
from featurestore.wire.formats.columns import NoSchemas, Schemas
from featurestore.wire.payloads import RawBatch

METADATA_TIMEOUT_SECONDS = 10.0
PUBLISH_INTERVAL_MS = 5_000

CONSUMER_DEFAULTS: Mapping[str, str | int | bool] = {
    "client.id": "featurestore-stream",
    # Bounds memory by partition; librdkafka's own 64 MB are too many for a topic of a hundred.
    "queued.max.messages.kbytes": 16_384,
    # When the local queue was full librdkafka looks again after a second, which starves a fast reader.
    "fetch.queue.backoff.ms": 5,
    "fetch.message.max.bytes": 4_194_304,
    "reconnect.backoff.max.ms": 1_000,
}
"""What a user's options may override."""

CONSUMER_FIXED: Mapping[str, str | int | bool] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
}
"""What the commit protocol relies on."""

SCHEMA_ID_HEADER = "__value_schema_id"
"""Where Confluent's newer serializers can be told to put what others put before the record."""

_NO_ID = "A" * 22
"""Sixteen bytes of zero: the id of every topic of a broker that gives topics none."""

_DENIED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
    }
)
"""A minute later it will be the same."""

FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
"""What a client hears whose transactions another one has taken over."""

_logger = logging.getLogger(__name__)


class KafkaLog:
    """Topics of a Kafka cluster.

    Args:
        bootstrap_servers: addresses that override those of the sources.
        options: librdkafka settings passed through.
        group: consumer group to publish committed positions under; "" publishes nothing.
        clock: processing time.
        schemas: of payloads that begin with the id of one.

    Raises:
        InvalidRequest: an option is one that the commit protocol relies on.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        options: Mapping[str, str],
        group: str,
        clock: Clock,
        schemas: SchemaRegistries | None = None,
    ) -> None:
        reserved = sorted(CONSUMER_FIXED.keys() & options.keys())
        if reserved:
            raise InvalidRequest(
                f'kafka option "{reserved[0]}" cannot be changed', hint="the stream's exactly-once commit relies on it"
            )
        self._bootstrap_servers = bootstrap_servers
        self._options = options
        self._group = group
        self._clock = clock
        self._schemas = schemas or SchemaRegistries({})
        self._topic_ids: dict[str, str] = {}
        self._admins: dict[str, AdminClient] = {}

    def servers(self, source: SourceSpec) -> str:
        """Addresses of the cluster that has the source's topic."""
        servers = self._bootstrap_servers or self._options.get("bootstrap.servers", "") or source.bootstrap_servers
        if not servers:
            raise InvalidRequest(
                f'source "{source.name}" names no Kafka servers',
                hint="set kafka_bootstrap_servers in the feature repo, or give --bootstrap-servers",
            )
        return servers

    def schemas(self, source: SourceSpec) -> Schemas:
        """Those of the source's registry, or of the one that stands for all."""
        return NoSchemas() if source.format == "json" else self._schemas.of(source)

    def partitions(self, source: SourceSpec) -> Sequence[int]:
        """All partitions of the source's topic.

        Raises:
            EventsLost: the topic is not the one any more that was there when it was first asked about.
        """
        return sorted(partition.id for partition in self._topic(source).partitions)

    def incarnations(self, source: SourceSpec, partitions: Collection[int]) -> Mapping[int, str]:
        """The topic's id; "" of a broker that gives topics none (before 2.8)."""
        self._topic(source)
        return dict.fromkeys(partitions, self._topic_ids[source.topic])

    def ends(self, source: SourceSpec, partitions: Collection[int]) -> Mapping[int, int]:
        """Offsets behind the last record that a reader would get now: those of open transactions are not waited for."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # confluent_kafka has no types there
        return self._offsets(source, partitions, latest)

    def reaches_back(self, source: SourceSpec, partitions: Collection[int], since_ms: int) -> bool:
        """Whether nothing was removed, or something older than that is still there."""
        earliest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # confluent_kafka has no types there
        oldest = {
            number: offset for number, offset in self._offsets(source, partitions, earliest).items() if offset > 0
        }
        if not oldest:
            return True
        ends = self.ends(source, oldest)
        found = self._offsets(source, oldest, OffsetSpec.for_timestamp(since_ms))
        # Negative where nothing is as young as that: then whatever is there is older, if anything is.
        return all(
            (found[number] if found[number] >= 0 else ends[number]) > offset for number, offset in oldest.items()
        )

    def lost(self, source: SourceSpec, offsets: Mapping[int, int]) -> Mapping[int, EventsLost]:
        """Offsets before the oldest record, or behind the end."""
        if not offsets:
            return {}
        earliest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # confluent_kafka has no types there
        oldest, ends = self._offsets(source, offsets, earliest), self.ends(source, offsets)
        return {
            number: error
            for number, offset in offsets.items()
            if (error := _why_lost(f"{source.topic}[{number}]", offset, oldest[number], ends[number])) is not None
        }

    def _offsets(self, source: SourceSpec, partitions: Collection[int], wanted: OffsetSpec) -> Mapping[int, int]:
        """One offset of each partition."""
        servers = self.servers(source)
        admin = self._admin(servers)
        is_dirty = self._options.get("isolation.level") == "read_uncommitted"
        try:
            asked = admin.list_offsets(
                {TopicPartition(source.topic, partition): wanted for partition in partitions},
                isolation_level=IsolationLevel.READ_UNCOMMITTED if is_dirty else IsolationLevel.READ_COMMITTED,
                request_timeout=METADATA_TIMEOUT_SECONDS,
            )
            return {place.partition: end.result().offset for place, end in asked.items()}
        except KafkaException as error:
            raise of_kafka(error, f'the offsets of topic "{source.topic}" at {servers} are not known') from error

    def open(self, source: SourceSpec, partition: int, start: int | None, needed: int | None = None) -> PartitionReader:
        """A reader of one partition, with a consumer of its own."""
        self._topic(source)
        settings = {
            **CONSUMER_DEFAULTS,
            **self._options,
            **CONSUMER_FIXED,
            "bootstrap.servers": self.servers(source),
            # The client insists on a group even for assigned partitions.
            "group.id": self._group or "featurestore-stream",
        }
        try:
            consumer = Consumer(settings, logger=_logger)
        except KafkaException as error:
            raise _unusable_options(error) from error
        try:
            return KafkaPartition(
                consumer,
                source.topic,
                partition,
                start,
                needed,
                self._clock,
                publishes=bool(self._group),
                has_schemas=source.format != "json",
            )
        except FeatureStoreError:
            consumer.close()
            raise

    def _topic(self, source: SourceSpec) -> TopicDescription:
        """The topic as it is now."""
        servers = self.servers(source)
        admin = self._admin(servers)
        asked = admin.describe_topics(TopicCollection([source.topic]), request_timeout=METADATA_TIMEOUT_SECONDS)
        try:
            topic: TopicDescription = asked[source.topic].result(timeout=2 * METADATA_TIMEOUT_SECONDS)
        except (KafkaException, TimeoutError) as error:
            raise of_kafka(
                error,
                f'topic "{source.topic}" is not available at {servers}',
                hint="create the topic, or give this client the right to describe and read it",
            ) from error
        topic_id = str(topic.topic_id).replace(_NO_ID, "")
        if topic_id != self._topic_ids.setdefault(source.topic, topic_id):
            raise EventsLost(
                f'topic "{source.topic}" was made anew while it was read',
                detail="What was read of the old one says nothing of where to go on in the new one.",
                hint="start the stream again; it tells what can be done",
            )
        return topic

    def _admin(self, servers: str) -> AdminClient:
        """A client that asks about topics, one for each cluster; the first thing that sees the user's options."""
        if servers not in self._admins:
            try:
                self._admins[servers] = AdminClient({**self._options, "bootstrap.servers": servers}, logger=_logger)
            except KafkaException as error:
                raise _unusable_options(error) from error
        return self._admins[servers]


def _why_lost(name: str, offset: int, oldest: int, end: int) -> EventsLost | None:
    """Why a partition cannot be read from an offset on."""
    if oldest <= offset <= end:
        return None
    if offset < oldest:
        return EventsLost(
            f"{name} begins at offset {oldest}, it was read up to {offset}",
            detail=f"{oldest - offset} events were deleted before they were applied.",
            hint="bootstrap the views from their event log; keep Kafka's retention longer than any stop of the stream",
        )
    return EventsLost(
        f"{name} ends at offset {end}, it was read up to {offset}",
        detail="The topic was restored from an older copy, or lost records.",
        hint="bootstrap the views from an event log of the topic as it is now, or use a new topic name",
    )


class KafkaPartition:
    """Reads one partition.

    Args:
        consumer: not assigned yet; closed with the reader.
        topic, partition: what to read.
        start: first offset; None begins with the oldest record there is.
        needed: what must be there in that case.
        clock: processing time.
        publishes: commit positions to the consumer's group.
        has_schemas: payloads are of schemas, whose ids may be in headers.

    Raises:
        EventsLost: the partition does not hold `start`, or else `needed`, any more, or never did.
        SourceUnavailable: Kafka does not answer.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        partition: int,
        start: int | None,
        needed: int | None,
        clock: Clock,
        *,
        publishes: bool,
        has_schemas: bool = False,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._partition = partition
        self._clock = clock
        self._publishes = publishes
        self._has_schemas = has_schemas
        self._published_offset = 0
        self._next_publish_ns = 0
        oldest, self._end_at_opening = self._watermarks()
        self._check_start(needed if start is None else start, oldest, self._end_at_opening)
        # Where the log begins, and not 0: a writer that waits for what was deleted sees that it is gone.
        self._next_offset = oldest if start is None else start
        self._has_reached_end = self._next_offset >= self._end_at_opening
        self._end_offset = self._end_at_opening
        self._reports: list[Message] = []
        consumer.assign([TopicPartition(topic, partition, self._next_offset)])

    def read(self, records_max: int) -> RawBatch | None:
        """What librdkafka has fetched by now."""
        try:
            fetched = self._consumer.consume(records_max, timeout=0)
        except KafkaException as error:
            raise of_kafka(error, f"{self._name} cannot be read") from error
        if not fetched and not self._reports:
            return None
        begin = self._next_offset
        messages = [message for message in fetched if message.error() is None]
        offsets = np.fromiter((message.offset() for message in messages), dtype=np.int64, count=len(messages))
        if len(messages) < len(fetched):
            self._reports += [message for message in fetched if message.error() is not None]
        if messages:
            # Reports wait for the next read: an error must not take the records that came with it along.
            assert offsets[0] >= begin, f"{self._name} went back from offset {begin} to {offsets[0]}"
            self._next_offset = int(offsets[-1]) + 1
        else:
            reports, self._reports = self._reports, []
            self._heed(reports)
        if self._next_offset >= self._end_at_opening:
            self._has_reached_end = True
        if self._next_offset == begin:
            return None
        payloads = [message.value() or b"" for message in messages]
        if self._has_schemas:
            payloads = [_behind_id(message, payload) for message, payload in zip(messages, payloads, strict=True)]
        written_ms = _written_ms(messages[0]) if messages else None
        return RawBatch(self._topic, self._partition, begin, self._next_offset, offsets, payloads, written_ms)

    def end_offset(self) -> int:
        """The high watermark of the latest fetch."""
        watermarks = self._consumer.get_watermark_offsets(TopicPartition(self._topic, self._partition), cached=True)
        if watermarks is not None:
            self._end_offset = max(self._end_offset, watermarks[1])
        return max(self._end_offset, self._next_offset)

    @property
    def has_reached_end(self) -> bool:
        """Everything up to the high watermark of the opening has been read."""
        return self._has_reached_end

    def publish(self, next_offset: int) -> None:
        """Commit a position to the consumer group now and then; nothing depends on it."""
        now_ns = self._clock.monotonic_ns()
        if not self._publishes or next_offset <= self._published_offset or now_ns < self._next_publish_ns:
            return
        self._next_publish_ns = now_ns + PUBLISH_INTERVAL_MS * 1_000_000
        self._published_offset = next_offset
        self._consumer.commit(offsets=[TopicPartition(self._topic, self._partition, next_offset)], asynchronous=True)

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    @property
    def _name(self) -> str:
        """The partition as messages name it."""
        return f"{self._topic}[{self._partition}]"

    def _watermarks(self) -> tuple[int, int]:
        """Oldest offset, and the offset behind the newest."""
        try:
            watermarks = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, self._partition), timeout=METADATA_TIMEOUT_SECONDS
            )
        except KafkaException as error:
            raise of_kafka(error, f"{self._name} does not answer") from error
        if watermarks is None:
            raise SourceUnavailable(f"{self._name} does not answer")
        return watermarks

    def _check_start(self, start: int | None, oldest: int, end: int) -> None:
        """Refuse to begin where events are missing."""
        error = None if start is None else _why_lost(self._name, start, oldest, end)
        if error is not None:
            raise error

    def _heed(self, reports: Sequence[Message]) -> None:
        """What librdkafka reports between records: the end of the partition, or trouble."""
        for report in reports:
            error = report.error()
            assert error is not None, "records are no reports"
            if error.code() == KafkaError._PARTITION_EOF:
                # Transaction markers take offsets but are no records, so the end can lie behind the last record.
                self._next_offset = max(self._next_offset, report.offset() or 0)
            elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                oldest, end = self._watermarks()
                self._check_start(self._next_offset, oldest, end)
                raise EventsLost(f"{self._name} has no offset {self._next_offset} any more", detail=error.str())
            elif error.fatal() or not error.retriable():
                raise of_kafka(error, f"{self._name} cannot be read")
            else:
                _logger.warning("%s: %s", self._name, error.str())


def _written_ms(message: Message) -> int | None:
    """When the producer, or the broker, says that a record was written."""
    kind, written_ms = message.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else written_ms


def _behind_id(message: Message, payload: bytes) -> bytes:
    """A payload with the id of its schema before it, also where that is in a header; no value stays none."""
    given: Any = message.headers() or ()
    for name, value in given:
        if name == SCHEMA_ID_HEADER and isinstance(value, bytes) and message.value() is not None:
            return value + payload
    return payload


def of_kafka(error: KafkaException | KafkaError | TimeoutError, fact: str, *, hint: str = "") -> FeatureStoreError:
    """What Kafka's refusal means for whoever wanted something.

    Returns:
        InvalidRequest where trying again is of no use before somebody has given the right to it.
    """
    cause = error.args[0] if isinstance(error, KafkaException) and error.args else error
    if isinstance(cause, KafkaError):
        kind = InvalidRequest if cause.code() in _DENIED else SourceUnavailable
        return kind(f"{fact}: {cause.str()}", hint=hint)
    return SourceUnavailable(fact, detail="Kafka did not answer in time." if not str(cause) else str(cause), hint=hint)


def _unusable_options(error: KafkaException) -> InvalidRequest:
    """Librdkafka's own words: they name the option, and its values where it takes only some."""
    reason = error.args[0].str() if error.args and isinstance(error.args[0], KafkaError) else str(error)
    return InvalidRequest(
        "kafka options are not usable", detail=reason, hint="correct --kafka-option or the file of --kafka-config"
    )
