"""handler: what a lookup costs the server's processor, from message to message, without the store and without gRPC.

    plain      three entities of ninety days, and a plain view
    in flight  the same, and the payment that asks
    packs      three entities of few events, which share keys with others; beside the same by themselves

Handlers are generators: what the store holds is read once, and handed in each time. Kinds take turns, request by
request, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks.parts import PROJECT, AppliedRepo, applied_repo
from benchmarks.scenario import Line, Result, Run, digest, require
from benchmarks.scenarios.serving.lookup import SERVICE, fill, requests
from benchmarks.workload import Workload, check_against_oracle, make_workload
from featurestore.clock import Deadline, SystemClock
from featurestore.core.spec import RepoSpec
from featurestore.definitions.registry import open_registry
from featurestore.online.redis.store import RedisStore, connect
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.catalog.catalog import CatalogSource
from featurestore.serving.client.messages import LookupBatch, make_request, parse_result
from featurestore.serving.client.result import FeatureValue
from featurestore.serving.lookup import FeatureLookup
from featurestore.serving.request.steps import Steps, StoreRead, encoded
from featurestore.serving.services.packed import PackedService
from featurestore.testing.oracle.naive import NaiveEvent, naive_values
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.servers import redis_server

SOURCE = "transactions"
ENTITIES = 3
PACKS = 48
"""A lane's: some ten entities each."""

Entities = dict[str, str | int]
_clock = SystemClock()


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, what the store holds for it, and how long the handler took each time."""

    handler: Handler
    message: bytes
    values: list[bytes | None]
    taken_ns: list[int]

    def answer(self) -> bytes:
        """Once more, timed."""
        begun_ns = time.perf_counter_ns()
        steps = self.handler.steps(self.message)
        next(steps)
        try:
            steps.send(self.values)
        except StopIteration as end:
            self.taken_ns.append(time.perf_counter_ns() - begun_ns)
            answer: bytes = end.value
            return answer
        raise AssertionError("a lookup reads once")


class Handler:
    """The handler of one store's lookups."""

    def __init__(self, repo: AppliedRepo, store: RedisStore) -> None:
        self._store = store
        catalog = CatalogSource(open_registry(str(repo.registry), PROJECT), store)
        self.lookup, snapshot = FeatureLookup(_clock), catalog.snapshot()
        self._handle = encoded(PackedService(catalog, self.lookup).lookup, pb.LookupResponse.SerializeToString)
        self.plan, self.reader = snapshot.plan_of_service(SERVICE), snapshot.reader
        self.schema = self.plan.schema

    def steps(self, message: bytes) -> Steps[bytes]:
        """As a server begins with a message."""
        return self._handle(pb.LookupRequest.FromString(message), Deadline.after(_clock, 60_000))

    def asked(self, request: pb.LookupRequest) -> Asked:
        """A request with what the store holds for it."""
        message = request.SerializeToString()
        steps = self.steps(message)
        wanted = next(steps)
        assert isinstance(wanted, StoreRead)
        values = self._store.read_groups(wanted.groups)
        steps.close()
        return Asked(self, message, values, [])

    def row(self, answer: bytes) -> dict[str, FeatureValue]:
        """The features of an answer by name."""
        [row] = parse_result(pb.LookupResponse.FromString(answer), self.schema).rows()
        return row


