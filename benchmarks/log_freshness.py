"""How long until a payment counts: from a log directory, beside a steady load, in all views of its card."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.machine import environment
from benchmarks.parts import AppliedRepo, running, stream_process
from benchmarks.scenario import require
from featurestore.clock import SystemClock
from featurestore.definitions.schemas.directory import BASE64_ENDING, SCHEMAS, SchemaDirectory
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import EntityBytes, EntityRead, Reader
from featurestore.online.redis.store import RedisStore, connect
from featurestore.online.serving_view import ServingView, serving_views
from featurestore.testing.servers import redis_server
from featurestore.testing.servers.process import ServerProcess
from featurestore.testing.simulator import Population, PopulationSize
from featurestore.testing.simulator.avro_payload import SCHEMA, AvroPayloadEncoder

TOPIC = "transactions"
PARTITIONS = 4

PROBE_EVERY_S = 0.05
SETTLE_S = 4.0
GIVE_UP_S = 20.0
POLL_PAUSE_S = 0.001


def visible_seconds(directory: Path, repo: AppliedRepo, *, rate: int, probes: int) -> list[float]:
    """From when each probe was due to the first look that finds it in the last of the card's views.

    Args:
        directory: for the log and the processes' output.
        repo: the views.
        rate: other transactions a second.
        probes: cards that nobody else uses, one every PROBE_EVERY_S.
    """
    log = directory / f"freshness-log-{len(repo.spec.views)}-{rate}"
    (log / TOPIC).mkdir(parents=True)
    # The load has partitions of its own: two programs do not append to one file.
    for partition in range(PARTITIONS + 1):
        (log / TOPIC / f"{partition}{BASE64_ENDING}").touch()
    number = SchemaDirectory(log / SCHEMAS).register(f"{TOPIC}-value", SCHEMA)
    encoder = AvroPayloadEncoder(Population(PopulationSize(cards=1), seed=1), number)
    command = [sys.executable, "-m", "featurestore", "simulate", "--live", "--rate", str(rate), "--to", f"log:{log}"]
    with redis_server() as redis:
        stream = stream_process(repo, directory, redis.url, "--log-dir", str(log), "--progress-seconds", "0.5")
        load = ServerProcess("load", command, directory, environment=environment())
        with running(stream, "lag"):
            load.start()
            try:
                time.sleep(SETTLE_S)
                store = connect(redis.url)
                found = _probe(Probed(store, repo), log / TOPIC / f"{PARTITIONS}{BASE64_ENDING}", encoder, probes)
                store.close()
            finally:
                load.stop()
    return found


class Probed:
    """Looks whether cards count in every view of theirs.

    Args:
        store: the online store.
        repo: the views.
    """

    def __init__(self, store: RedisStore, repo: AppliedRepo) -> None:
        catalog = GenerationCatalog(store, repo.spec.project)
        serving = serving_views(catalog.all())
        self._reader = Reader(store, catalog.lane_count())
        views = [view.name for view in repo.spec.views if [key.name for key in view.join_keys] == ["card_id"]]
        # Views that are stored together are committed together: one of each is enough.
        distinct: dict[str, ServingView] = {(one := serving[name]).generation.keys.stem: one for name in views}
        self._generations = [one.generation for one in distinct.values()]

    def count(self, card: str) -> int:
        """In how many of what stores the card's views it is there."""
        reads = [EntityRead(generation, card.encode()) for generation in self._generations]
        count = 0
        for found in self._reader.read(reads):
            assert isinstance(found, EntityBytes), "a stream view is read as body and head"
            count += found.head is not None or found.body is not None
        return count

    @property
    def wanted(self) -> int:
        """What `count` says when it is in all of them."""
        return len(self._generations)


def _probe(probed: Probed, file: Path, encoder: AvroPayloadEncoder, count: int) -> list[float]:
    """Append probes by a timetable, and look at all that are not visible yet, again and again."""
    clock = SystemClock()
    visible_s: list[float] = []
    due_s: dict[str, float] = {}
    start_s, sent = time.perf_counter(), 0
    with file.open("ab", buffering=0) as log:
        while sent < count or due_s:
            now_s = time.perf_counter()
            while sent < count and start_s + sent * PROBE_EVERY_S <= now_s:
                card = f"probe-{sent}"
                log.write(encoder.lines_of([_payment(card, clock.now_ms())])[0] + b"\n")
                due_s[card] = start_s + sent * PROBE_EVERY_S
                sent += 1
            for card, due in list(due_s.items()):
                require(now_s - due < GIVE_UP_S, f"{card} did not become visible in {GIVE_UP_S} s")
                if probed.count(card) < probed.wanted:
                    break  # the others were sent later
                visible_s.append(time.perf_counter() - due_s.pop(card))
            time.sleep(POLL_PAUSE_S)
    return visible_s


def _payment(card: str, event_time_ms: int) -> dict[str, object]:
    texts = {"transaction_id": card, "card_id": card, "market": "SE", "currency": "SEK", "merchant_category": "grocery"}
    flags = {"is_declined": False, "is_refund": False, "is_card_present": True}
    numbers = {"event_time": event_time_ms, "merchant_id": 1_000_000, "terminal_id": 50_000_000, "amount": 100}
    return {**texts, **flags, **numbers}
