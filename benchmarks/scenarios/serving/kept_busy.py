"""serving: what a server that is kept busy answers: by its processes, by rows of a request, and in streams."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Semaphore

import grpc

from benchmarks.load import FloodPlan, FloodReport, run_flood
from benchmarks.parts import AppliedRepo, applied_repo, cpu_seconds, cpu_seconds_since, grpc_server
from benchmarks.peers import echo_server
from benchmarks.scenario import Line, Result, Run, digest, require
from benchmarks.scenarios.serving.lookup import METHOD, MODES, SERVICE, echo, fill, freeze
from benchmarks.workload import Workload, check_against_oracle, make_workload
from featurestore.online.redis.store import connect
from featurestore.serving.client.calls import CHANNEL_OPTIONS
from featurestore.serving.client.messages import EntityValues, LookupBatch, make_request
from featurestore.serving.client.streams import BATCHES_AHEAD
from featurestore.testing.servers import RedisServer, redis_server

STREAM_METHOD = f"{METHOD}Stream"
IN_FLIGHT = 16
CONNECTIONS = 16
"""More than processes by far: the kernel deals them out, and not evenly."""

PROCESSES = (1, 2)
PATIENT_MS = 10_000
MESSAGES = 8
"""Different ones of a size, asked in turn."""

ECHO = "echo"
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Server:
    """A server, or an echo: how to flood it, and its process."""

    plan: FloodPlan
    pid: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests of so many rows each, with the answers that they must get."""

    rows: int
    exchanges: Sequence[tuple[bytes, bytes]]


def run(run: Run) -> Result:
    """Servers of both kinds stand beside their echo, and are flooded in turn."""
    repo = applied_repo(run.directory)
    workload = make_workload(0, cards=run.choose(smoke=20, full=400), merchants=40, days=90)
    lines: list[Line] = []
    with redis_server() as redis:
        store = connect(redis.url)
        fill(store, repo, workload)
        answer_hash, compared = check_against_oracle(store, repo.spec, workload, sample=2)
        store.close()
        frozen = freeze(run, repo, redis, workload)
        for io in MODES[: run.choose(smoke=1, full=len(MODES))]:
            with ExitStack() as stack:
                servers = _servers(run, repo, redis, io, frozen.exchanges, stack)
                lines += _processes(run, io, servers)
                if io == MODES[0]:
                    lines += _rows(run, servers["1"].plan.address, servers["1"].pid, workload)
    return Result(
        scenario="serving",
        question="What does a server that is kept busy answer, by processes, by rows of a request and in streams?",
        lines=tuple(lines),
        answer_hash=digest([answer_hash, *frozen.texts]),
        checked=f"{compared:,} values equal the naive oracle's; every answer is compared byte for byte, those of "
        "streams and batches with what one call at a time was answered",
        notes=(
            f"Processes: single payments, {IN_FLIGHT} under way, from one client process of bare HTTP/2; the best of "
            f"{run.choose(smoke=1, full=ROUNDS)} turns, in which echo and servers alternate. Client, servers and Redis "
            "share the machine's cores, so that a second process has what these leave. Calls a CPU second do not mind: "
            "as many as with one process mean that a second one on a core of its own answers as many again.",
            "Rows: from Python's gRPC client, with bytes that it does not parse; one server process on threads. "
            f"Streamed: {BATCHES_AHEAD} chunks are sent ahead. Chunks wait for payments, of which there are none here. "
            "The best of the turns counts for rows a second, and the least for CPU, which a busy machine moves less.",
        ),
    )


def _servers(
    run: Run, repo: AppliedRepo, redis: RedisServer, io: str, exchanges: Sequence[tuple[str, str]], stack: ExitStack
) -> dict[str, Server]:
    """An echo, and servers of one process and of more, all of a kind."""
    address, pid = stack.enter_context(echo(run, io, exchanges))
    servers = {ECHO: Server(_plan(run, address, echo_server.METHOD, exchanges), pid)}
    for processes in PROCESSES[: run.choose(smoke=1, full=len(PROCESSES))]:
        started = grpc_server(repo, run.directory, redis.url, io, "--processes", str(processes))
        address, pid = stack.enter_context(started)
        servers[str(processes)] = Server(_plan(run, address, METHOD, exchanges), pid)
    return servers


def _processes(run: Run, io: str, servers: Mapping[str, Server]) -> list[Line]:
    """Calls a second of one kind of server, and calls a CPU second of all of its processes."""
    best, per_cpu_s = dict.fromkeys(servers, 0.0), dict.fromkeys(servers, 0.0)
    for _ in range(run.choose(smoke=1, full=ROUNDS)):
        for name, server in servers.items():
            before_s = cpu_seconds(server.pid)
            report = _flood(run, server.plan)
            calls = (report.calls + server.plan.warm_up_calls) / cpu_seconds_since(server.pid, before_s)
            best[name], per_cpu_s[name] = max(best[name], report.in_time_per_s), max(per_cpu_s[name], calls)
    run.say(f"{io}: " + ", ".join(f"{name} {rate:,.0f}/s" for name, rate in best.items()))
    one, floor = best["1"], best[ECHO]
    return [
        Line(f"{io}, 1 process", one, "calls/s", one / floor, f"{io} echo of 1 process"),
        *(
            Line(f"{io}, {name} processes", rate, "calls/s", rate / one, "1 process")
            for name, rate in best.items()
            if name not in (ECHO, "1")
        ),
        Line(
            f"{io}, 1 process: of its own processor",
            per_cpu_s["1"],
            "calls/CPU s",
            per_cpu_s["1"] / per_cpu_s[ECHO],
            f"{io} echo",
        ),
        *(
            Line(f"{io}, {name} processes: of their own", rate, "calls/CPU s", rate / per_cpu_s["1"], "1 process")
            for name, rate in per_cpu_s.items()
            if name not in (ECHO, "1")
        ),
    ]


