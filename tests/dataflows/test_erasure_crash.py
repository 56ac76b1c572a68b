"""A card is erased beside a running stream, on a real Kafka and Redis; eraser and stream are killed on the way."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featurestore.testing.oracle.naive import NaiveEvent, NaiveValue
from featurestore.testing.servers import KafkaBroker
from tests.dataflows.conftest import Fill, StartStream
from tests.dataflows.payments import (
    PROJECT,
    Payments,
    assert_every_value_is_exact,
    iso,
    make_payments,
)
from tests.dataflows.stream_process import ROOT

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

CARD, PARTITIONS, PARTS = "card-3", 2, 3


def test_nothing_brings_an_erased_card_back(
    start_stream: StartStream,
    fill: Fill,
    kafka: KafkaBroker,
    redis_url: str,
    registry: Path,
    changed_registry: Path,
    tmp_path: Path,
) -> None:
    """Not kills, not payments that were in flight or come late, not another generation; later payments count anew."""
    options = ["--bootstrap-servers", kafka.bootstrap_servers]
    parts = [make_payments(600, seed=n, first=600 * n, partitions=PARTITIONS, entities=20) for n in range(PARTS)]
    fill(parts[0])
    stream, draw = start_stream(*options), random.Random(1)
    for part in parts[1:]:
        process = subprocess.Popen(words(registry, redis_url, tmp_path, kafka), stdout=subprocess.DEVNULL, stderr=None)
        fill(part)
        time.sleep(draw.uniform(0.3, 1.2))
        process.kill()
        process.wait()
        if part is parts[-1]:
            stream.kill()
            stream = start_stream(*options)
    done = subprocess.run(
        [*words(registry, redis_url, tmp_path, kafka), "--format", "json"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    late = payments_of(parts[-1].newest_ms - 5_000, first=10_000)
    fill(late)
    anew = payments_of(int(time.time() * 1_000), first=20_000)
    fill(anew)
    stream.terminate()
    assert stream.wait() == 0, stream.output
    finished = start_stream(*options, "--until-end")
    assert finished.wait() == 0, finished.output
    # What is erased counts in nobody's values by card; to merchants it is what it was.
    for part in (*parts, late):
        part.cards[CARD.encode()] = []

    assert_every_value_is_exact(redis_url, *parts, late, anew)
    assert verified(registry, redis_url, tmp_path, kafka).returncode == 0
    again = start_stream(*options, "--until-end", use_registry=changed_registry)
    assert again.wait() == 0, again.output
    assert_every_value_is_exact(redis_url, *parts, late, anew)
    receipt = json.loads(done.stdout)
    assert "cards@1" in {one["name"] for one in receipt["places"]}
    assert CARD not in done.stdout + done.stderr


def payments_of(time_ms: int, *, first: int) -> Payments:
    """Three payments of the card, at a moment."""
    made = Payments([[] for _ in range(PARTITIONS)], newest_ms=time_ms)
    for number in range(first, first + 3):
        columns: dict[str, NaiveValue | None] = {"amount": number, "is_declined": 0}
        key, event_id = CARD.encode(), b"p-%d" % number
        record = {"payment_id": event_id.decode(), "paid_at": iso(time_ms), "card_id": CARD, "merchant_id": 0}
        made.records[0].append(json.dumps({**record, **columns, "is_declined": False}).encode())
        made.cards[key].append(NaiveEvent(key, time_ms, event_id, columns))
        made.merchants[b"0"].append(NaiveEvent(b"0", time_ms, event_id, columns))
    return made


def words(registry: Path, url: str, directory: Path, kafka: KafkaBroker) -> list[str]:
    """The command."""
    where = ["--registry", str(registry), "--project", PROJECT, "--store-url", url]
    logs = ["--event-log", str(directory / "event_log"), "--bootstrap-servers", kafka.bootstrap_servers]
    return [sys.executable, "-m", "featurestore", "erase", f"card_id={CARD}", *where, *logs]


def verified(registry: Path, url: str, directory: Path, kafka: KafkaBroker) -> subprocess.CompletedProcess[str]:
    """What a verification says."""
    program = [*words(registry, url, directory, kafka), "--verify"]
    return subprocess.run(program, cwd=ROOT, env=os.environ, check=False, capture_output=True, text=True)
