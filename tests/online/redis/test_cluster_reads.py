"""A cluster in trouble: one node hangs, a slot moves to another node. Everybody else's reads do not notice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
from redis.crc import key_slot

from featurestore.errors import DeadlineSpent, OnlineStoreDown
from featurestore.online.probe import ask
from featurestore.online.redis.store import RedisStore, connect
from featurestore.testing.batches import keyed_batch
from featurestore.testing.servers import RedisCluster, RedisServer, redis_cluster
from featurestore.wire.entity_key import lane_of
from tests.online.write.writing import LANES, events_of, open_writer, view_of

KEYS = [b"{k%d}" % number for number in range(60)]

IMPATIENT_COUNT = 50
"""More readers than there are threads to wait for the store."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Three nodes that are in no hurry to declare each other dead."""
    with redis_cluster(3) as started:
        for node in started.nodes:
            ask(node.port, "CONFIG", "SET", "cluster-node-timeout", "60000")
        yield started


@pytest.fixture
def store(cluster: RedisCluster) -> Iterator[RedisStore]:
    """Under each key its own name."""
    cluster.flush()
    connected = connect(cluster.url, cluster=True)
    for key in KEYS:
        connected.compare_and_set(key, None, key)
    yield connected
    connected.close()


def owner(cluster: RedisCluster, key: bytes) -> RedisServer:
    """The node that holds a key."""
    return next(node for node in cluster.nodes if not ask(node.port, "GET", key.decode()).startswith(b"-MOVED"))


@contextmanager
def hanging(node: RedisServer) -> Iterator[None]:
    """A node that accepts connections and answers nothing."""
    node.process.pause()
    try:
        yield
    finally:
        node.process.resume()


@contextmanager
def moving(cluster: RedisCluster, key: bytes) -> Iterator[tuple[RedisServer, RedisServer]]:
    """The slot of a key on its way from one node to another; at the end it has arrived, with all its keys."""
    source, slot = owner(cluster, key), str(key_slot(key))
    target = next(node for node in cluster.nodes if node is not source)
    names = {node.port: ask(node.port, "CLUSTER", "MYID").decode() for node in cluster.nodes}
    assert ask(target.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", names[source.port]) == b"+OK"
    assert ask(source.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", names[target.port]) == b"+OK"
    yield source, target
    with_keys = RedisStore(source.url)
    for moved in with_keys._client().execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1_000):
        migrate(source, target, moved)
    with_keys.close()
    for node in (target, source):
        assert ask(node.port, "CLUSTER", "SETSLOT", slot, "NODE", names[target.port]) == b"+OK"


def migrate(source: RedisServer, target: RedisServer, key: bytes) -> None:
    """Move one key, as a tool that moves a slot does."""
    server = RedisStore(source.url)
    assert server._client().execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 1_000) == b"OK"
    server.close()


async def reads_of(store: RedisStore, groups: Sequence[Sequence[bytes]]) -> list[bytes | None]:
    """One read in an event loop."""
    reads = store.async_reads()
    try:
        return await reads.read_groups(groups, timeout_ms=5_000)
    finally:
        reads.close()


def both_ways(store: RedisStore, groups: Sequence[Sequence[bytes]]) -> list[bytes | None]:
    """The values, after threads and event loops have read the same."""
    values = store.read_groups(groups, timeout_ms=5_000)
    assert values == asyncio.run(reads_of(store, groups))
    return values


def test_a_node_that_hangs_holds_up_nobody_else_in_an_event_loop(cluster: RedisCluster, store: RedisStore) -> None:
    """Whoever needs it is told when his time is over; whoever needs another node is answered meanwhile."""
    victim = owner(cluster, KEYS[0])
    lost = [key for key in KEYS if owner(cluster, key) is victim]
    healthy = [key for key in KEYS if key not in lost]

    async def read() -> tuple[list[list[bytes | None] | BaseException], ...]:
        reads = store.async_reads()
        await reads.read_groups([[key] for key in KEYS])
        with hanging(victim):
            waiting = [
                asyncio.ensure_future(reads.read_groups([[lost[index % len(lost)]], [healthy[0]]], timeout_ms=2_500))
                for index in range(IMPATIENT_COUNT)
            ]
            answered = await asyncio.gather(*(reads.read_groups([[key]], timeout_ms=1_500) for key in healthy))
            assert not any(each.done() for each in waiting)
            failed = await asyncio.gather(*waiting, return_exceptions=True)
            # Also when the connection has been given up, and a new one is not greeted.
            again = await asyncio.gather(
                reads.read_groups([[lost[0]]], timeout_ms=100),
                reads.read_groups([[healthy[0]]], timeout_ms=1_500),
                return_exceptions=True,
            )
        back = [await reads.read_groups([[key]], timeout_ms=5_000) for key in lost[:3]]
        reads.close()
        return list(answered), list(failed), list(again), list(back)

    answered, failed, again, back = asyncio.run(read())

    assert [[key] for key in healthy] == answered
    assert {DeadlineSpent, OnlineStoreDown} >= {type(each) for each in failed}
    assert (DeadlineSpent, [healthy[0]]) == (type(again[0]), again[1])
    assert [[key] for key in lost[:3]] == back


