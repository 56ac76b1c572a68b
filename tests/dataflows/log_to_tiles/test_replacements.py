"""Events that replace one another, through the steps of the stream: killed anywhere, the last versions count."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflows.log_to_features.flow import published_of
from dataflows.log_to_features.settings import PublishSettings
from dataflows.log_to_tiles.sink import WriterItem
from featurestore.cli.main import main
from featurestore.core.events import Horizon
from featurestore.definitions.registry import read_registry
from featurestore.errors import InvalidRequest
from featurestore.offline.event_log.schema import log_schema, payload_columns, rows_of
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import EventLogHistory, FileHistory
from featurestore.online.generation import GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import Reader
from featurestore.online.redis.store import connect
from featurestore.testing.answers import AnswerValues, stored_answers
from featurestore.testing.clock import ManualClock
from featurestore.testing.servers import KafkaBroker
from featurestore.testing.simulation.process import LANES, PROJECT, StreamParts
from featurestore.testing.simulation.stand_ins.client import StoreClient
from featurestore.testing.simulation.stand_ins.log import SimulatedLog
from featurestore.testing.simulation.stand_ins.store import SimulatedStore
from featurestore.wire.changes.decoder import decoder_of
from featurestore.wire.changes.versions import Recall
from featurestore.wire.entity_key import encode_key
from featurestore.wire.payloads import DeadLetter
from tests.dataflows.conftest import StartStream, applied_repo
from tests.dataflows.log_to_tiles.test_changes import CARDS, TIMES_MS, VIEW, by_history, by_the_table
from tests.dataflows.payments import PROJECT as PROJECT_OF_PROCESSES
from tests.dataflows.stream_process import StreamProcess
from tests.offline.training_set.label_tables import repo_of
from tests.simulation.nightly import quietly
from tests.simulation.stream import DrivenStream, without_threads
from tests.wire.changed_table import BEGIN_MS, HOUR_MS, TOPIC, Row
from tests.wire.replaced_events import SOURCE, Producer, left_of, payload_of

PARTITIONS = 2
REPO = """
from feast import Entity, FeatureService, ValueType
from featurestore.features import aggregate, count, kafka_source, stream_view

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)

