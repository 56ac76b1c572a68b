"""What a view, or a storage group of several, will take of Redis and of a lookup: sampled entities, stored and read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from featurestore.cli.repo.cost.packs import packed_bytes, streamed_bytes
from featurestore.cli.repo.cost.sample import MINUTE_MS, Sample
from featurestore.clock import Clock
from featurestore.core.events import Int64Array
from featurestore.core.spec import ViewSpec
from featurestore.core.tiles.parts import EventRows
from featurestore.definitions.compile.storage_groups import member_views
from featurestore.offline.bootstrap_events import LogPart
from featurestore.online.answer.selection import Asked, Selection
from featurestore.online.generation import Generation
from featurestore.online.redis.allocation import appended_bytes, name_bytes, value_bytes
from featurestore.online.write.bootstrap_fold import EntityFolder, StoredEntity
from featurestore.online.write.compaction import HEAD_ROWS_MAX
from featurestore.online.write.seen_ids import BUCKETS_KEPT, HASH_BYTES
from featurestore.wire.codecs.head import head_codec
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.entity_key import lane_of
from featurestore.wire.store_layout import DEFAULT_LANE_COUNT, packs_for

LOOKUPS_MAX = 500
"""Entities whose lookup is measured."""

_TRIES = 3
_NS_PER_US = 1_000
_SECONDS_PER_MINUTE = 60


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure of many entities."""

    mean: float
    median: float
    p99: float

    @staticmethod
    def of(values: ArrayLike) -> Spread:
        """Of a value for each entity; all 0 where there is none."""
        found = np.asarray(values, dtype=np.float64)
        if not len(found):
            return Spread(0.0, 0.0, 0.0)
        return Spread(float(found.mean()), float(np.median(found)), float(np.percentile(found, 99)))


@dataclass(frozen=True, slots=True)
class EntityBytes:
    """Bytes that Redis allocates for each of some entities, all (E,), and how many share its keys; 0 for its own."""

    head: Int64Array
    body: Int64Array
    names: Int64Array
    sharing: Int64Array

    @property
    def total(self) -> Int64Array:
        """All three."""
        return self.head + self.body + self.names


@dataclass(frozen=True, slots=True)
class LookupCost:
    """What a lookup of all features takes, after the round trip: means over entities; times in microseconds."""

    tiles: Spread
    decode_us: float
    merge_us: float


@dataclass(frozen=True, slots=True)
class FeatureCost:
    """What an entity would save without one feature; what others need as well is not among it."""

    view: str
    feature: str
    entity_bytes: float


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """What so many entities take, if they are like those that were seen."""

    entities: int
    memory_bytes: float
    appended_per_second: float
    appended_per_second_busiest: float


@dataclass(frozen=True, slots=True)
class StorageCost:
    """What is stored under one name.

    Attributes:
        name: of the storage group, or the view.
        views: names of the views in it.
        event_log: what was read.
        event_log_version: of the table; 0 of files.
        entities, events: in the history; entities that are `entities_estimated` were not counted one by one.
        entities_sampled, events_sampled: those that were folded.
        entity_bytes: what Redis allocates for an entity: the sum of the three below it.
        head_bytes, body_bytes, name_bytes: values, and names with all that keeps them.
        memory_bytes: of all entities seen: the mean times `entities`.
        memory_error: standard error of that, a share of it; 0 where no entity was left out.
        streaming_bytes: what an entity takes more, on average and at most, while the stream appends to it.
        event_id_bytes: what the ids of the busiest hours take, of all entities together.
        appended_per_second: rows, on average over the history.
        appended_per_second_busiest: likewise, in the busiest minute.
        packed: entities that were folded and share keys with others; all bytes of theirs are shares.
        lookup: None where there is nothing to look up.
        features: by what they take; empty unless they were asked for.
        extrapolation: None unless it was asked for.
    """

    name: str
    views: tuple[str, ...]
    event_log: str
    event_log_version: int
    entities: int
    entities_estimated: bool
    events: int
    entities_sampled: int
    events_sampled: int
    entity_bytes: Spread
    head_bytes: Spread
    body_bytes: Spread
    name_bytes: Spread
    memory_bytes: float
    memory_error: float
    streaming_bytes: float
    event_id_bytes: float
    appended_per_second: float
    appended_per_second_busiest: float
    lookup: LookupCost | None
    features: tuple[FeatureCost, ...] = field(default=())
    extrapolation: Extrapolation | None = None
    packed: int = 0


