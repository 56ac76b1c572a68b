"""publish: what a published vector costs beside the lookup of it, and its message in each format.

    looked up   rows of a service, as a client's batch has them
    vectors     the same with positions, digest and the values by name: what `featurestore publish` compares
    windows     the same, and when a value changes by itself

All run in this process on a real store, whose own processor time is not in the figures. Kinds take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.parts import applied_repo
from benchmarks.scenario import Line, Result, Run, digest, require
from benchmarks.scenarios.serving.lookup import SERVICE, fill, requests
from benchmarks.workload import make_workload
from dataflows.log_to_features.encoding import FORMATS, make_encoding
from dataflows.log_to_features.vectors import Vector, VectorReader, Wanted
from featurestore.clock import Deadline, SystemClock
from featurestore.definitions.registry import open_registry
from featurestore.online.redis.store import connect
from featurestore.serving.catalog.catalog import CatalogSource
from featurestore.serving.http.lookups import named_features
from featurestore.serving.lookup import FeatureLookup
from featurestore.serving.request.steps import run_blocking
from featurestore.testing.clock import ManualClock
from featurestore.testing.servers import redis_server
from featurestore.wire.entity_key import encode_key

ROWS_TOGETHER = 128
"""Entities of one read; the service has three views, and a request has a limit of reads."""

_clock = SystemClock()


def run(run: Run) -> Result:
    """Look the same entities up in each way, and write their messages."""
    repo = applied_repo(run.directory)
    workload = make_workload(0, cards=run.choose(smoke=20, full=400), merchants=40, days=90)
    rows = requests(workload, run.choose(smoke=20, full=1_000))
    with redis_server() as redis:
        store = connect(redis.url)
        fill(store, repo, workload)
        catalog = CatalogSource(open_registry(str(repo.registry), repo.spec.project), store)
        snapshot = catalog.snapshot()
        plan = snapshot.plan_of_service(SERVICE)
        keys = [key.name for key in plan.schema.join_keys]
        wanted = [Wanted(encode_key([row[name] for name in keys]), {}) for row in rows]
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in keys}
        clock = ManualClock(now_ms=workload.as_of_ms)
        lookup = FeatureLookup(clock)
        readers = {
            name: VectorReader(snapshot, SERVICE, store, clock, where="", follows_windows=name == "windows")
            for name in ("vectors", "windows")
        }

        def looked_up() -> list[Mapping[str, Any]]:
            found: list[Mapping[str, Any]] = []
            for begin in range(0, len(rows), ROWS_TOGETHER):
                some = {name: values[begin : begin + ROWS_TOGETHER] for name, values in columns.items()}
                deadline = Deadline.after(_clock, 60_000)
                answer = run_blocking(lookup.answer(snapshot.reader, plan, some, deadline=deadline), store)
                features = named_features(plan.schema, answer)
                found += [
                    {name: column.values[row] for name, column in features.items()} for row in range(answer.row_count)
                ]
            return found

        ways: dict[str, Callable[[], Sequence[Any]]] = {
            "looked up": looked_up,
            "vectors": lambda: readers["vectors"].read(wanted).found,
            "windows": lambda: readers["windows"].read(wanted).found,
        }
        least = dict.fromkeys(ways, float("inf"))
        answers: dict[str, Sequence[Any]] = {}
        for _ in range(run.choose(smoke=1, full=7)):
            for name, way in ways.items():
                begun_s = time.process_time()
                answers[name] = way()
                least[name] = min(least[name], (time.process_time() - begun_s) / len(rows) * 1e6)
        vectors: Sequence[Vector] = answers["windows"]
        require([one.features for one in vectors] == answers["looked up"], "a vector is not what was looked up")
        changing = sum(one.next_change_ms is not None for one in vectors)
        messages = {name: _message_us(name, plan.schema, vectors, run.choose(smoke=1, full=5)) for name in FORMATS}
        store.close()
    return Result(
        scenario="publish",
        question="What does a published vector cost beside a lookup?",
        lines=(
            Line("looked up, by name", least["looked up"], "us of CPU"),
            *(
                Line(name, least[name], "us of CPU", least[name] / least["looked up"], "looked up")
                for name in ("vectors", "windows")
            ),
            *(
                Line(f"message in {name}", cost, "us of CPU", cost / messages["json"], "json")
                for name, cost in messages.items()
            ),
        ),
        answer_hash=digest([repr(one) for one in answers["looked up"]]),
        checked=f"{len(vectors)} vectors equal the lookup; {changing} change by themselves",
        notes=(f"{len(plan.schema.features)} features of three entities a vector, {ROWS_TOGETHER} vectors a read.",),
    )


def _message_us(name: str, schema: Any, vectors: Sequence[Vector], turns: int) -> float:
    """Processor time of one message."""
    encoding = make_encoding(name, schema, lambda kind, text: 1)
    least = float("inf")
    for _ in range(turns):
        begun_s = time.process_time()
        for vector in vectors:
            require(bool(encoding.encode(vector, is_event=True)), "a message has bytes")
        least = min(least, (time.process_time() - begun_s) / len(vectors) * 1e6)
    return least
