"""The last step of the flow: writers that fold keyed batches and commit them to the online store.

Writer w of W owns the lanes with lane % W == w of every view, so one call folds all lanes of a view in one go. Bytewax
deals the writers out to the workers of a cluster in turn.

One commit runs beside the flow: while the store applies it, the next batch is read, decoded and keyed, and then waits.
So what arrives while a commit runs is committed together, all partitions and views in one round trip: under load
batches grow by themselves, at rest an event is committed alone, at once. Reading further ahead would only make more
and smaller batches, and take the processor from the commit that all wait for.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeAlias

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from dataflows.log_to_tiles.routing import WriterBatch, writer_keys
from dataflows.logs.sources import Goodbye, Heartbeat, Shared
from dataflows.plan.stream_plan import Stage, find_generation
from dataflows.plan.tile_store import TileStore
from dataflows.retry import patiently
from dataflows.run_outcome import PartitionEnd
from featurestore.core.events import KeyedBatch
from featurestore.errors import StoreFull, StoreRolledBack
from featurestore.online.generation import Generation, GenerationDamaged
from featurestore.online.write.lanes import LaneErased
from featurestore.online.write.writer import PreparedWrite, ViewWriter, write_together

WriterItem: TypeAlias = WriterBatch | PartitionEnd | Heartbeat | Goodbye

_logger = logging.getLogger(__name__)


class TileSink(FixedPartitionedSink[WriterItem, None]):
    """The writers of one stage.

    Args:
        stage: the generations it writes.
        store: the online store.
        lane_count: lanes of the store.
        writer_count: how many writers share the lanes.
        shared: what all steps of this process share.
    """

    def __init__(self, stage: Stage, store: TileStore, shared: Shared, *, lane_count: int, writer_count: int) -> None:
        self._stage = stage
        self._store = store
        self._shared = shared
        self._lane_count = lane_count
        self._writer_count = writer_count

    def list_parts(self) -> list[str]:
        """The writers; every process can be any of them."""
        return writer_keys(self._writer_count)

    def part_fn(self, item_key: str) -> int:
        """A key is the writer's number."""
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _WriterPart:
        """One writer; Bytewax builds it when its first item arrives."""
        assert resume_state is None, "positions live in the online store, not in Bytewax's recovery"
        lanes = range(int(for_part), self._lane_count, self._writer_count)
        return _WriterPart(self._stage, self._store, self._shared, lanes)


class _WriterPart(StatefulSinkPartition[WriterItem, None]):
    """One writer's lanes of all views of a stage."""

    def __init__(self, stage: Stage, store: TileStore, shared: Shared, lanes: Sequence[int]) -> None:
        self._stage = stage
        self._shared = shared
        generations = stage.generations if lanes else ()
        self._lanes = _Lanes(
            {each: store.writer(each, lanes, stage.positions_of(each)) for each in generations}, store, shared
        )
        # Never two, so the order of a partition's batches is kept. A thread for each view would only fight for the
        # interpreter's lock: small commits took twice the CPU.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._running: Future[None] | None = None

    def write_batch(self, values: list[WriterItem]) -> None:
        """Commit what has arrived, and note what else it says."""
        conductor = self._shared.conductor
        with self._shared.conductor.ends_on_errors():
            came_ns = self._shared.clock.monotonic_ns()
            self._finish_commit()
            if not conductor.drops_batches:
                if items := [item for item in values if isinstance(item, WriterBatch)]:
                    self._shared.progress.passed("wait", self._shared.clock.monotonic_ns() - came_ns)
                self._running = self._thread.submit(self._commit, items)
            for item in values:
                if isinstance(item, PartitionEnd) and not conductor.drops_batches:
                    self._finish_commit()
                    conductor.partition_ended(item)
                elif isinstance(item, Goodbye):
                    conductor.end(item.outcome, item.cause)

    def snapshot(self) -> None:
        """Nothing: the position is committed with the tiles."""
        return

    def close(self) -> None:
        """Finish the last commit and settle what is owed, so that the next start reads nothing twice."""
        with self._shared.conductor.ends_on_errors():
            self._finish_commit()
            self._thread.shutdown()
            if not self._shared.conductor.drops_batches:
                self._lanes.close()

    def _commit(self, items: Sequence[WriterBatch]) -> None:
        """One commit for each view, of all its batches; without batches a sign of life. In the commit thread."""
        batches = {generation.view.name: list[KeyedBatch]() for generation in self._lanes.generations}
        for item in items:
            for batch in item.batches:
                if batch.view not in batches:
                    find_generation(self._stage, batch.view)
                    continue  # a writer without lanes: there are more writers than lanes
                batches[batch.view].append(batch)
        self._lanes.commit(batches)

    def _finish_commit(self) -> None:
        """Wait for the commit that runs, if any; raises its error."""
        running, self._running = self._running, None
        if running is not None:
            running.result()


