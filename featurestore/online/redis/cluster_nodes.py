"""Which node of a Redis or Valkey Cluster has which slot: learned from CLUSTER SLOTS, corrected by what nodes answer.

It is learned anew when a node does not answer, or when a connection is lost: then another may have taken over.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from featurestore.clock import SystemClock
from featurestore.online.redis.transport import CONNECT_TIMEOUT_S, TIMEOUT_MIN_S, Node, SingleTransport, raise_first

MAP_TIMEOUT_S = 1.0
"""How long a node may take to say which node has which slot; then another is asked."""

LEARN_INTERVAL_MS = 200
"""While a node does not answer, who has its slots is asked for at most so often."""

_clock = SystemClock()


class ClusterNodes:
    """Which node has which slot, and a transport for each node. Thread-safe.

    Args:
        url: of any node; user, password and options hold for all.

    Raises:
        redis.RedisError: the node does not answer.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        address = urlsplit(url)
        self._named: Node = (address.hostname or "localhost", address.port or 6379)
        self._answered = self._named
        self._owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._transports: dict[Node, SingleTransport] = {}
        self._learning = threading.Lock()
        self._next_learning_ns = 0
        self.learn(CONNECT_TIMEOUT_S)

    def owner(self, slot: int) -> Node:
        """The node that has a slot.

        Raises:
            ClusterDownError: no node has it.
        """
        node = self._owners[slot]
        if node is None:
            raise redis.exceptions.ClusterDownError(f"no node has slot {slot}")
        return node

    def at(self, node: Node) -> SingleTransport:
        """The transport of a node."""
        transport = self._transports.get(node)
        return transport or self._transports.setdefault(node, SingleTransport(self._url, node))

    def known(self) -> set[Node]:
        """Nodes that have slots."""
        return {node for node in self._owners if node is not None}

    def move(self, slot: int, node: Node) -> None:
        """A node has said that another has the slot now."""
        self._owners[slot] = node

    def learn_soon(self) -> None:
        """Learn in a thread, unless one is about it or just was."""
        now_ns = _clock.monotonic_ns()
        if now_ns >= self._next_learning_ns and not self._learning.locked():
            self._next_learning_ns = now_ns + LEARN_INTERVAL_MS * 1_000_000
            threading.Thread(target=self._learn_quietly, name="cluster-map", daemon=True).start()

    def learn(self, timeout_s: float) -> None:
        """Ask one node after the other which has which slot; whoever comes meanwhile waits for the answer.

        Raises:
            redis.RedisError, OSError: none answers in time.
        """
        known, ends_ns = self._owners, end_ns(timeout_s)
        if not self._learning.acquire(timeout=timeout_s):
            raise redis.exceptions.TimeoutError("the cluster does not say which node has which slot")
        try:
            if self._owners is known:
                self._ask_nodes(ends_ns)
        finally:
            self._learning.release()

    def close(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            transport.close()

    def _learn_quietly(self) -> None:
        """In the thread: the next read that fails tries again."""
        try:
            self.learn(MAP_TIMEOUT_S * (len(self.known()) + 1))
        except (redis.RedisError, OSError):
            return

    def _ask_nodes(self, ends_ns: int) -> None:
        """Replace the map by the first answer; who answered last is asked first."""
        failure: Exception = redis.exceptions.ConnectionError("no node answers")
        for node in dict.fromkeys((self._answered, *self.known(), self._named)):
            timeout_s = min(MAP_TIMEOUT_S, left_s(ends_ns))
            try:
                [ranges] = raise_first(self.at(node).run([("CLUSTER", "SLOTS")], timeout_s=timeout_s))
            except (redis.RedisError, OSError) as error:
                failure = error
                continue
            self._answered = node
            self._owners = _owners(ranges, node)
            for gone in set(self._transports) - self.known() - {node}:
                self._transports.pop(gone).close()
            return
        raise failure


def _owners(ranges: Sequence[Any], asked: Node) -> list[Node | None]:
    """The answer to CLUSTER SLOTS: first slot, last slot, the primary, its replicas; no host stands for who says so."""
    owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, (host, port, *_), *_ in ranges:
        name = asked[0] if host in (None, b"", b"?") else host.decode()
        owners[first : last + 1] = itertools.repeat((name, port), last + 1 - first)
    return owners


def end_ns(timeout_s: float) -> int:
    """When a read that begins now must end, on the monotonic clock."""
    return _clock.monotonic_ns() + int(timeout_s * 1e9)


def left_s(ends_ns: int) -> float:
    """What is left of a read's time, at least so much that an answer that has come is seen."""
    return max((ends_ns - _clock.monotonic_ns()) / 1e9, TIMEOUT_MIN_S)
