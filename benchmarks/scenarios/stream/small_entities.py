"""small_entities: what do entities of few events take, in packs and by themselves, and what does writing them cost?

Cards and merchants of two and a half days. The same payloads go through the stream's steps in this process, into a
Redis of their own: in turns without packs and with them, so that a busy machine is as unfair to one as to the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.filling import Filling
from benchmarks.parts import applied_repo, cpu_seconds, cpu_seconds_since
from benchmarks.scenario import Line, Result, Run, digest, require
from benchmarks.workload import Workload, check_against_oracle, make_workload
from featurestore.core.spec import RepoSpec
from featurestore.online.redis.store import RedisStore, connect
from featurestore.testing.servers import redis_server

DAYS = 2.5
LANES = 16
ENTITIES_A_PACK = 30
"""As `expected_entities` of a view has it."""

ROUNDS = 2
_KINDS = {"card_activity": "card", "merchant_activity": "merchant"}


@dataclass(slots=True)
class Cost:
    """What one way of keeping a view's entities costs, over all rounds.

    Attributes:
        stream_s: processor time of decoding, keying and writing.
        redis_s: processor time of the store.
        memory_bytes: of the last round, `used_memory` less what an empty one takes.
        answers: digest of what a sample of entities answers.
    """

    stream_s: list[float] = field(default_factory=list)
    redis_s: list[float] = field(default_factory=list)
    memory_bytes: int = 0
    answers: str = ""


def run(run: Run) -> Result:
    """Write the same events twice a round, and count."""
    spec = applied_repo(run.directory).spec
    cards = run.choose(smoke=3_000, full=400_000)
    workload = make_workload(0, cards=cards, merchants=run.choose(smoke=1_000, full=150_000), days=DAYS)
    run.say(f"{len(workload.payloads):,} transactions made")
    lines: list[Line] = []
    texts, compared = [], 0
    for view, kind in _KINDS.items():
        alone = replace(spec, views=tuple(one for one in spec.views if one.name == view))
        entities = len(np.unique(workload.entity(view)))
        packs = max(entities // (LANES * ENTITIES_A_PACK), 1)
        costs = defaultdict[int, Cost](Cost)
        for _ in range(run.choose(smoke=1, full=ROUNDS)):
            for number in (0, packs):
                compared += _measure(run, alone, workload, number, costs[number])
        require(costs[0].answers == costs[packs].answers, f"entities of {view} in packs answer as by themselves")
        texts.append(costs[0].answers)
        lines += _lines(kind, entities, len(workload.payloads), costs[0], costs[packs])
        run.say(f"{view}: {entities:,} entities, {packs} packs a lane")
    return Result(
        scenario="small_entities",
        question="What do entities of few events take when they share keys, and what does it cost to write them?",
        lines=tuple(lines),
        answer_hash=digest(texts),
        checked=f"{compared:,} values equal the naive oracle's, and with packs those without",
        notes=(
            f"{len(workload.payloads):,} transactions of {DAYS:g} days, {LANES} lanes, some {ENTITIES_A_PACK} entities "
            "a pack; the view alone: decoded, keyed and written as the stream does it, step by step.",
            f"Processor time: medians of {ROUNDS} rounds. Memory: all that `used_memory` grew by, event ids included.",
            "How long a lookup of such entities takes is in scenario `handler`.",
        ),
    )


def _measure(run: Run, repo: RepoSpec, workload: Workload, packs: int, cost: Cost) -> int:
    """Fill an empty store; how many values were compared."""
    with redis_server() as server:
        store = connect(server.url)
        empty_bytes = _used_bytes(store)
        before_s = cpu_seconds(server.process.pid)
        filling = Filling(store, repo, packs=packs)
        filling.write(workload.payloads)
        filling.close()
        cost.stream_s.append(sum(filling.cpu_s.values()))
        cost.redis_s.append(cpu_seconds_since(server.process.pid, before_s))
        cost.memory_bytes = _used_bytes(store) - empty_bytes
        cost.answers, compared = check_against_oracle(store, repo, workload, sample=run.choose(smoke=4, full=20))
        store.close()
    return compared


def _used_bytes(store: RedisStore) -> int:
    memory = store.memory()
    assert memory is not None, "a server of its own tells"
    return memory.used_bytes


def _lines(kind: str, entities: int, events: int, alone: Cost, packed: Cost) -> Sequence[Line]:
    """Memory by entity, processor time by event."""

    def pair(what: str, unit: str, one: float, other: float) -> list[Line]:
        by_itself = f"{kind} by itself: {what}"
        return [Line(by_itself, one, unit), Line(f"{kind} in packs: {what}", other, unit, other / one, by_itself)]

    stream_us, redis_us, both_us = (
        [float(np.median(times)) / events * 1e6 for times in of]
        for of in (
            (alone.stream_s, packed.stream_s),
            (alone.redis_s, packed.redis_s),
            (np.add(alone.stream_s, alone.redis_s), np.add(packed.stream_s, packed.redis_s)),
        )
    )
    return [
        *pair("memory", "bytes", alone.memory_bytes / entities, packed.memory_bytes / entities),
        *pair("the stream", "us of CPU an event", *stream_us),
        *pair("Redis", "us of CPU an event", *redis_us),
        *pair("both", "us of CPU an event", *both_us),
    ]
