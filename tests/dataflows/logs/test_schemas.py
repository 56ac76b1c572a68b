"""The stream on Avro and Protobuf with schemas of a real registry, from a real Kafka."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import fastavro
import numpy as np
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.common.serde import SchemaId
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from dataflows.logs.kafka_log import KafkaLog
from dataflows.logs.schemas import SchemaRegistries
from dataflows.logs.whole_topic import messages_of
from featurestore.cli.repo.contract import command as contract
from featurestore.clock import SystemClock
from featurestore.core.events import ColumnValues
from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.definitions.schemas.proto_text import descriptors
from featurestore.errors import InvalidRequest, SourceUnavailable
from featurestore.testing.servers import KafkaBroker, SchemaRegistry, free_port
from featurestore.wire.formats.columns import UnusableSchema
from featurestore.wire.formats.iso8601 import parse_text
from featurestore.wire.payloads import EventDecoder
from tests.dataflows.conftest import StartStream, applied_repo
from tests.dataflows.payments import PROJECT, REPO, TOPIC, Payments, assert_every_value_is_exact, make_payments

pytestmark = pytest.mark.kafka

FIRST: dict[str, Any] = {
    "type": "record",
    "name": "Payment",
    "namespace": "test.payments",
    "fields": [
        {"name": "payment_id", "type": "string"},
        {"name": "paid_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {
            "name": "card",
            "type": {"type": "record", "name": "Card", "fields": [{"name": "id", "type": "string"}]},
        },
        {"name": "merchant_id", "type": "int"},
        {"name": "amount", "type": ["null", "long"], "default": None},
        {"name": "is_declined", "type": "boolean"},
    ],
}
SECOND = {
    **FIRST,
    "fields": [
        {"name": "tags", "type": {"type": "map", "values": "string"}, "default": {}},
        *FIRST["fields"],
        {"name": "channel", "type": {"type": "enum", "name": "Channel", "symbols": ["POS", "WEB"]}, "default": "POS"},
    ],
}


PROTOBUF = """
syntax = "proto3";
package test.%s;
import "google/protobuf/timestamp.proto";
message Payment {
    string payment_id = 1;
    google.protobuf.Timestamp paid_at = 2;
    Card card = 3;
    message Card { string id = 1; }
    int64 merchant_id = 4;
    optional sint64 amount = 5;
    bool is_declined = 6;
    map<string, string> tags = 7;
    %s
}
"""


@pytest.fixture
def topic(kafka: KafkaBroker) -> Iterator[KafkaBroker]:
    """The broker, with an empty topic of payments that is gone after the test."""
    kafka.create_topic(TOPIC, partitions=4)
    yield kafka
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(TOPIC)]
    for deletion in admin.delete_topics(names, operation_timeout=30).values():
        deletion.result(timeout=30)


@pytest.fixture
def schemas(registry_of_schemas: SchemaRegistry) -> Iterator[SchemaRegistry]:
    """The registry; schemas of the topic are gone after the test, since a subject has one format."""
    yield registry_of_schemas
    client = SchemaRegistryClient({"url": registry_of_schemas.url})
    for subject in client.get_subjects():
        if subject.startswith(TOPIC):
            client.delete_subject(subject)
            client.delete_subject(subject, permanent=True)


def repo_of(directory: Path, format_name: str, url: str, definitions: str = REPO) -> Path:
    """The registry of the tests' repo, its source in another format."""
    more = f'format="{format_name}", registry="{url}", fields={{"card_id": "card.id"}},'
    assert 'event_time="paid_at",' in REPO
    return applied_repo(directory, repo=definitions.replace('event_time="paid_at",', f'event_time="paid_at", {more}'))


def objects_of(column: ColumnValues) -> list[object]:
    """A column of texts."""
    assert isinstance(column.values, np.ndarray)
    found: list[object] = column.values.tolist()
    return found


def avro_body(record: dict[str, Any]) -> bytes:
    """A record of the first schema, without an id."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(FIRST), record)
    return out.getvalue()


Write = Callable[[dict[str, Any], bool], bytes]
"""A record by the first or by the second of a topic's schemas."""


def avro_writer(url: str) -> Write:
    """Confluent's own serializer of Avro."""
    client, context = SchemaRegistryClient({"url": url}), SerializationContext(TOPIC, MessageField.VALUE)
    serializers = [AvroSerializer(client, json.dumps(schema)) for schema in (FIRST, SECOND)]
    return lambda record, is_second: serializers[is_second](record, context) or b""


