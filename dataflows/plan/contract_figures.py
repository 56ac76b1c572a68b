"""What the stream keeps of how records keep their contracts: in the store for `featurestore status`, and as a stream.

    store      {payments}/contracts, a field for each topic and partition, every few seconds
    Kafka      <topic>.contracts, key = source/expectation/topic/partition/hour, value = one JSON object
    files      DIR/<topic>.contracts/<partition>.jsonl, the same objects, one a line

An object says how many records of a partition were checked in an hour of event time, and how many of them did not meet
an expectation, or that an hour that is over was not as usual: the newest one of a key counts, so a compacted topic has
all that is to be known. Nothing of this holds the stream up. What cannot be kept is kept with the next figures.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
from confluent_kafka import KafkaException, Producer

from dataflows.logs.whole_topic import create_topic
from dataflows.plan.contracts import UNUSUAL
from featurestore.clock import Clock
from featurestore.core.events import EventBatch
from featurestore.core.spec import UsualHours
from featurestore.errors import CorruptData, FeatureStoreError
from featurestore.offline.disk import append_lines
from featurestore.wire.contracts import Failures
from featurestore.wire.counts.contracts import HOUR_MS, PartitionCounts, decode_counts, encode_counts, usual_states

TOPIC_SUFFIX = ".contracts"
KEEP_SECONDS = 5.0
FLUSH_SECONDS = 5.0

_logger = logging.getLogger(__name__)


class CountsStore(Protocol):
    """Keeps the counts of a partition."""

    def contract_counts(self, topic: str, partition: int) -> bytes | None:
        """What is kept."""
        ...

    def keep_contract_counts(self, topic: str, partition: int, expected: bytes | None, counts: bytes) -> bool:
        """Replace it; False where somebody else did meanwhile."""
        ...


class ContractReports(Protocol):
    """Where objects go that say what breaks a contract."""

    def write(self, topic: str, partition: int, reports: Sequence[Mapping[str, object]]) -> None:
        """Write some of a partition; not waiting for long, and not at all where it cannot be done now."""
        ...

    def flush(self) -> None:
        """Wait a moment for what is on its way: nobody writes after this."""
        ...


@dataclass(slots=True)
class _Partition:
    """What is known of a partition, and what of it is kept."""

    counts: PartitionCounts
    kept: bytes | None
    changed: set[str] = field(default_factory=set)
    is_dirty: bool = False
    hour_looked_at: int = -1


class ContractFigures:
    """Counts of the partitions that this process checks. Thread safe.

    Args:
        store: of the counts.
        reports: of what breaks contracts.
        clock: processing time.
        usual_hours: what is expected of hours.
    """

    def __init__(
        self, store: CountsStore, reports: ContractReports, clock: Clock, usual_hours: Sequence[UsualHours] = ()
    ) -> None:
        self._usual_hours = usual_hours
        self._store = store
        self._reports = reports
        self._clock = clock
        self._lock = threading.Lock()
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._next_ns = 0

    def note(self, source: str, events: EventBatch, failures: Sequence[Failures]) -> None:
        """Count a read.

        Raises:
            OnlineStoreDown: where its partition's count goes on from is not known now.
        """
        with self._lock:
            place = (events.topic, events.partition)
            if place not in self._partitions:
                self._partitions[place] = self._known(source, *place)
            one = self._partitions[place]
            one.changed |= one.counts.add(events, failures)
            one.is_dirty = True
        self.tick()

    def tick(self, is_last: bool = False) -> None:  # called by whoever shows figures
        """Keep the figures, if it is time to."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._next_ns and not is_last:
            return
        with self._lock:
            self._next_ns = now_ns + int(KEEP_SECONDS * 1e9)
            for place, one in self._partitions.items():
                if not one.is_dirty:
                    continue
                try:
                    self._keep(place, one)
                except (FeatureStoreError, OSError, KafkaException, BufferError) as error:
                    _logger.warning("figures of the contract of %s[%d] are kept later: %s", *place, error)
        if is_last:
            self._reports.flush()

    def _known(self, source: str, topic: str, partition: int) -> _Partition:
        """What is kept of a partition; nothing where that is of another source, or spoilt."""
        kept = self._store.contract_counts(topic, partition)
        try:
            counts = PartitionCounts(source) if kept is None else decode_counts(kept)
        except CorruptData as error:
            _logger.warning("%s; counted anew", error.message)
            counts = PartitionCounts(source)
        return _Partition(counts if counts.source == source else PartitionCounts(source), kept)

    def _keep(self, place: tuple[str, int], one: _Partition) -> None:
        """Keep one partition's; whoever was quicker reads it now."""
        encoded = encode_counts(one.counts)
        if not self._store.keep_contract_counts(*place, one.kept, encoded):
            self._partitions[place] = self._known(one.counts.source, *place)
            return
        one.kept, one.is_dirty = encoded, False
        reports = _reports_of(place, one.counts, one.changed) + self._unusual(place, one)
        if reports:
            self._reports.write(*place, reports)
        one.changed.clear()

    def _unusual(self, place: tuple[str, int], one: _Partition) -> list[dict[str, object]]:
        """What is said of a partition's newest hour that is over, once, where it is not as usual."""
        hour = one.counts.newest_ms // HOUR_MS - 1
        if hour == one.hour_looked_at:
            return []
        one.hour_looked_at = hour
        topic, partition = place
        unusual = [state for state in usual_states(self._usual_hours, {place: one.counts}) if state.is_broken]
        for state in unusual:
            UNUSUAL.labels(state.source, state.measure).inc()
        return [
            {
                "source": state.source,
                "expectation": state.name,
                "topic": topic,
                "partition": partition,
                "hour_ms": state.hour_ms,
                "value": state.value,
                "usual": state.usual,
            }
            for state in unusual
        ]


