"""The two steps that the event log's flow has of its own: payloads to rows of the log, and rows to commits.

A process has one writer for each log, for all partitions that Bytewax has given it. Rows wait in memory, as Arrow,
until they are old or many enough for a commit of all of them; what waits in a process that dies is read again. One
commit runs beside the flow, and reading waits for it only when twice as many rows have come as one commit takes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import pyarrow as pa
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from prometheus_client import Counter

from dataflows.dead_letters.writer import DeadLetterWriter, write_letters
from dataflows.logs.sources import Goodbye, Heartbeat, Shared, SourceItem
from dataflows.retry import patiently
from dataflows.run_outcome import PartitionEnd
from featurestore.core.spec import SourceSpec
from featurestore.offline.event_log.address import TablePlace
from featurestore.offline.event_log.schema import payload_columns, rows_of
from featurestore.offline.event_log.table import Place
from featurestore.offline.event_log.writer import LogWriter, PartitionRows
from featurestore.wire.changes.decoder import decoder_of
from featurestore.wire.changes.versions import Recall
from featurestore.wire.formats.columns import Schemas
from featurestore.wire.payloads import RawBatch, without_tombstones

ROWS_LOGGED = Counter("featurestore_event_log_rows_written", "Rows committed to the event log.", ["source"])
COMMITS_MADE = Counter("featurestore_event_log_commits", "Commits of the event log.", ["source"])

LogItem: TypeAlias = PartitionRows | PartitionEnd | Heartbeat | Goodbye

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoggedPartition:
    """One partition of one source, and its place in the source's log.

    Attributes:
        source: its source.
        log: where the source's log is.
        schema: of the rows that are written.
        partition: its number.
        start: where to read on; None where nothing was ever read.
        ingest_time_ms: the latest that a row of the partition has.
        recall: how far it was read, where its events replace one another: `start` lies before that.
    """

    source: SourceSpec
    log: TablePlace
    schema: pa.Schema
    partition: int
    start: int | None
    ingest_time_ms: int
    recall: Recall | None = None

    @property
    def key(self) -> str:
        """Its name in the flow."""
        return partition_key(self.source, self.partition)

    @property
    def place(self) -> Place:
        """Topic and partition."""
        return self.source.topic, self.partition


@dataclass(frozen=True, slots=True)
class CommitTiming:
    """When the waiting rows of a log are committed: after so many seconds, or at so many rows."""

    seconds: float
    rows: int


def partition_key(source: SourceSpec, partition: int) -> str:
    """The name of a partition in the flow; names sort as Bytewax deals them out."""
    return f"{source.name}/{source.topic}/{partition:06d}"


class LogRowsStep:
    """RawBatch -> rows of the log, keyed by partition.

    Args:
        source: whose records.
        partitions: of all sources.
        schemas: of payloads.
        dead_letters: where records go that cannot be decoded; durable before their offsets are passed on.
        shared: what all steps of this process share.
        is_table: events are enriched from the records: one without a value says nothing.
    """

    def __init__(
        self,
        source: SourceSpec,
        partitions: Sequence[LoggedPartition],
        schemas: Schemas,
        dead_letters: DeadLetterWriter,
        shared: Shared,
        *,
        is_table: bool = False,
    ) -> None:
        self._is_table = is_table
        self._source = source
        self._keys = sorted(one.key for one in partitions)
        own = [one for one in partitions if one.source == source]
        self._schema = own[0].schema
        self._dead_letters = dead_letters
        self._shared = shared
        recalls = {one.place: one.recall for one in own if one.recall is not None}
        self._decoder = decoder_of(source, payload_columns(source), schemas, recalls=recalls)
        self._ingest_time_ms = {one.partition: one.ingest_time_ms for one in own}

    def __call__(self, item: SourceItem) -> list[tuple[str, LogItem]]:
        """One item for each read; every process is to know that a partition has ended."""
        conductor = self._shared.conductor
        if isinstance(item, PartitionEnd):
            return [(key, item) for key in self._keys]
        if conductor.drops_batches:
            return []
        try:
            return [(partition_key(self._source, item.partition), self._rows(item))]
        except Exception as error:  # noqa: BLE001  # process edge: whatever it is, the flow must end in order
            conductor.fail(error)
            return []

    def _rows(self, raw: RawBatch) -> PartitionRows:
        """Decode a read."""
        now_ms = self._shared.clock.now_ms()
        # The clock may step back, also over a restart; the log as of a moment must still be a prefix of a partition.
        ingested_ms = max(now_ms, self._ingest_time_ms[raw.partition])
        self._ingest_time_ms[raw.partition] = ingested_ms
        if self._is_table:
            raw = without_tombstones(raw)
        decoded = patiently(self._shared, partial(self._decoder.decode, raw, now_ms=now_ms), place=raw.topic)
        if decoded.dead_letters:
            write_letters(self._dead_letters, decoded.dead_letters, self._shared)
        rows = rows_of(decoded.events, self._schema, ingest_time_ms=ingested_ms)
        return PartitionRows(raw.from_offset, raw.next_offset, rows, decoded.events.horizon)


class EventLogSink(FixedPartitionedSink[LogItem, None]):
    """The writers of all partitions.

    Args:
        partitions: what is logged.
        timing: when rows are committed.
        shared: what all steps of this process share.
    """

    def __init__(self, partitions: Sequence[LoggedPartition], timing: CommitTiming, shared: Shared) -> None:
        self._partitions: Mapping[str, LoggedPartition] = {one.key: one for one in partitions}
        self._keys = sorted(self._partitions)
        self._shared = shared
        self._committers = {
            one.source.name: _Committer(one.source.name, LogWriter(one.log, one.schema, shared.clock), timing, shared)
            for one in partitions
        }

    def list_parts(self) -> list[str]:
        """The partitions; every process can write each of them."""
        return self._keys

    def part_fn(self, item_key: str) -> int:
        """A key is the partition's name."""
        return self._keys.index(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _LogPart:
        """One partition; Bytewax builds it when its first item arrives."""
        assert resume_state is None, "positions live in the event log, not in Bytewax's recovery"
        logged = self._partitions[for_part]
        return _LogPart(logged, self._committers[logged.source.name], self._shared)


class _LogPart(StatefulSinkPartition[LogItem, None]):
    """Passes the rows of one partition on to whoever commits them."""

    def __init__(self, logged: LoggedPartition, committer: _Committer, shared: Shared) -> None:
        self._logged = logged
        self._committer = committer
        self._shared = shared
        with shared.conductor.ends_on_errors():
            committer.claim(logged.place)

    def write_batch(self, values: list[LogItem]) -> None:
        """Take the rows, and commit when it is time."""
        conductor = self._shared.conductor
        with conductor.ends_on_errors():
            self._committer.look()
            for item in values:
                if conductor.drops_batches:
                    break
                if isinstance(item, PartitionRows):
                    self._committer.take(self._logged.place, item)
                elif isinstance(item, PartitionEnd):
                    if self._is_own(item):
                        self._committer.start()
                    # The flow ends in order: `close` waits for the commit.
                    conductor.partition_ended(item)
            for item in values:
                if isinstance(item, Goodbye):
                    conductor.end(item.outcome, item.cause)
            if not conductor.drops_batches:
                self._committer.start_if_due()

    def snapshot(self) -> None:
        """Nothing: the position is in the log."""
        return

    def close(self) -> None:
        """Commit what waits, so that the next start reads nothing twice."""
        with self._shared.conductor.ends_on_errors():
            if not self._shared.conductor.drops_batches:
                self._committer.start()
            self._committer.finish()

    def _is_own(self, end: PartitionEnd) -> bool:
        """It is this partition that has ended."""
        return (end.stage, end.partition) == (self._logged.source.name, self._logged.partition)


class _Committer:
    """Collects the rows of this process's partitions of one log, and commits them; used by the flow's thread alone.

    Args:
        source: name of the log's source.
        writer: of the log.
        timing: when rows are committed.
        shared: what all steps of this process share.
    """

    def __init__(self, source: str, writer: LogWriter, timing: CommitTiming, shared: Shared) -> None:
        self._source = source
        self._writer = writer
        self._timing = timing
        self._shared = shared
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._running: Future[None] | None = None
        self._is_known = True
        self._places: list[Place] = []
        self._waiting: dict[Place, list[PartitionRows]] = {}
        self._rows_waiting = 0
        self._waiting_since_ns = 0

    def claim(self, place: Place) -> None:
        """Take a partition over at once: whoever wrote it before is to stop now, not at our first commit."""
        self._places.append(place)
        if self._running is None or self._running.done():
            self.finish()
            self._running = self._thread.submit(self._commit, {})

    def take(self, place: Place, rows: PartitionRows) -> None:
        """Let a read wait for its commit."""
        if not self._waiting:
            self._waiting_since_ns = self._shared.clock.monotonic_ns()
        self._waiting.setdefault(place, []).append(rows)
        self._rows_waiting += rows.rows.num_rows

    def look(self) -> None:
        """Raise the error of a commit that failed."""
        if self._running is not None and self._running.done():
            self.finish()

    def start_if_due(self) -> None:
        """Start a commit, if there is reason to and none runs; wait for the one that runs if too much has come."""
        if not self._waiting:
            return
        waited_ns = self._shared.clock.monotonic_ns() - self._waiting_since_ns
        if self._rows_waiting < self._timing.rows and waited_ns < self._timing.seconds * 1e9:
            return
        if self._running is None or self._rows_waiting >= 2 * self._timing.rows:
            self.start()

    def start(self) -> None:
        """Commit what waits beside the flow, after the commit that runs."""
        if self._waiting:
            self.finish()
            reads, self._waiting, self._rows_waiting = self._waiting, {}, 0
            self._running = self._thread.submit(self._commit, reads)

    def finish(self) -> None:
        """Wait for the commit that runs, if any; raises its error."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def _commit(self, reads: Mapping[Place, Sequence[PartitionRows]]) -> None:
        """Commit, again and again while the file system does not answer; in the commit thread."""
        patiently(self._shared, lambda: self._commit_once(reads), on_outage=self._look_again)

    def _look_again(self) -> None:
        """Whether a commit was made is unknown after an outage: the table is looked at before it is tried again."""
        self._is_known = False

    def _commit_once(self, reads: Mapping[Place, Sequence[PartitionRows]]) -> None:
        """Claim what is new, and commit; the writer skips what is there: retrying never writes a row twice."""
        self._writer.claim(tuple(self._places))
        if not self._is_known:
            self._writer.refresh()
            self._is_known = True
        if reads:
            ROWS_LOGGED.labels(self._source).inc(self._writer.commit(reads))
            COMMITS_MADE.labels(self._source).inc()
        for topic, partition in reads:
            self._shared.progress.logged(topic, partition, self._writer.position((topic, partition)) or 0)
