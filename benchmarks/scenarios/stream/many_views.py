"""many_views: what a platform's worth of views costs stored together and apart."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.log_freshness import visible_seconds
from benchmarks.many_views import FEATURES, KEYS, many_views
from benchmarks.parts import AppliedRepo, cpu_seconds, cpu_seconds_since, run_to_end, stream_process
from benchmarks.scenario import Line, Result, Run, digest, percentile, require
from benchmarks.workload import Workload, make_workload
from featurestore.clock import Deadline, SystemClock
from featurestore.core.spec import ViewSpec
from featurestore.definitions.registry import open_registry
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import Reader
from featurestore.online.redis.store import RedisStore, connect
from featurestore.online.serving_view import serving_views
from featurestore.serving.catalog.catalog import CatalogSource
from featurestore.serving.lookup import FeatureLookup
from featurestore.serving.request.steps import run_blocking
from featurestore.testing.answers import AnswerValues, stored_answers
from featurestore.testing.oracle.tolerance import agrees
from featurestore.testing.servers import redis_server
from featurestore.testing.simulator import LogDirectorySink
from featurestore.wire.entity_key import encode_key

PARTITIONS = 4
TOPIC = "transactions"

ASKED = 8
"""Features of each view that a lookup asks for."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What some views took of one stream process and one Redis.

    Attributes:
        stream_s, wall_s: of the stream, its start taken off.
        redis_s: processor time of Redis.
        memory_bytes: what Redis holds.
        answers: of sampled entities, by view and key.
        lookup_s: processor time of a lookup of a card, by the number of views that it asks.
    """

    stream_s: float
    wall_s: float
    redis_s: float
    memory_bytes: int
    answers: dict[tuple[str, bytes], AnswerValues]
    lookup_s: dict[int, float]


def run(run: Run) -> Result:
    """The same transactions, into few and many views, stored together and apart."""
    count = run.choose(smoke=3_000, full=200_000)
    workload = make_workload(
        count, cards=run.choose(smoke=300, full=40_000), merchants=run.choose(smoke=60, full=4_000)
    )
    log = run.directory / "many-views-log"
    sink = LogDirectorySink(log, workload.population, topic=TOPIC, partitions=PARTITIONS)
    for begin in range(0, count, 20_000):
        sink.write(workload.rows[begin : begin + 20_000])
    sink.close()
    few, many = len(KEYS), run.choose(smoke=8, full=60)
    costs = {
        (views, are_apart): _cost(run, workload, views, are_apart=are_apart)
        for views, are_apart in ((few, True), (many, False), (many, True))
    }
    base, together, apart = costs[few, True], costs[many, False], costs[many, True]
    compared = _require_equal(together, apart)
    lines = [
        *_cost_lines(count, {f"{few} views": base, f"{many} views, together": together, f"{many} views, apart": apart}),
        *_lookup_lines(many, together, apart),
        *_freshness_lines(run, many),
    ]
    return Result(
        scenario="many_views",
        question=f"What do {many} views of {FEATURES} features over one stream and {few} join keys cost?",
        lines=tuple(lines),
        answer_hash=digest(_text(values) for values in together.answers.values()),
        checked=f"{compared:,} values of sampled entities are the same, together and apart",
        notes=(
            "From a log directory; the stream's start, measured by a run that finds nothing to do, is taken off.",
            "Fresh: from when a payment was due to be appended until all views of its card have it, beside the load.",
        ),
    )


def _cost_lines(count: int, costs: dict[str, Cost]) -> Iterator[Line]:
    """What `count` transactions took; the first costs are what others are compared with, but for memory the last."""
    (few, base), *_, (_, apart) = costs.items()
    for label, cost in costs.items():
        rate, wall = count / cost.stream_s, count / cost.wall_s
        redis_us = cost.redis_s / count * 1e6
        yield Line(f"{label}: stream", rate, "tx per CPU second", base.stream_s / cost.stream_s, few)
        yield Line(f"{label}: by the wall clock", wall, "tx/s", base.wall_s / cost.wall_s, few)
        yield Line(f"{label}: Redis", redis_us, "us of CPU a tx", cost.redis_s / base.redis_s, few)
        share = cost.memory_bytes / apart.memory_bytes
        yield Line(f"{label}: used_memory", cost.memory_bytes / 1e6, "MB", share, "all of them apart")


def _lookup_lines(many: int, together: Cost, apart: Cost) -> Iterator[Line]:
    """What lookups of one entity take."""
    for count, together_s in together.lookup_s.items():
        apart_s = apart.lookup_s[count]
        what = f"{many} views: lookup of {count} of a card's, {ASKED} features each"
        yield Line(f"{what}, apart", apart_s * 1e6, "us of CPU")
        yield Line(f"{what}, together", together_s * 1e6, "us of CPU", together_s / apart_s, "apart")


def _freshness_lines(run: Run, many: int) -> Iterator[Line]:
    """How long until a payment counts."""
    rate = run.choose(smoke=200, full=1_000)
    for are_apart in (False, True):
        label = "apart" if are_apart else "together"
        repo = many_views(run.directory / f"many-views-fresh-{label}", many, are_apart=are_apart)
        directory = run.directory / label
        directory.mkdir()
        visible_s = visible_seconds(directory, repo, rate=rate, probes=run.choose(smoke=10, full=300))
        run.say(f"{label} at {rate:,} tx/s: p50 {percentile(visible_s, 50) * 1e3:.0f} ms")
        for percent in (50, 99):
            what = f"{many} views, {label}: fresh at {rate:,} tx/s, p{percent}"
            yield Line(what, percentile(visible_s, percent) * 1e3, "ms")


def _cost(run: Run, workload: Workload, views: int, *, are_apart: bool) -> Cost:
    """Fill a store."""
    name = f"many-views-{views}-{'apart' if are_apart else 'together'}"
    repo = many_views(run.directory / name, views, are_apart=are_apart)
    with redis_server() as redis:
        options = ("--log-dir", str(run.directory / "many-views-log"), "--until-end")
        process = stream_process(repo, run.directory, redis.url, *options)
        before_s = cpu_seconds(redis.process.pid)
        busy = run_to_end(process)
        redis_s = cpu_seconds_since(redis.process.pid, before_s)
        start = run_to_end(process)
        store = connect(redis.url)
        answers = _answers(store, repo, workload)
        cost = Cost(
            max(busy.cpu_s - start.cpu_s, 1e-3),
            max(busy.wall_s - start.wall_s, 1e-3),
            redis_s,
            int(store._client().info("memory")["used_memory"]),
            answers,
            _lookup_seconds(run, store, repo, workload),
        )
        store.close()
    run.say(f"{name}: {len(workload.rows) / cost.wall_s:,.0f} tx/s, {cost.memory_bytes / 1e6:,.0f} MB")
    return cost


def _lookup_seconds(run: Run, store: RedisStore, repo: AppliedRepo, workload: Workload) -> dict[int, float]:
    """Processor time of this process for a lookup, by the number of views that are asked for ASKED features each."""
    clock = SystemClock()
    catalog = CatalogSource(open_registry(str(repo.registry), repo.spec.project), store).snapshot()
    lookup = FeatureLookup(clock)
    cards = [view for view in repo.spec.views if [key.name for key in view.join_keys] == ["card_id"]]
    entities = {"card_id": [json.loads(workload.json_payloads[-1])["card_id"]]}
    seconds = {}
    for count in sorted({1, min(3, len(cards)), len(cards)}):
        names = [f"{view.name}:{answer.name}" for view in cards[:count] for answer in view.answers[:ASKED]]
        plan = catalog.plan_of_references(names, full_names=True)
        rounds = []
        for _ in range(run.choose(smoke=2, full=20)):
            begun_s = time.process_time()
            for _ in range(100):
                deadline = Deadline.after(clock, 10_000)
                steps = lookup.answer(catalog.reader, plan, entities, deadline=deadline, as_of_ms=[workload.as_of_ms])
                run_blocking(steps, store)
            rounds.append((time.process_time() - begun_s) / 100)
        seconds[count] = min(rounds)
    return seconds


def _answers(store: RedisStore, repo: AppliedRepo, workload: Workload) -> dict[tuple[str, bytes], AnswerValues]:
    """What lookups of some entities would say of every view."""
    catalog = GenerationCatalog(store, repo.spec.project)
    reader, serving = Reader(store, catalog.lane_count()), serving_views(catalog.all())
    found: dict[tuple[str, bytes], AnswerValues] = {}
    for view in repo.spec.views:
        keys = list(dict.fromkeys(_key(view, workload.json_payloads[at]) for at in range(0, len(workload.rows), 997)))
        of_view = stored_answers(reader, serving[view.name], keys, workload.as_of_ms)
        found.update(((view.name, key), values) for key, values in zip(keys, of_view, strict=True))
    return found


def _key(view: ViewSpec, payload: bytes) -> bytes:
    """The entity key of a transaction."""
    record = json.loads(payload)
    return encode_key([record[key.name] for key in view.join_keys])


def _require_equal(left: Cost, right: Cost) -> int:
    """Both answer alike; how many values were compared."""
    require(left.answers.keys() == right.answers.keys(), "the same entities were asked for")
    compared = 0
    for of, values in left.answers.items():
        for feature, value in values.items():
            require(agrees(value, right.answers[of][feature], scale=1e6), f"{of} {feature} differs")
            compared += 1
    return compared


def _text(values: AnswerValues) -> str:
    """Canonical text of answers; floats to nine digits, since the order of merging decides about the last ones."""
    return "|".join(f"{value:.9g}" if isinstance(value, float) else str(value) for value in values.values())
