"""overload: more payments than the server can answer, and whole batches between single payments."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.load import FloodPlan, FloodReport, exchange, run_flood
from benchmarks.parts import applied_repo, grpc_server
from benchmarks.peers import echo_server
from benchmarks.scenario import Line, Result, Run, digest, require
from benchmarks.scenarios.serving.lookup import METHOD, MODES, SERVICE, echo, fill, freeze
from benchmarks.workload import Workload, check_against_oracle, make_workload
from featurestore.online.redis.store import connect
from featurestore.serving.client.messages import LookupBatch, make_request
from featurestore.serving.request.limits import ROWS_PER_REQUEST_MAX
from featurestore.testing.servers import redis_server

DEADLINE_MS = 100
PATIENT_MS = 10_000
IN_FLIGHT = 8
"""Of the closed loop that finds the capacity."""

BATCHES = 6
"""Requests of many rows under way beside single payments."""

LOADS = (1, 2, 3)
UNLOADED = 0.5
BESIDE_BATCHES = 0.25
"""Share of the capacity that single payments take beside a batch."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One server; `throttled` are the same loads by a client that holds back, `echoes` by one to a bare server."""

    capacity: FloodReport
    unloaded: FloodReport
    loaded: dict[int, FloodReport]
    throttled: dict[int, FloodReport]
    echoes: dict[int, FloodReport]
    alone: FloodReport
    beside: FloodReport
    batches: FloodReport


def run(run: Run) -> Result:
    """Find what a server can do, then offer it up to three times as much."""
    repo = applied_repo(run.directory)
    workload = make_workload(0, cards=run.choose(smoke=20, full=400), merchants=40, days=90)
    with redis_server() as redis:
        store = connect(redis.url)
        fill(store, repo, workload)
        answer_hash, compared = check_against_oracle(store, repo.spec, workload, sample=2)
        store.close()
        frozen = freeze(run, repo, redis, workload)
        lines: list[Line] = []
        notes: list[str] = []
        for io in MODES[: run.choose(smoke=1, full=len(MODES))]:
            with grpc_server(repo, run.directory, redis.url, io) as (address, _):
                plan = FloodPlan(address, METHOD, frozen.exchanges, _seconds(run), DEADLINE_MS)
                measured = _measure(run, plan, workload)
            with echo(run, io, frozen.exchanges) as (address, _):
                bare = replace(plan, address=address, method=echo_server.METHOD)
                rate = measured.capacity.in_time_per_s
                measured.echoes.update(
                    {times: run_flood(run.directory, replace(bare, per_second=times * rate)) for times in LOADS}
                )
            run.say(f"{io}: capacity {measured.capacity.in_time_per_s:,.0f}/s")
            lines += _lines(io, measured)
            notes += _notes(io, measured)
    return Result(
        scenario="overload",
        question="What do payments get when more of them come than the server can answer?",
        lines=tuple(lines),
        answer_hash=digest([answer_hash, *frozen.texts]),
        checked=f"{compared:,} values equal the naive oracle's; every answer under load is compared byte for byte",
        notes=(
            f"Capacity: a closed loop with {IN_FLIGHT} calls under way. Loads are multiples of it, open loop, each "
            f"call with a deadline of {DEADLINE_MS} ms and timed from when it was due; an answer that is late is none.",
            f"Batches: {ROWS_PER_REQUEST_MAX:,} rows, {BATCHES} under way, beside single payments at a quarter of "
            "the capacity.",
            "A client that holds back: by the rule of our Python client, which does not send most of what would be "
            "refused.",
            "A bare echo: a grpcio server of the same kind without any work, offered the same calls a second.",
            "One client process of bare HTTP/2; it shares the machine's cores with server and Redis.",
            *notes,
        ),
    )


