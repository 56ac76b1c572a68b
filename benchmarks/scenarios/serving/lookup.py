"""lookup: three entities through the real gRPC server, beside an echo of the same bytes and beside stock Feast."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from benchmarks.filling import Filling
from benchmarks.load import WARM_UP_CALLS, LoadPlan, LoadReport, exchange, run_clients
from benchmarks.parts import (
    PROJECT,
    READY_TIMEOUT_S,
    AppliedRepo,
    applied_repo,
    cpu_seconds,
    cpu_seconds_since,
    grpc_server,
    module_process,
    running,
)
from benchmarks.peers import echo_server, feast_peer
from benchmarks.scenario import Line, Result, Run, digest, require
from benchmarks.workload import DAY_MS, Workload, check_against_oracle, make_workload
from featurestore.online.probe import free_port
from featurestore.online.redis.store import RedisStore, connect
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.messages import LookupBatch, make_request
from featurestore.serving.request.limits import WORKERS_DEFAULT
from featurestore.testing.servers import RedisServer, redis_server
from featurestore.wire.codecs.plain_row import encode_values
from featurestore.wire.entity_key import encode_key, lane_of
from featurestore.wire.store_layout import plain_key

SERVICE = "fraud_detection"
METHOD = "/featurestore.v1.FeatureLookup/Lookup"
FEAST_PATH = "/get-online-features"
MODES = ("sync", "aio")
CLIENTS = 4
OPEN_LOOP_PER_S = 400
LANES = 16
TURNS = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """One server under three loads."""

    one: LoadReport
    several: LoadReport
    saturated: LoadReport
    server_cpu_us: float
    redis_cpu_us: float
    clients: int


def run(run: Run) -> Result:
    """Fill 90 days, freeze requests and their right answers, and let load clients check every byte."""
    repo = applied_repo(run.directory)
    workload = make_workload(0, cards=run.choose(smoke=20, full=400), merchants=40, days=90)
    with redis_server() as redis:
        store = connect(redis.url)
        fill(store, repo, workload)
        answer_hash, compared = check_against_oracle(store, repo.spec, workload, sample=run.choose(smoke=2, full=5))
        frozen = freeze(run, repo, redis, workload)
        store.close()
        run.say(f"{len(workload.rows):,} transactions written, {compared} values are the oracle's")
        lines: list[Line] = []
        best = None
        for io in MODES[: run.choose(smoke=1, full=len(MODES))]:
            ours, floor = _measure_beside_echo(run, repo, redis, io, frozen.exchanges)
            run.say(f"{io}: p50 {ours.one.p50_ms:.2f} ms, echo {floor.one.p50_ms:.2f} ms")
            lines += _lines(io, ours, floor)
            best = ours if best is None or ours.one.p50_ms < best.one.p50_ms else best
        assert best is not None
        redis.flush()
        lines += _feast_lines(run, redis, best)
    features = sum(len(view.features) for view in repo.spec.views)
    return Result(
        scenario="lookup",
        question=f"How long does a risk model wait for {features} windowed and 5 plain features of three entities?",
        lines=tuple(lines),
        answer_hash=digest([answer_hash, *frozen.texts]),
        checked=f"{compared:,} values equal the naive oracle's, and the clients compare every answer byte for byte "
        f"({frozen.answer_bytes_mean:,} bytes on average)",
        notes=(
            "Client processes call with bytes and do not parse, for all gRPC servers alike. One client: closed loop. "
            f"Several: open loop at {OPEN_LOOP_PER_S}/s in total, each call timed from when it was due; "
            "saturated: the same clients in a closed loop. Server and echo alternate; of "
            f"{run.choose(smoke=1, full=TURNS)} turns the one counts that was disturbed least.",
            "The echo answers the same bytes to the same requests on the same library, threads and options.",
            "Clients, server and Redis share the machine's cores.",
            f"Feast: {len(feast_peer.VIEWS)} x {feast_peer.FEATURES_PER_VIEW} plain features, three entities, its own "
            "Redis store; `feast serve` is HTTP and JSON, and has one worker.",
        ),
    )


def fill(store: RedisStore, repo: AppliedRepo, workload: Workload, *, packs: int = 0) -> None:
    """All payments, and a profile of every merchant."""
    filling = Filling(store, repo.spec, packs=packs)
    filling.write(workload.payloads)
    filling.close()
    entries = []
    for merchant in sorted(set(workload.entity("merchant_activity").tolist())):
        key = encode_key([workload.key("merchant_activity", merchant)])
        values = encode_values(
            {
                "merchant_category": "grocery",
                "home_market": "SE",
                "is_online_only": merchant % 2 == 0,
                "onboarded_days": 100 + merchant,
                "chargeback_share": 1 / (1 + merchant),
            }
        )
        stored_key = plain_key(PROJECT, lane_of(key, LANES), "merchant_profile", key)
        entries.append((stored_key, workload.as_of_ms - DAY_MS, values, 0))
    store.write_newer(entries)


def requests(workload: Workload, count: int) -> list[dict[str, str | int]]:
    """Entities of the last payments: what a risk model asks about."""
    views = {"card_id": "card_activity", "merchant_id": "merchant_activity", "terminal_id": "terminal_activity"}
    entities = {name: workload.entity(view)[-count:].tolist() for name, view in views.items()}
    return [
        {name: workload.key(view, entities[name][index]) for name, view in views.items()}
        for index in range(min(count, len(workload.rows)))
    ]


@dataclass(frozen=True, slots=True)
class Frozen:
    """Requests at one read time with the answers that they must get from now on.

    Attributes:
        exchanges: request and answer as bytes, for load plans.
        texts: the answers' values, for the hash.
        answer_bytes_mean: mean size of an answer.
    """

    exchanges: list[tuple[str, str]]
    texts: list[str]
    answer_bytes_mean: int


def freeze(run: Run, repo: AppliedRepo, redis: RedisServer, workload: Workload) -> Frozen:
    """Ask once for each request; its bytes must never change again, whichever server answers."""
    exchanges, texts, total = [], [], 0
    with (
        grpc_server(repo, run.directory, redis.url, "sync") as (address, _),
        LookupClient(address) as client,
        grpc.insecure_channel(address) as channel,
    ):
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        for entities in requests(workload, run.choose(smoke=10, full=200)):
            message = make_request(SERVICE, LookupBatch(entities), workload.as_of_ms, with_metadata=False)
            request = message.SerializeToString()
            answer = call(request)
            total += len(answer)
            exchanges.append(exchange(request, answer))
            [features] = client.lookup(SERVICE, entities, as_of_ms=workload.as_of_ms).rows()
            texts.append("|".join(f"{v:.9g}" if isinstance(v, float) else str(v) for v in features.values()))
    return Frozen(exchanges, texts, total // len(exchanges))


def _measure_beside_echo(
    run: Run, repo: AppliedRepo, redis: RedisServer, io: str, exchanges: Sequence[tuple[str, str]]
) -> tuple[Measured, Measured]:
    """The product's server and the floor, in turn, so that what else the machine does is in both."""
    plan = LoadPlan("", METHOD, exchanges, _seconds(run))
    with (
        grpc_server(repo, run.directory, redis.url, io) as (address, pid),
        echo(run, io, exchanges) as (echo_address, echo_pid),
    ):
        ours, floor = replace(plan, address=address), replace(plan, address=echo_address, method=echo_server.METHOD)
        turns = [
            (_measure(run, ours, pid, redis.process.pid), _measure(run, floor, echo_pid, None))
            for _ in range(run.choose(smoke=1, full=TURNS))
        ]
    return _least_disturbed([mine for mine, _ in turns]), _least_disturbed([bare for _, bare in turns])


