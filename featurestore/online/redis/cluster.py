"""A Redis or Valkey Cluster: which node has a key, and reads that wait for no other node than those they need.

    groups --slot--> node a  one MGET a slot, all nodes asked before the first is waited for
                     node b  ...
                             MOVED, ASK: asked again where the answer points

redis-py writes, and follows moves as it does so. It cannot read with a deadline, and while one node hangs it waits many
times ten seconds; so reads have connections of their own, each node its own, and each wait ends with its caller's time.

While a slot moves to another node, a key is at one of the two, and a command that names keys of both, or one that does
not exist, is answered TRYAGAIN until the move is over. Then the keys are read one by one, and again, until two rounds
agree: what changes together is never seen half changed, because no value comes back once it has changed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import redis
from redis.cluster import RedisCluster
from redis.crc import key_slot

from featurestore.online.redis.cluster_nodes import ClusterNodes, end_ns, left_s
from featurestore.online.redis.errors import redis_errors
from featurestore.online.redis.pipeline import STALLED_SECONDS, RedisPipeline, packed_read
from featurestore.online.redis.transport import (
    COMMAND_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    Node,
    SingleTransport,
    raise_first,
)
from featurestore.online.store import AsyncReads

REDIRECTS_MAX = 5
"""How often one read follows the cluster from node to node."""

ROUNDS_MAX = 10
"""How often keys that are read one by one are read, at most, until two rounds agree."""

_Groups: TypeAlias = Sequence[Sequence[bytes]]
_LOST = (redis.exceptions.ConnectionError, redis.exceptions.ClusterDownError, OSError)
_REDIRECTS = (redis.exceptions.AskError, redis.exceptions.TryAgainError)  # MovedError is an AskError


class ClusterTransport:
    """Transport of a cluster. Thread-safe.

    Args:
        url: of any node.

    Raises:
        redis.RedisError: nothing answers there.
    """

    def __init__(self, url: str) -> None:
        self.client: Any = RedisCluster.from_url(
            url, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=COMMAND_TIMEOUT_S, protocol=2
        )
        self.nodes = ClusterNodes(url)

    def run(self, commands: Sequence[Sequence[Any]], *, timeout_s: float | None = None) -> list[Any]:
        """See Transport. The time limit is the connection's own: redis-py has none for a single pipeline."""
        if len(commands) == 1:
            try:
                return [self.client.execute_command(*commands[0])]
            except redis.exceptions.ResponseError as error:
                return [error]
        pipeline = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies

    def start(self, commands: Sequence[Sequence[Any]]) -> Callable[[], list[Any]]:
        """See Transport. redis-py waits for all nodes before it returns."""
        replies = self.run(commands)
        return lambda: replies

    def read(self, groups: Sequence[Sequence[bytes]], *, timeout_s: float | None = None) -> list[bytes | None]:
        """See Transport."""
        ends_ns = end_ns(COMMAND_TIMEOUT_S if timeout_s is None else timeout_s)
        try:
            return self._read(groups, ends_ns)
        except redis.exceptions.TimeoutError:
            self.nodes.learn_soon()
            raise
        except _LOST:
            # An idle connection was closed, or another node has taken over; a second try opens a new one.
            self.nodes.learn(left_s(ends_ns))
            return self._read(groups, ends_ns)

    def info(self, section: str) -> list[dict[str, Any]]:
        """See Transport."""
        return [self.client.info(section, target_nodes=node) for node in self.client.get_primaries()]

    def close(self) -> None:
        """See Transport."""
        self.client.close()
        self.nodes.close()

    def _read(self, groups: _Groups, ends_ns: int) -> list[bytes | None]:
        """All groups: first those that no move concerns, then the others one by one."""
        reading = Reading(groups, self.nodes)
        sent: list[tuple[list[_Question], SingleTransport, Any]] = []
        errors: list[Exception] = []
        for node, questions in reading.questions.items():
            transport = self.nodes.at(node)
            try:
                connection = transport.begin([("MGET", *each.keys) for each in questions], left_s(ends_ns))
            except (redis.RedisError, OSError) as error:
                errors.append(error)
            else:
                sent.append((questions, transport, connection))
        for questions, transport, connection in sent:
            try:
                # Also after another node has failed: a connection on which answers are left behind is lost.
                replies = transport.finish(connection, len(questions), left_s(ends_ns))
            except (redis.RedisError, OSError) as error:
                errors.append(error)
            else:
                reading.take(questions, replies)
        raise_first(errors)
        for index in reading.redirected:
            reading.put(index, self._follow(groups[index], ends_ns))
        return reading.values

    def _follow(self, keys: Sequence[bytes], ends_ns: int) -> list[bytes | None]:
        """Keys of one slot, wherever they are now."""
        node, is_asking = self.nodes.owner(key_slot(keys[0])), False
        for _ in range(REDIRECTS_MAX):
            commands: list[tuple[Any, ...]] = [("ASKING",)] if is_asking else []
            reply = self.nodes.at(node).run([*commands, ("MGET", *keys)], timeout_s=left_s(ends_ns))[-1]
            if isinstance(reply, redis.exceptions.TryAgainError) and len(keys) > 1:
                return self._gather(keys, ends_ns)
            if isinstance(reply, redis.exceptions.AskError):
                is_asking = not isinstance(reply, redis.exceptions.MovedError)
                node = (reply.host or node[0], reply.port)
                if not is_asking:
                    self.nodes.move(reply.slot_id, node)
                continue
            values: list[bytes | None] = raise_first([reply])[0]
            return values
        raise redis.exceptions.TryAgainError(f"redirected {REDIRECTS_MAX} times")

    def _gather(self, keys: Sequence[bytes], ends_ns: int) -> list[bytes | None]:
        """Keys of a slot that is moving, all as they were at one moment."""
        previous: list[bytes | None] | None = None
        for _ in range(ROUNDS_MAX):
            values = [self._follow([key], ends_ns)[0] for key in keys]
            if values == previous:
                return values
            previous = values
        raise redis.exceptions.TryAgainError("the keys change as fast as they are read")