def _measure(run: Run, plan: FloodPlan, workload: Workload) -> Measured:
    """All loads on one server."""
    capacity = _flood(run, replace(plan, in_flight=IN_FLIGHT, deadline_ms=PATIENT_MS))
    per_second = capacity.in_time_per_s
    unloaded = _flood(run, replace(plan, per_second=UNLOADED * per_second))
    loaded = {times: _flood(run, replace(plan, per_second=times * per_second)) for times in LOADS}
    holding = replace(plan, is_throttled=True)
    throttled = {times: _flood(run, replace(holding, per_second=times * per_second)) for times in LOADS}
    quarter = replace(plan, per_second=BESIDE_BATCHES * per_second, deadline_ms=PATIENT_MS)
    alone = _flood(run, quarter)
    batch = replace(plan, in_flight=BATCHES, exchanges=[_batch(workload)], warm_up_calls=1, deadline_ms=PATIENT_MS)
    found: list[FloodReport] = []
    batches = threading.Thread(target=lambda: found.append(_flood(run, batch)))
    batches.start()
    beside = _flood(run, quarter)
    batches.join()
    return Measured(capacity, unloaded, loaded, throttled, {}, alone, beside, found[0])


def _flood(run: Run, plan: FloodPlan) -> FloodReport:
    report = run_flood(run.directory, plan)
    require(report.mismatches == 0, f"{report.mismatches} of {report.calls} answers are not what was frozen")
    require(report.in_time_per_s > 0, "no answer came in time")
    return report


def _batch(workload: Workload) -> tuple[str, str]:
    """A request of as many rows as one may have; any answer will do."""
    views = {"card_id": "card_activity", "merchant_id": "merchant_activity", "terminal_id": "terminal_activity"}
    columns = {
        name: [workload.key(view, entity) for entity in workload.entity(view)[-ROWS_PER_REQUEST_MAX:].tolist()]
        for name, view in views.items()
    }
    message = make_request(SERVICE, LookupBatch(columns), workload.as_of_ms, with_metadata=False)  # type: ignore[arg-type]  # one type a column
    return exchange(message.SerializeToString(), b"")


def _seconds(run: Run) -> float:
    return run.choose(smoke=400, full=6_000) / 1_000


def _lines(io: str, measured: Measured) -> list[Line]:
    """Goodput beside capacity, p99 beside the unloaded one."""
    capacity, unloaded = measured.capacity, measured.unloaded
    lines = [
        Line(f"{io}: capacity", capacity.in_time_per_s, "answers/s"),
        Line(f"{io}: p99 at {UNLOADED:g}x", unloaded.p99_ms, "ms"),
    ]
    for times, report in measured.loaded.items():
        share = report.in_time_per_s / capacity.in_time_per_s
        lines.append(Line(f"{io}, {times}x: in time", report.in_time_per_s, "answers/s", share, "capacity"))
        held = measured.throttled[times]
        share = held.in_time_per_s / capacity.in_time_per_s
        what = f"{io}, {times}x, client holds back: in time"
        lines.append(Line(what, held.in_time_per_s, "answers/s", share, "capacity"))
        # One that is offered more than it can take may have nothing in time.
        floor, offered = max(measured.echoes[times].in_time_per_s, 1.0), times * capacity.in_time_per_s
        lines.append(Line(f"{io}, {times}x: a bare echo's", floor, "answers/s", floor / offered, "offered"))
        ratio = report.p99_ms / unloaded.p99_ms
        lines.append(Line(f"{io}, {times}x: p99 of those", report.p99_ms, "ms", ratio, f"p99 at {UNLOADED:g}x"))
        ratio, what = held.p99_ms / unloaded.p99_ms, f"{io}, {times}x, client holds back: p99 of those"
        lines.append(Line(what, held.p99_ms, "ms", ratio, f"p99 at {UNLOADED:g}x"))
    for name in ("p50_ms", "p99_ms"):
        alone, beside = getattr(measured.alone, name), getattr(measured.beside, name)
        what = f"{io}: {name.removesuffix('_ms')} beside batches"
        lines.append(Line(what, beside, "ms", beside / alone, "without batches"))
    lines.append(Line(f"{io}: batches", measured.batches.in_time_per_s, "answers/s"))
    return lines


def _notes(io: str, measured: Measured) -> Sequence[str]:
    """What became of the others."""
    return [
        f"{io}, {times}x: of {report.calls:,} calls {report.refused:,} were refused and {report.lost:,} came too late."
        for times, report in measured.loaded.items()
    ]
