"""The last step of the flow: writers that fold keyed batches and commit them to the online store.

Writer w of W owns the lanes with lane % W == w of every view, so one call folds all lanes of a view in one go. Bytewax
deals the writers out to the workers of a cluster in turn. Whatever has arrived while the previous
commit ran is committed together: under load batches grow by themselves, at rest an event is committed alone, at once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeAlias

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from dataflows.conductor import Outcome, PartitionEnd
from dataflows.patience import patiently
from dataflows.plan import Stage, find_generation
from dataflows.routing import WriterBatch, writer_keys
from dataflows.sources import Goodbye, Heartbeat, Shared
from dataflows.tile_store import LaneWriter, TileStore
from featurestore.core.events import KeyedBatch
from featurestore.errors import StoreRolledBack
from featurestore.online.generations import Generation

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
        self._views = {
            generation.view.name: _ViewLanes(generation, store.writer(generation, lanes), shared)
            for generation in (stage.generations if lanes else ())
        }
        # One commit runs beside the flow: while the store applies it, the next batch is read, decoded and keyed. Never
        # two, so the order of a partition's batches is kept. A thread for each view would only fight for the
        # interpreter's lock: small commits took twice the CPU.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._running: Future[None] | None = None

    def write_batch(self, values: list[WriterItem]) -> None:
        """Commit what has arrived, and note what else it says."""
        conductor = self._shared.conductor
        with self._ends_flow_on_errors():
            self._finish_commit()
            if not conductor.drops_batches:
                self._start_commit([item for item in values if isinstance(item, WriterBatch)])
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
        with self._ends_flow_on_errors():
            self._finish_commit()
            self._thread.shutdown()
            if not self._shared.conductor.drops_batches:
                for view in self._views.values():
                    view.close()

    @contextmanager
    def _ends_flow_on_errors(self) -> Iterator[None]:
        """Tell the conductor; what was not committed is read again."""
        conductor = self._shared.conductor
        try:
            yield
        except StoreRolledBack as error:
            _logger.warning("%s", error)
            conductor.end(Outcome.REBUILD, error.message)
            conductor.raise_unless_supervised(error)
        except Exception as error:  # noqa: BLE001  # process edge: whatever it is, the flow must end in order
            conductor.fail(error)

    def _start_commit(self, items: Sequence[WriterBatch]) -> None:
        """One commit for each view, of all its batches; without batches a sign of life."""
        batches: dict[str, list[KeyedBatch]] = {name: [] for name in self._views}
        for item in items:
            for batch in item.batches:
                if batch.view not in batches:
                    find_generation(self._stage, batch.view)
                    continue  # a writer without lanes: there are more writers than lanes
                batches[batch.view].append(batch)
        self._running = self._thread.submit(self._commit, batches)

    def _commit(self, batches: Mapping[str, Sequence[KeyedBatch]]) -> None:
        """All views, one after the other; in the commit thread."""
        for name, view in self._views.items():
            view.commit(batches[name])

    def _finish_commit(self) -> None:
        """Wait for the commit that runs, if any; raises its error."""
        running, self._running = self._running, None
        if running is not None:
            running.result()


class _ViewLanes:
    """The lanes of one generation that one writer owns."""

    def __init__(self, generation: Generation, writer: LaneWriter, shared: Shared) -> None:
        self._generation = generation
        self._writer = writer
        self._shared = shared
        self._is_open = False

    def commit(self, batches: Sequence[KeyedBatch]) -> None:
        """Commit, again and again while the store is down.

        Raises:
            OnlineStoreDown: it was down for longer than the patience allows; nothing is lost.
            WriterFenced, StoreRolledBack: see ViewWriter.
        """
        patiently(
            self._shared,
            lambda: self._commit_once(batches),
            place=f'feature view "{self._generation.view.name}"',
            on_outage=self._open_again,
        )

    def _open_again(self) -> None:
        """Whether a commit arrived is unknown after an outage.

        Opening again reads the store's own checkpoint, and the writer then skips what was applied: retrying never
        counts an event twice.
        """
        self._is_open = False

    def close(self) -> None:
        """Commit what idle lanes owe."""
        if self._is_open:
            self._writer.close()

    def _commit_once(self, batches: Sequence[KeyedBatch]) -> None:
        """Open if need be, and write."""
        clock, progress = self._shared.clock, self._shared.progress
        if not self._is_open:
            self._writer.open()
            self._is_open = True
        started_ns = clock.monotonic_ns()
        report = self._writer.write(batches)
        if batches:
            progress.committed(self._generation, batches, report, clock.monotonic_ns() - started_ns)
