"""Messages as consumers read them: windows that slide, conditions, and each format by Confluent's own deserializer."""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import fastavro
import jsonschema
import pytest
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from dataflows.log_to_features.encoding import FORMATS, make_encoding
from dataflows.log_to_features.protobuf import proto_text
from dataflows.log_to_features.vectors import Vector
from featurestore.core.spec import Column, ValueType
from featurestore.definitions.schemas.proto_text import descriptors
from featurestore.errors import InvalidRequest
from featurestore.online.answer.schema import FeatureSlot, ServedView, ServiceSchema, make_schema
from featurestore.testing.servers import KafkaBroker, SchemaRegistry
from tests.dataflows.conftest import StartStream, applied_repo
from tests.dataflows.log_to_features.published import Seen, read_topic
from tests.dataflows.payments import iso

pytestmark = pytest.mark.kafka

BURSTS = """
from feast import Entity, FeatureService, ValueType
from featurestore.definitions.authoring import aggregate, count, kafka_source, stream_view

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
events = kafka_source(
    name="bursts",
    topic="%(topic)s",
    columns={
        "payment_id": "string", "paid_at": "timestamp", "card_id": "string", "market": "string", "amount": "bigint"
    },
    event_time="paid_at",
    event_id="payment_id",
    dedup_horizon="1h",
    bootstrap_servers="127.0.0.1:1",
)
bursts = stream_view(
    name="bursts",
    entities=[card],
    source=events,
    features=[
        *count(over=["3s", "1d"]),
        *aggregate("market", "last", over=["1d"]),
        *aggregate("market", "last_n(2)", over=["1d"], name="markets"),
        *aggregate("amount", "sum by market(10)", over=["1d"], name="spent"),
    ],
)
bursts_service = FeatureService(name="bursts_service", features=[bursts])
"""


FEATURES = ("count_3s", "count_1d", "market_last_1d", "markets_1d", "spent_1d")


class Bursts:
    """A topic of payments of now, its stream, and what is published of it."""

    def __init__(self, kafka: KafkaBroker, start: StartStream, directory: Path) -> None:
        name = uuid.uuid4().hex[:8]
        self.source, self.topic = f"bursts-{name}", f"burst-vectors-{name}"
        self._kafka, self._start, self._number = kafka, start, 0
        self._registry = applied_repo(directory / "repo", repo=BURSTS.replace("%(topic)s", self.source))
        kafka.create_topic(self.source, partitions=2)
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        self.stream = start("--bootstrap-servers", kafka.bootstrap_servers, use_registry=self._registry)

    def publish(self, *options: str) -> Any:
        """A process that publishes."""
        always = ["--bootstrap-servers", self._kafka.bootstrap_servers, "--to", self.topic]
        always += ["--service", "bursts_service"]
        program = ("-m", "dataflows.log_to_features")
        return self._start(*always, *options, use_registry=self._registry, program=program)

    def pay(self, card: str, count: int) -> None:
        """Payments of now."""
        for _ in range(count):
            self._number += 1
            now_ms = time.time_ns() // 1_000_000
            record = {
                "payment_id": f"p{self._number}",
                "paid_at": iso(now_ms),
                "card_id": card,
                "market": "DE",
                "amount": 7,
            }
            self._producer.produce(self.source, json.dumps(record).encode(), key=card.encode())
        self._producer.flush()

    def seen(self) -> list[Seen]:
        """What consumers see."""
        return read_topic(self._kafka, self.topic)


@pytest.fixture
def bursts(kafka: KafkaBroker, start_stream: StartStream, tmp_path: Path) -> Bursts:
    """For one test."""
    return Bursts(kafka, start_stream, tmp_path)


def until(process: Any, is_so: Callable[[], bool], what: str) -> None:
    """Wait for something while the process runs."""
    process.wait_until(is_so, what)