def generation_of(view: ViewSpec, project: str) -> Generation:
    """What an apply would begin, on a store without generations of it."""
    packs = packs_for(view.expected_entities, DEFAULT_LANE_COUNT)
    return Generation(project, view, 1, definition_hash(view), packs=packs)


def fold(generation: Generation, part: LogPart, now_ms: int) -> list[StoredEntity]:
    """What a bootstrap would store of some entities."""
    return list(EntityFolder(generation, now_ms).fold(part.keys, part.events))


def entity_bytes(generation: Generation, stored: Sequence[StoredEntity]) -> EntityBytes:
    """What Redis allocates for some entities as a bootstrap leaves them."""
    expires = generation.view.retention_ms is not None
    names = []
    for one in stored:
        keys, lane = generation.keys, lane_of(one.key, DEFAULT_LANE_COUNT)
        prefixes = [keys.head_prefix(lane)] * bool(one.head) + [keys.body_prefix(lane)] * bool(one.body)
        names.append(sum(name_bytes(len(prefix) + len(one.key), expires=expires) for prefix in prefixes))
    sizes = EntityBytes(
        np.array([value_bytes(len(one.head)) for one in stored], dtype=np.int64),
        np.array([value_bytes(len(one.body)) for one in stored], dtype=np.int64),
        np.array(names, dtype=np.int64),
        np.zeros(len(stored), dtype=np.int64),
    )
    if not generation.packs or not stored:
        return sizes
    (values, of_names), sharing = packed_bytes(generation, stored)
    is_packed = sharing > 0
    return EntityBytes(
        np.where(is_packed, 0, sizes.head),
        np.where(is_packed, values, sizes.body),
        np.where(is_packed, of_names, sizes.names),
        sharing,
    )


def storage_cost(
    generation: Generation, source: tuple[str, int], sample: Sample, clock: Clock, *, entities: int | None
) -> StorageCost:
    """What a generation will take.

    Args:
        generation: of a view or a storage group.
        source: address and version of the history.
        sample: of its entities.
        clock: what bounds roll-ups, and measures.
        entities: extrapolate to so many.
    """
    view, part = generation.view, sample.part
    stored = [] if part is None else fold(generation, part, clock.now_ms())
    sizes = entity_bytes(generation, stored)
    each = Spread.of(sizes.total)
    per_minute = sample.events / max(1, sample.span_minutes)
    busiest = sample.busiest(1)
    ids_bytes = _event_id_bytes(view, sample)
    streaming = 0.0 if part is None else _streaming_bytes(generation, part, stored, sizes.sharing)
    extrapolation = None
    if entities is not None and sample.entities:
        times = entities / sample.entities
        extrapolation = Extrapolation(
            entities,
            each.mean * entities + ids_bytes * times,
            per_minute * times / _SECONDS_PER_MINUTE,
            busiest * times / _SECONDS_PER_MINUTE,
        )
    return StorageCost(
        name=view.name,
        views=tuple(member.name for member in member_views(view)),
        event_log=source[0],
        event_log_version=source[1],
        entities=sample.entities,
        entities_estimated=not sample.is_counted,
        events=sample.events,
        entities_sampled=len(stored),
        events_sampled=0 if part is None else len(part.events.event_time_ms),
        entity_bytes=each,
        head_bytes=Spread.of(sizes.head),
        body_bytes=Spread.of(sizes.body),
        name_bytes=Spread.of(sizes.names),
        memory_bytes=each.mean * sample.entities + ids_bytes,
        memory_error=_standard_error(sizes.total, sample.entities),
        streaming_bytes=streaming,
        event_id_bytes=ids_bytes,
        appended_per_second=per_minute / _SECONDS_PER_MINUTE,
        appended_per_second_busiest=busiest / _SECONDS_PER_MINUTE,
        lookup=_lookup_cost(generation, stored, sample.newest_ms + 1, clock) if stored else None,
        extrapolation=extrapolation,
        packed=int((sizes.sharing > 0).sum()),
    )