def _reports_of(place: tuple[str, int], counts: PartitionCounts, names: set[str]) -> list[dict[str, object]]:
    """What is said of expectations that were not met: of the hour of the newest such record."""
    topic, partition = place
    reports = []
    for name in sorted(names):
        last = counts.last[name]
        hour = counts.hours[last.event_time_ms // HOUR_MS]
        reports.append(
            {
                "source": counts.source,
                "expectation": name,
                "topic": topic,
                "partition": partition,
                "hour_ms": last.event_time_ms // HOUR_MS * HOUR_MS,
                "records": hour.records,
                "failed": hour.failed[name],
                "last_offset": last.offset,
                "last_event_time_ms": last.event_time_ms,
            }
        )
    return reports


class FileReports:
    """Reports as JSON Lines files.

    Args:
        directory: where `<topic>.contracts` directories are made.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, topic: str, partition: int, reports: Sequence[Mapping[str, object]]) -> None:
        """See ContractReports."""
        lines = b"".join(msgspec.json.encode(one) + b"\n" for one in reports)
        append_lines(self._directory / f"{topic}{TOPIC_SUFFIX}" / f"{partition}.jsonl", lines)

    def flush(self) -> None:
        """See ContractReports: it is there already."""


class KafkaReports:
    """Reports as a Kafka topic.

    Args:
        bootstrap_servers: addresses by source topic.
        options: librdkafka settings passed through.
    """

    def __init__(self, bootstrap_servers: Mapping[str, str], options: Mapping[str, str]) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._options = options
        self._producers: dict[str, Producer] = {}

    def write(self, topic: str, partition: int, reports: Sequence[Mapping[str, object]]) -> None:
        """See ContractReports; what the broker has not taken is taken up by librdkafka again."""
        if topic not in self._producers:
            settings = {**self._options, "bootstrap.servers": self._bootstrap_servers[topic]}
            create_topic(topic + TOPIC_SUFFIX, settings, {"cleanup.policy": "compact,delete"})
            self._producers[topic] = Producer({**settings, "linger.ms": 5})
        producer = self._producers[topic]
        for one in reports:
            key = "/".join(str(one[name]) for name in ("source", "expectation", "topic", "partition", "hour_ms"))
            producer.produce(topic + TOPIC_SUFFIX, key=key.encode(), value=msgspec.json.encode(one))
        producer.poll(0)

    def flush(self) -> None:
        """See ContractReports."""
        for topic, producer in self._producers.items():
            if left := producer.flush(FLUSH_SECONDS):
                _logger.warning("%d reports on the contract of %s were not taken by Kafka", left, topic)