def test_a_value_that_falls_because_a_window_slid_is_published(bursts: Bursts) -> None:
    """Two payments of now: the count over three seconds rises to two, and falls to none without another event."""
    process = bursts.publish("--windows")
    process.wait_for("publishing bursts_service")
    bursts.pay("c-1", 2)
    until(process, lambda: any(one.fields["cause"] == "event" for one in bursts.seen()), "no event was published")
    until(process, lambda: bursts.seen()[-1].fields["features"]["count_3s"] == 0, "the window did not slide")
    process.terminate()
    assert process.wait() == 0, process.output

    fields = [one.fields for one in bursts.seen()]
    counts = [one["features"]["count_3s"] for one in fields]
    assert 2 in counts
    assert counts[-1] == 0
    assert fields[-1]["cause"] == "window"
    paid_ms = fields[-1]["event_time_ms"]
    assert 3_000 <= fields[-1]["as_of_ms"] - paid_ms < 20_000
    assert all(before["features"] != after["features"] for before, after in pairwise(fields))


def test_a_condition_is_a_set_of_entities(bursts: Bursts) -> None:
    """Who meets it has a message; who does not any more has a removal, by which a compacted topic forgets it."""
    process = bursts.publish("--windows", "--where", "count_3s >= 3")
    process.wait_for("publishing bursts_service")
    bursts.pay("quiet", 1)
    bursts.pay("loud", 4)
    until(process, lambda: any(one.value is None for one in bursts.seen()), "nothing was removed")
    process.kill()

    seen = bursts.seen()
    assert {b"loud"} == {one.key for one in seen}
    assert all(one.fields["features"]["count_3s"] >= 3 for one in seen[:-1])
    assert seen[-1].value is None
    again = bursts.publish("--windows", "--where", "count_3s >= 3", "--until-end")
    assert again.wait() == 0, again.output
    assert len(bursts.seen()) == len(seen)


@pytest.mark.parametrize("name", ["avro", "protobuf", "json"])
def test_messages_are_read_by_their_schema(bursts: Bursts, registry_of_schemas: SchemaRegistry, name: str) -> None:
    """By Confluent's own deserializers, from the schema that was registered."""
    process = bursts.publish("--format", name, "--schema-registry", registry_of_schemas.url)
    process.wait_for("publishing bursts_service")
    bursts.pay("c-1", 3)
    until(process, lambda: len(bursts.seen()) > 0, "nothing was published")
    process.terminate()
    assert process.wait() == 0, process.output

    value = bursts.seen()[-1].value
    assert value is not None
    client = SchemaRegistryClient({"url": registry_of_schemas.url})
    context = SerializationContext(bursts.topic, MessageField.VALUE)
    registered = client.get_latest_version(f"{bursts.topic}-value")
    assert registered.schema_id == int.from_bytes(value[1:5], "big")
    if name == "avro":
        found: Any = AvroDeserializer(client)(value, context)
        features, key = found["features"], found["card_id"]
    elif name == "protobuf":
        message: Any = ProtobufDeserializer(
            class_of(str(registered.schema.schema_str)), {"use.deprecated.format": False}
        )(value, context)
        features, key = {one: getattr(message.features, one) for one in FEATURES}, message.card_id
    else:
        found = json.loads(value[5:])
        features, key = found["features"], found["card_id"]
    assert key == "c-1"
    assert 1 <= features["count_1d"] <= 3
    assert features["market_last_1d"] == "DE"
    assert list(features["markets_1d"]) == ["DE"] * min(2, features["count_1d"])
    assert dict(features["spent_1d"]) == {"DE": 7 * features["count_1d"]}


def class_of(text: str) -> Any:
    """The class of a registered Protobuf schema, as its readers generate it."""
    pool = DescriptorPool()
    for file in descriptors(text, {}).file:
        pool.Add(file)
    [*_, file] = descriptors(text, {}).file
    return GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.FeatureVector"))


KEYS = (Column("card_id", ValueType.STRING), Column("merchant_id", ValueType.INT64))
TYPES = [one for one in ValueType if one is not ValueType.AS_STORED]
VALUES: dict[ValueType, Any] = {
    ValueType.INT64: -5,
    ValueType.FLOAT64: 0.5,
    ValueType.STRING: "ß",
    ValueType.BOOL: True,
    ValueType.TIMESTAMP: 1_790_000_000_000,
    ValueType.INT64_LIST: [1, 2],
    ValueType.FLOAT64_LIST: [1.5],
    ValueType.STRING_LIST: ["a", ""],
    ValueType.INT64_MAP: {"a": 1},
    ValueType.FLOAT64_MAP: {"a": 1.5},
}


