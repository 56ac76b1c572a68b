"""Several server processes on one port, which look like one.

    serve --processes 3 ──starts──> 3 x serve --share-port, each with the options that were given
                        <──ready──  a line of each
                        /metrics    what all of them count, added up
                        SIGHUP      a new process, then the end of an old one; N times
                        SIGTERM     all of them drain

Python computes in one process at a time, so a machine of several cores needs several. The kernel spreads connections
over those that listen. A process that dies is started again; one that does not get ready at the start ends them all.
A child watches the pipe that is its standard input: whose parent is gone, goes.
"""

from __future__ import annotations

import logging
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from featurestore.cli.processes.summed_metrics import Counted, added_up, read_metrics
from featurestore.errors import InvalidRequest
from featurestore.process import serve_metrics

READY_SECONDS = 120.0
"""For a process to load everything and to reach registry and store, on a machine that is busy."""

STOP_SECONDS = 60.0
"""For a process to drain; longer than its own patience."""

RESTART_SECONDS = 1.0
"""Before a process that died is started again, so that one that always dies does not keep a core busy."""

_METRICS = re.compile(r"metrics on http://\S+:(\d+)/metrics")
_log = logging.getLogger(__name__)


@dataclass
class _Child:
    """One process.

    Attributes:
        process: it.
        metrics_port: where it counts; None until it is ready.
        has_spoken: set once it is ready, or has ended.
        counted: what it counted when it was asked last.
    """

    process: subprocess.Popen[str]
    metrics_port: int | None = None
    has_spoken: threading.Event = field(default_factory=threading.Event)
    counted: Counted = field(default_factory=Counted)


class ServerProcesses:
    """N server processes.

    Args:
        arguments: what was typed after `serve`.
        count: N.
        host: to listen on.
        port: to listen on; 0 takes a free one.
        http_port: to speak HTTP on; 0 takes a free one, None for nowhere.
        is_shared: whether servers that others started listen there too.

    Attributes:
        port: which one it is.
        http_port: which one it is.
        restarts: how many processes died and were started again.

    Raises:
        InvalidRequest: somebody else listens there.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        count: int,
        host: str,
        port: int,
        http_port: int | None = None,
        *,
        is_shared: bool = False,
    ) -> None:
        # Bound and never listened on: they keep the ports from others, and connections go to the children alone.
        self._port_holders = ExitStack()
        self.port = self._hold_port(host, port, is_shared=is_shared)
        self.http_port: int | None = None
        try:
            if http_port is not None:
                self.http_port = self._hold_port(host, http_port, is_shared=is_shared)
        except BaseException:
            self._port_holders.close()
            raise
        self.restarts = 0
        self._count = count
        # What comes last is what counts; a child is a server of one process, which shares its port.
        own = ["--child", "--processes", "1", "--share-port", "--port", str(self.port), "--metrics-port", "0"]
        if self.http_port is not None:
            own += ["--http", str(self.http_port)]
        self._command = [sys.executable, "-m", "featurestore", "serve", *arguments, *own]
        self._children: list[_Child] = []
        self._ended = Counted()
        # A scrape comes in a thread of its own, while processes come and go.
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start all; returns when each is ready.

        Raises:
            InvalidRequest: one ended instead, or is not ready in time; its own words are on stderr.
        """
        self._children = [self._spawn() for _ in range(self._count)]
        if not all(map(_wait_until_ready, self._children)):
            self.stop()
            raise InvalidRequest(
                f"not all of {self._count} server processes became ready",
                hint="the lines above say why; `--processes 1` says it once",
            )

    def watch(self, next_wish: Callable[[], str]) -> None:
        """Keep them running until their end is wished for.

        Args:
            next_wish: waits for a second at most; "stop", "renew", or nothing.
        """
        while (wish := next_wish()) != "stop":
            for place in range(self._count):
                child = self._children[place]
                if (code := child.process.poll()) is not None:
                    _log.error("server process %d died with exit code %d; another one is started", _pid(child), code)
                    self.restarts += 1
                    self._replace(place)
                elif wish == "renew":
                    self._renew(place)

    def stop(self) -> bool:
        """Let all drain; whether each ended as it should, and in time."""
        for child in self._children:
            child.process.terminate()
        ends_well = [_ends_well(child) for child in self._children]
        self._port_holders.close()
        return all(ends_well)

    def listen(self, host: str, port: int) -> tuple[int, Callable[[], None]]:
        """Serve what all of them count, added up, as /metrics.

        Returns:
            The bound port and a function that ends the listener.

        Raises:
            InvalidRequest: the address cannot be bound.
        """
        registry = CollectorRegistry()
        registry.register(_Sums(self))
        return serve_metrics(registry, host, port)

    def counted(self) -> tuple[Counted, int]:
        """What all of them have counted, those that have ended included, and how many answer."""
        with self._lock:
            answering = sum(map(_ask, self._children))
            alive = (child.counted for child in self._children if child.process.poll() is None)
            return added_up([self._ended, *alive]), answering

    def _hold_port(self, host: str, port: int, *, is_shared: bool) -> int:
        """Hold a port until the end; which one it is."""
        holder = self._port_holders.enter_context(_hold_port(host, port, is_shared=is_shared))
        number: int = holder.getsockname()[1]
        return number

    def _renew(self, place: int) -> None:
        """Put a new process in the place of an old one, which then drains."""
        old, new = self._children[place], self._spawn()
        if not _wait_until_ready(new):
            _log.error("a new server process did not get ready; process %d goes on in its place", _pid(old))
            new.process.kill()
            return
        with self._lock:
            _ask(old)
            self._ended.add(old.counted.only_counts())
            self._children[place] = new
        old.process.terminate()
        if not _ends_well(old):
            _log.error("server process %d did not end in time", _pid(old))
        _log.info("server process %d took the place of %d", _pid(new), _pid(old))

    def _replace(self, place: int) -> None:
        """Start another process in the place of one that died."""
        with self._lock:
            self._ended.add(self._children[place].counted.only_counts())
            threading.Event().wait(RESTART_SECONDS)
            self._children[place] = self._spawn()

    def _spawn(self) -> _Child:
        """Start a process; a thread passes on what it says."""
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the parent, which passes it on.
            start_new_session=True,
        )
        child = _Child(process)
        threading.Thread(target=_listen_to, args=(child,), daemon=True, name=f"server-{process.pid}").start()
        return child