def _least_disturbed(turns: Sequence[Measured]) -> Measured:
    """Of each load the turn in which others took least."""
    return Measured(
        min((turn.one for turn in turns), key=lambda report: report.p50_ms),
        min((turn.several for turn in turns), key=lambda report: report.p50_ms),
        max((turn.saturated for turn in turns), key=lambda report: report.calls_per_s),
        min(turn.server_cpu_us for turn in turns),
        min(turn.redis_cpu_us for turn in turns),
        turns[0].clients,
    )


@contextmanager
def echo(run: Run, io: str, exchanges: Sequence[tuple[str, str]]) -> Iterator[tuple[str, int]]:
    """A server that only echoes, at `echo_server.METHOD`; yields its address and process id."""
    path = run.directory / "exchanges.json"
    path.write_text(json.dumps(exchanges))
    arguments = [io, str(path), str(WORKERS_DEFAULT[io])]
    process = module_process(f"echo-{io}", run.directory, "benchmarks.peers.echo_server", arguments)
    with running(process, echo_server.READY) as line:
        yield line.removeprefix(echo_server.READY), process.pid


def _measure(run: Run, plan: LoadPlan, server_pid: int, redis_pid: int | None) -> Measured:
    """One client, several by the timetable, several as fast as they can."""
    cpu_before_s = cpu_seconds(server_pid)
    redis_before_s = 0.0 if redis_pid is None else cpu_seconds(redis_pid)
    one = run_clients(run.directory, plan)
    cpu_s = cpu_seconds_since(server_pid, cpu_before_s)
    redis_s = 0.0 if redis_pid is None else cpu_seconds_since(redis_pid, redis_before_s)
    clients = run.choose(smoke=2, full=CLIENTS)
    several = run_clients(run.directory, replace(plan, per_second=OPEN_LOOP_PER_S), clients=clients)
    saturated = run_clients(run.directory, plan, clients=clients)
    for report in (one, several, saturated):
        require(report.mismatches == 0, f"{report.mismatches} of {report.calls} answers are not what was frozen")
    calls = one.calls + WARM_UP_CALLS
    return Measured(one, several, saturated, cpu_s / calls * 1e6, redis_s / calls * 1e6, clients)


