"""The stream while there is no room for its dead letters: it waits, commits nothing, and goes on by itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dataflows.plan.tile_store import OnlineTileStore
from featurestore.clock import SystemClock
from featurestore.online.redis.store import connect
from tests.dataflows.conftest import StartStream
from tests.dataflows.payments import PROJECT, TOPIC, assert_every_value_is_exact, make_payments
from tests.full_disk import fill_disk_of, make_room_for

GOOD, BAD = 50, 2_000
ROOM_BYTES = 64 * 1024
"""Hardly a fifth of what the letters take."""


def position(redis_url: str) -> int:
    """The next offset of the view that has come least far."""
    store = connect(redis_url)
    tiles = OnlineTileStore(store, PROJECT, SystemClock())
    found = min(tiles.positions(one).get((TOPIC, 0), 0) for one in tiles.generations())
    store.close()
    return found


def test_a_full_disk_under_the_dead_letters_holds_the_stream_and_loses_nothing(
    start_stream: StartStream, tmp_path: Path, redis_url: str
) -> None:
    """No offset passes a record whose letter is not on the disk; with room again each letter is there, once."""
    payments = make_payments(GOOD, seed=41, partitions=1)
    before = len(payments.records[0])
    payments.append_to(tmp_path / "log")
    letters_file = tmp_path / "letters" / f"{TOPIC}.dead-letters" / "0.jsonl"
    stream = start_stream("--log-dir", str(tmp_path / "log"), "--dead-letter-dir", str(tmp_path / "letters"))
    # A flow that plans again reads again what it had not committed: the letters would rightly be there twice.
    stream.wait_until(lambda: "lag 0" in stream.output.partition(" live: cards@1")[2], "it is not live")
    fill_disk_of(stream.process.pid, ROOM_BYTES)
    with (tmp_path / "log" / TOPIC / "0.jsonl").open("ab") as log:
        log.write(b"".join(b'{"payment_id": "torn %d\n' % number for number in range(BAD)))

    stream.wait_for("retrying")
    # How large it is depends on where the read ended that is held up: the rest of the file is estimated.
    stream.wait_until(lambda: re.search(r"lag [1-9]", stream.output) is not None, "it did not say that it lags")
    held_at = position(redis_url)
    make_room_for(stream.process.pid)
    stream.wait_for(f"{before + BAD:,} read · ")
    stream.wait_for(f"{payments.bad + BAD:,} dead letters")
    stream.wait_until(lambda: "lag 0" in stream.output.rpartition("retrying")[2], "it did not commit")
    stream.terminate()

    assert stream.wait() == 0, stream.output
    assert held_at <= before
    assert f'file too large: "{letters_file}"' in stream.output
    assert position(redis_url) == before + BAD
    letters = [json.loads(line)["offset"] for line in letters_file.read_bytes().splitlines()]
    assert letters[payments.bad :] == list(range(before, before + BAD))
    assert_every_value_is_exact(redis_url, payments)
