"""An apply while the stream runs: it notices by itself, and no event is lost or doubled."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from dataflows.plan.tile_store import OnlineTileStore
from featurestore.clock import SystemClock
from featurestore.definitions.registry import read_registry
from featurestore.online.generation import GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from tests.dataflows.conftest import StartStream
from tests.dataflows.payments import PROJECT, assert_every_value_is_exact, make_payments


def test_a_running_stream_takes_an_apply_over(
    start_stream: StartStream, tmp_path: Path, redis_url: str, registry: Path, changed_registry: Path
) -> None:
    """The changed view fills beside the old one and takes over, while payments go on."""
    applied = tmp_path / "registry.db"
    shutil.copy(registry, applied)
    first_part, second_part = make_payments(3_000, seed=31), make_payments(3_000, seed=32, first=3_000)
    first_part.append_to(tmp_path / "log")
    stream = start_stream("--log-dir", str(tmp_path / "log"), use_registry=applied)
    stream.wait_for("live: cards@1, merchants@1 from")
    shutil.copy(changed_registry, tmp_path / "next.db")
    (tmp_path / "next.db").replace(applied)
    second_part.append_to(tmp_path / "log")
    stream.wait_for("other definitions were applied")
    stream.wait_until(lambda: stream.output.count("has caught up and serves") == 3)
    stream.terminate()

    assert stream.wait() == 0, stream.output
    again = start_stream("--log-dir", str(tmp_path / "log"), "--until-end", use_registry=applied)
    assert again.wait() == 0
    store = connect(redis_url)
    states = [one.state for one in GenerationCatalog(store, PROJECT).generations("cards")]
    store.close()
    assert [GenerationState.RETIRED, GenerationState.SERVING] == states
    assert_every_value_is_exact(redis_url, first_part, second_part)


def test_a_registry_that_breaks_leaves_the_stream_as_it_is(
    start_stream: StartStream, tmp_path: Path, redis_url: str, registry: Path
) -> None:
    """It says so once, and goes on with the definitions that it has, also when it must plan again."""
    applied = tmp_path / "registry.db"
    shutil.copy(registry, applied)
    first_part, second_part = make_payments(1_000, seed=33), make_payments(1_000, seed=34, first=1_000)
    first_part.append_to(tmp_path / "log")
    stream = start_stream("--log-dir", str(tmp_path / "log"), use_registry=applied)
    stream.wait_for("live: cards@1, merchants@1 from")
    views = read_registry(str(registry), project=PROJECT).views
    applied.write_bytes(b"\xff\xff not a registry")
    stream.wait_for("the stream goes on with what it has")
    store = connect(redis_url)
    GenerationCatalog(store, PROJECT).register(replace(views[0], lookback_ms=views[0].lookback_ms + 1))
    store.close()
    stream.wait_for("have changed")
    second_part.append_to(tmp_path / "log")
    read = sum(map(len, first_part.records + second_part.records))
    tiles = OnlineTileStore(connect(redis_url), PROJECT, SystemClock())
    stream.wait_until(lambda: all(sum(tiles.positions(one).values()) == read for one in tiles.generations()))
    tiles.close()
    stream.terminate()

    assert stream.wait() == 0, stream.output
    assert 1 == stream.output.count("the stream goes on with what it has")
    assert_every_value_is_exact(redis_url, first_part, second_part)


def test_a_view_that_left_the_registry_retires(start_stream: StartStream, tmp_path: Path, redis_url: str) -> None:
    """It is fed and served no more, and can be dropped."""
    make_payments(500, seed=35).append_to(tmp_path / "log")
    assert start_stream("--log-dir", str(tmp_path / "log"), "--until-end").wait() == 0
    store = connect(redis_url)
    catalog = GenerationCatalog(store, PROJECT)
    serving = catalog.serving("cards")
    assert serving is not None
    gone = catalog.register(replace(serving.view, name="gone"))
    again = start_stream("--log-dir", str(tmp_path / "log"), "--until-end")

    assert again.wait() == 0
    assert 'feature view "gone" is not needed any more' in again.output
    assert [GenerationState.RETIRED] == [one.state for one in catalog.generations("gone")]
    catalog.drop(gone)
    assert () == catalog.generations("gone")
    store.close()
