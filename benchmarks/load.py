"""Load generators as processes of their own, so that client and server do not share an interpreter."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.machine import environment
from benchmarks.scenario import percentile

OK, RESOURCE_EXHAUSTED = "0", "8"
"""gRPC statuses as they go over the wire."""

WARM_UP_CALLS = 50
"""Of each client, before the first that counts."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What a client does.

    Attributes:
        address: host:port.
        method: full name of a gRPC method, or a path for HTTP POST.
        exchanges: requests with the answer that each must get, base64; an empty answer accepts any.
        seconds: how long to measure.
        per_second: calls a second of an open loop; 0 for a closed loop.
        is_http: HTTP instead of gRPC.
        warm_up_calls: calls before the first that counts.
    """

    address: str
    method: str
    exchanges: Sequence[tuple[str, str]]
    seconds: float
    per_second: float = 0.0
    is_http: bool = False
    warm_up_calls: int = WARM_UP_CALLS


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Latencies of some calls.

    Attributes:
        calls: how many.
        p50_ms, p99_ms, p999_ms: latency below which so many per cent lie.
        calls_per_s: completed calls by the wall clock.
        client_cpu_us: processor time of the load generator, a call.
        mismatches: answers that were not the expected ones.
    """

    calls: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    calls_per_s: float
    client_cpu_us: float
    mismatches: int

    @staticmethod
    def of(latencies_s: Sequence[float], *, seconds: float, cpu_s: float, mismatches: int) -> LoadReport:
        """The report of measured calls."""
        p50, p99, p999 = (percentile(latencies_s, percent) * 1e3 for percent in (50, 99, 99.9))
        count = len(latencies_s)
        return LoadReport(count, p50, p99, p999, count / seconds, cpu_s / count * 1e6, mismatches)


@dataclass(frozen=True, slots=True)
class FloodPlan:
    """What the client does that offers more than a server can take.

    Attributes:
        address: host:port.
        method: full name of a gRPC method.
        exchanges: as in LoadPlan.
        seconds: how long to measure.
        deadline_ms: of each call.
        per_second: calls a second of an open loop; 0 for a closed loop.
        in_flight: calls under way of a closed loop.
        warm_up_calls: calls before the first that counts.
        is_throttled: calls are held back as `LookupClient` holds them back.
        connections: over which the calls are dealt out.
    """

    address: str
    method: str
    exchanges: Sequence[tuple[str, str]]
    seconds: float
    deadline_ms: int
    per_second: float = 0.0
    in_flight: int = 0
    warm_up_calls: int = WARM_UP_CALLS
    is_throttled: bool = False
    connections: int = 4


@dataclass(frozen=True, slots=True)
class FloodReport:
    """What became of a flood.

    Attributes:
        calls: how many began.
        in_time_per_s: answers within their deadline, a second of the plan.
        p50_ms, p99_ms: latency of those.
        refused: calls that ended with RESOURCE_EXHAUSTED.
        lost: calls that ended otherwise, or not within their deadline.
        mismatches: answers that were not the expected ones.
    """

    calls: int
    in_time_per_s: float
    p50_ms: float
    p99_ms: float
    refused: int
    lost: int
    mismatches: int


def exchange(request: bytes, answer: bytes) -> tuple[str, str]:
    """A request and its answer as a plan holds them."""
    return base64.b64encode(request).decode(), base64.b64encode(answer).decode()


def run_clients(directory: Path, plan: LoadPlan, *, clients: int = 1) -> LoadReport:
    """Run the plan in some processes at once; one report over all their calls.

    An open loop's rate is shared out among the clients.
    """
    path = directory / f"plan-{time.monotonic_ns()}.json"
    path.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(plan, per_second=plan.per_second / clients))))
    command = [sys.executable, "-m", "benchmarks.load_client", str(path)]
    processes = [
        subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(clients)
    ]
    for process in processes:
        _output(process).readline()  # it is warm
    latencies_s: list[float] = []
    cpu_s, mismatches = 0.0, 0
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        output, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"a load client failed with code {process.returncode}")
        found = json.loads(output)
        latencies_s += found["latencies_s"]
        cpu_s += found["cpu_s"]
        mismatches += found["mismatches"]
    return LoadReport.of(latencies_s, seconds=plan.seconds, cpu_s=cpu_s, mismatches=mismatches)


def run_flood(directory: Path, plan: FloodPlan) -> FloodReport:
    """Run the plan in a process of its own."""
    path = directory / f"flood-{time.monotonic_ns()}.json"
    path.write_text(json.dumps(dataclasses.asdict(plan)))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.flood_client", str(path)],
        env=environment(),
        input="go\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the flood failed with code {done.returncode}\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    in_time, refused = found["statuses"].get(OK, 0), found["statuses"].get(RESOURCE_EXHAUSTED, 0)
    p50, p99 = (percentile(found["latencies_s"], percent) * 1e3 for percent in (50, 99)) if in_time else (0.0, 0.0)
    lost = found["calls"] - in_time - refused
    return FloodReport(found["calls"], found["in_time_per_s"], p50, p99, refused, lost, found["mismatches"])


def _output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout
