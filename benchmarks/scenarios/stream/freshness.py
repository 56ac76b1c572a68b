"""freshness: from producing an event to features that show it, while thousands of others stream by."""

from __future__ import annotations

import re
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.log_freshness import visible_seconds
from benchmarks.machine import environment
from benchmarks.parts import applied_repo, cpu_seconds, cpu_seconds_since, grpc_server, running, stream_process
from benchmarks.scenario import Line, Result, Run, Size, digest, percentile, require
from featurestore.clock import SystemClock
from featurestore.definitions.schemas.directory import SCHEME, SchemaDirectory
from featurestore.online.probe import LOOPBACK, free_port
from featurestore.serving.client.clients import LookupClient
from featurestore.testing.servers import KafkaBroker, kafka_broker, redis_server
from featurestore.testing.servers.process import ServerProcess
from featurestore.testing.simulator import Population, PopulationSize
from featurestore.testing.simulator.avro_payload import SCHEMA, AvroPayloadEncoder

SERVICE = "merchant_recommendations"
"""A small one, so that the probe itself costs little; `card_count_30d` is in it."""

COUNT = "card_count_30d"
MERCHANT = 1_000_000
TOPIC = "transactions"
PARTITIONS = 4

LOG_RATES = (5_000, 10_000)
"""Of a log directory, which has no broker that takes half of the machine."""

PROBE_EVERY_S = 0.05
ROWS_PER_LOOK_MAX = 100

POLL_PAUSE_S = 0.0005
IDLE_SETTLE_S = 2.0
GIVE_UP_S = 10.0

STEPS = {
    "read": "from Kafka's first record of a read to the read",
    "decode": "decoding a read",
    "key": "keying it",
    "wait": "waiting for the commit before",
    "prepare": "preparing a commit",
    "store": "waiting for the store",
}
"""Of the stream's metric; the rest of a probe's time is the lookup that sees it, and what is between two of them."""


@dataclass(frozen=True, slots=True)
class Probes:
    """Seconds from when a probe was due to the first answer that shows it, and between two looks; counts shown."""

    visible_s: list[float]
    look_s: list[float]
    counts: list[int]


@dataclass(frozen=True, slots=True)
class Work:
    """What a second takes, and where its events spend their time.

    Attributes:
        broker_s, stream_s: processor seconds.
        queued_s: seconds in which a thread of the stream could have run, and had no core.
        commits: each of all views.
        reads: of a partition, that had records.
        step_s: how long a read or micro-batch spends in each step, or before it, on average.
    """

    broker_s: float
    stream_s: float
    queued_s: float
    commits: float
    reads: float
    step_s: Mapping[str, float]


def run(run: Run) -> Result:
    """Stream a steady load, and send probes of cards that nobody else uses."""
    repo = applied_repo(run.directory)
    rate, seconds = run.choose(smoke=500, full=5_000), run.choose(smoke=2, full=20)
    with kafka_broker() as kafka, redis_server() as redis:
        kafka.create_topic(TOPIC, partitions=PARTITIONS)
        metrics_port = free_port()
        schemas = run.directory / "schemas"
        number = SchemaDirectory(schemas).register(f"{TOPIC}-value", SCHEMA)
        encoder = AvroPayloadEncoder(Population(PopulationSize(cards=1), seed=1), number)
        options = ["--bootstrap-servers", kafka.bootstrap_servers, "--metrics-port", str(metrics_port)]
        options += ["--schema-registry-option", f"url={SCHEME}{schemas}", "--progress-seconds", "0.5"]
        stream = stream_process(repo, run.directory, redis.url, *options)
        with (
            running(stream, "lag"),
            grpc_server(repo, run.directory, redis.url, "sync") as (address, _),
            LookupClient(address, timeout_s=5.0) as client,
        ):
            time.sleep(IDLE_SETTLE_S)  # the stream is ready before it has opened the last partition
            meter = _Meter(kafka.process.pid, stream.pid, metrics_port)
            idle = _probe(client, kafka, encoder, count=run.choose(smoke=10, full=100), name="idle")
            idle_work = meter.read()
            floor_s = _broker_seconds(kafka, encoder, count=run.choose(smoke=10, full=100))
            run.say(f"at rest: p50 {percentile(idle.visible_s, 50) * 1e3:.1f} ms")
            load = _load(run, kafka, schemas, rate=rate)
            load.start()
            try:
                # The broker's compiler takes a core until it has seen the load for a while.
                time.sleep(run.choose(smoke=3, full=15))
                meter.read()
                loaded = _probe(client, kafka, encoder, count=round(seconds / PROBE_EVERY_S), name="loaded")
                loaded_work = meter.read()
            finally:
                load.stop()
            sent = load.log_tail().splitlines()[-1]
            require(" records to " in sent, f"the load ended badly: {load.log_tail()}")
            sent = sent.replace(kafka.bootstrap_servers, "HOST:PORT")
            _require_counted_once(client, len(loaded.counts))
    floor_p50_s = percentile(floor_s, 50)
    run.say(f"under load: p50 {percentile(loaded.visible_s, 50) * 1e3:.1f} ms; load: {sent}")
    visible_s = {
        "floor: a bare consumer gets it, at rest": floor_s,
        "at rest": idle.visible_s,
        f"at {rate:,} tx/s": loaded.visible_s,
    }
    for each in (500,) if run.size is Size.SMOKE else LOG_RATES:
        probes = run.choose(smoke=10, full=400)
        visible_s[f"from the log at {each:,} tx/s"] = visible_seconds(run.directory, repo, rate=each, probes=probes)
    return Result(
        scenario="freshness",
        question="How long until a produced event is in the answer of a gRPC lookup?",
        lines=(
            *_percentiles(visible_s, floor_p50_s),
            *_costs("at rest", idle_work),
            *_costs(f"at {rate:,} tx/s", loaded_work),
            Line(f"probes at {rate:,} tx/s", len(loaded.visible_s), "probes"),
            Line("resolution: time between two looks, p50", percentile(loaded.look_s, 50) * 1e3, "ms"),
        ),
        answer_hash=digest([str(max(loaded.counts)), str(max(idle.counts))]),
        checked=f"each of {len(loaded.counts) + len(idle.counts):,} probes was counted exactly once",
        notes=(
            f"A probe every {PROBE_EVERY_S * 1e3:.0f} ms, by a timetable; from when it was due to the end of the first "
            "lookup that shows it: a lookup is in every figure, and on average half of the resolution.",
            f"Load: {sent}.",
            "The broker's processor time is also that of taking the load's and the probes' records.",
            "Steps are means over reads and micro-batches of all events, by the stream's own metric; that records wait "
            "in the client until the stream's loop comes round is in the first of them.",
            "Producer, broker, stream, Redis, server and probe share the machine's cores.",
        ),
    )


