"""A stream process for the simulator: the steps of `dataflows.log_to_tiles`, without Bytewax and without threads."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from dataflows.dead_letters.writer import FileDeadLetters
from dataflows.log_to_tiles import sink
from dataflows.log_to_tiles.routing import DecodeStep, KeyStep, writer_keys
from dataflows.log_to_tiles.sink import TileSink, WriterItem
from dataflows.logs.sources import EventSource, Heartbeat, PartitionReader, Shared, SourceItem
from dataflows.plan.contracts import Contracts
from dataflows.plan.stream_plan import PlanWatch, Stage, StreamPlan, make_stream_plan
from dataflows.plan.tile_store import OnlineTileStore
from dataflows.progress import StreamProgress
from dataflows.retry import patiently
from dataflows.run_outcome import Conductor, RunOutcome
from featurestore.core.events import KeyedBatch
from featurestore.core.spec import RepoSpec, SourceSpec
from featurestore.errors import EventsLost
from featurestore.online.generation import Generation, GenerationDamaged
from featurestore.online.write.report import WriteReport
from featurestore.testing.simulation.process import PROJECT, StreamParts
from featurestore.testing.simulation.stand_ins.log import LogConnection
from featurestore.wire.formats.columns import Schemas
from featurestore.wire.payloads import DeadLetter

WRITERS = 2
RECORDS_MAX = 4
PATIENCE_SECONDS = 0.3
MERGE_AFTER_MS = 1_500


class _Inline:
    """A thread pool whose work is done by whoever submits it."""

    def __init__(self, **_: Any) -> None:
        return

    def submit(self, work: Callable[..., None], *arguments: Any) -> Future[None]:
        """Do it; an error waits in the future, as a thread's would."""
        done: Future[None] = Future()
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001  # as an executor does
            done.set_exception(error)
        else:
            done.set_result(None)
        return done

    def shutdown(self) -> None:
        """Nothing runs."""


@contextmanager
def without_threads() -> Iterator[None]:
    """Commits are made at once, by whoever wants them."""
    with patch.object(sink, "ThreadPoolExecutor", _Inline):
        yield


class _CountedStore(OnlineTileStore):
    """Counts what happens to generations."""

    def __init__(self, parts: StreamParts) -> None:
        super().__init__(parts.store, PROJECT, parts.clock, merge_after_ms=MERGE_AFTER_MS)
        self._counts = parts.counts

    def replace_damaged(self, damage: GenerationDamaged) -> None:
        """See TileStore."""
        self._counts["generation damaged"] += 1
        super().replace_damaged(damage)

    def promote(self, generation: Generation) -> None:
        """See TileStore."""
        super().promote(generation)
        self._counts["generation promoted"] += 1
        if generation.view.members:
            self._counts["storage group promoted"] += 1
            self._counts["storage group merged"] += generation.number > 1

    def park(self, generation: Generation) -> None:
        """See TileStore."""
        super().park(generation)
        self._counts["generation parked"] += 1


class _CountedProgress(StreamProgress):
    """Counts what is done, and shows nothing."""

    def __init__(self, parts: StreamParts) -> None:
        super().__init__(parts.clock, interval_seconds=1e9, terminal=None)
        self._counts = parts.counts

    def read(self, topic: str, partition: int, records: int, end_offset: int) -> None:
        """See StreamProgress."""

    def opened(self, topic: str, partition: int, start: int, end_offset: int) -> None:
        """See StreamProgress."""

    def dead_lettered(self, letters: Sequence[DeadLetter]) -> None:
        """See StreamProgress."""
        for letter in letters:
            self._counts[f"dead letter {letter.reason}"] += 1

    def committed(
        self, generation: Generation, batches: Sequence[KeyedBatch], report: WriteReport, duration_ns: int
    ) -> None:
        """See StreamProgress."""
        self._counts["event applied"] += report.events_applied
        self._counts["duplicate dropped"] += report.duplicates_dropped
        self._counts["replay skipped"] += report.replayed_skipped
        self._counts["entity compacted"] += report.entities_compacted

    def set_aside(self, generation: Generation, damaged: Sequence[str]) -> None:
        """See StreamProgress."""
        self._counts["entity set aside"] += len(damaged)


class _Letters:
    """Dead letters as files; whoever must know is told of those that are durable."""

    def __init__(self, parts: StreamParts) -> None:
        self._files = FileDeadLetters(parts.letters)
        self._on_letters = parts.on_letters

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """See DeadLetterWriter."""
        self._files.write(letters)
        self._on_letters(letters)