class _Sums(Collector):
    """What prometheus_client asks.

    Args:
        processes: whose counts.
    """

    def __init__(self, processes: ServerProcesses) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        """All metrics of the children, and how many of these there are."""
        counted, answering = self._processes.counted()
        yield from counted.metrics()
        yield GaugeMetricFamily("featurestore_server_processes", "Server processes that answer.", answering)
        yield CounterMetricFamily(
            "featurestore_server_restarts",
            "Server processes that died and were started again.",
            self._processes.restarts,
        )


def _hold_port(host: str, port: int, *, is_shared: bool) -> socket.socket:
    """A socket that is bound to the port and shares it, with others only if that is wanted.

    Raises:
        InvalidRequest: it cannot be bound.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    holder = socket.socket(family, kind, protocol)
    try:
        if not is_shared:
            with socket.socket(family, kind, protocol) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(address)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(address)
    except OSError as error:
        holder.close()
        raise InvalidRequest(
            f'address "{host}:{port}" cannot be bound', detail=str(error), hint="is another server running there?"
        ) from error
    return holder


def _listen_to(child: _Child) -> None:
    """Pass on what a process says, but the line that says that it is ready."""
    assert child.process.stdout is not None, "it was asked for"
    for line in child.process.stdout:
        found = _METRICS.search(line)
        if child.metrics_port is None and found is not None:
            child.metrics_port = int(found[1])
            child.has_spoken.set()
        else:
            print(f"{_pid(child)}: {line}", end="", flush=True)
    child.has_spoken.set()


def _wait_until_ready(child: _Child) -> bool:
    """Whether it got ready."""
    return child.has_spoken.wait(READY_SECONDS) and child.metrics_port is not None


def _ask(child: _Child) -> bool:
    """Ask a process what it counts; whether it answered."""
    if child.metrics_port is None:
        return False
    try:
        child.counted = read_metrics(child.metrics_port)
    except OSError:
        return False
    return True


def _ends_well(child: _Child) -> bool:
    """Wait for the end of a process that was told to; one that does not end is ended."""
    try:
        return child.process.wait(STOP_SECONDS) == 0
    except subprocess.TimeoutExpired:
        child.process.kill()
        child.process.wait()
        return False


def _pid(child: _Child) -> int:
    """Its number, for people."""
    return child.process.pid


def end_with_parent(stopping: threading.Event) -> None:
    """In a child: set the wish to stop once the parent is gone, which holds the other end of the standard input."""

    def wait() -> None:
        sys.stdin.read()
        stopping.set()

    threading.Thread(target=wait, daemon=True, name="parent").start()
