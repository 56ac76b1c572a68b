"""The HTTP server: an event loop in a thread of its own, beside gRPC's server of either kind.

It reads the store through its own connection and shares nothing with gRPC's server but who is let in, and the counts.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from featurestore.clock import Clock
from featurestore.errors import InvalidRequest
from featurestore.online.store import OnlineStore
from featurestore.serving.http.connection import Connection
from featurestore.serving.http.edge import Edge
from featurestore.serving.http.operations import Operation
from featurestore.serving.http.tls import RenewedContext
from featurestore.serving.request.admission import Admission
from featurestore.serving.request.handling import QUIET_SECONDS_MAX, STOP_SECONDS, quiet_pauses_s
from featurestore.serving.request.limits import LARGE_AT_WORK_MAX
from featurestore.serving.request.metrics import ServerMetrics
from featurestore.serving.request.tls import Tls

BACKLOG = 1_024
"""Connections that wait to be accepted."""

LOOK_SECONDS = 0.02
"""How often it is looked whether all connections have ended."""


class HttpServer:
    """Starts to serve when constructed.

    Args:
        operations: what to serve.
        store: what their steps read.
        clock: measures latency and deadlines.
        metrics: counts requests.
        admission: who is let in.
        host: address to bind.
        port: TCP port; 0 takes a free one.
        tls: None listens in clear text.
        share_port: let several processes listen on one port.
        connection_age_s: after so long, give or take a tenth, a client has to connect anew; None never.

    Attributes:
        port: the bound port.

    Raises:
        InvalidRequest: the address cannot be bound, or a TLS file cannot be used.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        store: OnlineStore,
        clock: Clock,
        metrics: ServerMetrics,
        admission: Admission,
        *,
        host: str,
        port: int,
        tls: Tls | None = None,
        share_port: bool = False,
        connection_age_s: float | None = None,
    ) -> None:
        context = None if tls is None else RenewedContext(tls).first
        listener = _bound(host, port, share_port=share_port)
        self.port: int = listener.getsockname()[1]
        self._reads = store.async_reads()
        self._pool = ThreadPoolExecutor(LARGE_AT_WORK_MAX, thread_name_prefix="large-http-lookup")
        self._edge = Edge(operations, store, self._reads, self._pool, clock, metrics, admission)
        self._arrivals = lambda: admission.arrivals
        self._age_s = connection_age_s
        self._connections: set[Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http-loop", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._run(self._listen(listener, context)).result()

    def set_serving(self, is_serving: bool) -> None:
        """What /readyz answers."""
        self._edge.is_serving = is_serving

    def stop(self, drain_seconds: float) -> bool:
        """Be not ready, refuse new connections, let requests in flight end; whether all did."""
        return self.end_stop(self.begin_stop(drain_seconds), drain_seconds)

    def begin_stop(self, drain_seconds: float) -> Future[bool]:
        """Begin to `stop`."""
        return self._run(self._stop(drain_seconds))

    def end_stop(self, stopping: Future[bool], drain_seconds: float) -> bool:
        """Wait for the end of a stop that has begun; whether all requests have ended."""
        try:
            has_ended = stopping.result(QUIET_SECONDS_MAX + drain_seconds + STOP_SECONDS)
        except TimeoutError:
            return False
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        return has_ended

    async def _listen(self, listener: socket.socket, context: Any) -> asyncio.Server:
        """In the loop: begin to accept."""
        return await self._loop.create_server(
            lambda: Connection(self._edge, self._connections, self._age_s), sock=listener, ssl=context, backlog=BACKLOG
        )

    async def _stop(self, drain_seconds: float) -> bool:
        """In the loop."""
        self._edge.is_draining = True
        for pause_s in quiet_pauses_s(self._arrivals, drain_seconds):
            await asyncio.sleep(pause_s)
        self._server.close()
        for connection in list(self._connections):
            connection.end_if_idle()
        await self._until_closed(drain_seconds)
        tasks = [each.task for each in self._connections if each.task is not None]
        for connection in list(self._connections):
            connection.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        # What was cancelled in a thread goes on there until the store answers.
        await asyncio.to_thread(self._pool.shutdown)
        self._reads.close()
        # What the loop was told to do at once, such as closing sockets, is done before it ends.
        await asyncio.sleep(0)
        return all(task.done() for task in tasks)

    async def _until_closed(self, seconds: float) -> None:
        """Wait until no connection is open, or no longer."""
        ends_at = self._loop.time() + seconds
        while self._connections and self._loop.time() < ends_at:
            await asyncio.sleep(LOOK_SECONDS)

    def _run(self, work: Any) -> Future[Any]:
        """Run a coroutine in the loop from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)


def _bound(host: str, port: int, *, share_port: bool) -> socket.socket:
    """A socket that is bound to the address and does not listen yet.

    Raises:
        InvalidRequest: it cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise InvalidRequest(
            f'HTTP address "{host}:{port}" cannot be bound',
            detail=str(error),
            hint="is another server running there? give another port with --http",
        ) from error
    return listener
