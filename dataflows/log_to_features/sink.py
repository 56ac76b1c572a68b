"""The last step of the flow: what changed is looked up, as soon as the store has it, and published.

While the store is behind nothing more is taken: a transaction's positions must not pass what it does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from dataflows.log_to_features.changes import PUBLISHER, ChangedEntities
from dataflows.log_to_features.publisher import Publisher
from dataflows.log_to_features.settings import PublishSettings
from dataflows.log_to_features.vectors import VectorReader, Vectors, Wanted
from dataflows.logs.sources import Goodbye, Heartbeat, Shared
from dataflows.retry import patiently
from dataflows.run_outcome import PartitionEnd
from featurestore.clock import NS_PER_MS
from featurestore.online.store import OnlineStore
from featurestore.serving.catalog.catalog import CatalogSnapshot, CatalogSource

BEHIND_SECONDS_MIN, BEHIND_SECONDS_MAX = 0.005, 0.5
"""Between two looks at entities whose events the store does not have yet: at first it is a commit behind, later it may
have no stream."""

CATALOG_POLL_MS = 1_000

PublishItem: TypeAlias = ChangedEntities | PartitionEnd | Heartbeat | Goodbye


class CatalogReads:
    """Looks entities up by what is served now; while nothing serves a view, all of them are behind.

    Args:
        settings: what is published.
        catalog: looked at again every second.
        store: the online store.
        shared: what all steps of this process share.
    """

    def __init__(self, settings: PublishSettings, catalog: CatalogSource, store: OnlineStore, shared: Shared) -> None:
        self._settings, self._catalog, self._store, self._shared = settings, catalog, store, shared
        self._snapshot: CatalogSnapshot | None = None
        self._reader: VectorReader | None = None
        self._looked_ns = 0
        self._current()

    def read(self, wanted: Sequence[Wanted]) -> Vectors:
        """See VectorReader."""
        if not wanted:
            return Vectors((), (), ())
        reader = self._current()
        return Vectors((), wanted, ()) if reader.not_ready else reader.read(wanted)

    def _current(self) -> VectorReader:
        """A reader for what is served now.

        Raises:
            OnlineStoreDown: the store has never answered.
            FeatureStoreError: see VectorReader.
        """
        clock = self._shared.clock
        if clock.monotonic_ns() - self._looked_ns >= CATALOG_POLL_MS * NS_PER_MS:
            self._catalog.poll()
            self._looked_ns = clock.monotonic_ns()
        snapshot = self._catalog.snapshot()
        if self._reader is None or snapshot is not self._snapshot:
            self._reader = VectorReader(
                snapshot,
                self._settings.service,
                self._store,
                clock,
                where=self._settings.where,
                follows_windows=self._settings.policy.follows_windows,
            )
            self._snapshot = snapshot
        return self._reader


class PublishSink(FixedPartitionedSink[PublishItem, None]):
    """The publisher as the flow's one sink.

    Args:
        publisher: decides and publishes.
        shared: what all steps of this process share.
    """

    def __init__(self, publisher: Publisher, shared: Shared) -> None:
        self._publisher, self._shared = publisher, shared

    def list_parts(self) -> list[str]:
        """One."""
        return [PUBLISHER]

    def part_fn(self, item_key: str) -> int:
        """Everything goes there."""
        return 0

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _PublishPart:
        """The part."""
        assert resume_state is None, "positions live in Kafka, not in Bytewax's recovery"
        return _PublishPart(self._publisher, self._shared)


class _PublishPart(StatefulSinkPartition[PublishItem, None]):
    """Takes what changed, and publishes it."""

    def __init__(self, publisher: Publisher, shared: Shared) -> None:
        self._publisher, self._shared = publisher, shared

    def write_batch(self, values: list[PublishItem]) -> None:
        """Take items, and publish what they bring before more is taken."""
        conductor = self._shared.conductor
        with conductor.ends_on_errors():
            ends: list[PartitionEnd] = []
            for item in values:
                if isinstance(item, ChangedEntities) and not conductor.drops_batches:
                    self._publisher.take(item)
                elif isinstance(item, PartitionEnd):
                    ends.append(item)
            if not conductor.drops_batches:
                self._publish(is_last=bool(ends))
            for end in ends:
                conductor.partition_ended(end)
            for item in values:
                if isinstance(item, Goodbye):
                    conductor.end(item.outcome, item.cause)

    def snapshot(self) -> None:
        """Nothing: the positions are in Kafka."""
        return

    def close(self) -> None:
        """What waits for the store is read again by the next run."""

    def _publish(self, *, is_last: bool) -> None:
        """Publish until nothing is behind; a flow that ends does not wait for the store."""
        shared, publisher = self._shared, self._publisher
        pause_seconds = BEHIND_SECONDS_MIN
        while not patiently(shared, publisher.publish):
            if shared.conductor.is_ending:
                return
            shared.progress.tick()
            shared.clock.sleep(pause_seconds)
            pause_seconds = min(BEHIND_SECONDS_MAX, 2 * pause_seconds)
        if is_last:
            patiently(shared, publisher.commit)
        for place, offset in publisher.positions.items():
            shared.progress.logged(*place, offset)