def run(run: Run) -> Result:
    """Fill three stores, check the answers of each kind, and time them side by side."""
    repo = applied_repo(run.directory)
    rounds = run.choose(smoke=3, full=60)
    old = make_workload(0, cards=run.choose(smoke=20, full=400), merchants=40, days=90)
    new = make_workload(0, cards=run.choose(smoke=100, full=2_000), merchants=run.choose(smoke=50, full=1_000), days=1)
    count = run.choose(smoke=5, full=100)
    with _filled(repo, old) as store:
        handler = Handler(repo, store)
        answer_hash, compared = check_against_oracle(store, repo.spec, old, sample=run.choose(smoke=2, full=5))
        entities = requests(old, count)
        plain = [handler.asked(_request(old, one)) for one in entities]
        payments = _payments(old, handler, count)
        in_flight = [
            handler.asked(_request(old, one, payment)) for one, payment in zip(entities, payments, strict=True)
        ]
        compared += _check_in_flight(run, repo.spec, old, entities, payments, in_flight)
        texts = _timed(rounds, [plain, in_flight])
        run.say("plain and in flight")
    with _filled(repo, new) as alone, _filled(repo, new, packs=PACKS) as together:
        by_itself, in_packs = list[Asked](), list[Asked]()
        one, other = Handler(repo, alone), Handler(repo, together)
        for found in requests(new, 10 * count):
            packed = other.asked(_request(new, found))
            # Four values an entity: its own body and head, those of its pack.
            if len(in_packs) < count and all(
                packed.values[4 * at : 4 * at + 2] == [None, None] for at in range(ENTITIES)
            ):
                in_packs.append(packed)
                by_itself.append(one.asked(_request(new, found)))
        require(len(in_packs) > 0, "no request has all of its entities in packs")
        for left, right in zip(by_itself, in_packs, strict=True):
            require(one.row(left.answer()) == other.row(right.answer()), "an entity in a pack is answered otherwise")
        texts += _timed(rounds, [by_itself, in_packs])
        run.say(f"{len(in_packs)} requests of entities in packs")
    return Result(
        scenario="handler",
        question="What does a lookup cost from message to message, alone, with a payment in flight, from packs?",
        lines=(
            *_lines("three entities of ninety days", plain, "the payment in flight", in_flight),
            *_lines("three small entities", by_itself, "the same in packs", in_packs),
        ),
        answer_hash=digest([answer_hash, *texts]),
        checked=f"{compared:,} values equal the naive oracle's, those with a payment in flight among them; entities in "
        f"packs are answered as by themselves",
        notes=(
            "Without the store and gRPC: of each request the fastest of all rounds, of all requests the median.",
            f"{len(plain)} and {len(in_packs)} requests of {len(handler.schema.features)} features, {rounds} rounds.",
        ),
    )


@contextmanager
def _filled(repo: AppliedRepo, workload: Workload, *, packs: int = 0) -> Iterator[RedisStore]:
    """A store with all payments."""
    with redis_server() as redis:
        store = connect(redis.url)
        fill(store, repo, workload, packs=packs)
        yield store
        store.close()


def _request(workload: Workload, entities: Entities, payment: NaiveEvent | None = None) -> pb.LookupRequest:
    """A request at the newest moment."""
    events = None if payment is None else {SOURCE: payment.columns}
    as_of_ms = None if payment is not None else workload.as_of_ms
    return make_request(SERVICE, LookupBatch(entities, events=events), as_of_ms, with_metadata=False)


def _payments(workload: Workload, handler: Handler, count: int) -> list[NaiveEvent]:
    """The last payments, once more: in flight, at the newest moment."""
    [source] = handler.schema.event_sources
    wanted = [column.name for column in source.columns]
    payments = []
    for event in workload.newest_events(count):
        columns = {name: event.columns.get(name) for name in wanted}
        columns[source.event_time_column] = workload.as_of_ms
        payments.append(NaiveEvent(event.key, workload.as_of_ms, b"in flight", columns))
    return payments


def _check_in_flight(
    run: Run,
    repo: RepoSpec,
    workload: Workload,
    entities: Sequence[Entities],
    payments: Sequence[NaiveEvent],
    asked: Sequence[Asked],
) -> int:
    """Compare some answers with the oracle's; how many values."""
    compared = 0
    for at in range(run.choose(smoke=1, full=5)):
        row, payment = asked[at].handler.row(asked[at].answer()), payments[at]
        for view in repo.views:
            key = entities[at][view.join_keys[0].name]
            events = workload.naive_events(view.name, workload.index(view.name, key))
            expected = naive_values(view, events, workload.as_of_ms, in_flight=payment)
            for feature in view.features:
                pair = expected[feature.name], row[feature.name]
                scale = magnitude(feature, events, workload.as_of_ms, payment)
                require(agrees(*pair, scale=scale), f"{feature.name} of {key} in flight: expected and found are {pair}")
            compared += len(view.features)
    return compared


def _timed(rounds: int, kinds: Sequence[Sequence[Asked]]) -> list[bytes]:
    """Time all requests in turns; the answers."""
    answers = [one.answer() for kind in kinds for one in kind]
    for _ in range(rounds):
        for turn in zip(*kinds, strict=True):
            for one in turn:
                one.answer()
    return answers


def _lines(what: str, base: Sequence[Asked], more: str, asked: Sequence[Asked]) -> list[Line]:
    """Two kinds beside each other."""
    base_us, us = (np.array([min(one.taken_ns) for one in kind]) / 1e3 for kind in (base, asked))
    extra_us = float(np.median(us - base_us)) / ENTITIES
    return [
        Line(what, float(np.median(base_us)), "us"),
        Line(f"{what}: {more}", float(np.median(us)), "us", float(np.median(us / base_us)), what),
        Line(f"{what}: {more}, beyond that", max(extra_us, 0.01), "us an entity"),
    ]
