"""A table that is changed at random, and what a connector sends of it: envelopes, some of them again."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import fastavro
import numpy as np

from featurestore.core.spec import CHANGE_ID, IS_UNDO, Column, SourceSpec, ValueType
from featurestore.testing.batches import iso_time
from featurestore.wire.payloads import RawBatch
from tests.wire.formats.registered import Registered

BEGIN_MS = 1_790_035_200_000
HOUR_MS = 3_600_000
SCHEMA_ID = 7
TOPIC = "shop.public.payment"

SOURCE = SourceSpec(
    name="payment",
    topic=TOPIC,
    columns=(
        Column("payment_id", ValueType.INT64),
        Column("paid_at", ValueType.TIMESTAMP),
        Column("card_id", ValueType.STRING),
        Column("cents", ValueType.INT64),
        Column("amount", ValueType.FLOAT64),
        Column("declined", ValueType.BOOL),
        Column("note", ValueType.STRING),
        Column(CHANGE_ID, ValueType.STRING),
        Column(IS_UNDO, ValueType.BOOL),
    ),
    event_time_column="paid_at",
    event_id_column=CHANGE_ID,
    dedup_horizon_ms=HOUR_MS,
    changes="debezium",
    row_id_column="payment_id",
)

_ROW = [
    {"name": "payment_id", "type": "long"},
    {"name": "paid_at", "type": {"type": "string", "connect.name": "io.debezium.time.ZonedTimestamp"}},
    {"name": "card_id", "type": "string"},
    {"name": "cents", "type": "long"},
    {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
    {"name": "declined", "type": "boolean"},
    {"name": "note", "type": ["null", "string"], "default": None},
]
ENVELOPE: Any = {
    "type": "record",
    "name": "Envelope",
    "namespace": "shop.public.payment",
    "fields": [
        {"name": "before", "type": ["null", {"type": "record", "name": "Value", "fields": _ROW}], "default": None},
        {"name": "after", "type": ["null", "Value"], "default": None},
        {
            "name": "source",
            "type": {
                "type": "record",
                "name": "Source",
                "namespace": "io.debezium.connector.postgresql",
                "fields": [
                    {"name": "connector", "type": "string"},
                    {"name": "ts_ms", "type": "long"},
                    {"name": "snapshot", "type": ["null", "string"], "default": None},
                    {"name": "txId", "type": ["null", "long"], "default": None},
                    {"name": "lsn", "type": ["null", "long"], "default": None},
                ],
            },
        },
        {"name": "op", "type": "string"},
        {"name": "ts_ms", "type": ["null", "long"], "default": None},
    ],
}
"""As Confluent's converter makes it of the connector's schema, without what nobody reads."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """A change as the connector knows it; None stands for a tombstone."""

    op: str
    before: Row | None
    after: Row | None
    lsn: int


@dataclass
class ChangedTable:
    """A table and what was sent of it.

    Attributes:
        draw: decides.
        rows: the table now, by key.
        sent: all that was sent, in order.
    """

    draw: random.Random
    rows: dict[int, Row] = field(default_factory=dict)
    sent: list[Change | None] = field(default_factory=list)
    _lsn: int = 100
    _next_id: int = 1

    def snapshot(self, count: int) -> None:
        """Rows that were there before the connector was."""
        for _ in range(count):
            self._put(row := self._row(self._new_id()))
            self._send("r", None, row)

    def change(self, count: int) -> None:
        """Inserts, updates of any column, deletes, new keys; now and then the connector starts again and repeats."""
        for _ in range(count):
            kinds = ["insert", "insert", "update", "update", "delete", "key", "copy", "restart"]
            kind = self.draw.choice(kinds) if self.rows else "insert"
            getattr(self, f"_{kind}")()

    def _insert(self) -> None:
        self._put(row := self._row(self._new_id()))
        self._send("c", None, row)

    def _copy(self) -> None:
        """Rows of one COPY stand at one place of the log."""
        for _ in range(3):
            self._put(row := self._row(self._new_id()))
            self.sent.append(Change("c", None, row, self._lsn))
        self._lsn += 8

    def _update(self) -> None:
        before = self._any()
        fresh = self._row(before["payment_id"])
        changed = self.draw.sample(sorted(before.keys() - {"payment_id"}), self.draw.randint(0, 3))
        self._put(after := {**before, **{name: fresh[name] for name in changed}})
        self._send("u", before, after)

    def _delete(self) -> None:
        before = self._any()
        del self.rows[before["payment_id"]]
        self._send("d", before, None)
        self.sent.append(None)

    def _key(self) -> None:
        """A new key is a delete and an insert at one place of the log; the key may have been there before."""
        before = self._any()
        del self.rows[before["payment_id"]]
        free = [one for one in range(1, self._next_id) if one not in self.rows]
        self._put(after := {**before, "payment_id": self.draw.choice([*free, self._new_id()])})
        self.sent += [Change("d", before, None, self._lsn), None, Change("c", None, after, self._lsn)]
        self._lsn += 8

    def _restart(self) -> None:
        """At least once: what was sent lately is sent again, in its order."""
        self.sent += self.sent[-self.draw.randint(1, 12) :]

    def _send(self, op: str, before: Row | None, after: Row | None) -> None:
        self.sent.append(Change(op, before, after, self._lsn))
        self._lsn += self.draw.choice([8, 56])

    def _put(self, row: Row) -> None:
        self.rows[row["payment_id"]] = row

    def _any(self) -> Row:
        return self.rows[self.draw.choice(sorted(self.rows))]

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _row(self, payment_id: int) -> Row:
        draw = self.draw
        return {
            "payment_id": payment_id,
            "paid_at": BEGIN_MS + draw.choice([0, 1, 59_999, 60_000, draw.randrange(2 * HOUR_MS)]),
            "card_id": f"c-{draw.randrange(4)}",
            "cents": draw.choice([0, 1, 250, 10_000, -75, draw.randrange(100_000)]),
            "amount": draw.randrange(4_000) / 4,
            "declined": draw.random() < 0.3,
            "note": draw.choice([None, "", "é", "x" * 40]),
        }


def envelope_of(change: Change) -> dict[str, Any]:
    """As Debezium has it, in Python."""
    source = {"connector": "postgresql", "ts_ms": BEGIN_MS, "snapshot": "false", "txId": 1, "lsn": change.lsn}
    times = {"ts_ms": BEGIN_MS + change.lsn}
    return {"before": _timed(change.before), "after": _timed(change.after), "source": source, "op": change.op, **times}


def as_json(change: Change | None) -> bytes:
    """Kafka Connect's JsonConverter without schemas."""
    return b"" if change is None else json.dumps(envelope_of(change), ensure_ascii=False).encode()