def test_a_node_that_hangs_takes_a_thread_no_longer_than_its_caller_allows(
    cluster: RedisCluster, store: RedisStore
) -> None:
    """On an open connection, on a new one, and where another node is read along."""
    victim = owner(cluster, KEYS[0])
    healthy = [key for key in KEYS if owner(cluster, key) is not victim]
    store.read_groups([[key] for key in KEYS])

    with hanging(victim):
        began = time.monotonic()
        for groups in ([[KEYS[0]]], [[KEYS[0]]], [[healthy[0]], [KEYS[0]], [healthy[1]]]):
            with pytest.raises(DeadlineSpent):
                store.read_groups(groups, timeout_ms=100)
        elapsed_s = time.monotonic() - began
        answers = store.read_groups([[key] for key in healthy], timeout_ms=1_500)

    assert elapsed_s < 2
    assert healthy == answers
    assert KEYS == store.read_groups([[key] for key in KEYS], timeout_ms=5_000)


def test_entities_of_a_slot_that_is_moving_are_read(cluster: RedisCluster, store: RedisStore) -> None:
    """Keys that are here, that are there, and that do not exist, in one group; and when all have arrived."""
    here, there, missing = b"{slot}here", b"{slot}there", b"{slot}missing"
    store.compare_and_set(here, None, b"1")
    store.compare_and_set(there, None, b"2")
    groups = [[here, there, missing], [KEYS[0]], [missing], [there], [here, missing]]
    expected = [b"1", b"2", None, KEYS[0], None, b"2", b"1", None]

    with moving(cluster, here) as (source, target):
        assert expected == both_ways(store, groups)
        migrate(source, target, there)
        assert expected == both_ways(store, groups)
        assert [None, None] == both_ways(store, [[missing, b"{slot}other"]])
    assert expected == both_ways(store, groups)
    assert expected == both_ways(connect(cluster.url, cluster=True), groups)


def test_keys_of_a_moving_slot_are_read_as_they_were_at_one_moment(cluster: RedisCluster, store: RedisStore) -> None:
    """What is written together is read together, though the keys must be asked for one by one."""
    first, second, missing = b"{pair}a", b"{pair}b", b"{pair}missing"
    script = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('SET', KEYS[2], ARGV[1])"
    store._client().eval(script, 2, first, second, 0)
    is_over = threading.Event()

    def write(source: RedisServer) -> None:
        server, number = RedisStore(source.url), 0
        while not is_over.wait(0.0005):
            number += 1
            server._client().eval(script, 2, first, second, number)
        server.close()

    with moving(cluster, first) as (source, _):
        writing = threading.Thread(target=write, args=(source,))
        writing.start()
        found = []
        try:
            for _ in range(400):
                try:
                    found.append(store.read_groups([[first, second, missing]], timeout_ms=5_000))
                except OnlineStoreDown:  # written too fast: a caller tries again
                    continue
        finally:
            is_over.set()
            writing.join()

    assert len({values[0] for values in found}) > 5
    assert [(a, a, None) for a, _, _ in found] == [tuple(values) for values in found]


def test_a_commit_waits_for_a_slot_that_is_moving(cluster: RedisCluster, store: RedisStore) -> None:
    """It is told that the store is not ready, has applied nothing, and succeeds when the slot has arrived."""
    view = view_of()
    writer = open_writer(store, view)
    lane = lane_of(b"card-0", LANES)
    other = next(key for key in (b"other-%d" % number for number in range(99)) if lane_of(key, LANES) == lane)
    first = events_of(4, keys=1)
    # A head that is not there yet may be at either node.
    second = [replace(event, key=other) for event in events_of(8, keys=1)[4:]]
    writer.write([keyed_batch(view, first, lane_count=LANES)])
    keys = writer.generation.keys
    head, checkpoint = (keys.head_prefix(lane) + b"card-0", keys.checkpoint(lane))
    batch = keyed_batch(view, second, from_offset=4, lane_count=LANES)
    before = store.read_groups([[head, checkpoint]])

    with moving(cluster, head):
        with pytest.raises(OnlineStoreDown, match="is not ready"):
            writer.write([batch])
        assert before == store.read_groups([[head, checkpoint]])
    writer.open()
    writer.write([batch])

    assert before != store.read_groups([[head, checkpoint]])


def test_a_cluster_that_is_not_there_is_down(port: int) -> None:
    """Whatever redis-py calls it."""
    with pytest.raises(OnlineStoreDown, match="does not answer"):
        connect(f"redis://127.0.0.1:{port}/0", cluster=True)


def test_a_node_that_restarts_is_found_again(cluster: RedisCluster, store: RedisStore) -> None:
    """Idle connections to it are dead; the reads that find out open new ones."""
    node = owner(cluster, KEYS[0])

    async def read() -> list[bytes | None]:
        reads = store.async_reads()
        await reads.read_groups([[KEYS[0]]], timeout_ms=5_000)
        await asyncio.to_thread(node.process.kill)
        with pytest.raises(OnlineStoreDown):
            await reads.read_groups([[KEYS[0]]], timeout_ms=1_000)
        with pytest.raises(OnlineStoreDown):
            await asyncio.to_thread(store.read_groups, [[KEYS[0]]], timeout_ms=1_000)
        await asyncio.to_thread(node.restart)
        while b"cluster_state:ok" not in await asyncio.to_thread(ask, node.port, "CLUSTER", "INFO"):
            await asyncio.sleep(0.05)
        values = await reads.read_groups([[KEYS[0]], [KEYS[1]]], timeout_ms=5_000)
        reads.close()
        return values

    found = asyncio.run(read())

    assert found[0] in (None, KEYS[0])  # what it held is gone unless it saved on its way
    assert found == store.read_groups([[KEYS[0]], [KEYS[1]]], timeout_ms=5_000)