def _percentiles(visible_s: Mapping[str, Sequence[float]], floor_p50_s: float) -> list[Line]:
    """How long it took until probes were seen, beside the floor."""
    return [
        Line(f"{label}: {name}", (value := percentile(each_s, percent)) * 1e3, "ms", value / floor_p50_s, "floor's p50")
        for label, each_s in visible_s.items()
        for name, percent in (("p50", 50), ("p99", 99))
    ]


def _costs(label: str, work: Work) -> tuple[Line, ...]:
    """What it took, as figures."""
    return (
        Line(f"{label}: processor of the broker", work.broker_s, "cores"),
        Line(f"{label}: processor of the stream", work.stream_s, "cores"),
        Line(f"{label}: its threads wait for a core", work.queued_s, "seconds a second"),
        Line(f"{label}: reads", work.reads, "a second"),
        Line(f"{label}: commits", work.commits, "a second"),
        *(Line(f"{label}: {said}", work.step_s[step] * 1e3, "ms, mean") for step, said in STEPS.items()),
    )


class _Meter:
    """What the broker and the stream do between two looks.

    Args:
        broker, stream: their process ids.
        metrics_port: of the stream.
    """

    def __init__(self, broker: int, stream: int, metrics_port: int) -> None:
        self._pids = (broker, stream)
        self._stream = stream
        self._metrics_url = f"http://{LOOPBACK}:{metrics_port}/metrics"
        self._begin()

    def read(self) -> Work:
        """Since the last look; the next one counts from here."""
        seconds = time.perf_counter() - self._begun_s
        broker_s, stream_s = (cpu_seconds_since(*each) for each in zip(self._pids, self._cpu_s, strict=True))
        counts, sums, queued_s = self._counts, self._sums, self._queued_s
        self._begin()
        passed = {step: self._counts[step] - counts.get(step, 0) for step in STEPS}
        step_s = {step: (self._sums[step] - sums.get(step, 0)) / max(passed[step], 1) for step in STEPS}
        return Work(
            broker_s / seconds,
            stream_s / seconds,
            (self._queued_s - queued_s) / seconds,
            passed["store"] / seconds,
            passed["read"] / seconds,
            step_s,
        )

    def _begin(self) -> None:
        self._begun_s = time.perf_counter()
        self._cpu_s = [cpu_seconds(pid) for pid in self._pids]
        self._queued_s = _queued_seconds(self._stream)
        self._counts, self._sums = self._steps("count"), self._steps("sum")

    def _steps(self, what: str) -> dict[str, float]:
        """Count or sum of each step's histogram."""
        with urllib.request.urlopen(self._metrics_url, timeout=GIVE_UP_S) as answer:
            text = answer.read().decode()
        pattern = rf'^featurestore_stream_step_seconds_{what}{{step="(\w+)"}} (\S+)$'
        return {step: float(value) for step, value in re.findall(pattern, text, re.MULTILINE)}


