"""Reads of an event loop: order, deadlines, outages, on a server and on a cluster."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore.errors import DeadlineSpent, OnlineStoreDown
from featurestore.online.redis import pipeline
from featurestore.online.redis.store import RedisStore, connect
from featurestore.testing.servers import RedisServer, redis_server

KEYS = [b"{k%d}" % number for number in range(60)]


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that a test may stop."""
    with redis_server() as server:
        yield server


def fill(store: RedisStore) -> None:
    """Under each key its own name, many times over: answers of several packets."""
    for key in KEYS:
        store.compare_and_set(key, None, key * 5_000)


def test_everyone_gets_the_answer_to_his_own_question(store: RedisStore) -> None:
    """Many reads at once, of keys that exist and keys that do not, equal the blocking reads one by one."""
    fill(store)
    questions = [[(key,), (b"{nothing}",), (KEYS[-1],)] for key in KEYS]

    async def ask() -> list[list[bytes | None]]:
        reads = store.async_reads()
        answers = await asyncio.gather(*(reads.read_groups(each, timeout_ms=5_000) for each in questions))
        reads.close()
        return list(answers)

    assert [store.read_groups(each, timeout_ms=5_000) for each in questions] == asyncio.run(ask())


def test_an_impatient_reader_costs_nobody_his_answer(own_redis: RedisServer) -> None:
    """Reads whose time is over are DeadlineSpent; those behind them on the connection get what they asked for."""
    store = connect(own_redis.url)
    fill(store)

    async def ask() -> list[list[bytes | None] | BaseException]:
        reads = store.async_reads()
        await reads.read_groups([(KEYS[0],)])
        own_redis.process.pause()
        asking = [
            asyncio.ensure_future(reads.read_groups([(key,)], timeout_ms=50 if index % 2 else 5_000))
            for index, key in enumerate(KEYS)
        ]
        await asyncio.sleep(0.2)
        own_redis.process.resume()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        reads.close()
        return answers

    answers = asyncio.run(ask())
    store.close()

    assert [[key * 5_000] for key in KEYS[::2]] == answers[::2]
    assert {DeadlineSpent} == {type(answer) for answer in answers[1::2]}


def test_a_silent_connection_is_replaced(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing at all comes back, the connection is given up, and the next read has a new one."""
    monkeypatch.setattr(pipeline, "STALLED_SECONDS", 0.2)
    store = connect(own_redis.url)
    fill(store)

    async def ask() -> list[bytes | None]:
        reads = store.async_reads()
        await reads.read_groups([(KEYS[0],)])
        own_redis.process.pause()
        patient = asyncio.ensure_future(reads.read_groups([(KEYS[0],)], timeout_ms=5_000))
        with pytest.raises(DeadlineSpent):
            await reads.read_groups([(KEYS[1],)], timeout_ms=20)
        with pytest.raises(OnlineStoreDown, match="does not answer"):
            await patient
        own_redis.process.resume()
        answer = await reads.read_groups([(KEYS[2],)], timeout_ms=5_000)
        reads.close()
        return answer

    assert [KEYS[2] * 5_000] == asyncio.run(ask())
    store.close()


def test_reads_fail_while_the_store_is_down_and_work_when_it_is_back(own_redis: RedisServer) -> None:
    """A lost connection is noticed, nobody waits for a reply that will not come, and a new one is opened."""
    store = connect(own_redis.url)

    async def ask() -> list[bytes | None]:
        reads = store.async_reads()
        await reads.read_groups([(KEYS[0],)])
        own_redis.process.kill()
        for _ in range(3):
            with pytest.raises(OnlineStoreDown):
                await reads.read_groups([(KEYS[0],)], timeout_ms=5_000)
        await asyncio.to_thread(own_redis.restart)
        await asyncio.to_thread(fill, store)
        answer = await reads.read_groups([(KEYS[0],)], timeout_ms=5_000)
        reads.close()
        return answer

    assert [KEYS[0] * 5_000] == asyncio.run(ask())
    store.close()


def test_unix_sockets_passwords_and_databases_are_those_of_the_url(tmp_path: Path) -> None:
    """The loop's connection is opened as the writer's is."""
    path = tmp_path / "redis.sock"
    with redis_server("--unixsocket", str(path)) as server:
        connect(server.url)._client().execute_command("ACL", "SETUSER", "reader", "on", ">word", "~*", "+@all")
        store = connect(f"unix://reader:word@{path}?db=3")
        fill(store)

        async def ask() -> list[bytes | None]:
            reads = store.async_reads()
            answer = await reads.read_groups([(KEYS[0],)])
            reads.close()
            return answer

        assert [KEYS[0] * 5_000] == asyncio.run(ask())
        assert [None] == connect(server.url).read_groups([(KEYS[0],)])
        store.close()


def test_a_blocking_read_that_ran_out_of_time_leaves_no_reply_behind(own_redis: RedisServer) -> None:
    """The next read of the same thread gets its own answer, not the late one."""
    store = connect(own_redis.url)
    fill(store)
    own_redis.process.pause()
    for _ in range(3):  # on the old connection, then on new ones, which the server accepts but does not greet
        with pytest.raises(DeadlineSpent):
            store.read_groups([(KEYS[0],)], timeout_ms=50)
    own_redis.process.resume()

    assert [KEYS[1] * 5_000] == store.read_groups([(KEYS[1],)], timeout_ms=5_000)
    store.close()