def _seconds(run: Run) -> float:
    return run.choose(smoke=300, full=3_000) / 1_000


def _lines(io: str, ours: Measured, echo: Measured) -> list[Line]:
    """Ours beside the echo of the same kind."""
    of = f"{io} echo"
    lines = []
    several = f"{ours.clients} clients"
    for name, label in (("one", "1 client"), ("several", f"{several}, {OPEN_LOOP_PER_S}/s")):
        mine: LoadReport = getattr(ours, name)
        floor: LoadReport = getattr(echo, name)
        for figure in ("p50_ms", "p99_ms", "p999_ms"):
            value, base = getattr(mine, figure), getattr(floor, figure)
            lines.append(Line(f"{io}, {label}: {figure.removesuffix('_ms')}", value, "ms", value / base, of))
    return [
        *lines,
        Line(
            f"{io}, {several}, saturated",
            ours.saturated.calls_per_s,
            "calls/s",
            ours.saturated.calls_per_s / echo.saturated.calls_per_s,
            of,
        ),
        Line(f"{io}: server CPU", ours.server_cpu_us, "us a call", ours.server_cpu_us / echo.server_cpu_us, of),
        Line(f"{io}: Redis CPU", ours.redis_cpu_us, "us a call", ours.redis_cpu_us / ours.server_cpu_us, "server CPU"),
    ]


def _feast_lines(run: Run, redis: RedisServer, ours: Measured) -> list[Line]:
    """Stock Feast, one client."""
    directory = run.directory / "feast-lookup"
    feast_peer.prepare(directory, redis.port)
    sdk = feast_peer.measure_sdk(directory, _seconds(run))
    require(sdk.mismatches == 0, "the Feast SDK did not return what was written")
    run.say(f"Feast SDK: p50 {sdk.p50_ms:.2f} ms")
    served = _measure_feast_serve(run, directory)
    run.say(f"feast serve: p50 {served.p50_ms:.2f} ms")
    return [
        Line(f"{what}, 1 client: {figure.removesuffix('_ms')}", value, "ms", value / getattr(ours.one, figure), "ours")
        for what, report in (("Feast SDK in process", sdk), ("feast serve", served))
        for figure in ("p50_ms", "p99_ms")
        for value in (getattr(report, figure),)
    ]


def _measure_feast_serve(run: Run, directory: Path) -> LoadReport:
    """`feast serve` over one kept HTTP connection."""
    port = free_port()
    process = module_process(
        "feast-serve", run.directory, "benchmarks.peers.feast_peer", ["serve", str(directory), str(port)]
    )
    body = json.dumps(
        {
            "feature_service": feast_peer.SERVICE,
            "entities": {key: [feast_peer.ENTITY] for key in feast_peer.VIEWS.values()},
        }
    ).encode()
    process.start()
    try:
        process.wait_until(lambda: _feast_answers(port, body), timeout_s=READY_TIMEOUT_S)
        address = f"127.0.0.1:{port}"
        plan = LoadPlan(address, FEAST_PATH, [exchange(body, b"")], _seconds(run), is_http=True)
        return run_clients(run.directory, plan)
    finally:
        process.stop()


def _feast_answers(port: int, body: bytes) -> bool:
    """Whether the server is up; its first answer must be right."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", FEAST_PATH, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
    except ConnectionError:
        return False
    finally:
        connection.close()
    names = answer["metadata"]["feature_names"]
    found = {name: result["values"][0] for name, result in zip(names, answer["results"], strict=True)}
    expected = feast_peer.expected_values()
    require({name: found.get(name) for name in expected} == expected, "feast serve did not return what was written")
    return True
