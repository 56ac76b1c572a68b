"""size: bytes that an entity takes in Redis, beside what else one would store."""

from __future__ import annotations

from benchmarks.filling import Filling
from benchmarks.parts import applied_repo
from benchmarks.peers import feast_peer
from benchmarks.peers.plain_hashes import event_set_bytes, hop_hash_bytes, value_hash_bytes
from benchmarks.scenario import Line, Result, Run
from benchmarks.workload import Workload, check_against_oracle, make_workload
from featurestore.online.generation import Generation
from featurestore.online.redis.store import RedisStore, connect
from featurestore.testing.servers import redis_server
from featurestore.wire.entity_key import encode_key, lane_of

DAYS = 90
LANES = 16
CARDS_MEASURED_MAX = 500


def run(run: Run) -> Result:
    """Fill 90 days, then ask Redis for the memory of a typical card and of the busiest merchant."""
    repo = applied_repo(run.directory)
    workload = make_workload(0, cards=run.choose(smoke=15, full=500), merchants=40, days=DAYS)
    lines: list[Line] = []
    with redis_server() as server:
        store = connect(server.url)
        filling = Filling(store, repo.spec)
        filling.write(workload.payloads)
        filling.close()
        answer_hash, compared = check_against_oracle(store, repo.spec, workload, sample=run.choose(smoke=2, full=5))
        run.say(f"{len(workload.payloads):,} transactions written, {compared} values are the oracle's")
        for view, label, place in (
            ("card_activity", "typical card", 1),
            ("merchant_activity", "busiest merchant", 0),
        ):
            entity = workload.sample(view, 3)[place]
            lines += _entity_lines(store, server.port, workload, filling.generations[view], entity, label)
        lines.append(_mean_line(store, workload, filling.generations["card_activity"]))
        server.flush()
        feast_peer.prepare(run.directory / "feast-size", server.port)
        # Feast names a key by its entity alone, and all views of an entity share it: here one view.
        feast_bytes = max(store.memory_bytes(key) for key in store.scan(b"*"))
        store.close()
    lines.append(
        Line(
            f"Feast's own Redis store: {feast_peer.FEATURES_PER_VIEW} plain values, no state to slide",
            feast_bytes,
            "bytes",
        )
    )
    return Result(
        scenario="size",
        question=f"How much memory of Redis (MEMORY USAGE) does an entity take after {DAYS} days of events?",
        lines=tuple(lines),
        answer_hash=answer_hash,
        checked=f"{compared:,} values read from what was measured equal the naive oracle's",
        notes=(
            "A hash of finished values must be rewritten whenever a window slides, event or no event; a hash of hop "
            "totals (one field for each window, aggregation and hop that has events) is the smallest that need not be.",
            "The sorted set holds the events as JSON, which is what recomputing on every read needs.",
        ),
    )


def _mean_line(store: RedisStore, workload: Workload, generation: Generation) -> Line:
    """All cards, or as many as can be asked for quickly."""
    cards = workload.sample(generation.view.name, CARDS_MEASURED_MAX)
    total = 0
    for card in cards:
        key = encode_key([workload.key(generation.view.name, card)])
        lane = lane_of(key, LANES)
        total += store.memory_bytes(generation.keys.body_prefix(lane) + key)
        total += store.memory_bytes(generation.keys.head_prefix(lane) + key)
    return Line(
        f"mean of {len(cards):,} cards from the busiest to the laziest: body + head", total / len(cards), "bytes"
    )


def _entity_lines(
    store: RedisStore, port: int, workload: Workload, generation: Generation, entity: int, label: str
) -> list[Line]:
    """Ours and the alternatives for one entity."""
    view = generation.view
    events = workload.naive_events(view.name, entity)
    key = encode_key([workload.key(view.name, entity)])
    lane = lane_of(key, LANES)
    keys = (generation.keys.body_prefix(lane) + key, generation.keys.head_prefix(lane) + key)
    body, head = (store.memory_bytes(each) for each in keys)
    data_bytes = sum(len(value or b"") for value in store.read_groups([keys]))
    ours = body + head
    what = f"{label} ({len(events):,} events, {len(view.features)} features)"
    alternatives = (
        ("hash of finished values", value_hash_bytes(port, view, events, workload.as_of_ms)),
        ("hash of hop totals", hop_hash_bytes(port, view, events, workload.as_of_ms)),
        ("sorted set of its events", event_set_bytes(port, workload, view.name, entity)),
    )
    return [
        Line(f"{what}: body {body:,} + head {head:,}", ours, "bytes"),
        Line(
            f"{label}: the data in them, without names and rounding",
            data_bytes,
            "bytes",
            data_bytes / ours,
            "body + head",
        ),
        *(Line(f"{label}: {name}", size, "bytes", size / ours, "body + head") for name, size in alternatives),
    ]
