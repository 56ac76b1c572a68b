"""The load of the system tests: five weeks of simulated payments, what is wrong in them, and what a reader must see.

simulator -> records by partition, with retries, late records, null amounts, refunds, declines
          +  records that cannot be folded, in between
records   -> Avro, in the topic
          -> JSON -> events of each entity key -> naive oracle         no code of the stream has a part in this
"""

from __future__ import annotations

import io
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import fastavro

from featurestore.core.spec import ViewSpec
from featurestore.testing.oracle.naive import NaiveAnswer, NaiveEvent, naive_values
from featurestore.testing.simulator import PayloadEncoder, PopulationSize, Scenario, Simulation
from featurestore.testing.simulator.avro_payload import SCHEMA, AvroPayloadEncoder
from featurestore.wire.entity_key import encode_key, lanes_of

PROJECT = "payments"
TOPIC = "transactions"
PARTITIONS = 4
SCHEMA_ID, CARELESS_ID, TEXTS_ID = 1, 2, 3
"""Of what the payments' producer writes, and of two that others do."""


def _careless(amount: str) -> str:
    """The payments' schema with nothing in it that has to be there."""
    fields = json.loads(SCHEMA)["fields"]
    optional = [
        {**field, "type": field["type"] if isinstance(field["type"], list) else ["null", field["type"]]}
        for field in fields
    ]
    amounts = [{**field, "type": ["null", amount]} if field["name"] == "amount" else field for field in optional]
    return json.dumps({**json.loads(SCHEMA), "fields": amounts})


SCHEMAS: Mapping[int, str] = {SCHEMA_ID: SCHEMA, CARELESS_ID: _careless("long"), TEXTS_ID: _careless("string")}
_PARSED: Mapping[int, Any] = {number: fastavro.parse_schema(json.loads(text)) for number, text in SCHEMAS.items()}

TRANSACTIONS_MIN = 200_000

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
BEGIN_MS = 1_759_276_800_000
DAYS = 35

JOIN_KEYS = {"card_activity": "card_id", "merchant_activity": "merchant_id", "terminal_activity": "terminal_id"}
"""The example repo's stream views."""

BAD_EVERY = 700
"""About one record in so many cannot be folded."""

BUSIEST_COUNT = 3
RANDOM_COUNT = 100
"""Entities of each view whose every value is compared: the ones with most events, and some of all."""

READ_TIMES_AFTER_END_MS = (1, 26 * HOUR_MS, 8 * DAY_MS, 31 * DAY_MS, 95 * DAY_MS)
"""From where all windows are full to where all of them but lifetime have emptied."""

READ_TIMES_BEFORE_NEWEST_MS = (0, 59_999)
"""Relative to an entity's own newest event: the edge itself, and within the default look-back of a minute."""

Letter = tuple[int, int, str, str]
"""Partition, offset, reason, view ("" for all) of a dead letter."""


