"""The model of what Redis allocates is held to what a real Redis says of itself."""

from __future__ import annotations

import pytest

from featurestore.clock import SystemClock
from featurestore.core.spec import ViewSpec
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.allocation import (
    BUCKET_BYTES,
    ENTRY_BYTES,
    OBJECT_BYTES,
    allocated_bytes,
    appended_bytes,
    name_bytes,
    value_bytes,
)
from featurestore.online.redis.store import RedisStore, connect
from featurestore.online.write.compaction import HEAD_ROWS_MAX
from featurestore.testing.batches import keyed_batch
from featurestore.testing.strategies import DAY_MS
from featurestore.testing.writers import open_writer
from featurestore.wire.codecs.head import head_codec
from featurestore.wire.entity_key import lane_of
from tests.online.write.writing import LANES, PROJECT, events_of, view_of

TOLERANCE = 0.03
ENTRY_BYTES_SAID = 24
"""MEMORY USAGE counts an entry as it is declared, not its size class; and neither buckets nor expiries."""

ROOM_OF_SCRIPTS = 32
"""A script may hand a short value over in what an earlier one needed."""

SIZES = [*range(1, 700, 3), *(1 << bits for bits in range(5, 21)), *((1 << bits) - 11 for bits in range(6, 21))]


@pytest.fixture
def store(redis_url: str) -> RedisStore:
    """An empty Redis, whose allocation it is."""
    connected = connect(redis_url)
    if not str(connected._client().info("server")["redis_version"]).startswith("7.0"):
        pytest.skip("Valkey and other releases need less for a name")
    return connected


def said_by_model(name: int, value: int) -> float:
    """MEMORY USAGE of a key, lengths given."""
    entry = ENTRY_BYTES + BUCKET_BYTES - ENTRY_BYTES_SAID
    return name_bytes(name, expires=False) - entry + value_bytes(value)


@pytest.mark.parametrize("name_length", [3, 28, 29, 61, 200, 300])
def test_keys_of_any_size_take_what_memory_usage_says(store: RedisStore, name_length: int) -> None:
    """Names and values from a byte to a megabyte, set or begun by an append."""
    client, wrong = store._client(), []
    for number, size in enumerate(SIZES):
        key = b"k" * name_length
        client.delete(key)
        (client.set if number % 2 else client.append)(key, b"x" * size)
        if abs(store.memory_bytes(key) / said_by_model(name_length, size) - 1) > TOLERANCE:
            wrong.append((size, store.memory_bytes(key), said_by_model(name_length, size)))

    assert wrong == []


@pytest.mark.parametrize("expires", [False, True])
@pytest.mark.parametrize("size", [30, 300, 3_000])
def test_many_keys_take_as_much_of_used_memory(store: RedisStore, size: int, *, expires: bool) -> None:
    """Entries, expiries and the tables of both are part of it."""
    client, count = store._client(), 12_000
    client.set("warm", "up")
    before = client.info("memory")["used_memory"]
    for begin in range(0, count, 1_000):
        pipeline = client.pipeline(transaction=False)
        for number in range(begin, begin + 1_000):
            pipeline.set(b"{project/7}view@1.0123abcd/b/%08d" % number, b"x" * size, px=10**8 if expires else None)
        pipeline.execute()
    for _ in range(1_000):
        client.get("warm")  # until the tables have their size
    used = (client.info("memory")["used_memory"] - before) / count

    assert used == pytest.approx(value_bytes(size) + name_bytes(37, expires=expires), rel=TOLERANCE)


def test_a_head_that_the_writer_appends_to_takes_what_the_model_says(store: RedisStore) -> None:
    """An event at a time, to the length at which it is folded: a longer one gets room for twice as much."""
    view: ViewSpec = view_of(DAY_MS)
    catalog = GenerationCatalog(store, PROJECT)
    catalog.lane_count(LANES)
    generation = catalog.register(view)
    writer = open_writer(store, generation, LANES, SystemClock())
    key = b"card-0"
    head = generation.keys.head_prefix(lane_of(key, LANES)) + key
    said = []
    for offset, event in enumerate(events_of(HEAD_ROWS_MAX - 1, keys=1)):
        writer.write([keyed_batch(view, [event], from_offset=offset, lane_count=LANES)])
        said.append(store.memory_bytes(head) - said_by_model(len(head), 0))

    expected = appended_bytes(head_codec(generation.compiled).row_bytes_min, HEAD_ROWS_MAX - 1)
    assert said[1:] == expected[1:]
    assert 0 <= said[0] - expected[0] <= ROOM_OF_SCRIPTS


def test_sizes_are_those_of_jemalloc() -> None:
    """Steps of 16 bytes, then four to each doubling; nothing is smaller than 8, and nothing stored takes nothing."""
    assert [allocated_bytes(size) for size in (1, 8, 9, 128, 129, 160, 161, 1_025, 70_010)] == [
        *(8, 8, 16, 128, 160, 160, 192, 1_280, 81_920)
    ]
    assert value_bytes(0) == 0
    assert value_bytes(44) == 64
    assert value_bytes(45) == OBJECT_BYTES + 64
