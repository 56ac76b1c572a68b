"""Bytewax sources: the partitions of an event log, and the control items that keep processes together.

A `SourceLog` is where events come from (Kafka in kafka_log.py, files in file_log.py). It knows no Bytewax; this file
knows nothing else. Bytewax's own recovery is not used: where a partition begins is read from the online store, which
committed the position together with the tiles.

Bytewax gives the sorted partition names to the workers of a cluster in turn, so a topic of four partitions keeps two
processes equally busy. The set of partitions is fixed while a flow runs; partitions that are added to a topic later
are noticed by the supervisor, which plans again, or picked up at the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeAlias

from bytewax.inputs import DynamicSource, FixedPartitionedSource, StatefulSourcePartition, StatelessSourcePartition

from dataflows.logs.pace import Pace
from dataflows.progress import StreamProgress
from dataflows.run_outcome import Conductor, PartitionEnd, RunOutcome
from featurestore.clock import NS_PER_MS, Clock
from featurestore.core.spec import SourceSpec
from featurestore.errors import EventsLost, FeatureStoreError, InvalidRequest, SourceUnavailable
from featurestore.wire.formats.columns import Schemas
from featurestore.wire.payloads import RawBatch

LIVE = "live"
"""Name of the stage whose events readers wait for."""

IDLE_POLL_MS = 5
"""A partition that has been read empty is looked at again after this long: the source's share of event-to-servable
time. What is read at once instead is a handful of records, and costs nearly as much as what comes in that time."""

RETRY_POLL_MS = 1_000
CONTROL_POLL_MS = 20
HEARTBEAT_MS = 1_000

SourceItem: TypeAlias = RawBatch | PartitionEnd


class PartitionReader(Protocol):
    """Reads one partition from a given offset on."""

    def read(self, records_max: int) -> RawBatch | None:
        """The next records, None when there are none yet. Never waits.

        Raises:
            EventsLost: the log does not hold the wanted offsets any more.
            SourceUnavailable: the log does not answer; reading may be tried again.
        """
        ...

    def end_offset(self) -> int:
        """Best known offset behind the newest record; may be an estimate, costs nothing."""
        ...

    @property
    def has_reached_end(self) -> bool:
        """Everything that was there when the partition was opened has been read."""
        ...

    def publish(self, next_offset: int) -> None:
        """Tell lag tools how far this partition is committed; may do nothing."""
        ...

    def close(self) -> None:
        """Release connections and files."""
        ...


class SourceLog(Protocol):
    """Partitioned, append-only records; one partition's records have rising offsets."""

    def schemas(self, source: SourceSpec) -> Schemas:
        """The schemas of a source's payloads, by their ids.

        Raises:
            InvalidRequest: the source's payloads begin with the id of a schema, and this log has none.
        """
        ...

    def partitions(self, source: SourceSpec) -> Sequence[int]:
        """Partition numbers of the source's topic, ascending.

        Raises:
            EventsLost: the topic is not the one any more that was there when it was first asked about.
            SourceUnavailable: the log does not answer.
        """
        ...

    def ends(self, source: SourceSpec, partitions: Collection[int]) -> Mapping[int, int]:
        """Offset behind the newest record of some partitions of the source's topic, 0 for an empty one; may take long.

        Raises:
            SourceUnavailable: the log does not answer.
        """
        ...

    def reaches_back(self, source: SourceSpec, partitions: Collection[int], since_ms: int) -> bool:
        """Whether some partitions surely still hold every record that they got since a time; may take long.

        Args:
            source: whose topic.
            partitions: of it.
            since_ms: time of writing, in milliseconds since 1970.

        Raises:
            SourceUnavailable: the log does not answer.
        """
        ...

    def lost(self, source: SourceSpec, offsets: Mapping[int, int]) -> Mapping[int, EventsLost]:
        """Why some partitions cannot be read from an offset on: its records are gone, or never were; may take long.

        Args:
            source: whose topic.
            offsets: of some of its partitions.

        Raises:
            SourceUnavailable: the log does not answer.
        """
        ...

    def incarnations(self, source: SourceSpec, partitions: Collection[int]) -> Mapping[int, str]:
        """What tells some partitions of the source's topic from those of a topic that is made anew under its name.

        "" where the log cannot tell, or not yet.

        Raises:
            SourceUnavailable: the log does not answer.
        """
        ...

    def open(self, source: SourceSpec, partition: int, start: int | None, needed: int | None = None) -> PartitionReader:
        """A reader from offset `start` on; None begins with the oldest record there is.

        Args:
            source: whose topic.
            partition: of it.
            start: first offset.
            needed: of what begins with the oldest record, the offset that somebody waits for.

        Raises:
            EventsLost: the log does not hold `start`, or else `needed`, any more, or never did.
            SourceUnavailable: it does not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class PartitionStart:
    """A partition that a flow reads, and where it begins.

    Attributes:
        source: of one topic.
        partition: which.
        start: first offset; None is the oldest record there is.
        needed: the smallest offset that somebody waits for; None when all begin with what there is.
    """

    source: SourceSpec
    partition: int
    start: int | None
    needed: int | None = None


OnLost: TypeAlias = Callable[[PartitionStart, EventsLost], None]
"""Told that events of a partition are gone. May raise another error, which then ends the flow; otherwise it is planned
again."""


class EventSource(FixedPartitionedSource[SourceItem, None]):
    """The partitions that one stage of a flow reads.

    Args:
        stage: name of the stage, which its PartitionEnds carry.
        log: where the events are.
        starts: the partitions and their first offsets.
        shared: what all steps of this process share.
        records_max: records in one read.
        on_lost: what to do about events that the log does not have any more; by default the flow is planned again.
        pace: keeps what is behind from holding up what is live; the stage "live" tells it, others keep to it.
    """

    def __init__(
        self,
        stage: str,
        log: SourceLog,
        starts: Sequence[PartitionStart],
        shared: Shared,
        *,
        records_max: int,
        on_lost: OnLost = lambda start, error: None,
        pace: Pace | None = None,
    ) -> None:
        self._pace = pace
        self._stage = stage
        self._log = log
        self._starts: Mapping[str, PartitionStart] = {
            f"{start.source.topic}/{start.partition:06d}": start for start in starts
        }
        self._shared = shared
        self._records_max = records_max
        self._on_lost = on_lost

    def list_parts(self) -> list[str]:
        """Names of all partitions; every process can reach them all."""
        return sorted(self._starts)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _EventPartition:
        """One partition; it connects at its first read, where errors are handled."""
        assert resume_state is None, "positions live in the online store, not in Bytewax's recovery"
        start = self._starts[for_part]
        return _EventPartition(
            self._stage, self._log, start, self._shared, self._records_max, self._on_lost, self._pace
        )


@dataclass(frozen=True, slots=True)
class Shared:
    """What the steps of one process share.

    Attributes:
        conductor: when to end.
        progress: what has been done.
        clock: processing time.
        until_end: partitions end at the end they had when they were opened.
        patience_seconds: how long something unreachable is retried.
    """

    conductor: Conductor
    progress: StreamProgress
    clock: Clock
    until_end: bool
    patience_seconds: float

    def awake_in(self, delay_ms: int) -> datetime:
        """The moment `delay_ms` from now, as Bytewax wants it."""
        return datetime.fromtimestamp(self.clock.now_ms() / 1_000, tz=UTC) + timedelta(milliseconds=delay_ms)


class _EventPartition(StatefulSourcePartition[SourceItem, None]):
    """One partition as Bytewax reads it."""

    def __init__(
        self,
        stage: str,
        log: SourceLog,
        start: PartitionStart,
        shared: Shared,
        records_max: int,
        on_lost: OnLost,
        pace: Pace | None,
    ) -> None:
        self._pace = pace
        self._stage = stage
        self._log = log
        self._start = start
        self._shared = shared
        self._records_max = records_max
        self._on_lost = on_lost
        self._reader: PartitionReader | None = None
        self._has_ended = False
        self._unavailable_since_ns: int | None = None
        self._awake_at: datetime | None = None

    def next_batch(self) -> list[SourceItem]:
        """The next records as one item; StopIteration when the flow ends."""
        if self._has_ended or self._shared.conductor.is_ending:
            raise StopIteration
        self._awake_at = None
        try:
            return self._read()
        except SourceUnavailable as error:
            self._awake_at = self._shared.awake_in(RETRY_POLL_MS)
            start = self._start
            self._shared.progress.not_read(start.source.topic, start.partition, start.start or 0)
            self._give_up_in_time(error)
        except EventsLost as error:
            self._give_up_lost(error)
        except Exception as error:  # noqa: BLE001  # process edge: whatever it is, the flow must end in order
            self._shared.conductor.fail(error)
        return []

    def next_awake(self) -> datetime | None:
        """At once after a read that left something behind."""
        return self._awake_at

    def snapshot(self) -> None:
        """Nothing: the position is committed with the tiles."""
        return

    def close(self) -> None:
        """Release the reader."""
        if self._reader is not None:
            self._reader.close()

    def _read(self) -> list[SourceItem]:
        """Items that are there now."""
        source, partition = self._start.source, self._start.partition
        if self._reader is None:
            self._reader = self._log.open(source, partition, self._start.start, self._start.needed)
            self._shared.progress.opened(source.topic, partition, self._start.start or 0, self._reader.end_offset())
        if self._pace is not None and self._stage != LIVE and (rest_ms := self._pace.rest_ms()):
            self._awake_at = self._shared.awake_in(rest_ms)
            return []
        batch = self._reader.read(self._records_max)
        self._unavailable_since_ns = None
        progress = self._shared.progress
        # Also where nothing could be read: records may be there that are held back.
        progress.read(source.topic, partition, len(batch.payloads) if batch else 0, self._reader.end_offset())
        if batch is not None:
            if batch.written_ms is not None:
                progress.passed("read", max(0, self._shared.clock.now_ms() - batch.written_ms) * NS_PER_MS)
            if self._pace is not None:
                (self._pace.live_was_read if self._stage == LIVE else self._pace.late_was_read)()
            self._reader.publish(progress.committed_offset(source.topic, partition))
            if len(batch.payloads) < self._records_max:
                self._awake_at = self._shared.awake_in(IDLE_POLL_MS)
            return [batch]
        if self._shared.until_end and self._reader.has_reached_end:
            self._has_ended = True
            return [PartitionEnd(self._stage, source.topic, partition)]
        self._awake_at = self._shared.awake_in(IDLE_POLL_MS)
        return []

    def _give_up_lost(self, error: EventsLost) -> None:
        """Let a new plan find out who can go on without what is lost, or fail."""
        conductor = self._shared.conductor
        try:
            self._on_lost(self._start, error)
        except FeatureStoreError as reason:
            conductor.fail(reason)
            return
        conductor.end(RunOutcome.REBUILD, error.message)
        conductor.raise_unless_supervised(error)

    def _give_up_in_time(self, error: SourceUnavailable) -> None:
        """Fail once the source has been unreachable for longer than the patience allows."""
        now_ns = self._shared.clock.monotonic_ns()
        if self._unavailable_since_ns is None:
            self._unavailable_since_ns = now_ns
        if now_ns - self._unavailable_since_ns > self._shared.patience_seconds * 1e9:
            self._shared.conductor.fail(error)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Regular item of every writer.

    The first makes it take its lanes now, not when the first event happens to arrive; the others let it commit
    offsets that it still owes when no more events come.
    """


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Another process ends its run, and so must this one."""

    outcome: RunOutcome
    cause: str


class Watch(Protocol):
    """Something to look at regularly while the flow runs."""

    def tick(self) -> None:
        """Called every few milliseconds; decides itself whether something is due."""
        ...


class ControlSource(DynamicSource[tuple[str, Heartbeat | Goodbye]]):
    """Keeps the processes of a cluster together: a heartbeat, and a goodbye when this process must end."""

    def __init__(self, writer_keys: Sequence[str], shared: Shared, watches: Sequence[Watch]) -> None:
        self._writer_keys = writer_keys
        self._shared = shared
        self._watches = watches

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _ControlPart:
        """One for each worker.

        Raises:
            InvalidRequest: some worker would have no writer, and would not learn that the run ends.
        """
        if worker_count > len(self._writer_keys):
            raise InvalidRequest(
                f"{len(self._writer_keys)} writers cannot be shared by {worker_count} workers",
                hint="set --writers (FEATURESTORE_WRITERS) to the number of workers or a multiple of it",
            )
        self._shared.conductor.has_begun.set()
        is_first = worker_index == 0
        return _ControlPart(self._writer_keys, self._shared, self._watches if is_first else (), beats=is_first)


class _ControlPart(StatelessSourcePartition[tuple[str, Heartbeat | Goodbye]]):
    """The control items of one worker."""

    def __init__(self, writer_keys: Sequence[str], shared: Shared, watches: Sequence[Watch], *, beats: bool) -> None:
        self._writer_keys = writer_keys
        self._shared = shared
        self._watches = watches
        self._beats = beats
        self._next_beat_ns = 0
        self._has_ended = False

    def next_batch(self) -> list[tuple[str, Heartbeat | Goodbye]]:
        """Mostly nothing, a heartbeat a second, goodbye at last."""
        if self._has_ended:
            raise StopIteration
        conductor = self._shared.conductor
        try:
            self._shared.progress.tick()
            for watch in self._watches:
                watch.tick()
        except Exception as error:  # noqa: BLE001  # process edge: whatever it is, the flow must end in order
            conductor.fail(error)
        if conductor.is_ending:
            self._has_ended = True
            return [(key, Goodbye(conductor.outcome, conductor.cause)) for key in self._writer_keys]
        now_ns = self._shared.clock.monotonic_ns()
        if self._beats and now_ns >= self._next_beat_ns:
            self._next_beat_ns = now_ns + HEARTBEAT_MS * 1_000_000
            return [(key, Heartbeat()) for key in self._writer_keys]
        return []

    def next_awake(self) -> datetime | None:
        """Often enough that nobody waits for it."""
        return None if self._has_ended else self._shared.awake_in(CONTROL_POLL_MS)