def as_wrapped_json(change: Change | None) -> bytes:
    """The same with schemas."""
    if change is None:
        return b""
    schema = {"type": "struct", "fields": [{"type": "string", "field": "op"}], "name": "shop.public.payment.Envelope"}
    return json.dumps({"schema": schema, "payload": envelope_of(change)}).encode()


def as_headed_json(change: Change | None) -> bytes:
    """Confluent's JsonSchemaConverter."""
    return b"" if change is None else _header() + as_json(change)


def as_avro(change: Change | None) -> bytes:
    """Confluent's AvroConverter."""
    if change is None:
        return b""
    from decimal import Decimal

    record = envelope_of(change)
    for side in ("before", "after"):
        if record[side] is not None:
            record[side] = {**record[side], "amount": Decimal(record[side]["amount"])}
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(ENVELOPE), record)
    return _header() + buffer.getvalue()


FORMATS = {
    "json": (SOURCE, as_json),
    "wrapped": (SOURCE, as_wrapped_json),
    "json_schema": (replace(SOURCE, format="json_schema"), as_headed_json),
    "avro": (replace(SOURCE, format="avro"), as_avro),
}


def registered() -> Registered:
    """The registry that knows the envelope."""
    return Registered({SCHEMA_ID: json.dumps(ENVELOPE)})


def raw_batch(payloads: Sequence[bytes], *, first: int = 0, partition: int = 0) -> RawBatch:
    """Payloads as one read."""
    offsets = np.arange(first, first + len(payloads))
    return RawBatch(TOPIC, partition, first, first + len(payloads), offsets, payloads)


def _timed(row: Row | None) -> Row | None:
    return None if row is None else {**row, "paid_at": iso_time(row["paid_at"])}


def _header() -> bytes:
    return b"\0" + SCHEMA_ID.to_bytes(4, "big")