def protobuf_writer(url: str) -> Write:
    """Confluent's own serializer of Protobuf, which registers a schema in base64, with what it imports."""
    client, context = SchemaRegistryClient({"url": url}), SerializationContext(TOPIC, MessageField.VALUE)
    kinds = [_messages(PROTOBUF % (f"v{number}", more)) for number, more in enumerate(("", "int32 channel = 9;"))]
    settings = {"use.deprecated.format": False}
    serializers = [ProtobufSerializer(kind, client, settings) for kind in kinds]

    def write(record: dict[str, Any], is_second: bool) -> bytes:
        given = {name: value for name, value in record.items() if value is not None and name != "paid_at"}
        message = kinds[is_second](**given)
        message.paid_at.FromMilliseconds(record["paid_at"])
        return serializers[is_second](message, context) or b""

    return write


def _messages(text: str) -> Any:
    """The class of the one message of a schema."""
    pool = descriptor_pool.DescriptorPool()
    files = descriptors(text, {}).file
    pool.Add(FileDescriptorProto.FromString(timestamp_pb2.DESCRIPTOR.serialized_pb))
    pool.Add(files[-1])
    name = f"{files[-1].package}.Payment"
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def written(payments: Payments, write: Write, *, is_second: bool) -> list[list[bytes]]:
    """The same records in another format; what is no JSON stays as it is."""

    def rewritten(payload: bytes) -> bytes:
        try:
            record = json.loads(payload)
        except json.JSONDecodeError:
            return payload
        record["paid_at"], record["card"] = parse_text(record["paid_at"]), {"id": record.pop("card_id")}
        return write({name: value for name, value in record.items() if name != "unknown"}, is_second)

    return [[rewritten(payload) for payload in partition] for partition in payments.records]


@pytest.mark.parametrize(("format_name", "writer_of"), [("avro", avro_writer), ("protobuf", protobuf_writer)])
def test_every_value_of_a_topic_with_schemas_is_the_oracles(
    format_name: str,
    writer_of: Callable[[str], Write],
    start_stream: StartStream,
    topic: KafkaBroker,
    schemas: SchemaRegistry,
    redis_url: str,
    tmp_path: Path,
) -> None:
    """Nested keys, a schema that changes in mid-stream, an id that the registry does not know."""
    use_registry = repo_of(tmp_path / "repo", format_name, schemas.url)
    write = writer_of(schemas.url)
    before, after = make_payments(600, seed=1), make_payments(600, seed=2, first=600)
    unknown = [[b"\0\0\1\0\0\0" + b"x" * 20], [], [], []]
    for records in (written(before, write, is_second=False), unknown, written(after, write, is_second=True)):
        topic.append(TOPIC, records)

    options = ["--bootstrap-servers", topic.bootstrap_servers, "--dead-letter-dir", str(tmp_path / "letters")]
    stream = start_stream("--until-end", *options, use_registry=use_registry)

    assert stream.wait() == 0, stream.output
    assert_every_value_is_exact(redis_url, before, after)
    letters = [
        json.loads(line) for path in (tmp_path / "letters").rglob("*.jsonl") for line in path.read_text().splitlines()
    ]
    reasons = [letter["detail"] for letter in letters]
    assert reasons.count("is of schema 65536, which the registry does not know") == 1
    assert len(reasons) == 1 + before.bad + after.bad


def test_a_registry_that_does_not_answer_is_waited_for_and_a_wrong_option_is_named(
    schemas: SchemaRegistry,
) -> None:
    """What is known stays known; `url` stands for those of all sources."""
    source = SourceSpec("s", "t", (Column("at", ValueType.INT64),), "at", format="avro", schema_registry="http://x:1")
    silent = SchemaRegistries({"url": f"http://127.0.0.1:{free_port()}"}).of(source)
    with pytest.raises(SourceUnavailable, match=r"schema registry http://127\.0\.0\.1:\d+ does not answer"):
        silent.text(1)
    assert SchemaRegistries({"url": schemas.url}).of(source).text(999_999) is None
    with pytest.raises(InvalidRequest, match="schema registry options are not usable"):
        SchemaRegistries({"ssl.key.location": "/nowhere"}).of(source)


