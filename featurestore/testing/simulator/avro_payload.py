"""Transactions as the Avro records of the payments topic, each behind the id of its schema: Confluent's wire format.

Written by filling a template, as `payload` does it: what depends on the card, the terminal or the flags alone is
written once. About half a million records a second.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from featurestore.core.events import Int64Array
from featurestore.definitions.schemas.directory import SCHEMAS, SCHEME, SchemaDirectory
from featurestore.errors import InvalidRequest, SourceUnavailable
from featurestore.testing.simulator.markets import CATEGORIES, MARKETS
from featurestore.testing.simulator.payload import card_id, transaction_ids
from featurestore.testing.simulator.population import FIRST_MERCHANT_ID, FIRST_TERMINAL_ID, Population
from featurestore.testing.simulator.rows import Rows
from featurestore.wire.formats import iso8601

_FIELDS: Mapping[str, object] = {
    "transaction_id": "string",
    "event_time": {"type": "long", "logicalType": "timestamp-millis"},
    "card_id": "string",
    "merchant_id": "long",
    "terminal_id": "long",
    "market": "string",
    "currency": "string",
    "merchant_category": "string",
    "amount": ["null", "long"],
    "is_declined": "boolean",
    "is_refund": "boolean",
    "is_card_present": "boolean",
}

SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "Transaction",
        "namespace": "payments",
        "fields": [
            {"name": name, "type": of, **({"unit": "minor units of the currency"} if name == "amount" else {})}
            for name, of in _FIELDS.items()
        ],
    },
    indent=1,
)
"""Of the payments topic's values."""

_VARINT_BYTES_MAX = 10
_ID_LENGTH = b"\x20"
"""Of 16 characters."""


class AvroPayloadEncoder:
    """Encodes rows of one population.

    Args:
        population: whose they are.
        schema_id: of SCHEMA in the registry of whoever reads them.
    """

    def __init__(self, population: Population, schema_id: int) -> None:
        self._population = population
        self._header = b"\0" + schema_id.to_bytes(4, "big")
        self._before_id = self._header + _ID_LENGTH
        self._cards = [_text(card_id(card)) for card in range(population.size.cards)]
        self._terminals: list[bytes] = [b""] * len(population.terminal_merchant)
        self._flags = [bytes((code & 1, code >> 1 & 1, code >> 2)) for code in range(8)]

    def encode(self, rows: Rows) -> list[bytes]:
        """One record a row, in order."""
        amounts = [b"\x02" + amount for amount in _varints(rows["amount"])]
        for unknown in np.flatnonzero(~rows["is_amount_known"]).tolist():
            amounts[unknown] = b"\0"
        self._write_terminals(np.unique(rows["terminal"]))
        flags = rows["is_declined"] + 2 * rows["is_refund"] + 4 * rows["is_card_present"]
        parts = (transaction_ids(rows), _varints(rows["event_time_ms"]), rows["card"].tolist())
        before, cards, terminals, codes = self._before_id, self._cards, self._terminals, self._flags
        return [
            b"".join((before, identity.encode(), moment, cards[card], terminals[terminal], amount, codes[code]))
            for identity, moment, card, terminal, amount, code in zip(
                *parts, rows["terminal"].tolist(), amounts, flags.tolist(), strict=True
            )
        ]

    def encode_records(self, records: Sequence[Mapping[str, object]]) -> list[bytes]:
        """One record each of what is given by its columns; `event_time` may be ISO 8601.

        Raises:
            InvalidRequest: one is no transaction.
        """
        return [self._header + b"".join(_field(name, record) for name in _FIELDS) for record in records]

    def lines(self, rows: Rows) -> list[bytes]:
        """One line of an embedded log a row."""
        return list(map(line_of, self.encode(rows)))

    def lines_of(self, records: Sequence[Mapping[str, object]]) -> list[bytes]:
        """As `lines`, of records by their columns."""
        return list(map(line_of, self.encode_records(records)))

    def _write_terminals(self, terminals: Int64Array) -> None:
        """Fill the fragments of terminals that turn up for the first time."""
        population = self._population
        for terminal in terminals.tolist():
            if self._terminals[terminal]:
                continue
            merchant = int(population.terminal_merchant[terminal])
            market = MARKETS[int(population.merchant_market[merchant])]
            category = CATEGORIES[int(population.merchant_category[merchant])]
            numbers = _long(FIRST_MERCHANT_ID + merchant) + _long(FIRST_TERMINAL_ID + terminal)
            self._terminals[terminal] = numbers + b"".join(map(_text, (market.country, market.currency, category.name)))


