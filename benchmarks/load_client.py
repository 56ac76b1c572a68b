"""One load client; imports only what it needs, because several start at once (see load.py).

    python -m benchmarks.load_client PLAN.json      prints "ready", waits for a line, prints latencies as JSON

The plan's loop is closed (the next call begins when the last one has ended) or open (calls begin by a timetable; a late
one counts from when it was due, so that a slow answer is not forgiven by asking less often).
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

CALL_TIMEOUT_S = 10.0

Call = Callable[[bytes], bytes]


def main(arguments: list[str]) -> int:
    """Carry out a plan."""
    plan = json.loads(Path(arguments[0]).read_text())
    exchanges = [(base64.b64decode(request), base64.b64decode(answer)) for request, answer in plan["exchanges"]]
    connect = _http_call if plan["is_http"] else _grpc_call
    call = connect(plan["address"], plan["method"])
    for request, _ in itertools.islice(itertools.cycle(exchanges), plan["warm_up_calls"]):
        call(request)
    print("ready", flush=True)
    sys.stdin.readline()
    cpu_before_s = time.process_time()
    latencies_s, mismatches = _measure(call, exchanges, seconds=plan["seconds"], per_second=plan["per_second"])
    cpu_s = time.process_time() - cpu_before_s
    print(json.dumps({"latencies_s": latencies_s, "cpu_s": cpu_s, "mismatches": mismatches}))
    return 0


def _measure(
    call: Call, exchanges: Sequence[tuple[bytes, bytes]], *, seconds: float, per_second: float
) -> tuple[list[float], int]:
    """Latency of every call, and how many answers were wrong."""
    latencies_s: list[float] = []
    mismatches = 0
    start_s = time.perf_counter()
    for number, (request, expected) in enumerate(itertools.cycle(exchanges)):
        due_s = start_s + number / per_second if per_second else time.perf_counter()
        if due_s - start_s >= seconds:
            break
        time.sleep(max(0.0, due_s - time.perf_counter()))
        answer = call(request)
        latencies_s.append(time.perf_counter() - due_s)
        mismatches += bool(expected) and answer != expected
    return latencies_s, mismatches


def _grpc_call(address: str, method: str) -> Call:
    """A unary method over one channel, bytes in and bytes out: parsing is not the server's cost."""
    import grpc

    send: grpc.UnaryUnaryMultiCallable[bytes, bytes] = grpc.insecure_channel(address).unary_unary(method)
    return lambda request: send(request, timeout=CALL_TIMEOUT_S)


def _http_call(address: str, path: str) -> Call:
    """POST over one kept connection."""
    host, _, port = address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=CALL_TIMEOUT_S)

    def call(request: bytes) -> bytes:
        connection.request("POST", path, request, {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        if response.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{path} answered {response.status}: {body[:500]!r}")
        return body

    return call


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