@dataclass(slots=True)
class _Question:
    """What one MGET asks.

    Attributes:
        groups: indices of groups of one slot.
        keys: their keys, one after another.
    """

    groups: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)


class Reading:
    """Groups of keys as questions to nodes, and the values as they come in.

    Args:
        groups: the keys; each group has one slot.
        nodes: who has it.

    Attributes:
        questions: what to ask of each node.
        values: of all keys, in the order of the groups.
        redirected: indices of groups that the asked node did not have, or not all of.
    """

    def __init__(self, groups: _Groups, nodes: ClusterNodes) -> None:
        self._starts = [0, *itertools.accumulate(map(len, groups))]
        self.values: list[bytes | None] = [None] * self._starts[-1]
        self.redirected: list[int] = []
        by_slot: dict[int, _Question] = {}
        for index, group in enumerate(groups):
            question = by_slot.setdefault(key_slot(group[0]), _Question())
            question.groups.append(index)
            question.keys += group
        questions: dict[Node, list[_Question]] = {}
        for slot, question in by_slot.items():
            questions.setdefault(nodes.owner(slot), []).append(question)
        self.questions: Mapping[Node, list[_Question]] = questions

    def take(self, questions: Sequence[_Question], replies: Sequence[Any]) -> None:
        """A node's replies.

        Raises:
            redis.ResponseError: it refuses.
        """
        for question, reply in zip(questions, replies, strict=True):
            if isinstance(reply, _REDIRECTS):
                self.redirected += question.groups
                continue
            raise_first([reply])
            found: Iterator[bytes | None] = iter(reply)
            for index in question.groups:
                self.put(index, list(itertools.islice(found, self._starts[index + 1] - self._starts[index])))

    def put(self, index: int, values: Sequence[bytes | None]) -> None:
        """A group's values."""
        self.values[self._starts[index] : self._starts[index + 1]] = values


class ClusterPipelines:
    """AsyncReads of a cluster: a pipeline a node. Belongs to the event loop that first uses it.

    Args:
        store_name: for messages.
        transport: knows the nodes.
        in_threads: reads what a move of slots concerns.
    """

    def __init__(self, store_name: str, transport: ClusterTransport, in_threads: AsyncReads) -> None:
        self._store_name = store_name
        self._nodes = transport.nodes
        self._in_threads = in_threads
        self._pipelines: dict[Node, RedisPipeline] = {}

    async def read_groups(
        self, groups: Sequence[Sequence[bytes]], *, timeout_ms: float | None = None
    ) -> list[bytes | None]:
        """See AsyncReads."""
        if not groups:
            return []
        timeout_s = STALLED_SECONDS if timeout_ms is None else timeout_ms / 1_000
        ends_ns = end_ns(timeout_s)
        with redis_errors(self._store_name, has_deadline=timeout_ms is not None):
            try:
                reading = Reading(groups, self._nodes)
                await self._ask(reading, timeout_s)
            except (*_LOST, redis.exceptions.TimeoutError):
                self._nodes.learn_soon()
                raise
        if not reading.redirected:
            return reading.values
        moved = [groups[index] for index in reading.redirected]
        found = iter(await self._in_threads.read_groups(moved, timeout_ms=left_s(ends_ns) * 1_000))
        for index, group in zip(reading.redirected, moved, strict=True):
            reading.put(index, list(itertools.islice(found, len(group))))
        return reading.values

    def close(self) -> None:
        """See AsyncReads."""
        for pipeline in self._pipelines.values():
            pipeline.close()
        self._in_threads.close()

    async def _ask(self, reading: Reading, timeout_s: float) -> None:
        """All nodes at once."""
        asking = [
            self._at(node).ask_all([packed_read([each.keys]) for each in questions], timeout_s)
            for node, questions in reading.questions.items()
        ]
        if len(asking) == 1:
            answers: Sequence[Any] = [await asking[0]]
        else:
            answers = await asyncio.gather(*asking, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        for questions, replies in zip(reading.questions.values(), answers, strict=True):
            reading.take(questions, replies)

    def _at(self, node: Node) -> RedisPipeline:
        """The pipeline of a node; those of nodes that are gone are closed when another comes."""
        pipeline = self._pipelines.get(node)
        if pipeline is None:
            for gone in set(self._pipelines) - self._nodes.known():
                self._pipelines.pop(gone).close()
            pipeline = RedisPipeline(self._store_name, lambda: self._nodes.at(node).new_connection())
            self._pipelines[node] = pipeline
        return pipeline