def embedded_encoder(population: Population, directory: Path, topic: str) -> AvroPayloadEncoder:
    """An encoder for a log directory, with the schema among the log's.

    Raises:
        SourceUnavailable: the schema cannot be written.
    """
    return AvroPayloadEncoder(population, SchemaDirectory(directory / SCHEMAS).register(f"{topic}-value", SCHEMA))


def registered_encoder(population: Population, topic: str, registry: str) -> AvroPayloadEncoder:
    """An encoder for Kafka, with the schema in a registry, or in a directory in its place ("file:DIR").

    Raises:
        SourceUnavailable: the registry does not answer, or does not take it.
    """
    if registry.startswith(SCHEME):
        schemas = SchemaDirectory(Path(registry.removeprefix(SCHEME).removeprefix("//")))
        return AvroPayloadEncoder(population, schemas.register(f"{topic}-value", SCHEMA))
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
    from confluent_kafka.schema_registry.error import SchemaRegistryError
    from httpx2 import HTTPError

    try:
        client = SchemaRegistryClient({"url": registry, "max.retries": 0, "timeout": 10})
        schema_id = client.register_schema(f"{topic}-value", Schema(SCHEMA, "AVRO"))
    except (SchemaRegistryError, HTTPError, OSError, ValueError) as error:
        raise SourceUnavailable(
            f"schema registry {registry} does not take the payments' schema",
            detail=str(error),
            hint="start it, correct --schema-registry, or write --format json",
        ) from error
    return AvroPayloadEncoder(population, schema_id)


def line_of(record: bytes) -> bytes:
    """A record as a line of an embedded log."""
    return base64.b64encode(record)


def _field(name: str, record: Mapping[str, object]) -> bytes:
    """One field of a record that is given by its columns."""
    value, of = record.get(name), _FIELDS[name]
    if isinstance(of, list):
        return b"\0" if value is None else b"\x02" + _value(name, value, of[1])
    if name == "event_time" and isinstance(value, str):
        value = iso8601.parse_text(value)
    return _value(name, value, of["type"] if isinstance(of, dict) else of)


def _value(name: str, value: object, kind: object) -> bytes:
    if kind == "string" and isinstance(value, str):
        return _text(value)
    if kind == "boolean" and isinstance(value, bool):
        return bytes([value])
    if kind == "long" and isinstance(value, int) and not isinstance(value, bool):
        return _long(value)
    raise InvalidRequest(
        f'"{name}" of a transaction is {value!r:.100}, and should be a {kind}',
        hint=f"columns are: {', '.join(_FIELDS)}",
    )


def _text(text: str) -> bytes:
    data = text.encode()
    return _long(len(data)) + data


def _long(value: int) -> bytes:
    """A number of 64 bits, as `_varints` has it."""
    bits, found = (value << 1) ^ (value >> 63), bytearray()
    while bits > 0x7F:
        found.append(bits & 0x7F | 0x80)
        bits >>= 7
    return bytes([*found, bits])


def _varints(values: Int64Array) -> list[bytes]:
    """The numbers as Avro has them: zigzag, seven bits a byte, the lowest first."""
    bits = ((values << 1) ^ (values >> 63)).astype(np.uint64)
    parts = np.empty((len(values), _VARINT_BYTES_MAX), dtype=np.uint8)
    lengths = np.ones(len(values), dtype=np.int64)
    for place in range(_VARINT_BYTES_MAX):
        rest = bits >> np.uint64(7)
        parts[:, place] = (bits & np.uint64(0x7F)) | ((rest > 0).astype(np.uint64) << np.uint64(7))
        lengths += rest > 0
        bits = rest
    data = parts.tobytes()
    begins = range(0, len(data), _VARINT_BYTES_MAX)
    return [data[begin : begin + length] for begin, length in zip(begins, lengths.tolist(), strict=True)]
