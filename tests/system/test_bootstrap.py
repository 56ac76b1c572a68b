"""A changed view is bootstrapped from the event log while payments keep coming: real Kafka, real Redis, SIGKILL.

history ──> Kafka ──> event log, stream (old definition)      then Kafka forgets the history
live    ──> Kafka ──> event log, stream ──────────────────────────────────────────────────────────>
bootstrap       ✗ killed    ✗ killed    ── handed over ── stream catches up ── promoted ── rolled back
reader      |||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from dataflows.plan.tile_store import OnlineTileStore
from featurestore.clock import SystemClock
from featurestore.errors import FeatureStoreError
from featurestore.offline.event_log.reader import EventLog
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import EntityBytes, EntityRead
from featurestore.online.read.serving_generations import ServingGenerations
from featurestore.online.redis.store import RedisStore
from featurestore.online.serving_view import serving_views
from featurestore.testing.servers import KafkaBroker
from featurestore.wire.codecs.body import decode_entity
from tests.dataflows.payments import CONFIG, PROJECT, REPO, Payments, assert_every_value_is_exact, make_payments
from tests.dataflows.stream_process import ROOT, StreamProcess
from tests.system.audit import connected

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

TOPIC = "bootstrapped-payments"
SLICE = 25_000
HISTORY_SLICES = 2
LIVE_SLICES_MAX = 20
"""Two days of payments each; all of them must lie in the past, or the stream refuses them."""

RATE_PER_S = 5_000
PATIENCE_S = 120.0
READ_CARDS = 40


@dataclass
class Stand:
    """What the test works with."""

    repo: Path
    directory: Path
    redis_url: str
    kafka: KafkaBroker
    started: list[StreamProcess] = field(default_factory=list)

    @property
    def event_log(self) -> Path:
        """The log of the payments."""
        return self.directory / "event_log" / "payments"

    def apply(self, card_window: str) -> None:
        """Define and apply the views."""
        definitions = REPO.replace('topic="payments"', f'topic="{TOPIC}"') % {"card_window": card_window}
        (self.repo / "definitions.py").write_text(definitions)
        command = [sys.executable, "-m", "featurestore", "apply", "--repo", str(self.repo)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    def start(self, *program: str) -> StreamProcess:
        """A process of ours."""
        environment = {
            "FEATURESTORE_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "FEATURESTORE_EVENT_LOG": str(self.directory / "event_log"),
            "FEATURESTORE_DEAD_LETTER_DIR": str(self.directory / "letters"),
        }
        registry = self.repo / "data" / "registry.db"
        process = StreamProcess(
            self.directory, registry, self.redis_url, program=("-m", *program), environment=environment
        )
        self.started.append(process)
        return process

    def command(self, *arguments: str) -> str:
        """Run a command of ours to its end; what it printed."""
        process = self.start("featurestore", *arguments)
        assert process.wait() == 0, process.output
        return process.output


@pytest.fixture
def stand(tmp_path: Path, redis_url: str, kafka: KafkaBroker) -> Iterator[Stand]:
    """A repo, a topic, and what was started ends with the test."""
    repo = tmp_path / "repo"
    (repo / "data").mkdir(parents=True)
    (repo / "feature_store.yaml").write_text(CONFIG)
    kafka.create_topic(TOPIC)
    made = Stand(repo, tmp_path, redis_url, kafka)
    yield made
    for process in made.started:
        process.kill()
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.delete_topics([TOPIC], operation_timeout=30).values():
        future.result(timeout=30)


def test_a_bootstrap_beside_a_running_stream_is_killed_twice_and_ends_exact(stand: Stand) -> None:
    """Values equal the oracle, readers never see a part of a generation, Kafka's old records are not needed."""
    history = [make_slice(number) for number in range(HISTORY_SLICES)]
    stand.apply("1d")
    stand.start("dataflows.log_to_table", "--commit-seconds", "0.5")
    stream = stand.start("dataflows.log_to_tiles")
    sender = Sender(stand.kafka)
    sender.send_all(history)
    with connected(stand.redis_url) as store:
        ends = {(TOPIC, number): sum(len(one.records[number]) for one in history) for number in range(4)}
        wait_until(lambda: logged(stand.event_log) == ends, "the history is logged")
        wait_until(lambda: streamed(store) == sum(ends.values()), "the history is streamed")
        wait_until(lambda: "cards" in serving_views(GenerationCatalog(store, PROJECT).all()), "cards are served")
        forget(stand.kafka, ends)
        with sender, PollingReader(store, history) as reader:
            stand.apply("2d")
            for lanes_done in (2, 5):
                kill_bootstrap(stand, lanes_done)
                assert states(store) == [GenerationState.SERVING, GenerationState.BOOTSTRAPPING], stream.output
            last = stand.command("bootstrap", "cards")
            number = begun(store)[-1].number
            stream.wait_for(f'feature view "cards" generation {number} has caught up', PATIENCE_S)
            was_sending = sender.is_alive
        assert was_sending, "the payments ended before the switch"
        sent = [*history, *sender.sent]
        assert reader.failures == []
        assert reader.numbers == [1, number]

        stream.terminate()
        assert stream.wait() == 0, stream.output
        assert stand.start("dataflows.log_to_tiles", "--until-end").wait(PATIENCE_S) == 0
        assert_every_value_is_exact(stand.redis_url, *sent)
        assert states(store) == [GenerationState.RETIRED, GenerationState.SERVING]
        first_lane = next(line for line in last.splitlines() if "lanes to fill" in line)
        print(f"\n{first_lane.strip()}; {reader.polls} polls; sent {sender.rate_per_s:,.0f}/s\n{last}")

        printed = stand.command("rollback", "cards")
        assert f"cards@1 serves again, cards@{number} is kept but not fed" in printed
        assert stand.start("dataflows.log_to_tiles", "--until-end").wait(PATIENCE_S) == 0
        assert_every_value_is_exact(stand.redis_url, *sent)
        assert states(store) == [GenerationState.SERVING, GenerationState.ROLLED_BACK]
        assert "rolled_back" in stand.command("status", "--no-memory")