class _Lanes:
    """The lanes of every generation that one writer owns."""

    def __init__(self, writers: Mapping[Generation, ViewWriter], store: TileStore, shared: Shared) -> None:
        self._writers = writers
        self._store = store
        self._shared = shared
        self._is_open = False
        self._is_full = False
        self._goes_on = False
        self._prepared: list[PreparedWrite] = []
        self._preparing_ns = 0
        self._damaged: dict[Generation, tuple[str, ...]] = {}

    @property
    def generations(self) -> Collection[Generation]:
        """Whose lanes they are."""
        return self._writers.keys()

    def commit(self, batches: Mapping[str, Sequence[KeyedBatch]]) -> None:
        """Commit the batches of each view, again and again while the store is down.

        Raises:
            OnlineStoreDown: it was down for longer than the patience allows; nothing is lost.
            WriterFenced, StoreRolledBack: see ViewWriter.
            GenerationDamaged: another generation fills in its place, once the flow is planned again.
        """
        if not self._writers:
            return
        try:
            while not self._commits(batches):
                pass
        except GenerationDamaged as error:
            damage = error
            patiently(self._shared, lambda: self._store.replace_damaged(damage))
            raise

    def _commits(self, batches: Mapping[str, Sequence[KeyedBatch]]) -> bool:
        """Commit; False where that is to be done again: the store is still full, or something was erased meanwhile."""
        try:
            patiently(self._shared, lambda: self._commit_once(batches), on_outage=self._open_again)
        except LaneErased as erased:
            _logger.info("%s", erased)
            self._is_open, self._goes_on = False, True
            return False
        except StoreFull:
            if self._shared.conductor.is_ending:
                raise
            return False
        return True

    def _preparing(self, batches: Mapping[str, Sequence[KeyedBatch]]) -> Iterator[PreparedWrite]:
        """What each writer is to commit, prepared when it is asked for, and kept until it is committed."""
        clock = self._shared.clock
        for generation, writer in self._writers.items():
            began_ns, worked_ns = clock.monotonic_ns(), clock.worked_ns()
            self._prepared.append(writer.prepare(batches[generation.view.name]))
            self._shared.progress.worked(generation.view.name, "prepare", clock.worked_ns() - worked_ns)
            self._preparing_ns += clock.monotonic_ns() - began_ns
            yield self._prepared[-1]

    def close(self) -> None:
        """Commit what idle lanes owe."""
        if self._is_open:
            # Nothing is lost where something was erased just now: what they owe is read again.
            with suppress(LaneErased):
                for writer in self._writers.values():
                    writer.close()

    def _open_again(self) -> None:
        """Whether a commit arrived is unknown after an outage.

        Opening again reads the store's own checkpoint, and the writer then skips what was applied: retrying never
        counts an event twice. A store that is full has said which lanes it refused: what was prepared is sent again.
        """
        self._is_open, self._is_full, self._goes_on = self._is_open and self._is_full, False, False

    def _commit_once(self, batches: Mapping[str, Sequence[KeyedBatch]]) -> None:
        """Open if need be, and write: one round trip for all views."""
        clock, progress = self._shared.clock, self._shared.progress
        if not self._is_open:
            self._prepared = []
            for writer in self._writers.values():
                writer.open(goes_on=self._goes_on)
            self._is_open, self._goes_on = True, False
            for generation, writer in self._writers.items():
                if writer.has_gone_back:
                    # Now, and not with the next batch: none may come.
                    raise StoreRolledBack(
                        f"the online store went back in time at {generation.view.title}",
                        detail="Its lanes are behind what was read.",
                        hint="the stream reads again from the store's own positions",
                    )
        started_ns, self._preparing_ns = clock.monotonic_ns(), 0
        try:
            reports = write_together(self._prepared or self._preparing(batches))
        except StoreFull:
            self._is_full = True
            raise
        self._prepared = []
        duration_ns = clock.monotonic_ns() - started_ns
        if any(batches.values()):
            progress.passed("prepare", self._preparing_ns)
            # The store works beside it: what is left is what was waited for.
            progress.passed("store", duration_ns - self._preparing_ns)
        for generation, report in zip(self._writers, reports, strict=True):
            if mine := batches[generation.view.name]:
                progress.committed(generation, mine, report, duration_ns)
            if report.damaged:
                progress.set_aside(generation, report.damaged)
                self._damaged[generation] = self._damaged.get(generation, ()) + report.damaged
        for generation, damaged in list(self._damaged.items()):
            self._store.refill(generation, damaged)
            del self._damaged[generation]
