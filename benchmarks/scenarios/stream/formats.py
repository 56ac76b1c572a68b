"""formats: payloads to columns, each format beside what its users have today.

    JSON       ours, which reads with msgspec
    Avro       ours, beside fastavro's dictionaries and Confluent's own deserializer
    Protobuf   ours, beside Google's parse and the fields read from the message

The same payments in all of them, nine columns of fourteen fields. The peers stop at a dictionary or a message: columns
are not made of them. Kinds take turns, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fastavro
import numpy as np
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from benchmarks.scenario import Line, Result, Run, digest, require
from featurestore.core.spec import ValueType
from featurestore.definitions.schemas.proto_text import descriptors
from featurestore.wire.formats.avro.reader import AvroReader
from featurestore.wire.formats.columns import PayloadReader, ReadColumns, SchemaId, WantedColumn
from featurestore.wire.formats.json_objects import JsonReader
from featurestore.wire.formats.protobuf.reader import ProtobufReader

HEADER = b"\0\0\0\0\1"
BATCH = 1_000
READ: Mapping[str, ValueType] = {
    "payment_id": ValueType.STRING,
    "paid_at": ValueType.INT64,
    "card_id": ValueType.STRING,
    "merchant_id": ValueType.INT64,
    "amount": ValueType.FLOAT64,
    "country": ValueType.STRING,
    "category": ValueType.STRING,
    "terminal_id": ValueType.INT64,
    "is_declined": ValueType.BOOL,
}
OTHERS = {"currency": "string", "device": "string", "address": "string", "attempt": "long", "note": "string"}
_AVRO = {ValueType.STRING: "string", ValueType.INT64: "long", ValueType.FLOAT64: "double", ValueType.BOOL: "boolean"}
_PROTO = {"string": "string", "long": "int64", "double": "double", "boolean": "bool"}
FIELDS = {**{name: _AVRO[of] for name, of in READ.items()}, **OTHERS}
AVRO_SCHEMA = {
    "type": "record",
    "name": "Payment",
    "fields": [{"name": name, "type": of} for name, of in FIELDS.items()],
}
PROTO_TEXT = (
    'syntax = "proto3"; message Payment {'
    + "".join(f" {_PROTO[of]} {name} = {number};" for number, (name, of) in enumerate(FIELDS.items(), start=1))
    + " }"
)


class _Schemas:
    """The registry: one schema."""

    def __init__(self) -> None:
        self._files = descriptors(PROTO_TEXT, {})

    def text(self, schema_id: SchemaId) -> str | None:
        """See Schemas."""
        return json.dumps(AVRO_SCHEMA)

    def files(self, schema_id: SchemaId) -> FileDescriptorSet | None:
        """See Schemas."""
        return self._files


def run(run: Run) -> Result:
    """Read the same payments in each format, check that all say the same, and time them in turn."""
    records = _records(run.choose(smoke=2_000, full=100_000))
    columns = [WantedColumn(name, of, name) for name, of in READ.items()]
    schemas = _Schemas()
    kind = _message_class(schemas)
    payloads = {
        "JSON": [json.dumps(record).encode() for record in records],
        "Avro": _avro(records),
        "Protobuf": [HEADER + b"\0" + kind(**record).SerializeToString() for record in records],
    }
    readers: Mapping[str, PayloadReader] = {
        "JSON": JsonReader(columns),
        "Avro": AvroReader(columns, schemas),
        "Protobuf": ProtobufReader(columns, schemas),
    }
    found = {name: reader.read(payloads[name]) for name, reader in readers.items()}
    texts = {name: _text(one) for name, one in found.items()}
    require(len(set(texts.values())) == 1, "formats say different things of the same payments")
    work: dict[str, Callable[[Sequence[bytes]], object]] = {name: reader.read for name, reader in readers.items()}
    work |= _peers(kind)
    seconds = _timed(work, {**payloads, **{name: payloads[name.partition(",")[0]] for name in work}}, run)
    return Result(
        scenario="formats",
        question="What do payloads of each format cost on their way to columns, beside what reads them elsewhere?",
        lines=tuple(_lines(seconds, len(records))),
        checked=f"{len(records) * len(READ)} values of each format equal those of JSON",
        answer_hash=digest(texts.values()),
    )


def _lines(seconds: Mapping[str, float], count: int) -> list[Line]:
    """Microseconds a record; ratios beside our JSON."""
    return [
        Line(name, taken / count * 1e6, "us/record", None if name == "JSON" else seconds["JSON"] / taken, "JSON")
        if name != "JSON"
        else Line(name, taken / count * 1e6, "us/record")
        for name, taken in seconds.items()
    ]


def _peers(kind: Any) -> dict[str, Callable[[Sequence[bytes]], object]]:
    """Who reads the same payloads elsewhere; the format comes first in each name."""
    parsed = fastavro.parse_schema(AVRO_SCHEMA)
    # Confluent's own registry for tests, within the process: what is timed asks it nothing.
    client = SchemaRegistryClient.new_client({"url": "mock://benchmarks"})
    require(client.register_schema("payments-value", Schema(json.dumps(AVRO_SCHEMA), "AVRO")) == 1, "not schema 1")
    stock = AvroDeserializer(client)
    context = SerializationContext("payments", MessageField.VALUE)
    names = tuple(READ)

    def by_fastavro(batch: Sequence[bytes]) -> object:
        return [fastavro.schemaless_reader(io.BytesIO(payload[5:]), parsed, None) for payload in batch]

    def by_stock(batch: Sequence[bytes]) -> object:
        return [stock(payload, context) for payload in batch]

    def by_google(batch: Sequence[bytes]) -> object:
        messages = [kind.FromString(payload[6:]) for payload in batch]
        return [[getattr(message, name) for message in messages] for name in names]

    return {
        "Avro, fastavro to dictionaries": by_fastavro,
        "Avro, Confluent's deserializer": by_stock,
        "Protobuf, Google's parse and its fields": by_google,
    }


def _timed(
    work: Mapping[str, Callable[[Sequence[bytes]], object]], payloads: Mapping[str, Sequence[bytes]], run: Run
) -> dict[str, float]:
    """The best of several rounds of each, in seconds; they take turns."""
    best = dict.fromkeys(work, float("inf"))
    for _ in range(run.choose(smoke=1, full=5)):
        for name, read in work.items():
            whole = payloads[name]
            begun = time.perf_counter()
            for at in range(0, len(whole), BATCH):
                read(whole[at : at + BATCH])
            best[name] = min(best[name], time.perf_counter() - begun)
    return best


def _records(count: int) -> list[dict[str, Any]]:
    """Payments of a fixed seed."""
    draw = np.random.default_rng(7)
    cards, amounts = draw.integers(0, 10**6, count).tolist(), draw.integers(1, 10**6, count).tolist()
    return [
        {
            "payment_id": f"payment-{number:012d}",
            "paid_at": 1_790_000_000_000 + number,
            "card_id": f"card-{cards[number]:08d}",
            "merchant_id": cards[number] % 50_000,
            "amount": amounts[number] / 100,
            "country": "DE",
            "category": "groceries",
            "terminal_id": cards[number] % 9_000,
            "is_declined": cards[number] % 10 == 0,
            "currency": "EUR",
            "device": "d" * 16,
            "address": "10.0.0.1",
            "attempt": 1,
            "note": "",
        }
        for number in range(count)
    ]


def _avro(records: Sequence[dict[str, Any]]) -> list[bytes]:
    parsed = fastavro.parse_schema(AVRO_SCHEMA)
    written = []
    for record in records:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, record)
        written.append(HEADER + out.getvalue())
    return written


def _message_class(schemas: _Schemas) -> Any:
    """Google's class of the message."""
    files = schemas.files(1)
    assert files is not None
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Payment"))


def _text(found: ReadColumns) -> str:
    """All values of some columns."""
    require(not found.refused, f"payloads were refused: {list(found.refused.items())[:3]}")
    return str([(name, np.asarray(column.values).tolist()) for name, column in sorted(found.columns.items())])