def make_slice(number: int) -> Payments:
    """Payments of two days, which follow those of the slice before."""
    return make_payments(SLICE, seed=61 + number, first=number * SLICE)


def kill_bootstrap(stand: Stand, lanes_done: int) -> None:
    """SIGKILL when so many lanes are complete, in the midst of another: it is held while its output is read."""
    process = stand.start("featurestore", "bootstrap", "cards")
    wait_until(lambda: "lanes to fill" in process.output, "lanes are being filled", process)
    while process.output.count("  lane ") < lanes_done:
        process.process.send_signal(signal.SIGCONT)
        time.sleep(0.005)
        process.process.send_signal(signal.SIGSTOP)
        assert process.process.poll() is None, process.output
    process.kill()
    assert process.process.returncode == -9, process.output


class Sender:
    """Produces payments: all at once, or slice after slice in a thread, at RATE_PER_S, until it is told to end."""

    def __init__(self, kafka: KafkaBroker) -> None:
        settings: dict[str, str | int | float | bool] = {
            "bootstrap.servers": kafka.bootstrap_servers,
            "enable.idempotence": True,
            "linger.ms": 5,
            "log_level": 3,
            "queue.buffering.max.messages": 1_000_000,
        }
        self._kafka = kafka
        self._producer = Producer(settings)
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._send_live)
        self.sent: list[Payments] = []
        self.rate_per_s = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether payments are still coming."""
        return self._thread.is_alive()

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._thread.join()

    def send_all(self, slices: Sequence[Payments]) -> None:
        """As fast as it goes."""
        for payments in slices:
            self._kafka.append(TOPIC, payments.records)

    def _send_live(self) -> None:
        """All partitions side by side, each record at its moment."""
        count, begin = 0, time.monotonic()
        for number in range(HISTORY_SLICES, HISTORY_SLICES + LIVE_SLICES_MAX):
            payments = make_slice(number)
            for place in range(max(map(len, payments.records))):
                for partition, records in enumerate(payments.records):
                    if place < len(records):
                        self._producer.produce(TOPIC, records[place], partition=partition)
                        count += 1
                if place % 25 == 0:
                    self._producer.poll(0)
                    time.sleep(max(0.0, begin + count / RATE_PER_S - time.monotonic()))
            self.sent.append(payments)
            if self._is_done.is_set():
                break
        assert self._producer.flush(60) == 0
        self.rate_per_s = count / (time.monotonic() - begin)


class PollingReader:
    """Reads cards all the time as a process does that embeds our readers; notes the generations that answered."""

    def __init__(self, store: RedisStore, history: Sequence[Payments]) -> None:
        self._served = ServingGenerations(store, PROJECT, SystemClock())
        self._keys = sorted(history[0].cards)[:READ_CARDS]
        self._counts = {key: sum(len(one.cards[key]) for one in history) for key in self._keys}
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._poll)
        self.numbers: list[int] = []
        self.failures: list[str] = []
        self.polls = 0

    def __enter__(self) -> PollingReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(2.0)  # it learns of a promotion within a second
        self._is_done.set()
        self._thread.join()

    def _poll(self) -> None:
        """A generation that answers has the whole history, and what it has counted it does not lose."""
        last: dict[bytes, int] = {}
        while not self._is_done.wait(0.05):
            try:
                self._look(last)
            except FeatureStoreError as error:
                self.failures.append(str(error))

    def _look(self, last: dict[bytes, int]) -> None:
        """Lifetime counts of some cards."""
        served = self._served.current()
        generation = served.views["cards"].generation
        if generation.number not in self.numbers:
            self.numbers.append(generation.number)
            last.clear()
        compiled = generation.compiled
        index = next(i for i, one in enumerate(generation.view.features) if one.window.length_ms is None)
        for key, found in zip(
            self._keys, served.reader.read([EntityRead(generation, key) for key in self._keys]), strict=True
        ):
            assert isinstance(found, EntityBytes)
            table = decode_entity(compiled, found.body, found.head)
            count = int(compiled.answer(table, int(table.end_ms.max(initial=0)) + 1).ints[index])
            if count < max(self._counts[key], last.get(key, 0)):
                self.failures.append(f"{generation.number} {key!r}: {count} after {last.get(key)}, {self._counts[key]}")
            last[key] = count
        self.polls += 1


def logged(directory: Path) -> dict[tuple[str, int], int]:
    """Where the event log is."""
    try:
        return EventLog(directory).positions()
    except FeatureStoreError:
        return {}


def states(store: RedisStore) -> Sequence[GenerationState]:
    """Of the generations of cards, oldest first."""
    return [one.state for one in begun(store)]


def begun(store: RedisStore) -> Sequence[Generation]:
    """Generations of cards, without one that the stream began between the apply and the bootstrap."""
    return [
        one
        for one in GenerationCatalog(store, PROJECT).generations("cards")
        if one.number == 1 or one.is_bootstrapped or one.state is not GenerationState.RETIRED
    ]


def streamed(store: RedisStore) -> int:
    """Records that the serving generations of both views have passed."""
    tiles = OnlineTileStore(store, PROJECT, SystemClock())
    reached = [sum(tiles.positions(one).values()) for one in tiles.generations()]
    return min(reached, default=0)


def forget(kafka: KafkaBroker, ends: dict[tuple[str, int], int]) -> None:
    """Kafka's retention drops everything before these offsets."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    before = [TopicPartition(topic, partition, offset) for (topic, partition), offset in ends.items()]
    for future in admin.delete_records(before).values():
        future.result(timeout=30)


def wait_until(is_so: Callable[[], bool], what: str, process: StreamProcess | None = None) -> None:
    """Look again and again."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        assert process is None or process.process.poll() is None, process.output
        time.sleep(0.01)
