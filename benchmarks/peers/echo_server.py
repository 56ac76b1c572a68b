"""The floor of any Python gRPC server: answers bytes with bytes, looked up in a dict.

    python -m benchmarks.peers.echo_server sync|aio EXCHANGES.json WORKERS

The same library, thread pool and options as the product's server, none of its work.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import grpc.aio

READY = "echo on "
METHOD = "/benchmarks.Echo/Call"

_OPTIONS = (("grpc.so_reuseport", 0),)


def _handlers(behavior: object) -> dict[str, object]:
    return {"Call": grpc.unary_unary_rpc_method_handler(behavior)}  # type: ignore[arg-type]  # sync or async


def _serve_threads(answers: Mapping[bytes, bytes], workers: int) -> None:
    server = grpc.server(ThreadPoolExecutor(workers), options=_OPTIONS)
    server.add_registered_method_handlers(
        "benchmarks.Echo",
        _handlers(lambda request, _context: answers[request]),  # type: ignore[arg-type]  # handlers by name
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"{READY}127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


async def _serve_loop(answers: Mapping[bytes, bytes]) -> None:
    async def behave(request: bytes, _context: object) -> bytes:
        return answers[request]

    server = grpc.aio.server(options=_OPTIONS)
    server.add_registered_method_handlers("benchmarks.Echo", _handlers(behave))  # type: ignore[arg-type]  # as above
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"{READY}127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def main(arguments: list[str]) -> int:
    """Serve until killed."""
    io, path, workers = arguments
    exchanges = json.loads(Path(path).read_text())
    answers = {base64.b64decode(request): base64.b64decode(answer) for request, answer in exchanges}
    if io == "sync":
        _serve_threads(answers, int(workers))
    else:
        asyncio.run(_serve_loop(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
