"""The simulator's Avro records: what a library reads of them is what its JSON records say."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.errors import InvalidRequest
from featurestore.testing.simulator import (
    LogDirectorySink,
    PayloadEncoder,
    Population,
    PopulationSize,
    Scenario,
    Simulation,
)
from featurestore.testing.simulator.avro_payload import SCHEMA, AvroPayloadEncoder, _long, _varints
from featurestore.wire.formats.iso8601 import parse_text
from tests.testing.test_simulator import DAY_MS, SIZE, START_MS

PARSED = fastavro.parse_schema(json.loads(SCHEMA))


def read(record: bytes) -> dict[str, Any]:
    """A record of schema 7, by a library; the moment as milliseconds."""
    assert record[:5] == b"\0\0\0\0\7"
    stream = io.BytesIO(record[5:])
    found: Any = fastavro.schemaless_reader(stream, PARSED, None)
    assert stream.read() == b""
    found["event_time"] = round(found["event_time"].timestamp() * 1_000)
    return dict(found)


def test_avro_records_say_what_the_json_ones_say() -> None:
    """Of simulated rows, and of the same given by their columns."""
    simulation = Simulation(Scenario(START_MS, START_MS + DAY_MS, seed=3, size=SIZE))
    rows = np.concatenate(list(simulation.batches()))[:3_000]
    encoder = AvroPayloadEncoder(simulation.population, 7)
    told = [json.loads(payload) for payload in PayloadEncoder(simulation.population).encode(rows)]

    by_columns = encoder.encode_records(told)
    for record in told:
        record["event_time"] = parse_text(record["event_time"])
    assert [read(record) for record in encoder.encode(rows)] == told
    assert [read(record) for record in by_columns] == told


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_numbers_are_written_as_the_library_writes_them(numbers: list[int]) -> None:
    """Any of 64 bits."""
    expected = []
    for number in numbers:
        fastavro.schemaless_writer(stream := io.BytesIO(), "long", number)
        expected.append(stream.getvalue())

    assert _varints(np.array(numbers, dtype=np.int64)) == expected
    assert list(map(_long, numbers)) == expected


def test_what_is_no_transaction_is_refused_by_column() -> None:
    """With what it should be."""
    encoder = AvroPayloadEncoder(Population(PopulationSize(cards=100, merchants=40), 1), 7)

    with pytest.raises(InvalidRequest, match="\"merchant_id\" of a transaction is '7', and should be a long"):
        encoder.encode_records([{"transaction_id": "p", "event_time": 1, "card_id": "c", "merchant_id": "7"}])


def test_a_log_directory_has_the_schema_of_its_records(tmp_path: Path) -> None:
    """Once, however often it is opened."""
    simulation = Simulation(Scenario(START_MS, START_MS + DAY_MS // 4, seed=3, size=SIZE))
    rows = np.concatenate(list(simulation.batches()))
    for part in (rows[:100], rows[100:]):
        sink = LogDirectorySink(tmp_path, simulation.population, topic="payments", partitions=3, is_json=False)
        sink.write(part)
        sink.close()

    (schema,) = (tmp_path / "_schemas").rglob("*.*")
    assert (schema.relative_to(tmp_path).as_posix(), schema.read_text()) == ("_schemas/payments-value/1.avsc", SCHEMA)
    lines = [line for path in (tmp_path / "payments").glob("*.base64") for line in path.read_bytes().splitlines()]
    expected = AvroPayloadEncoder(simulation.population, 1).encode(rows)
    assert sorted(map(base64.b64decode, lines)) == sorted(expected)
