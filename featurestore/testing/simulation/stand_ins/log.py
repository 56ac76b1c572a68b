"""An event log in memory, as Kafka keeps one: partitions, offsets with gaps, an oldest record, a topic's identity.

It remembers what a test must know and no reader may ask: every record that was ever appended, also of topics that were
deleted. A process reads it by a LogConnection, which has the methods of `dataflows.logs.sources.SourceLog`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from featurestore.core.spec import SourceSpec
from featurestore.errors import EventsLost
from featurestore.testing.oracle.events import NaiveEvent
from featurestore.wire.formats.columns import NoSchemas, Schemas
from featurestore.wire.payloads import RawBatch


class Record(NamedTuple):
    """What a producer sent; without an event it is one that nobody can use."""

    offset: int
    payload: bytes
    event: NaiveEvent | None


@dataclass(slots=True)
class Partition:
    """Records by rising offsets.

    Attributes:
        records: all that were ever appended.
        end: offset behind the last one, aborted ones included.
        oldest: offset of the first that is still there to be read.
    """

    records: list[Record] = field(default_factory=list)
    end: int = 0
    oldest: int = 0


class Place(NamedTuple):
    """A partition of one incarnation of the topic."""

    incarnation: int
    number: int


class SimulatedLog:
    """The partitions of one topic.

    Args:
        topic: its name.
        partition_count: partitions that it begins with.

    Attributes:
        incarnation: how often the topic was made anew.
        everything: the partitions of all incarnations.
    """

    def __init__(self, topic: str, partition_count: int) -> None:
        self._topic = topic
        self.incarnation = 0
        self.everything: dict[Place, Partition] = {}
        self._count = 0
        self.make_anew(partition_count)

    @property
    def count(self) -> int:
        """Partitions that the topic has now."""
        return self._count

    def at(self, number: int) -> Partition:
        """A partition of the topic as it is now."""
        return self.everything[Place(self.incarnation, number)]

    def append(self, number: int, payload: bytes, event: NaiveEvent | None) -> None:
        """One record more."""
        partition = self.at(number)
        partition.records.append(Record(partition.end, payload, event))
        partition.end += 1

    def abort(self, number: int, offsets: int) -> None:
        """Offsets that no reader will ever see: of aborted transactions, or compacted away before anybody came."""
        self.at(number).end += offsets

    def truncate(self, number: int, offset: int) -> None:
        """The retention of the topic takes the records before an offset."""
        partition = self.at(number)
        partition.oldest = min(max(partition.oldest, offset), partition.end)

    def add_partition(self) -> None:
        """One more."""
        self.everything[Place(self.incarnation, self._count)] = Partition()
        self._count += 1

    def make_anew(self, partition_count: int) -> None:
        """Delete the topic and make another of its name."""
        self.incarnation += 1
        self._count = 0
        for _ in range(partition_count):
            self.add_partition()


class LogConnection:
    """The topic as one process sees it: a `dataflows.logs.sources.SourceLog`.

    Args:
        log: where the records are.
    """

    def __init__(self, log: SimulatedLog) -> None:
        self._log = log
        self._incarnation: int | None = None

    def partitions(self, source: SourceSpec) -> Sequence[int]:
        """See SourceLog."""
        self._require_same(source)
        return range(self._log.count)

    def schemas(self, source: SourceSpec) -> Schemas:
        """See SourceLog; its payloads are JSON."""
        return NoSchemas()

    def ends(self, source: SourceSpec, partitions: Collection[int]) -> Mapping[int, int]:
        """See SourceLog."""
        self._require_same(source)
        return {number: self._log.at(number).end for number in partitions}

    def reaches_back(self, source: SourceSpec, partitions: Collection[int], since_ms: int) -> bool:
        """See SourceLog; records have no time of writing here, so whatever was removed may be missed."""
        self._require_same(source)
        return all(self._log.at(number).oldest == 0 for number in partitions)

    def lost(self, source: SourceSpec, offsets: Mapping[int, int]) -> Mapping[int, EventsLost]:
        """See SourceLog."""
        self._require_same(source)
        return {
            number: error
            for number, offset in offsets.items()
            if (error := _why_lost(f"{source.topic}[{number}]", self._log.at(number), offset)) is not None
        }

    def incarnations(self, source: SourceSpec, partitions: Collection[int]) -> Mapping[int, str]:
        """See SourceLog."""
        self._require_same(source)
        return dict.fromkeys(partitions, f"topic-{self._log.incarnation}")

    def open(self, source: SourceSpec, partition: int, start: int | None, needed: int | None = None) -> SimulatedReader:
        """See SourceLog."""
        self._require_same(source)
        return SimulatedReader(self._log, source.topic, partition, start, needed)

    def _require_same(self, source: SourceSpec) -> None:
        """As Kafka's topic id tells.

        Raises:
            EventsLost: the topic is not the one that was first asked about.
        """
        self._incarnation = self._incarnation or self._log.incarnation
        if self._incarnation != self._log.incarnation:
            raise EventsLost(f'topic "{source.topic}" was made anew while it was read')


class SimulatedReader:
    """Reads one partition, as `dataflows.logs.kafka_log.KafkaPartition` does.

    Args:
        log: where it is.
        topic, partition: which.
        start: first offset; None begins with the oldest record there is.
        needed: what must be there in that case.

    Raises:
        EventsLost: the partition does not hold `start`, or else `needed`, any more, or never did.
    """

    def __init__(self, log: SimulatedLog, topic: str, partition: int, start: int | None, needed: int | None) -> None:
        self._log = log
        self._topic = topic
        self._place = Place(log.incarnation, partition)
        found = self._partition
        wanted = needed if start is None else start
        if wanted is not None and (error := _why_lost(f"{topic}[{partition}]", found, wanted)) is not None:
            raise error
        self._next_offset = found.oldest if start is None else start
        self._end_at_opening = found.end

    def read(self, records_max: int) -> RawBatch | None:
        """See PartitionReader."""
        partition, begin = self._partition, self._next_offset
        if self._place.incarnation != self._log.incarnation:
            raise EventsLost(f'topic "{self._topic}" was made anew while it was read')
        if begin < partition.oldest:
            raise EventsLost(f"{self._topic}[{self._place.number}] has no offset {begin} any more")
        records = [record for record in partition.records if record.offset >= begin][:records_max]
        # At the end of a partition Kafka says where that is: behind offsets that are no records.
        reached = records[-1].offset + 1 if records else partition.end
        if reached == begin:
            return None
        self._next_offset = reached
        offsets = np.array([record.offset for record in records], dtype=np.int64)
        payloads = [record.payload for record in records]
        return RawBatch(self._topic, self._place.number, begin, self._next_offset, offsets, payloads)

    def end_offset(self) -> int:
        """See PartitionReader."""
        return self._partition.end

    @property
    def has_reached_end(self) -> bool:
        """See PartitionReader."""
        return self._next_offset >= self._end_at_opening

    def publish(self, next_offset: int) -> None:
        """See PartitionReader: nobody looks."""

    def close(self) -> None:
        """See PartitionReader."""

    @property
    def _partition(self) -> Partition:
        """What it reads."""
        return self._log.everything[self._place]


def _why_lost(name: str, partition: Partition, offset: int) -> EventsLost | None:
    """Why a partition cannot be read from an offset on."""
    if partition.oldest <= offset <= partition.end:
        return None
    return EventsLost(f"{name} has offsets {partition.oldest} to {partition.end}, and not {offset}")
