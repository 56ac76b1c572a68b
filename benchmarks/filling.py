"""The stream's steps in this process, one after the other, so that each can be timed: what a profiler would blur.

payloads -> decode -> key (each view) -> write (each view: de-duplicate, encode, commit)
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from benchmarks.workload import PaymentSchemas
from featurestore.clock import SystemClock
from featurestore.core.spec import RepoSpec
from featurestore.online.generation import Generation
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import RedisStore
from featurestore.testing.writers import open_writer
from featurestore.wire.entity_routing import columns_read, key_events
from featurestore.wire.payloads import EventDecoder, RawBatch

BATCH_RECORDS = 8_192
"""As the stream reads them."""


class Filling:
    """Fills a store as the stream does, from one partition.

    Args:
        store: an online store.
        repo: whose stream views to fill; all read one source.
        packs: how many a lane has, for entities of few events; 0 for none.

    Attributes:
        generations: by view name.
        cpu_s: processor time of this process by step.
    """

    def __init__(self, store: RedisStore, repo: RepoSpec, *, packs: int = 0) -> None:
        catalog = GenerationCatalog(store, repo.project, packs=packs)
        self._lane_count = catalog.lane_count()
        self.generations: dict[str, Generation] = {view.name: catalog.register(view) for view in repo.views}
        self._clock = SystemClock()
        self._writers = {
            name: open_writer(store, generation, self._lane_count, self._clock)
            for name, generation in self.generations.items()
        }
        source = repo.views[0].source
        names = dict.fromkeys(name for view in repo.views for name in columns_read(view))
        self._topic = source.topic
        self._decoder = EventDecoder(source, names, PaymentSchemas())
        self._next_offset = 0
        self.cpu_s: defaultdict[str, float] = defaultdict(float)

    def write(self, payloads: Sequence[bytes]) -> None:
        """Apply all records; they are servable when this returns."""
        for begin in range(0, len(payloads), BATCH_RECORDS):
            self._write_batch(payloads[begin : begin + BATCH_RECORDS])

    def close(self) -> None:
        """Commit what idle lanes owe."""
        for writer in self._writers.values():
            writer.close()

    def _write_batch(self, payloads: Sequence[bytes]) -> None:
        raw = raw_batch(self._topic, payloads, from_offset=self._next_offset)
        self._next_offset = raw.next_offset
        with self._timed("decode"):
            decoded = self._decoder.decode(raw, now_ms=self._clock.now_ms())
        assert not decoded.dead_letters, "the simulator sends nothing that cannot be used"
        for name, generation in self.generations.items():
            with self._timed("key"):
                keyed = key_events(decoded.events, generation.view, self._lane_count)
            with self._timed("write"):
                self._writers[name].write([keyed])

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        begun_s = time.process_time()
        yield
        self.cpu_s[step] += time.process_time() - begun_s


def raw_batch(topic: str, payloads: Sequence[bytes], *, from_offset: int = 0) -> RawBatch:
    """Records at consecutive offsets of partition 0."""
    next_offset = from_offset + len(payloads)
    return RawBatch(topic, 0, from_offset, next_offset, np.arange(from_offset, next_offset), payloads)


def decode_seconds(repo: RepoSpec, payloads: Sequence[bytes]) -> float:
    """Processor time to decode all records and do nothing with them: the floor of any ingest."""
    source = repo.views[0].source
    names = dict.fromkeys(name for view in repo.views for name in columns_read(view))
    decoder = EventDecoder(source, names, PaymentSchemas())
    now_ms = SystemClock().now_ms()
    begun_s = time.process_time()
    for begin in range(0, len(payloads), BATCH_RECORDS):
        decoder.decode(
            raw_batch(source.topic, payloads[begin : begin + BATCH_RECORDS], from_offset=begin), now_ms=now_ms
        )
    return time.process_time() - begun_s