def _standard_error(totals: Int64Array, entities: int) -> float:
    """Of the mean of some of all entities, a share of it."""
    count = len(totals)
    if count < 2 or count >= entities:
        return 0.0
    left_out = 1 - count / entities
    return float(totals.std(ddof=1) / np.sqrt(count) * np.sqrt(left_out) / totals.mean())


def _event_id_bytes(view: ViewSpec, sample: Sample) -> float:
    """What the remembered ids of retries take: those of two horizons, by lane, each list grown by APPEND."""
    if view.source.id_column is None or view.source.dedup_horizon_ms <= 0:
        return 0.0
    minutes = -(-BUCKETS_KEPT * view.source.dedup_horizon_ms // MINUTE_MS)
    lists = DEFAULT_LANE_COUNT * BUCKETS_KEPT
    length = round(sample.busiest(minutes) * HASH_BYTES / lists)
    # It gets room for twice as much whenever it is full, up to a megabyte: half of that is free, on average.
    grown = length + min(length, 1 << 20) // 2
    return float(lists * value_bytes(grown))


def _streaming_bytes(
    generation: Generation, part: LogPart, stored: Sequence[StoredEntity], sharing: Int64Array
) -> float:
    """What appending adds to an entity, on average: free room in heads, and heads beside bodies.

    The head of a busy entity has any number of rows below HEAD_ROWS_MAX, one as often as another.
    """
    number = {key: index for index, key in enumerate(part.keys)}
    counts = np.bincount(part.events.entity, minlength=len(part.keys))
    newest = np.full(len(part.keys), -1, dtype=np.int64)
    newest[part.events.entity] = np.arange(len(part.events.entity))
    last = part.events.take(newest)
    encoded = head_codec(generation.compiled).encode(EventRows(last.event_time_ms, last.event_ids, last.columns))
    row_bytes = (encoded.ends - encoded.begins).tolist()
    expires = generation.view.retention_ms is not None
    extra = 0.0
    for one, with_others in zip(stored, sharing.tolist(), strict=True):
        index = number[one.key]
        if with_others:
            extra += streamed_bytes(generation) / with_others
        elif one.head:
            grown = appended_bytes(row_bytes[index], int(counts[index]))[-1]
            extra += max(0, grown - value_bytes(len(one.head)))
        else:
            prefix = generation.keys.head_prefix(lane_of(one.key, DEFAULT_LANE_COUNT))
            name = name_bytes(len(prefix) + len(one.key), expires=expires)
            heads = appended_bytes(row_bytes[index], HEAD_ROWS_MAX - 1)
            extra += (sum(heads) + name * len(heads)) / HEAD_ROWS_MAX
    return extra / max(1, len(stored))


def _lookup_cost(generation: Generation, stored: Sequence[StoredEntity], as_of_ms: int, clock: Clock) -> LookupCost:
    """Decode and answer entities, each with all features."""
    asked = [
        Asked(member, range(len(member.features) + len(member.derived))) for member in member_views(generation.view)
    ]
    selection = Selection(generation.compiled, asked)
    selection.prepare()
    tiles, decode_ns, merge_ns = [], [], []
    for one in [stored[0], *itertools.islice(stored, 0, None, -(-len(stored) // LOOKUPS_MAX))]:
        decodes, merges = [], []
        for _ in range(_TRIES):
            begin = clock.monotonic_ns()
            table = selection.decode(one.body or None, one.head or None)
            decoded = clock.monotonic_ns()
            selection.answer(table, as_of_ms)
            merges.append(clock.monotonic_ns() - decoded)
            decodes.append(decoded - begin)
        tiles.append(table.count)
        decode_ns.append(min(decodes))
        merge_ns.append(min(merges))
    # The first one warms up, and does not count.
    return LookupCost(
        Spread.of(tiles[1:]), float(np.mean(decode_ns[1:])) / _NS_PER_US, float(np.mean(merge_ns[1:])) / _NS_PER_US
    )