@contextmanager
def _registry_that_tells(paths: Mapping[str, object]) -> Iterator[str]:
    """It answers what is asked at some paths, and denies everything else: rights are given by subject."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = paths.get(self.path.partition("?")[0])
            is_told = told is not None
            body = json.dumps(told or {"error_code": 40301, "message": "denied"}).encode()
            self.send_response(200 if is_told else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_registry_that_denies_what_a_schema_imports_ends_the_stream_and_refuses_no_record() -> None:
    """The records are sound: whoever runs the stream lacks a right."""
    source = SourceSpec("s", "t", (Column("at", ValueType.INT64),), "at", format="protobuf", schema_registry="")
    reference = {"name": "card.proto", "subject": "cards", "version": 1}
    told = {"schema": 'syntax = "proto3"; import "card.proto";', "schemaType": "PROTOBUF", "references": [reference]}
    with _registry_that_tells({"/schemas/ids/1": told}) as url:
        schemas = SchemaRegistries({"url": url}).of(source)
        with pytest.raises(InvalidRequest, match="refuses version 1 of cards") as raised:
            schemas.files(1)

    assert not isinstance(raised.value, UnusableSchema)


def test_the_id_of_a_schema_may_be_in_a_header(topic: KafkaBroker) -> None:
    """Beside records that have it in front; a record without a value has none, whatever its header says."""
    guid, schema = UUID(int=2**127 + 3), json.dumps(FIRST)
    told = {"schema": schema, "id": 7, "guid": str(guid)}
    body = avro_body({"payment_id": "p-1", "paid_at": 1, "card": {"id": "c"}, "merchant_id": 5, "is_declined": False})
    context = SerializationContext(TOPIC, MessageField.VALUE, headers=[])
    assert header_schema_id_serializer(body, context, SchemaId("AVRO", 7, str(guid))) == body
    producer = Producer({"bootstrap.servers": topic.bootstrap_servers})
    producer.produce(TOPIC, body, headers=context.headers, partition=0)
    producer.produce(TOPIC, b"\0\0\0\0\7" + body, partition=0)
    producer.produce(TOPIC, None, headers=context.headers, partition=0)
    producer.flush(10)
    columns = (Column("paid_at", ValueType.INT64), Column("payment_id", ValueType.STRING))
    source = SourceSpec("s", TOPIC, columns, "paid_at", format="avro", schema_registry="http://nobody:1")
    with _registry_that_tells({f"/schemas/guids/{guid}": told, "/schemas/ids/7": told}) as url:
        log = KafkaLog(
            bootstrap_servers=topic.bootstrap_servers,
            options={},
            group="",
            clock=SystemClock(),
            schemas=SchemaRegistries({"url": url}),
        )
        partition = log.open(source, 0, 0)
        payloads: list[bytes] = []
        while len(payloads) < 3:
            payloads += batch.payloads if (batch := partition.read(10)) is not None else ()
        partition.close()
        found = EventDecoder(source, ["payment_id"], log.schemas(source)).read(payloads)

    assert payloads == [b"\x01" + guid.bytes + body, b"\0\0\0\0\7" + body, b""]
    assert found.refused == {2: "is empty"}
    assert [b"p-1", b"p-1"] == objects_of(found.columns["payment_id"])


def test_a_contract_is_held_against_the_registry_and_what_the_topic_has(
    start_stream: StartStream, topic: KafkaBroker, schemas: SchemaRegistry, redis_url: str, tmp_path: Path
) -> None:
    """The stream tells what breaks it on a topic of its own; `contract check` finds it, and a field that is missing."""
    expected = 'expectations=[expect("amount >= 0", on_fail="count")],'
    definitions = REPO.replace('event_id="payment_id",', f'event_id="payment_id", {expected}')
    definitions = definitions.replace("count, kafka", "count, expect, kafka")
    registry = repo_of(tmp_path / "repo", "avro", schemas.url, definitions)
    write = avro_writer(schemas.url)
    made = make_payments(300, seed=5)
    topic.append(TOPIC, written(made, write, is_second=False))
    options = ["--bootstrap-servers", topic.bootstrap_servers, "--until-end"]
    event_log = ["--event-log", str(tmp_path / "log"), "--dead-letter-dir", str(tmp_path / "letters")]
    running = [
        start_stream(*options, use_registry=registry),
        start_stream(*options, *event_log, use_registry=registry, program=("-m", "dataflows.log_to_table")),
    ]
    for process in running:
        assert process.wait() == 0, process.output

    records = [json.loads(one) for partition in made.records for one in partition if one.endswith(b"}")]
    failed = sum(one["amount"] is None or one["amount"] < 0 for one in records)
    settings: dict[str, str | int | float | bool] = {"bootstrap.servers": topic.bootstrap_servers}
    told = [json.loads(one.value() or b"") for one in messages_of(f"{TOPIC}.contracts", settings, group="any")]
    assert {"amount >= 0"} == {one["expectation"] for one in told}
    assert 0 < sum(one["failed"] for one in told) <= failed
    where = ["--registry", str(registry), "--project", PROJECT]
    document = tmp_path / "payments.yaml"
    check = ["check", str(document), "--source", "payments", "--event-log", str(tmp_path / "log"), *where]
    assert contract_command("export", "payments", "--out", str(document), *where).exit_code == 0
    found = contract_command(*check)
    assert (1, 1) == (found.return_value, len(found.output.splitlines())), found.output
    assert f'data: rule "amount >= 0": {failed} of {len(records)} rows break it' in found.output
    poorer = {**FIRST, "fields": [one for one in FIRST["fields"] if one["name"] != "amount"]}
    client = SchemaRegistryClient({"url": schemas.url})
    client.register_schema(f"{TOPIC}-value", Schema(json.dumps(poorer), "AVRO"))
    assert 'the schema has no field "amount"' in contract_command(*check).output


def contract_command(*arguments: str) -> Result:
    """`featurestore contract`."""
    return CliRunner().invoke(contract, arguments, standalone_mode=False)
