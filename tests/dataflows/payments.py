"""Payments for stream tests: records with everything that happens to a stream, and what must come of them."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from featurestore.online.generation import Generation
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import Reader
from featurestore.online.redis.store import connect
from featurestore.testing.answers import AnswerValues, stored_answers
from featurestore.testing.oracle.naive import NaiveEvent, NaiveValue, naive_values
from featurestore.wire.entity_key import encode_key

PROJECT = "streamtest"
TOPIC = "payments"
BEGIN_MS = 1_790_000_000_000

REPO = """
from feast import Entity, FileSource, ValueType
from featurestore.definitions.authoring import aggregate, count, kafka_source, stream_view

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
merchant = Entity(name="merchant", join_keys=["merchant_id"], value_type=ValueType.INT64)

payments = kafka_source(
    name="payments",
    topic="payments",
    columns={
        "payment_id": "string", "paid_at": "timestamp", "card_id": "string", "merchant_id": "bigint",
        "amount": "bigint", "is_declined": "boolean",
    },
    event_time="paid_at",
    event_id="payment_id",
    dedup_horizon="1h",
    bootstrap_servers="127.0.0.1:1",
    history=FileSource(name="payments_history", path="data/payments.parquet", timestamp_field="paid_at"),
)

cards = stream_view(
    name="cards",
    entities=[card],
    source=payments,
    features=[
        *count(over=["10m", "1d", "lifetime"]),
        *aggregate("amount", "sum", over=["1h", %(card_window)r]),
        *aggregate("amount", "max", over=["1d"]),
        *aggregate("amount", "last", over=["1d"]),
        *aggregate("is_declined", "sum", over=["1h", "1d"]),
    ],
)
merchants = stream_view(
    name="merchants",
    entities=[merchant],
    source=payments,
    features=[
        *count(over=["1h", "2d"]),
        *aggregate("amount", "sum", over=["1d"]),
        *aggregate("amount", "min", over=["1d"]),
    ],
)
"""

CONFIG = f"""
project: {PROJECT}
provider: local
registry: data/registry.db
online_store:
  type: sqlite
  path: data/online.db
entity_key_serialization_version: 3
"""


@dataclass
class Payments:
    """A log's records by partition, and the events that a reader must see in them."""

    records: list[list[bytes]]
    cards: dict[bytes, list[NaiveEvent]] = field(default_factory=lambda: defaultdict(list))
    merchants: dict[bytes, list[NaiveEvent]] = field(default_factory=lambda: defaultdict(list))
    newest_ms: int = BEGIN_MS
    bad: int = 0

    def append_to(self, directory: Path) -> None:
        """Write all records to the end of the log's files."""
        topic = directory / TOPIC
        topic.mkdir(parents=True, exist_ok=True)
        for partition, lines in enumerate(self.records):
            with (topic / f"{partition}.jsonl").open("ab") as file:
                file.write(b"".join(line + b"\n" for line in lines))


def make_payments(count: int, *, seed: int, partitions: int = 4, first: int = 0, entities: int = 500) -> Payments:
    """Payments over two days, some late, null, declined, repeated by the producer within seconds, or not decodable."""
    draw = random.Random(seed)
    made = Payments([[] for _ in range(partitions)])
    step_ms = 2 * 86_400_000 // max(count, 1)
    for number in range(first, first + count):
        time_ms = BEGIN_MS + number * step_ms - (draw.randrange(600_000) if draw.random() < 0.05 else 0)
        card, merchant = f"card-{draw.randrange(entities)}", draw.randrange(entities // 5)
        columns: dict[str, NaiveValue | None] = {
            "amount": None if draw.random() < 0.05 else draw.randrange(-5_000, 100_000),
            "is_declined": int(draw.random() < 0.1),
        }
        payment_id = f"p-{number}"
        record = {
            "payment_id": payment_id,
            "paid_at": iso(time_ms),
            "card_id": card,
            "merchant_id": merchant,
            "unknown": [1, {"x": 2}],
            **columns,
            "is_declined": bool(columns["is_declined"]),
        }
        partition = made.records[merchant % partitions]
        partition.append(json.dumps(record).encode())
        if draw.random() < 0.02:
            partition.append(json.dumps({**record, "amount": 10**9}).encode())  # the same id: must not count
        if draw.random() < 0.005:
            partition.append(b'{"payment_id": "torn')
            made.bad += 1
        made.newest_ms = max(made.newest_ms, time_ms)
        made.cards[encode_key([card])].append(NaiveEvent(encode_key([card]), time_ms, payment_id.encode(), columns))
        made.merchants[encode_key([merchant])].append(
            NaiveEvent(encode_key([merchant]), time_ms, payment_id.encode(), columns)
        )
    return made


def iso(time_ms: int) -> str:
    """ISO 8601 with milliseconds."""
    moment = datetime.fromtimestamp(time_ms // 1_000, tz=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1_000:03d}Z"


def stored_values(
    url: str, generation: Generation, keys: Sequence[bytes], as_of_ms: int, *, cluster: bool = False
) -> list[AnswerValues]:
    """What a lookup at `as_of_ms` says of entities, by feature name."""
    store = connect(url, cluster=cluster)
    found = stored_answers(Reader(store, GenerationCatalog(store, PROJECT).lane_count()), generation, keys, as_of_ms)
    store.close()
    return found


def assert_every_value_is_exact(url: str, *parts: Payments, sample: int = 100, cluster: bool = False) -> None:
    """The serving generations of both views answer as the naive oracle does, for a sample of entities."""
    store = connect(url, cluster=cluster)
    catalog = GenerationCatalog(store, PROJECT)
    serving = {name: catalog.serving(name) for name in ("cards", "merchants")}
    store.close()
    as_of_ms = max(part.newest_ms for part in parts) + 1
    for name, generation in serving.items():
        assert generation is not None
        events: dict[bytes, list[NaiveEvent]] = defaultdict(list)
        for part in parts:
            for key, some in getattr(part, name).items():
                events[key] += some
        keys = sorted(events)[:: max(1, len(events) // sample)]
        actual = stored_values(url, generation, keys, as_of_ms, cluster=cluster)
        expected = [naive_values(generation.view, events[key], as_of_ms) for key in keys]
        wrong = {
            (name, key, feature): (is_value, values[feature])
            for key, values, answer in zip(keys, expected, actual, strict=True)
            for feature, is_value in answer.items()
            if is_value != values[feature]
        }
        assert wrong == {}, f"{len(wrong)} answers differ from the oracle (found, expected): {list(wrong.items())[:10]}"