def schema_of(features: list[tuple[str, ValueType]], keys: tuple[Column, ...] = KEYS) -> ServiceSchema:
    """A service's schema."""
    slots = tuple(FeatureSlot(name, one, 0, 0) for name, one in features)
    return make_schema("fraud-detection", keys, slots, (ServedView("cards", "9f3a"),))


def vector_of(features: dict[str, Any]) -> Vector:
    """A vector."""
    entity: dict[str, str | int] = {"card_id": "c-1", "merchant_id": 17}
    return Vector(
        b"k", entity, features, {"x": "NOT_FOUND"}, 5, None, {"cards": "9f3a"}, {("payments", 0): 7}, 1, None, True
    )


@pytest.mark.parametrize("is_null", [False, True])
def test_every_type_is_in_every_format(is_null: bool) -> None:
    """Values and nulls, read back by the schema that is registered."""
    schema = schema_of([(one.name.lower(), one) for one in TYPES])
    values = {one.name.lower(): None if is_null else VALUES[one] for one in TYPES}
    vector = vector_of(values)
    texts: dict[str, str] = {}

    def register(kind: str, text: str) -> int:
        texts[kind] = text
        return 258

    encoded = {name: make_encoding(name, schema, register).encode(vector, is_event=False) for name in FORMATS}
    assert {b"\0\0\0\1\2"} == {value[:5] for value in encoded.values()}

    found = json.loads(encoded["json"][5:])
    jsonschema.validate(found, json.loads(texts["JSON"]))
    assert (values, "window", {"payments/0": 7}) == (found["features"], found["cause"], found["positions"])
    read: Any = fastavro.schemaless_reader(io.BytesIO(encoded["avro"][5:]), json.loads(texts["AVRO"]), None)
    assert values == {
        name: value if not isinstance(value, datetime) else round(value.timestamp() * 1_000)
        for name, value in read["features"].items()
    }
    message = class_of(texts["PROTOBUF"])()
    message.ParseFromString(encoded["protobuf"][6:])
    assert (message.card_id, message.merchant_id, message.as_of_ms) == ("c-1", 17, 5)
    assert dict(message.statuses) == {"x": "NOT_FOUND"}
    for one in TYPES:
        name = one.name.lower()
        value = getattr(message.features, name)
        if one.name.endswith(("_LIST", "_MAP")):
            assert (type(VALUES[one]))(value) == (type(VALUES[one])() if is_null else VALUES[one])
        else:
            assert message.features.HasField(name) is not is_null
            assert is_null or value == VALUES[one]


def test_a_feature_that_is_added_leaves_other_numbers_alone() -> None:
    """In Protobuf a field's number follows from its name."""
    few = proto_text(schema_of([("a", ValueType.INT64), ("c", ValueType.STRING)])).splitlines()
    more = proto_text(schema_of([("b", ValueType.BOOL), ("c", ValueType.STRING), ("a", ValueType.INT64)])).splitlines()
    assert set(few) < set(more)


@pytest.mark.parametrize(
    ("name", "features", "keys", "fact"),
    [
        ("avro", [("sum by market(10)", ValueType.INT64_MAP)], KEYS, "cannot be a name in AVRO"),
        ("protobuf", [("a-b", ValueType.INT64)], KEYS, "cannot be a name in PROTOBUF"),
        ("json", [("a", ValueType.AS_STORED)], KEYS, "only Feast's SDK knows"),
        ("json", [("a", ValueType.INT64)], (Column("features", ValueType.STRING),), "the name of another field"),
    ],
)
def test_what_a_format_cannot_say_is_refused(
    name: str, features: list[tuple[str, ValueType]], keys: tuple[Column, ...], fact: str
) -> None:
    """By name."""
    with pytest.raises(InvalidRequest, match=fact):
        make_encoding(name, schema_of(features, keys), lambda kind, text: 1)