payment = kafka_source(
    name="payment",
    topic="replaced-payments",
    on_duplicate="replace",
    columns={
        "payment_id": "string", "paid_at": "timestamp", "card_id": "string", "cents": "bigint", "amount": "double",
        "declined": "boolean", "note": "string",
    },
    event_time="paid_at",
    event_id="payment_id",
)
cards = stream_view(
    name="cards",
    entities=[card],
    source=payment,
    features=[*count(over=["6h", "lifetime"]), *aggregate("cents", "sum", over=["%(card_window)s", "lifetime"])],
)
scoring = FeatureService(name="scoring", features=[cards])
"""
FIRST = replace(VIEW, source=SOURCE, is_apart=True)
LARGE = replace(FIRST, name="large", where="cents >= 250")


def rows_left(producers: Sequence[Producer]) -> list[Row]:
    """What is left, by hand; what came too late to replace anything is an event of its own."""
    found = [(offset, row) for producer in producers for offset, row in left_of(producer.sent).items()]
    return [{**row, "payment_id": f"{row['payment_id']}@{offset}"} for offset, row in found]


class World:
    """Two partitions, a store, and a stream that dies now and then."""

    def __init__(self, draw: random.Random, letters: Path) -> None:
        self.draw = draw
        self.clock = ManualClock(now_ms=BEGIN_MS + 100 * HOUR_MS)
        self.log, self.store = SimulatedLog(TOPIC, PARTITIONS), SimulatedStore(self.clock.now_ms)
        self.producers = [Producer(draw, prefix=f"p{number}") for number in range(PARTITIONS)]
        self.letters = list[DeadLetter]()
        self._directory = letters
        self.views = [FIRST]
        GenerationCatalog(StoreClient(self.store, Counter(), {}), PROJECT).lane_count(LANES)
        self.start()

    def start(self) -> None:
        """A process that knows what the store has, and no more."""
        client = StoreClient(self.store, Counter(), {})
        parts = StreamParts(
            client, self.log, self.views, self.clock, self._directory, Counter(), lambda *of: None, self.letters.extend
        )
        self.stream = DrivenStream(parts)
        assert self.stream.error is None

    def send(self, count: int) -> None:
        """Records of both partitions."""
        for number, producer in enumerate(self.producers):
            begin = len(producer.sent)
            producer.send(count)
            for row in producer.sent[begin:]:
                self.log.append(number, payload_of(row), None)

    def run(self, reads: int) -> None:
        """Read on, commit now and then, and with luck only some lanes; perhaps die."""
        for _ in range(reads):
            self.stream.read(self.draw)
            if self.draw.random() < 0.3:
                self.stream.commit()
            elif self.draw.random() < 0.1:
                for stage in self.stream._stages:
                    key = self.draw.choice(sorted(stage.writers))
                    items: list[WriterItem] = stage.inbox[key]
                    stage.inbox[key] = []
                    stage.writers[key].write_batch(items)
                self.start()
            if not self.stream.is_running:
                self.start()

    def finish(self) -> None:
        """All that there is, committed; whatever fills has caught up."""
        for _ in range(40):
            self.stream.read_all()
            self.stream.commit()
            self.clock.sleep(1.1)
            self.stream.watch()
            if not self.stream.is_running:
                self.start()
        self.stream.stop()

    def rows(self) -> list[Row]:
        """What is left, by hand."""
        return rows_left(self.producers)

    def answers(self, name: str, as_of_ms: int) -> list[AnswerValues]:
        """Of all cards, of what serves."""
        [serving] = [
            one
            for one in GenerationCatalog(StoreClient(self.store, Counter(), {}), PROJECT).generations(name)
            if one.state is GenerationState.SERVING
        ]
        reader = Reader(StoreClient(self.store, Counter(), {}), LANES)
        return stored_answers(reader, serving, [encode_key([card]) for card in CARDS], as_of_ms)

    def logged(self) -> pa.Table:
        """The event log, by a process that began anew a few times."""
        found = list[pa.RecordBatch]()
        for number, producer in enumerate(self.producers):
            at, position, horizon = 0, 0, Horizon(0)
            decoder = decoder_of(SOURCE, payload_columns(SOURCE))
            while at < len(producer.sent):
                end = min(at + self.draw.randint(1, 30), len(producer.sent))
                events = decoder.decode(producer.raw(at, end, number), now_ms=self.clock.now_ms()).events
                rows = rows_of(events, log_schema(SOURCE), ingest_time_ms=0)
                found.append(rows.filter(pa.array(events.offsets >= position)))
                at = end
                if end >= position and events.horizon is not None:
                    position, horizon = end, events.horizon
                if self.draw.random() < 0.2:
                    recall = Recall(horizon, position, position)
                    decoder, at = (
                        decoder_of(SOURCE, payload_columns(SOURCE), recalls={(TOPIC, number): recall}),
                        horizon.begin,
                    )
        return pa.Table.from_batches(found)


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=12, deadline=None)
def test_store_and_history_say_what_the_last_versions_say(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Replaced are values, times and cards, in a stream that dies; a view that is added fills beside."""
    draw = random.Random(seed)
    with quietly(), without_threads():
        world = World(draw, tmp_path_factory.mktemp("letters"))
        for step in range(draw.randint(1, 4)):
            world.send(draw.randint(1, 25))
            world.run(draw.randint(0, 25))
            if step == 1:
                world.views = [FIRST, LARGE]
                world.start()
        world.finish()

    rows, last_ms = world.rows(), BEGIN_MS + 100 * HOUR_MS
    expected = [by_the_table(FIRST, rows, card, last_ms) for card in CARDS]
    assert expected == world.answers("cards", last_ms)
    if len(world.views) > 1:
        large = [row for row in rows if row["cents"] >= 250]
        assert [by_the_table(FIRST, large, card, last_ms) for card in CARDS] == world.answers("large", last_ms)
    expected = [by_the_table(FIRST, rows, card, at) for at in TIMES_MS for card in CARDS]
    assert expected == by_history(FIRST, FileHistory(world.logged()))