@dataclass
class Load:
    """A topic's records and what must come of them.

    Attributes:
        partitions: records in offset order.
        letters: dead letters that every run must write.
        letters_possible: letters that depend on what this very process has read before: beyond retention.
        rows: view -> join-key value -> columns of its events, in order of (partition, offset).
        duplicates: records that repeat an earlier id.
    """

    partitions: list[list[bytes]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    letters: set[Letter] = field(default_factory=set)
    letters_possible: set[Letter] = field(default_factory=set)
    rows: dict[str, dict[str | int, list[dict[str, Any]]]] = field(
        default_factory=lambda: {view: defaultdict(list) for view in JOIN_KEYS}
    )
    duplicates: int = 0
    end_ms: int = 0

    @property
    def count(self) -> int:
        """All records."""
        return sum(map(len, self.partitions))

    def sample(self, view: str) -> list[str | int]:
        """Join-key values: the busiest, and some drawn from all others."""
        by_events = sorted(self.rows[view], key=lambda value: (-len(self.rows[view][value]), str(value)))
        return by_events[:BUSIEST_COUNT] + random.Random(view).sample(by_events[BUSIEST_COUNT:], RANDOM_COUNT)

    def events(self, view: str, value: str | int) -> list[NaiveEvent]:
        """An entity's events as their producer meant them."""
        key = encode_key([value])
        return [
            NaiveEvent(key, row["event_time"], row["transaction_id"].encode(), row) for row in self.rows[view][value]
        ]

    @cached_property
    def distinct_ids(self) -> dict[str, dict[str, dict[str, Any]]]:
        """View -> id -> columns: what lifetime features must add up to over all entities."""
        return {
            view: {row["transaction_id"]: row for rows in entities.values() for row in rows}
            for view, entities in self.rows.items()
        }

    def expected(self, view: ViewSpec) -> Mapping[tuple[str | int, int], Mapping[str, NaiveAnswer | None]]:
        """(Join-key value, read time) -> the oracle's values, for the sample; computed once a definition."""
        if view.name not in self._expected:
            self._expected[view.name] = {
                (value, as_of_ms): naive_values(view, events, as_of_ms)
                for value in self.sample(view.name)
                for events in [self.events(view.name, value)]
                for as_of_ms in self.read_times_ms(events)
            }
        return self._expected[view.name]

    def read_times_ms(self, events: Sequence[NaiveEvent]) -> list[int]:
        """When an entity is looked up."""
        newest_ms = max(event.event_time_ms for event in events)
        before = [newest_ms - before_ms for before_ms in READ_TIMES_BEFORE_NEWEST_MS]
        return [*before, *(self.end_ms + after_ms for after_ms in READ_TIMES_AFTER_END_MS)]

    @cached_property
    def _expected(self) -> dict[str, dict[tuple[str | int, int], dict[str, NaiveAnswer | None]]]:
        return {}


def make_load(*, seed: int) -> Load:
    """At least TRANSACTIONS_MIN records over DAYS days, equal for equal seeds."""
    scenario = Scenario(
        start_ms=BEGIN_MS,
        end_ms=BEGIN_MS + DAYS * DAY_MS,
        seed=seed,
        size=PopulationSize(cards=4_000, merchants=2_000),
        duplicate_share=0.01,
    )
    simulation = Simulation(scenario)
    told, encoder = PayloadEncoder(simulation.population), AvroPayloadEncoder(simulation.population, SCHEMA_ID)
    load, seen, draw = Load(), set[str](), random.Random(seed)
    bad = _bad_records(draw)
    for rows in simulation.batches():
        for payload, text in zip(encoder.encode(rows), told.encode(rows), strict=True):
            columns = json.loads(text)
            partition = int(lanes_of([columns["card_id"].encode()], PARTITIONS)[0])
            if draw.random() < 1 / BAD_EVERY:
                _append_bad(load, partition, columns, next(bad))
            load.duplicates += columns["transaction_id"] in seen
            seen.add(columns["transaction_id"])
            load.partitions[partition].append(payload)
            _note(load, columns, JOIN_KEYS)
    assert load.count >= TRANSACTIONS_MIN
    assert load.duplicates > TRANSACTIONS_MIN // 200
    return load


def _note(load: Load, columns: dict[str, Any], views: Sequence[str] | Mapping[str, str]) -> None:
    """An event that these views can use: its columns as the oracle wants them."""
    row = {name: int(value) if isinstance(value, bool) else value for name, value in columns.items()}
    row["event_time"] = _milliseconds(columns["event_time"])
    load.end_ms = max(load.end_ms, row["event_time"])
    for view in views:
        load.rows[view][columns[JOIN_KEYS[view]]].append(row)


def _milliseconds(text: str) -> int:
    """Of a time in ISO 8601, in UTC."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00")).replace(tzinfo=UTC)
    return int(moment.timestamp()) * SECOND_MS + moment.microsecond // 1_000


def _bad_records(draw: random.Random) -> Iterator[str]:
    """Kinds of records that some view cannot use, for ever."""
    kinds = ("torn", "text_amount", "no_time", "no_id", "no_card", "future", "ancient")
    while True:
        yield from draw.sample(kinds, len(kinds))


def _append_bad(load: Load, partition: int, columns: Mapping[str, Any], kind: str) -> None:
    """Append a record of that kind, made from a good one, and note who must refuse it."""
    offset = len(load.partitions[partition])
    identity = f"bad-{partition}-{offset}"
    record = {**columns, "transaction_id": identity}
    reason, view = "undecodable", ""
    if kind == "text_amount":
        record["amount"] = "12.50"
    elif kind == "no_time":
        reason, record["event_time"] = "missing_event_time", None
    elif kind == "no_id":
        reason, record["transaction_id"] = "missing_event_id", None
    elif kind == "future":
        reason, record["event_time"] = "too_far_in_future", "2999-01-01T00:00:00Z"
    elif kind == "no_card":
        reason, view = "missing_join_key", "card_activity"
        record["card_id"] = None
        _note(load, record, ["merchant_activity", "terminal_activity"])
    elif kind == "ancient":
        # Terminals keep a month; cards and merchants have lifetime features and keep everything.
        reason, view = "beyond_retention", "terminal_activity"
        moment = datetime.fromisoformat(columns["event_time"].replace("Z", "+00:00")).timestamp() - 60 * DAY_MS / 1_000
        record["event_time"] = datetime.fromtimestamp(int(moment), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        _note(load, record, ["card_activity", "merchant_activity"])
    payload = _carelessly_written(record, TEXTS_ID if kind == "text_amount" else CARELESS_ID)
    load.partitions[partition].append(payload[:-20] if kind == "torn" else payload)
    letters = load.letters_possible if kind == "ancient" else load.letters
    letters.add((partition, offset, reason, view))


def _carelessly_written(record: Mapping[str, Any], schema_id: int) -> bytes:
    """A record of somebody whose schema demands nothing, or has texts where others have numbers."""
    values = {**record, "event_time": record["event_time"] and _milliseconds(record["event_time"])}
    fastavro.schemaless_writer(stream := io.BytesIO(), _PARSED[schema_id], values)
    return b"\0" + schema_id.to_bytes(4, "big") + stream.getvalue()


def reasons(letters: set[Letter]) -> str:
    """Letters by reason, for people."""
    return ", ".join(f"{reason} {count}" for reason, count in sorted(Counter(letter[2] for letter in letters).items()))