def _queued_seconds(pid: int) -> float:
    """Seconds that the threads of a process have spent waiting for a core: the second number of their schedstat."""
    waits = [path.read_text().split()[1] for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(map(int, waits)) / 1e9


def _load(run: Run, kafka: KafkaBroker, schemas: Path, *, rate: int) -> ServerProcess:
    """The transaction simulator, live until it is stopped; not started."""
    command = [sys.executable, "-m", "featurestore", "simulate", "--live", "--rate", str(rate)]
    command += ["--to", f"kafka://{kafka.bootstrap_servers}/{TOPIC}", "--schema-registry", f"{SCHEME}{schemas}"]
    return ServerProcess("load", command, run.directory, environment=environment())


def _probe(client: LookupClient, kafka: KafkaBroker, encoder: AvroPayloadEncoder, *, count: int, name: str) -> Probes:
    """Produce events of new cards by a timetable, and look at all that are not visible yet, again and again.

    A probe counts from when it was due: a stall delays every probe that was due in it, not just one.
    """
    clock = SystemClock()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 0, "acks": "all"})
    probes = Probes([], [], [])
    due_s: dict[str, float] = {}
    start_s = looked_s = time.perf_counter()
    sent = 0
    while sent < count or due_s:
        now_s = time.perf_counter()
        while sent < count and start_s + sent * PROBE_EVERY_S <= now_s:
            card = f"probe-{name}-{sent}"
            producer.produce(TOPIC, _payload(encoder, card, clock.now_ms()), card)
            producer.poll(0)
            due_s[card] = start_s + sent * PROBE_EVERY_S
            sent += 1
        if not due_s:
            time.sleep(max(0.0, start_s + sent * PROBE_EVERY_S - time.perf_counter()))
            looked_s = time.perf_counter()
            continue
        oldest = min(due_s, key=due_s.__getitem__)
        require(now_s - due_s[oldest] < GIVE_UP_S, f"{oldest} did not become visible in {GIVE_UP_S} s")
        counts = _counts(client, list(due_s)[:ROWS_PER_LOOK_MAX])
        now_s = time.perf_counter()
        probes.look_s.append(now_s - looked_s)
        looked_s = now_s
        for card, found in counts.items():
            if found:
                probes.visible_s.append(now_s - due_s.pop(card))
                probes.counts.append(found)
        time.sleep(POLL_PAUSE_S)
    producer.flush(10)
    return probes


def _broker_seconds(kafka: KafkaBroker, encoder: AvroPayloadEncoder, *, count: int) -> list[float]:
    """From produce() to a consumer that does nothing with it: what no stream can beat."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 0, "acks": "all"})
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "floor", "fetch.wait.max.ms": 5})
    partition = TopicPartition(TOPIC, 0)
    _, end = consumer.get_watermark_offsets(partition, timeout=10)
    consumer.assign([TopicPartition(TOPIC, 0, end)])
    clock = SystemClock()
    taken_s = []
    for number in range(count + 1):
        card = f"floor-{number}"
        payload = _payload(encoder, card, clock.now_ms())
        begun_s = time.perf_counter()
        producer.produce(TOPIC, payload, card, partition=0)
        producer.poll(0)
        message = consumer.poll(GIVE_UP_S)
        taken_s.append(time.perf_counter() - begun_s)
        is_it = message is not None and message.error() is None and message.value() == payload
        require(is_it, f"the consumer did not get {card}")
        time.sleep(PROBE_EVERY_S)
    consumer.close()
    return taken_s[1:]  # the first one also waits for the connection


def _counts(client: LookupClient, cards: Sequence[str]) -> dict[str, int]:
    """Events of cards that their features show."""
    result = client.lookup(SERVICE, {"card_id": cards, "merchant_id": [MERCHANT] * len(cards)})
    slot = result.schema.features[result.names.index(COUNT)].slot
    return dict(zip(cards, result.integers[slot].tolist(), strict=True))


def _require_counted_once(client: LookupClient, probes: int) -> None:
    """Also later on, each probe counts once."""
    cards = [f"probe-loaded-{number}" for number in range(probes)]
    for begin in range(0, probes, ROWS_PER_LOOK_MAX):
        counts = set(_counts(client, cards[begin : begin + ROWS_PER_LOOK_MAX]).values())
        require(counts == {1}, f"probes were counted {sorted(counts)} times")


def _payload(encoder: AvroPayloadEncoder, card: str, event_time_ms: int) -> bytes:
    texts = {"transaction_id": card, "card_id": card, "market": "SE", "currency": "SEK", "merchant_category": "grocery"}
    flags = {"is_declined": False, "is_refund": False, "is_card_present": True}
    numbers = {"event_time": event_time_ms, "merchant_id": MERCHANT, "terminal_id": 50_000_000, "amount": 100}
    return encoder.encode_records([{**texts, **flags, **numbers}])[0]