def _plan(run: Run, address: str, method: str, exchanges: Sequence[tuple[str, str]]) -> FloodPlan:
    return FloodPlan(
        *(address, method, exchanges, _seconds(run), PATIENT_MS), in_flight=IN_FLIGHT, connections=CONNECTIONS
    )


def _flood(run: Run, plan: FloodPlan) -> FloodReport:
    report = run_flood(run.directory, plan)
    require(report.mismatches == 0, f"{report.mismatches} of {report.calls} answers are not what was frozen")
    require(report.in_time_per_s > 0, "no answer came in time")
    return report


def _rows(run: Run, address: str, pid: int, workload: Workload) -> list[Line]:
    """Rows a second and what they cost, by the size of requests and by how they are sent."""
    lines: list[Line] = []
    sizes = (1, run.choose(smoke=10, full=100), run.choose(smoke=20, full=1_000))
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM_METHOD)
        ways: Mapping[str, Callable[[Batch, float], int]] = {
            "one at a time": lambda batch, seconds: _ahead(call, batch, seconds, in_flight=1),
            f"{BATCHES_AHEAD} in flight": lambda batch, seconds: _ahead(call, batch, seconds, in_flight=BATCHES_AHEAD),
            "streamed": lambda batch, seconds: _streamed(stream, batch, seconds),
        }
        first = next(iter(ways))
        single = single_us = 0.0
        for size in sizes:
            batch = _batch(call, workload, size)
            best, least_us = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, float("inf"))
            for _, way in itertools.product(range(run.choose(smoke=1, full=ROUNDS)), ways):
                cpu_before_s, begun_s = cpu_seconds(pid), time.perf_counter()
                rows = ways[way](batch, _seconds(run) / 2)
                best[way] = max(best[way], rows / (time.perf_counter() - begun_s))
                least_us[way] = min(least_us[way], cpu_seconds_since(pid, cpu_before_s) / rows * 1e6)
            single, single_us = single or best[first], single_us or least_us[first]
            for way in ways:
                what, of = f"{size:,} a message, {way}", f"1 a message, {first}"
                lines.append(Line(what, best[way], "rows/s", best[way] / single, of))
                lines.append(Line(f"{what}: server CPU", least_us[way], "us a row", least_us[way] / single_us, of))
    return lines


def _batch(call: grpc.UnaryUnaryMultiCallable[bytes, bytes], workload: Workload, size: int) -> Batch:
    """Messages of the last payments' entities, and what they are answered."""
    views = {"card_id": "card_activity", "merchant_id": "merchant_activity", "terminal_id": "terminal_activity"}
    entities = {name: workload.entity(view)[-size - MESSAGES :].tolist() for name, view in views.items()}
    exchanges = []
    for first in range(MESSAGES):
        rows = slice(first, first + size)
        columns: dict[str, EntityValues] = {
            name: [workload.key(view, entity) for entity in entities[name][rows]]  # type: ignore[misc]  # one type a column
            for name, view in views.items()
        }
        message = make_request(SERVICE, LookupBatch(columns), workload.as_of_ms, with_metadata=False)
        request = message.SerializeToString()
        exchanges.append((request, call(request, timeout=PATIENT_MS / 1e3)))
    return Batch(size, exchanges)


def _ahead(call: grpc.UnaryUnaryMultiCallable[bytes, bytes], batch: Batch, seconds: float, *, in_flight: int) -> int:
    """Rows that calls answer in a time, so many under way."""
    asked: deque[tuple[grpc.Future[bytes], bytes]] = deque()
    answered, begun_s = 0, time.perf_counter()
    for request, answer in itertools.cycle(batch.exchanges):
        if time.perf_counter() - begun_s >= seconds:
            break
        asked.append((call.future(request, timeout=PATIENT_MS / 1e3), answer))
        if len(asked) == in_flight:
            future, expected = asked.popleft()
            require(future.result() == expected, f"an answer to {batch.rows} rows is not what it was")
            answered += 1
    for future, _ in asked:
        future.cancel()
    require(answered > 0, "nothing was answered")
    return answered * batch.rows


def _streamed(stream: grpc.StreamStreamMultiCallable[bytes, bytes], batch: Batch, seconds: float) -> int:
    """Rows that one stream answers in a time, some chunks sent ahead."""
    may_send = Semaphore(BATCHES_AHEAD)
    begun_s = time.perf_counter()

    def chunks() -> Iterator[bytes]:
        for request, _ in itertools.cycle(batch.exchanges):
            may_send.acquire()
            if time.perf_counter() - begun_s >= seconds:
                return
            yield request

    answered = 0
    expected = itertools.cycle(answer for _, answer in batch.exchanges)
    for response in stream(chunks(), timeout=PATIENT_MS / 1e3):
        require(response == next(expected), f"a streamed answer to {batch.rows} rows is not what a call was answered")
        answered += 1
        may_send.release()
    require(answered > 0, "nothing was answered")
    return answered * batch.rows


def _seconds(run: Run) -> float:
    return run.choose(smoke=300, full=3_000) / 1_000