class _StageLog:
    """The log as one stage sees it: tells where its generations begin."""

    def __init__(self, parts: StreamParts, connection: LogConnection, stage: Stage) -> None:
        self._log = parts.log
        self._connection = connection
        self._stage = stage
        self._on_begin = parts.on_begin

    def schemas(self, source: SourceSpec) -> Schemas:
        """See SourceLog."""
        return self._connection.schemas(source)

    def partitions(self, source: SourceSpec) -> Sequence[int]:
        """See SourceLog."""
        return self._connection.partitions(source)

    def ends(self, source: SourceSpec, partitions: Collection[int]) -> Mapping[int, int]:
        """See SourceLog."""
        return self._connection.ends(source, partitions)

    def reaches_back(self, source: SourceSpec, partitions: Collection[int], since_ms: int) -> bool:
        """See SourceLog."""
        return self._connection.reaches_back(source, partitions, since_ms)

    def lost(self, source: SourceSpec, offsets: Mapping[int, int]) -> Mapping[int, EventsLost]:
        """See SourceLog."""
        return self._connection.lost(source, offsets)

    def incarnations(self, source: SourceSpec, partitions: Collection[int]) -> Mapping[int, str]:
        """See SourceLog."""
        return self._connection.incarnations(source, partitions)

    def open(self, source: SourceSpec, partition: int, start: int | None, needed: int | None = None) -> PartitionReader:
        """See SourceLog."""
        reader = self._connection.open(source, partition, start, needed)
        # Wherever the plan begins: a lane that has read nothing of a partition must get all that there is.
        oldest = self._log.at(partition).oldest
        for generation in self._stage.generations:
            self._on_begin(generation, partition, oldest)
        return reader


class _RunningStage:
    """The steps of one stage."""

    def __init__(
        self,
        parts: StreamParts,
        connection: LogConnection,
        shared: Shared,
        store: OnlineTileStore,
        plan: StreamPlan,
        at: int,
    ) -> None:
        stage, other = plan.stages[at], plan.stages[1 - at]
        letters = _Letters(parts)
        source = EventSource(
            stage.name,
            _StageLog(parts, connection, stage),
            stage.starts,
            shared,
            records_max=RECORDS_MAX,
        )
        elsewhere = other.topics if other.name == "live" else frozenset()
        contracts = Contracts(RepoSpec(PROJECT, (), (), ()))  # nobody expects anything
        self._decode = DecodeStep(
            stage, connection, letters, shared, topics_lettered_elsewhere=elsewhere, contracts=contracts
        )
        self._key = KeyStep(letters, shared, lane_count=plan.lane_count, writer_count=WRITERS)
        tiles = TileSink(stage, store, shared, lane_count=plan.lane_count, writer_count=WRITERS)
        self.partitions = [source.build_part("read", name, None) for name in source.list_parts()]
        self.writers = {key: tiles.build_part("commit", key, None) for key in writer_keys(WRITERS)}
        self.inbox: dict[str, list[WriterItem]] = {key: [] for key in self.writers}

    def take(self, items: Sequence[SourceItem]) -> None:
        """Decode and key what was read."""
        for item in items:
            for decoded in self._decode(item):
                for key, routed in self._key(decoded):
                    self.inbox[key].append(routed)

    def commit(self) -> None:
        """Let every writer commit what waits for it."""
        for key, writer in self.writers.items():
            items, self.inbox[key] = self.inbox[key] or [Heartbeat()], []
            writer.write_batch(items)


class DrivenStream:
    """See `featurestore.testing.simulation.process.StreamProcess`.

    Args:
        parts: what it is given.
    """

    def __init__(self, parts: StreamParts) -> None:
        self._counts: Counter[str] = parts.counts
        self._conductor = Conductor()
        self._stages: list[_RunningStage] = []
        shared = Shared(self._conductor, _CountedProgress(parts), parts.clock, False, PATIENCE_SECONDS)
        store, connection = _CountedStore(parts), LogConnection(parts.log)
        try:
            plan = patiently(shared, lambda: make_stream_plan(store, connection, parts.views))
        except Exception as error:  # noqa: BLE001  # process edge: whatever it is, it is the simulator's to judge
            self._conductor.fail(error)
            return
        self._watch = PlanWatch(plan, store, connection, self._conductor, parts.clock, may_replan=True)
        self._stages = [_RunningStage(parts, connection, shared, store, plan, at) for at in range(2)]

    @property
    def is_running(self) -> bool:
        """Neither failed nor to be planned again."""
        return not self._conductor.is_ending

    @property
    def error(self) -> BaseException | None:
        """See StreamProcess."""
        return self._conductor.error

    def read(self, draw: random.Random) -> None:
        """See StreamProcess."""
        chosen = [(stage, partition) for stage in self._stages for partition in stage.partitions]
        if chosen:
            stage, partition = draw.choice(chosen)
            self._read(stage, partition)

    def read_all(self) -> int:
        """See StreamProcess."""
        count = 0
        for stage in self._stages:
            for partition in stage.partitions:
                while self.is_running and (records := self._read(stage, partition)):
                    count += records
        return count

    def commit(self) -> None:
        """See StreamProcess."""
        for stage in self._stages:
            stage.commit()
        self._note_outcome()

    def watch(self) -> None:
        """See StreamProcess."""
        with self._conductor.ends_on_errors():
            self._watch.tick()

    def stop(self) -> None:
        """See StreamProcess."""
        self._conductor.end(RunOutcome.STOPPED, "stopped")
        self.commit()
        for stage in self._stages:
            for writer in stage.writers.values():
                writer.close()

    def _read(self, stage: _RunningStage, partition: Any) -> int:
        """One read of a partition; how many records came."""
        try:
            items = partition.next_batch()
        except StopIteration:
            return 0
        stage.take(items)
        self._note_outcome()
        return sum(len(item.payloads) for item in items)

    def _note_outcome(self) -> None:
        """Count why a run is to end."""
        if self._conductor.outcome is RunOutcome.REBUILD:
            for cause in ("went back in time", "jumped to offset", "is damaged", "caught up", "new partitions"):
                if cause in self._conductor.cause:
                    self._counts[f"planned again: {cause}"] += 1
