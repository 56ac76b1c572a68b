"""A stream whose store fills up, evicts, or loses single keys: it waits, refuses, or computes anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from featurestore.online.generation import GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from featurestore.online.serving_view import serving_views
from featurestore.testing.servers import redis_server
from featurestore.wire.entity_key import fingerprint
from tests.dataflows.conftest import StartStream
from tests.dataflows.payments import PROJECT, assert_every_value_is_exact, make_payments


def test_a_full_store_is_waited_for_and_nothing_is_read_again(start_stream: StartStream, tmp_path: Path) -> None:
    """Memory and keys are named; when there is room the same process goes on with what it had prepared."""
    first_part, second_part = make_payments(1_500, seed=21), make_payments(6_000, seed=22, first=1_500)
    with redis_server() as server:
        admin: Any = redis.Redis.from_url(server.url)
        first_part.append_to(tmp_path / "log")
        stream = start_stream("--log-dir", str(tmp_path / "log"), "--store-patience-seconds", "0.5", url=server.url)
        stream.wait_for("lag 0")
        admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 100_000)
        second_part.append_to(tmp_path / "log")
        stream.wait_for("is full: ")
        admin.config_set("maxmemory", 0)
        read = sum(len(lines) for lines in first_part.records + second_part.records)
        stream.wait_for(f"{read:,} read")
        stream.terminate()

        assert stream.wait() == 0, stream.output
        assert "back in time" not in stream.output
        assert "came back older" not in stream.output
        again = start_stream("--log-dir", str(tmp_path / "log"), "--until-end", url=server.url)
        assert again.wait() == 0
        assert_every_value_is_exact(server.url, first_part, second_part)


def test_a_store_that_evicts_is_refused(start_stream: StartStream, tmp_path: Path) -> None:
    """With the policy, the limit and the remedy; a policy alone, without a limit, evicts nothing."""
    make_payments(10, seed=23).append_to(tmp_path / "log")
    with redis_server() as server:
        admin = redis.Redis.from_url(server.url)
        admin.config_set("maxmemory-policy", "allkeys-lru")
        options = ("--log-dir", str(tmp_path / "log"), "--until-end")
        assert start_stream(*options, url=server.url).wait() == 0
        admin.config_set("maxmemory", 64 << 20)
        refused = start_stream(*options, url=server.url)

        assert refused.wait() == 1
        assert 'maxmemory-policy is "allkeys-lru"' in refused.output
        assert "CONFIG SET maxmemory-policy noeviction" in refused.output


@pytest.mark.parametrize("kind", ["/c", "/i/"], ids=["checkpoint", "event ids"])
@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
def test_a_lane_that_lost_a_key_is_computed_anew(
    start_stream: StartStream, tmp_path: Path, redis_url: str, kind: str, is_running: bool
) -> None:
    """Not begun anew over what it holds: another generation fills from the first record, and then serves."""
    payments = make_payments(4_000, seed=24)
    payments.append_to(tmp_path / "log")
    stream = start_stream("--log-dir", str(tmp_path / "log"))
    stream.wait_for("live: cards@1, merchants@1")
    first = stream
    store = connect(redis_url)
    catalog = GenerationCatalog(store, PROJECT)
    stream.wait_until(lambda: all(one.is_opened for found in catalog.all().values() for one in found))
    if not is_running:
        stream.terminate()
        assert stream.wait() == 0
    view = "cards"
    (serving,) = catalog.generations(view)
    stem = serving.keys.stem
    lost = next(key for key in store.scan(serving.keys.pattern(1)) if f"{stem}{kind}" in key.decode())
    assert 1 == store.delete([lost])
    if is_running and kind == "/i/":
        # A running writer has the ids in memory; who opens the lane next misses them.
        stream.terminate()
        assert stream.wait() == 0
        is_running = False
    if not is_running:
        stream = start_stream("--log-dir", str(tmp_path / "log"))
    stream.wait_until(lambda: (found := catalog.serving(view)) is not None and found.number == serving.number + 1)
    stream.terminate()

    assert stream.wait() == 0, stream.output
    assert "is damaged" in first.output + stream.output
    states = [(one.number, one.state) for one in catalog.generations(view)]
    assert [(1, GenerationState.RETIRED), (2, GenerationState.SERVING)] == states
    store.close()
    assert_every_value_is_exact(redis_url, payments)


def test_a_damaged_entity_is_set_aside_while_everything_else_goes_on(
    start_stream: StartStream, tmp_path: Path, redis_url: str
) -> None:
    """Its view is served all the while, and again whole once another generation has filled beside it."""
    payments = make_payments(4_000, seed=25, entities=60)
    more = make_payments(6_000, seed=26, first=4_000, entities=60)
    payments.append_to(tmp_path / "log")
    stream = start_stream("--log-dir", str(tmp_path / "log"), "--metrics-port", "0")
    stream.wait_for("lag 0")
    store = connect(redis_url)
    catalog = GenerationCatalog(store, PROJECT)
    stream.wait_until(lambda: {"cards", "merchants"} == set(serving_views(catalog.all())))
    (serving,) = catalog.generations("cards")
    body = min(key for key in store.scan(serving.keys.pattern()) if b"/b/" in key)
    store._client().append(body, b"rubbish")
    more.append_to(tmp_path / "log")

    def is_whole_again() -> bool:
        found = serving_views(catalog.all())
        assert {"cards", "merchants"} == set(found)
        return found["cards"].generation.number == 2

    stream.wait_until(is_whole_again)
    stream.wait_for("lag 0")
    stream.terminate()

    assert stream.wait() == 0, stream.output
    assert "the entity is set aside, and another generation fills in the place of 1" in stream.output
    entity = body.removeprefix(serving.keys.body_prefix(int(body.partition(b"}")[0].rpartition(b"/")[2])))
    assert f"(entity {fingerprint(entity)})" in stream.output
    store.close()
    assert_every_value_is_exact(redis_url, payments, more)
