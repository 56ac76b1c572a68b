"""A store that dies, goes back in time, or gets a second writer while the stream is at work; real Kafka and Redis."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from featurestore.testing.servers import redis_server
from tests.system.audit import audit, connected, reached, wait_until_reached
from tests.system.conftest import StartStream
from tests.system.load import Load

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

STORE_KILLS = 5
EXIT_FENCED = 3


def test_a_store_that_is_killed_at_work_loses_nothing_and_doubles_nothing(
    start_stream: StartStream, load: Load
) -> None:
    """SIGKILL of redis-server during commits of unknown outcome: the same stream process goes on when it is back."""
    draw = random.Random(3)
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        (stream,) = start_stream(server.url, "--until-end")
        applied = 0
        for kills_left in range(STORE_KILLS, 0, -1):
            target = applied + int(draw.uniform(0.3, 1.0) / (kills_left + 1) * (load.count - applied))
            applied = wait_until_reached(server.url, target, [stream]).slowest
            time.sleep(draw.uniform(0.0, 0.1))
            server.process.kill()
            assert applied < load.count, "this kill did not hit work under way"
            time.sleep(draw.uniform(0.0, 1.0))
            server.restart()
        assert stream.wait(120) == 0, stream.output

        compared = audit(server.url, load)
        print(
            f"\n{STORE_KILLS} kills of the store, {stream.output.count('retrying')} commits tried again; "
            f"{compared.values:,} values compared"
        )


def test_a_store_restored_from_an_older_copy_at_work_heals_itself(
    start_stream: StartStream, load: Load, tmp_path: Path
) -> None:
    """The same process notices at its next commit and reads again from the store's own checkpoint; twice."""
    with redis_server() as server:
        (stream,) = start_stream(server.url, "--until-end")
        again = 0
        for copy_at, restore_at in [(0.1, 0.4), (0.5, 0.8)]:
            wait_until_reached(server.url, int(copy_at * load.count), [stream])
            server.save_copy(tmp_path / "older.rdb")
            before = wait_until_reached(server.url, int(restore_at * load.count), [stream])
            server.load_copy(tmp_path / "older.rdb")
            with connected(server.url) as store:
                again += before.slowest - reached(store).slowest
        assert again > load.count // 4, "the copies were not older"
        assert stream.wait(120) == 0, stream.output
        assert stream.output.count("planning again: the online store went back in time") == 2, stream.output

        compared = audit(server.url, load)
        print(f"\n2 restores, {again:,} records read again; {compared.values:,} values compared")


def test_a_second_stream_takes_over_at_work(start_stream: StartStream, load: Load, redis_url: str) -> None:
    """The first stops at its next commit with a clear message; between the two nothing is lost or doubled."""
    (first,) = start_stream(redis_url, "--until-end")
    wait_until_reached(redis_url, load.count // 4, [first])

    (second,) = start_stream(redis_url, "--until-end")

    assert first.wait() == EXIT_FENCED, first.output
    assert "another writer took over lane" in first.output
    assert "this one has stopped without losing anything" in first.output
    assert second.wait(120) == 0, second.output
    with connected(redis_url) as store:
        assert reached(store).slowest == load.count
    audit(redis_url, load)
