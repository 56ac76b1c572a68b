"""Looks into a store: how far each lane has come, and whether every value in it is the oracle's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from featurestore.errors import AsOfTooOld, Unavailable
from featurestore.online.generation import Generation
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import EntityBytes, EntityRead, Reader
from featurestore.online.redis.store import RedisStore, connect
from featurestore.testing.answers import answer_values
from featurestore.testing.oracle.naive import naive_found
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.wire.codecs.body import decode_entity
from featurestore.wire.entity_key import encode_key
from featurestore.wire.store_layout import decode_checkpoint
from tests.dataflows.stream_process import StreamProcess
from tests.system.load import PROJECT, Load

READS_PER_CALL = 500
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a store has come.

    Attributes:
        slowest: records that every lane of every view has passed, over all partitions; a restart reads on from there.
        ahead: records beyond that which some lane has applied, so that a restart must not apply them there again.
    """

    slowest: int
    ahead: int


@dataclass(frozen=True, slots=True)
class Audit:
    """What was compared: values, those among them that were refused as too old, and entities."""

    values: int
    refused: int
    entities: int


@contextmanager
def connected(url: str) -> Iterator[RedisStore]:
    """A connection to a store."""
    store = connect(url)
    try:
        yield store
    finally:
        store.close()


def reached(store: RedisStore) -> Reached:
    """Where the lanes of all views are."""
    catalog = GenerationCatalog(store, PROJECT)
    keys = [
        one.keys.checkpoint(lane)
        for generations in catalog.all().values()
        for one in generations
        for lane in range(catalog.lane_count())
    ]
    lanes = [decode_checkpoint(data).next_offsets() for data in store.read_groups([[key] for key in keys])]
    partitions = {partition for lane in lanes for partition in lane}
    slowest = {partition: min(lane.get(partition, 0) for lane in lanes) for partition in partitions}
    furthest = {partition: max(lane.get(partition, 0) for lane in lanes) for partition in partitions}
    return Reached(sum(slowest.values()), sum(furthest.values()) - sum(slowest.values()))


def wait_until_reached(url: str, target: int, processes: Sequence[StreamProcess]) -> Reached:
    """Return as soon as the slowest lane has passed `target` records; the processes must live so long."""
    deadline = time.monotonic() + PATIENCE_S
    with connected(url) as store:
        while True:
            try:
                now = reached(store)
            except Unavailable:
                now = Reached(0, 0)  # the store is being started
            if now.slowest >= target:
                return now
            for process in processes:
                assert process.process.poll() is None, f"it ended before it reached {target}\n{process.output}"
            assert time.monotonic() < deadline, f"stuck at {now} on the way to {target}\n{processes[0].output}"
            time.sleep(0.002)


def audit(url: str, load: Load) -> Audit:
    """Compare the sample's values at all read times, and lifetime totals over all entities, with the oracle.

    An answer before an entity's newest event may be refused, but never wrong.
    """
    values = refused = entities = 0
    with connected(url) as store:
        catalog = GenerationCatalog(store, PROJECT)
        reader = Reader(store, catalog.lane_count())
        for name in load.rows:
            generation = catalog.serving(name)
            assert generation is not None, name
            compared, too_old = _compare_sample(reader, generation, load)
            values, refused, entities = values + compared, refused + too_old, entities + len(load.sample(name))
            _compare_totals(reader, generation, load)
    assert refused < values // 100
    return Audit(values, refused, entities)


def _compare_sample(reader: Reader, generation: Generation, load: Load) -> tuple[int, int]:
    """Values compared, and how many answers were refused."""
    view, wrong, compared, refused = generation.view, {}, 0, 0
    sample = load.sample(view.name)
    events_of = {value: load.events(view.name, value) for value in sample}
    found = dict(zip(sample, _read(reader, generation, sample), strict=True))
    for (value, as_of_ms), expected in load.expected(view).items():
        events = events_of[value]
        table = decode_entity(generation.compiled, found[value].body, found[value].head)
        try:
            answer = generation.compiled.answer(table, as_of_ms)
        except AsOfTooOld:
            assert as_of_ms < max(event.event_time_ms for event in events)
            refused += 1
            continue
        actual = answer_values(view, answer)
        assert answer.found == naive_found(view, events, as_of_ms), (view.name, value, as_of_ms)
        for feature in view.features:
            compared += 1
            pair = (expected[feature.name], actual[feature.name])
            # The scale is looked up only for the few floats that need it: it is a walk over all events.
            if not agrees(*pair) and not agrees(*pair, scale=magnitude(feature, events)):
                wrong[value, as_of_ms, feature.name] = pair
    assert wrong == {}, f"{len(wrong)} of {compared} differ (expected, found): {list(wrong.items())[:10]}"
    return compared, refused


def _compare_totals(reader: Reader, generation: Generation, load: Load) -> None:
    """Lifetime counts and sums over all entities: nothing is lost, nothing is counted twice."""
    view = generation.view
    lifetime = [
        index
        for index, feature in enumerate(view.features)
        if feature.window.length_ms is None and feature.function in ("count", "sum")
    ]
    if not lifetime:
        return
    totals = np.zeros(len(lifetime), dtype=np.int64)
    for read in _read(reader, generation, list(load.rows[view.name])):
        table = decode_entity(generation.compiled, read.body, read.head)
        totals += generation.compiled.answer(table, load.end_ms + 1).ints[lifetime]
    rows = load.distinct_ids[view.name].values()
    expected = {
        view.features[index].name: sum(
            1 if (column := view.features[index].column) is None else row[column] or 0 for row in rows
        )
        for index in lifetime
    }

    actual = dict(zip(expected, totals.tolist(), strict=True))
    assert expected == actual, f"expected {expected}, found {actual}"


def _read(reader: Reader, generation: Generation, values: Sequence[str | int]) -> list[EntityBytes]:
    """What the store holds of some entities."""
    found: list[EntityBytes] = []
    for begin in range(0, len(values), READS_PER_CALL):
        part = [EntityRead(generation, encode_key([value])) for value in values[begin : begin + READS_PER_CALL]]
        found += [read for read in reader.read(part) if isinstance(read, EntityBytes)]
    return found
