"""Real Redis or Valkey, standalone and as a cluster."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from featurestore.clock import SystemClock
from featurestore.online.embedded import server_binary
from featurestore.online.probe import LOOPBACK, ask, free_port, server_pid
from featurestore.testing.servers.process import (
    ServerDidNotStart,
    ServerProcess,
    on_free_ports,
    server_directory,
)

BINARY_VARIABLE = "FEATURESTORE_REDIS_SERVER"
"""Environment variable that names the server program to test against."""

START_TIMEOUT_S = 20.0
CLUSTER_SLOTS = 16_384


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A running standalone server, or one node of a cluster.

    Attributes:
        process: to kill, stop and start it; call `wait_ready` after a start.
        port: TCP port on the loopback interface, kept over restarts.
        directory: its data.
    """

    process: ServerProcess
    port: int
    directory: Path

    @property
    def url(self) -> str:
        """Address for `redis.store.connect`."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def restart(self) -> None:
        """Start it again, after `process.kill()` or `process.stop()`, and wait until it answers."""
        self.process.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until this very process answers."""
        self.process.wait_until(lambda: server_pid(self.port) == self.process.pid, timeout_s=START_TIMEOUT_S)

    def flush(self) -> None:
        """Delete every key."""
        reply = ask(self.port, "FLUSHALL")
        assert reply == b"+OK", f"FLUSHALL failed: {reply!r}"

    def save_copy(self, target: Path) -> None:
        """Write a snapshot of the data to a file, for a later start from an older copy (see `load_copy`)."""
        assert ask(self.port, "SAVE", timeout_s=60.0) == b"+OK", "SAVE failed"
        shutil.copyfile(self.directory / "dump.rdb", target)

    def load_copy(self, source: Path) -> None:
        """Kill the server and start it again from a snapshot, as a restore from backup does."""
        self.process.kill()
        shutil.copyfile(source, self.directory / "dump.rdb")
        self.restart()


@dataclass(frozen=True, slots=True)
class RedisCluster:
    """A running cluster of primaries that share the slots.

    Attributes:
        nodes: in slot order.
    """

    nodes: tuple[RedisServer, ...]

    @property
    def url(self) -> str:
        """Address of the first node; clients discover the others."""
        return self.nodes[0].url

    def flush(self) -> None:
        """Delete every key of every node."""
        for node in self.nodes:
            node.flush()


@contextlib.contextmanager
def redis_server(*arguments: str) -> Iterator[RedisServer]:
    """A standalone server without persistence, unless `arguments` such as "--appendonly", "yes" say otherwise."""
    with server_directory("redis") as directory:
        [server] = on_free_ports(lambda: _start([_node(directory, arguments)]))
        try:
            yield server
        finally:
            server.process.stop()


@contextlib.contextmanager
def redis_cluster(node_count: int = 3) -> Iterator[RedisCluster]:
    """A cluster of primaries with all slots assigned, ready when every node says so."""
    with server_directory("redis-cluster") as directory:
        nodes = on_free_ports(lambda: _start([_cluster_node(directory) for _ in range(node_count)]))
        try:
            _form_cluster(nodes)
            yield RedisCluster(tuple(nodes))
        finally:
            for node in nodes:
                node.process.stop()


def _start(nodes: Sequence[RedisServer]) -> Sequence[RedisServer]:
    """All of them, or none."""
    with contextlib.ExitStack() as stopping:
        for node in nodes:
            node.process.start()
            stopping.callback(node.process.stop)
        for node in nodes:
            node.wait_ready()
        stopping.pop_all()
    return nodes


def _cluster_node(directory: Path) -> RedisServer:
    """A node of a cluster, in a directory of its own."""
    own = Path(tempfile.mkdtemp(prefix="node-", dir=directory))
    arguments = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", str(free_port()))
    return _node(own, arguments)


def _node(directory: Path, arguments: Sequence[str]) -> RedisServer:
    port = free_port()
    settings = ("--port", str(port), "--bind", LOOPBACK, "--dir", str(directory), "--save", "", *arguments)
    process = ServerProcess("redis", (str(_binary()), *settings), directory)
    return RedisServer(process, port, directory)


def _binary() -> Path:
    """The server to test against: the named one, else redis-server on PATH as production has it, else Valkey."""
    named = os.environ.get(BINARY_VARIABLE) or shutil.which("redis-server")
    return Path(named) if named else server_binary()


def _form_cluster(nodes: Sequence[RedisServer]) -> None:
    """Share the slots out and introduce the nodes to each other."""
    for index, node in enumerate(nodes):
        first_slot = CLUSTER_SLOTS * index // len(nodes)
        last_slot = CLUSTER_SLOTS * (index + 1) // len(nodes) - 1
        # Distinct epochs from the start: otherwise the nodes spend seconds resolving the collision.
        _command(node, "CLUSTER", "SET-CONFIG-EPOCH", str(index + 1))
        _command(node, "CLUSTER", "ADDSLOTSRANGE", str(first_slot), str(last_slot))
    for node in nodes[1:]:
        bus_port = node.process.command[node.process.command.index("--cluster-port") + 1]
        _command(nodes[0], "CLUSTER", "MEET", LOOPBACK, str(node.port), bus_port)
    clock = SystemClock()
    deadline_ns = clock.monotonic_ns() + int(START_TIMEOUT_S * 1e9)
    while not all(_is_complete(node, len(nodes)) for node in nodes):
        if clock.monotonic_ns() > deadline_ns:
            raise ServerDidNotStart(f"the cluster did not form\n{nodes[0].process.log_tail()}")
        clock.sleep(0.05)


def _is_complete(node: RedisServer, node_count: int) -> bool:
    lines = ask(node.port, "CLUSTER", "INFO").split(b"\r\n")
    return b"cluster_state:ok" in lines and b"cluster_known_nodes:%d" % node_count in lines


def _command(node: RedisServer, *words: str) -> None:
    reply = ask(node.port, *words)
    assert reply == b"+OK", f"{' '.join(words)} failed: {reply!r}"
