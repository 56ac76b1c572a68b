"""Generations, lanes and the store itself, on a server and on a cluster."""

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from featurestore.errors import InvalidRequest, OnlineStoreDown
from featurestore.online.embedded import server_binary
from featurestore.online.generation import GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import EntityBytes, EntityRead, Reader
from featurestore.online.redis.store import RedisStore, connect
from featurestore.testing.batches import keyed_batch
from featurestore.testing.servers.redis import BINARY_VARIABLE, redis_server
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE
from featurestore.wire.store_layout import decode_checkpoint
from tests.online.write.writing import (
    LANES,
    PROJECT,
    assert_equals_oracle,
    copy_of,
    events_of,
    open_writer,
    view_of,
)


def test_connections_are_not_shared_with_a_forked_process_nor_kept_by_ended_threads(redis_url: str) -> None:
    """Each process reads its own answers, and sixty short threads leave one connection behind."""
    store = connect(redis_url)
    for name in (b"parent", b"child"):
        store.compare_and_set(name, None, name)
    child = os.fork()
    if child == 0:
        is_mine = all(store.read_groups([[b"child"]]) == [b"child"] for _ in range(200))
        os._exit(0 if is_mine else 1)
    is_mine = all(store.read_groups([[b"parent"]]) == [b"parent"] for _ in range(200))
    status = os.waitpid(child, 0)[1]
    for _ in range(60):
        thread = threading.Thread(target=store.ping)
        thread.start()
        thread.join()

    assert is_mine
    assert os.waitstatus_to_exitcode(status) == 0
    assert store._client().info("clients")["connected_clients"] <= 4
    store.close()


def test_plain_values_are_compared_by_signed_event_time(store: RedisStore) -> None:
    """A value of before 1970 is older than one of today, and an older one never replaces a newer."""
    for event_time_ms, value in ((-5, b"old"), (1_700_000_000_000, b"new"), (255, b"older"), (-(1 << 40), b"oldest")):
        store.write_newer([(b"{t}k", event_time_ms, value, 0)])

    assert (store.read_groups([[b"{t}k"]])[0] or b"")[8:] == b"new"


def test_a_generation_that_is_gone_is_not_promoted(store: RedisStore) -> None:
    """The serving one stays; a newer definition had replaced the one that was filling."""
    catalog = GenerationCatalog(store, PROJECT)
    catalog.lane_count(LANES)
    serving = catalog.register(view_of(60_000))
    replaced = catalog.register(view_of(60_000, DAY_MS))
    catalog.register(view_of(60_000, 2 * DAY_MS))
    with pytest.raises(InvalidRequest, match="gone or retired"):
        catalog.promote(replaced)

    assert serving == catalog.serving("card_activity")


def test_generations_are_filled_beside_the_serving_one_and_promoted(store: RedisStore) -> None:
    """A changed definition gets a number of its own; both are readable; the retired one can be dropped."""
    catalog, old_view, new_view = GenerationCatalog(store, PROJECT), view_of(60_000), view_of(60_000, DAY_MS)
    events = events_of(30)
    old = open_writer(store, old_view)
    old.write([keyed_batch(old_view, events, lane_count=LANES)])
    new = open_writer(store, new_view)
    new.write([keyed_batch(new_view, events, lane_count=LANES)])
    states_before = [one.state for one in catalog.generations("card_activity")]
    assert_equals_oracle(store, old, events, ANCHOR_MS + DAY_MS)
    assert_equals_oracle(store, new, events, ANCHOR_MS + DAY_MS)
    catalog.promote(new.generation)
    retired, serving = catalog.generations("card_activity")

    assert [GenerationState.SERVING, GenerationState.FILLING] == states_before
    assert [GenerationState.RETIRED, GenerationState.SERVING] == [retired.state, serving.state]
    assert old_view == retired.view
    assert catalog.drop(retired) > 5
    assert [serving] == list(catalog.generations("card_activity"))
    assert_equals_oracle(store, new, events, ANCHOR_MS + DAY_MS)


def test_the_lane_count_is_fixed_by_the_first_writer(store: RedisStore) -> None:
    """Later wishes do not matter: entity keys would be looked for in the wrong lanes."""
    catalog = GenerationCatalog(store, PROJECT)

    assert [8, 8] == [catalog.lane_count(8), catalog.lane_count(32)]


def test_a_checkpoint_is_read_in_the_same_step_as_the_tiles(store: RedisStore) -> None:
    """The position beside an answer is the position of that answer."""
    view = view_of()
    writer = open_writer(store, view)
    writer.write([keyed_batch(view, events_of(10, keys=1), lane_count=LANES)])
    [read] = Reader(store, LANES).read([EntityRead(writer.generation, b"card-0")], with_checkpoint=True)
    assert isinstance(read, EntityBytes)

    assert ((SOURCE.topic, 0, 10),) == decode_checkpoint(read.checkpoint).positions


@pytest.fixture(params=["here", "embedded"])
def any_redis_url(request: pytest.FixtureRequest, redis_url: str) -> Iterator[str]:
    """The server of all tests, and the one that comes with the package: Redis and Valkey word their errors each."""
    if request.param == "here":
        yield redis_url
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BINARY_VARIABLE, str(server_binary()))
        with redis_server() as server:
            yield server.url


def test_a_user_without_rights_is_told_of_all_that_are_missing(any_redis_url: str) -> None:
    """Inside scripts and outside: one list, ready to be given."""
    redis_url = any_redis_url
    admin: Any = redis.Redis.from_url(redis_url)
    everything = ["on", "nopass", "~*", "+@all"]
    restricted = [*everything, "-append", "-setrange", "-hgetall"]
    admin.execute_command("ACL", "SETUSER", "writer", "reset", *restricted)
    url = redis_url.replace("redis://", "redis://writer:any@")
    store = connect(url)
    try:
        with pytest.raises(OnlineStoreDown) as raised:
            store.require_rights(b"{tests}/rights")
        admin.execute_command("ACL", "SETUSER", "writer", "+append", "+setrange", "+hgetall")
        store.require_rights(b"{tests}/rights")
    finally:
        store.close()
        admin.execute_command("ACL", "DELUSER", "writer")

    assert "does not let this user run: append, hgetall, setrange" in raised.value.message
    assert "+append +hgetall +setrange" in raised.value.hint
    assert [] == list(connect(redis_url).scan(b"*"))


def test_a_right_that_is_withdrawn_in_midstream_leaves_no_part_of_a_commit(redis_url: str) -> None:
    """A command that only asks is refused to the script as those that write are: what was appended is taken back."""
    admin: Any = redis.Redis.from_url(redis_url)
    admin.execute_command("ACL", "SETUSER", "writer", "reset", "on", "nopass", "~*", "+@all")
    store = connect(redis_url.replace("redis://", "redis://writer:any@"))
    view = view_of()
    try:
        writer = open_writer(store, view)
        writer.write([keyed_batch(view, events_of(10, keys=1), lane_count=LANES)])
        before = copy_of(store)
        admin.execute_command("ACL", "SETUSER", "writer", "-pttl")
        with pytest.raises(OnlineStoreDown, match="refuses this user"):
            writer.write([keyed_batch(view, events_of(10, keys=1, first=10), lane_count=LANES, from_offset=10)])
        assert before == copy_of(store)
    finally:
        store.close()
        admin.execute_command("ACL", "DELUSER", "writer")