@pytest.mark.kafka
def test_killed_processes_count_the_last_versions(
    start_stream: StartStream, kafka: KafkaBroker, redis_url: str, tmp_path: Path
) -> None:
    """Stream and event log on Kafka and Redis, killed while they work; then a bootstrap, and what comes after it."""
    registry = applied_repo(tmp_path / "repo", repo=REPO)
    producers = [Producer(random.Random(number), prefix=f"p{number}") for number in range(PARTITIONS)]
    event_log = str(tmp_path / "event_log")
    where = ("--bootstrap-servers", kafka.bootstrap_servers)
    kafka.create_topic("replaced-payments", partitions=PARTITIONS)

    def send(count: int) -> None:
        begun = [len(one.sent) for one in producers]
        for one in producers:
            one.send(count)
        kafka.append(
            "replaced-payments",
            [list(map(payload_of, one.sent[at:])) for one, at in zip(producers, begun, strict=True)],
        )

    def start(*options: str) -> list[StreamProcess]:
        of_log = ("--event-log", event_log, "--commit-seconds", "0.2")
        return [
            start_stream(*where, "--batch-records", "50", *options, use_registry=registry),
            start_stream(*where, *of_log, *options, use_registry=registry, program=("-m", "dataflows.log_to_table")),
        ]

    def assert_all_say_the_same() -> None:
        ended = start("--until-end")
        assert [0, 0] == [one.wait() for one in ended], ended[0].output + ended[1].output
        [view] = read_registry(str(registry), project=PROJECT_OF_PROCESSES).views
        rows = rows_left(producers)
        last_ms = max(row["paid_at"] for row in rows) + 1
        expected = [by_the_table(view, rows, card, last_ms) for card in CARDS]
        store = connect(redis_url)
        [serving] = [
            one
            for one in GenerationCatalog(store, PROJECT_OF_PROCESSES).generations("cards")
            if one.state is GenerationState.SERVING
        ]
        lane_count = GenerationCatalog(store, PROJECT_OF_PROCESSES).lane_count()
        keys = [encode_key([card]) for card in CARDS]
        assert expected == stored_answers(Reader(store, lane_count), serving, keys, last_ms)
        store.close()
        times = pa.array([last_ms] * len(CARDS), pa.timestamp("ms", tz="UTC"))
        labels = pa.table({"card_id": CARDS, "event_timestamp": times})
        repo = read_registry(str(registry), project=PROJECT_OF_PROCESSES)
        found = build_training_set(repo, "scoring", labels, history=EventLogHistory(event_log))
        assert expected == found.select(list(expected[0])).to_pylist()

    send(400)
    running = start()
    running[0].wait_for(" read")
    send(200)
    running[1].wait_until(lambda: (Path(event_log) / "payment").exists())
    for one in running:
        one.kill()
    send(50)
    assert_all_say_the_same()
    of_store = ["--registry", str(registry), "--project", PROJECT_OF_PROCESSES, "--store-url", redis_url]
    assert 0 == main(["bootstrap", "cards", "--anew", "--event-log", event_log, *of_store])
    send(50)
    assert_all_say_the_same()


def test_a_publication_of_them_is_refused() -> None:
    """By the names of source and service: it would miss whose event it was before."""
    settings = cast(PublishSettings, SimpleNamespace(service="all"))
    with pytest.raises(InvalidRequest, match='events of source "payment" replace one another, and service "all"'):
        published_of(settings, repo_of(FIRST))
