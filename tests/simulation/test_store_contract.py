"""The simulated store against a real Redis: the same operations leave the same bytes, and get the same answers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from featurestore.errors import CorruptData
from featurestore.online.redis.store import RedisStore, connect
from featurestore.online.store import LaneCommit, OnlineStore, PackedAppends
from featurestore.testing.clock import ManualClock
from featurestore.testing.simulation.stand_ins.store import NotOurs, SimulatedStore
from featurestore.wire.codecs.pack import records_of

TAG = b"{t/0}"
HEADS, BODIES, IDS = TAG + b"v/h/", TAG + b"v/b/", TAG + b"v/i/"
PACK_HEADS, PACK_BODIES = TAG + b"v/H/", TAG + b"v/B/"
LONG_MS = 1_000_000_000
"""Expiries are multiples of this, so that the time a test takes is rounded away."""

ENTITIES = (b"a", b"b", b"c" * 200)
CHECKPOINTS = (TAG + b"v/c", TAG + b"w/c")

Operation = Callable[[OnlineStore], object]


def a_commit(draw: random.Random, found: dict[bytes, bytes]) -> LaneCommit:
    """A commit whose checkpoint is mostly the expected one; keys may repeat, as entities of several batches do."""
    key = draw.choice(CHECKPOINTS)
    entities = [draw.choice(ENTITIES) for _ in range(draw.randint(0, 4))]
    appends = [bytes([draw.randrange(256)]) + b"row" * draw.choice((0, 1, 3, 60, 6_000)) for _ in entities]
    ends = [end for end in range(1, len(entities)) if draw.random() < 0.5] + [len(entities)] * bool(entities)
    records = records_of(entities, appends).values()
    packed = PackedAppends(
        PACK_HEADS,
        PACK_BODIES,
        [draw.choice((b"0", b"1")) for _ in ends],
        ends,
        [b"".join(records[low:high]) for low, high in itertools.pairwise((0, *ends))],
        draw.choice((1, 12, 1 << 40)),
    )
    of_packs = [(PACK_BODIES + b"0", PACK_HEADS + b"0", draw.choice((b"", b"\xfb pack")))]
    is_packed = draw.random() < 0.6
    return LaneCommit(
        checkpoint_key=key,
        expected=found.get(key, b"") if draw.random() < 0.85 else b"other",
        replacement=draw.choice((found.get(key, b""), b"%d" % draw.randrange(100))),
        bodies=[
            (BODIES + entity, HEADS + entity, draw.choice((b"", b"\xfb body %d" % draw.randrange(100))))
            for entity in draw.sample(ENTITIES, draw.choice((0, 0, 1, 2)))
        ]
        + of_packs * (draw.random() < 0.2),
        head_prefix=HEADS,
        body_prefix=BODIES,
        entities=entities,
        appends=() if is_packed else appends,
        packed=packed if is_packed else None,
        id_appends=[(IDS + b"%d" % draw.randrange(2), b"12345678")] if draw.random() < 0.5 else [],
        deletions=[IDS + b"%d" % draw.randrange(2)] if draw.random() < 0.2 else [],
        expire_ms=draw.choice((0, 0, 1, 2, 7)) * LONG_MS,
        report_bytes_min=draw.choice((1, 12, 1 << 40)),
    )


def an_operation(draw: random.Random, found: dict[bytes, bytes]) -> Operation:
    """Something that the product does to a store."""
    kind = draw.randrange(10)
    if kind < 5:
        commits = [a_commit(draw, found) for _ in range(draw.choice((1, 1, 2)))]
        return lambda store: store.commit(commits)
    field, key = b"f%d" % draw.randrange(2), draw.choice((TAG + b"hash", TAG + b"v/c"))
    value, expected = b"%d" % draw.randrange(4), draw.choice((None, b"1", b"2"))
    if kind == 5:
        return lambda store: store.compare_and_set_field(key, field, expected, value)
    if kind == 6:
        return lambda store: store.compare_and_set(TAG + b"cas", expected, value)
    if kind == 7:
        times = [draw.choice((-5, 0, 255, 256, 1 << 40, -(1 << 40))) for _ in range(3)]
        entries = [(TAG + b"p/%d" % n, at, value, draw_expiry(draw)) for n, at in enumerate(times)]
        return lambda store: store.write_newer(entries)
    names = [draw.choice((HEADS, BODIES)) + draw.choice(ENTITIES), draw.choice((IDS + b"0", TAG + b"hash"))]
    if kind == 8:
        return lambda store: store.delete(names)
    pattern = draw.choice((TAG + b"v/h/*", TAG + b"v/?/a", TAG + b"\\v/b/*", b"*"))
    return lambda store: (store.read_groups([names, [HEADS + b"a"]]), sorted(store.scan(pattern)))


def draw_expiry(draw: random.Random) -> int:
    """An expiry that the test outlives, or none."""
    return draw.choice((0, 3)) * LONG_MS


def answer_of(operation: Operation, store: OnlineStore) -> object:
    """What it says, errors by their kind."""
    try:
        return operation(store)
    except CorruptData:
        return CorruptData


def contents_of(store: RedisStore) -> dict[bytes, tuple[object, int | None]]:
    """Every key's bytes, and when it goes."""
    client, found = store._client(), dict[bytes, tuple[object, int | None]]()
    for key in client.scan_iter():
        left_ms = client.pttl(key)
        kind = client.type(key)
        value = client.get(key) if kind == b"string" else client.hgetall(key) if kind == b"hash" else "not ours"
        found[key] = value, None if left_ms < 0 else round(left_ms / LONG_MS)
    return found


def simulated_contents(store: SimulatedStore, clock: ManualClock) -> dict[bytes, tuple[object, int | None]]:
    """The same of the simulated one."""
    return {
        key: (
            "not ours" if isinstance(stored.value, NotOurs) else stored.value,
            None if stored.expires_ms is None else round((stored.expires_ms - clock.now_ms()) / LONG_MS),
        )
        for key, stored in store.contents().items()
    }


@pytest.mark.parametrize("seed", range(80))
def test_drawn_operations_leave_the_same_bytes_as_in_redis(redis_url: str, seed: int) -> None:
    """Answers after every operation, and at the end all keys, values and expiries."""
    real, clock, draw = connect(redis_url), ManualClock(), random.Random(seed)
    simulated = SimulatedStore(clock.now_ms)
    for _ in range(25):
        found = {key: value for key in CHECKPOINTS if (value := simulated.read_groups([[key]])[0]) is not None}
        if draw.random() < 0.08:
            key = draw.choice(
                (
                    HEADS + b"a",
                    BODIES + b"a",
                    PACK_HEADS + b"0",
                    PACK_BODIES + b"0",
                    IDS + b"0",
                    CHECKPOINTS[1],
                    TAG + b"cas",
                    TAG + b"hash",
                )
            )
            real.delete([key])
            real._client().lpush(key, b"not ours")
            simulated.spoil(key)
        operation = an_operation(draw, found)

        assert answer_of(operation, real) == answer_of(operation, simulated)
        assert contents_of(real) == simulated_contents(simulated, clock)
    real.close()
