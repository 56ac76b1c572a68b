"""`plan` and `check-schema` on a real registry: what is refused, what is noted, under which subject."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from confluent_kafka.schema_registry import ConfigCompatibilityLevel, Schema, SchemaRegistryClient, ServerConfig

from featurestore.cli.main import main
from featurestore.testing.servers import SchemaRegistry, free_port

REPO = """
from feast import Entity, ValueType
from featurestore.features import aggregate, count, kafka_source, stream_view

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)
payments = kafka_source(
    name="payments", topic="%(topic)s", event_time="paid_at", registry="%(registry)s",
    columns={"paid_at": "timestamp", "card_id": "string", "amount": "double", "country": "string"}, %(source)s
)
cards = stream_view(
    name="cards", entities=[card], source=payments,
    features=[*aggregate("amount", "sum", over="1h"), *count(over="1h", where="country = 'DE'", name="de"), %(more)s],
)
"""
AVRO: Mapping[str, object] = {
    "paid_at": {"type": "long", "logicalType": "timestamp-millis"},
    "card_id": "string",
    "amount": "double",
    "country": "string",
}
JSON = """{"title": "Payment", "type": "object", "properties": {
  "paid_at": {"type": "string"}, "card_id": {"type": "string"}, "amount": {"type": "number"},
  "bank": {"type": "object", "properties": {"country": {"type": "string"}}}
}}"""
PROTOBUF = """
syntax = "proto3";
package shop;
message Refund { string refund_id = 1; }
message Payment { int64 paid_at = 1; string card_id = 2; double amount = 3; string country = 4; }
"""


def avro(**changes: object) -> str:
    """A schema of what the repo reads, with other types of some fields; None takes one out."""
    fields = [{"name": name, "type": of} for name, of in {**AVRO, **changes}.items() if of is not None]
    return json.dumps({"type": "record", "name": "Payment", "namespace": "shop", "fields": fields})


class Author:
    """Somebody with a feature repo of one view.

    Args:
        directory: of the repo.
        registry: URL of the schema registry.
        topic: of the source.
    """

    def __init__(self, directory: Path, registry: str, topic: str) -> None:
        self._directory = directory
        self._settings = {"topic": topic, "registry": registry}
        (directory / "feature_store.yaml").write_text(
            "project: shop\nregistry: registry.db\nprovider: local\nonline_store:\n"
            "  type: featurestore.feast.RealTimeOnlineStore\n"
        )

    def write(self, source: str = 'format="avro"', more: str = "") -> None:
        """Define the view."""
        (self._directory / "definitions.py").write_text(REPO % {**self._settings, "source": source, "more": more})

    def run(self, *arguments: str) -> tuple[int, str]:
        """Type a command; its exit code and all that it says, on one line."""
        with redirect_stdout(io.StringIO()) as said, redirect_stderr(said):
            code = main([*arguments, "--repo", str(self._directory)])
        return code, " ".join(said.getvalue().split())


@pytest.fixture
def author(tmp_path: Path, registry_of_schemas: SchemaRegistry, request: pytest.FixtureRequest) -> Author:
    """An author whose topic is the test's own."""
    return Author(tmp_path, registry_of_schemas.url, request.node.name)


@pytest.fixture
def client(registry_of_schemas: SchemaRegistry) -> SchemaRegistryClient:
    """Of the producers."""
    return SchemaRegistryClient({"url": registry_of_schemas.url})


@pytest.mark.kafka
def test_a_view_is_refused_while_it_is_new_and_noted_when_it_stays(
    author: Author, client: SchemaRegistryClient, request: pytest.FixtureRequest
) -> None:
    """By view, feature and field, with the remedy; the mode of the subject is told, and NONE is a warning."""
    subject = f"{request.node.name}-value"
    client.register_schema(subject, Schema(avro(amount="string", country=None), "AVRO"))
    client.set_config(subject, ServerConfig(compatibility=ConfigCompatibilityLevel.NONE))
    author.write()

    code, refused = author.run("plan")
    assert code != 0
    assert 'project "shop" has 2 problems' in refused
    assert 'feature view "cards", feature "amount_sum_1h": it reads column "amount"' in refused
    assert 'feature view "cards", feature "de_1h": it reads column "country"' in refused
    assert author.run("apply") == (code, refused)

    client.register_schema(subject, Schema(avro(), "AVRO"))
    code, applied = author.run("apply")
    assert code == 0, applied
    assert f'warning: subject "{subject}", version 2: compatibility is NONE' in applied

    client.register_schema(subject, Schema(avro(amount="string"), "AVRO"))
    code, noted = author.run("plan")
    assert code == 0, noted
    assert f'note: subject "{subject}", column "amount": amount is a string' in noted
    author.write(more='*count(over="2h"),')
    code, refused = author.run("plan")
    assert code != 0
    assert "amount is a string" in refused
    client.set_config(subject, ServerConfig(compatibility=ConfigCompatibilityLevel.FORWARD))
    author.write()
    assert "compatibility is FORWARD, so that a producer may drop a field that has a default" in author.run("plan")[1]


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("strategy", "subject", "record"),
    [("record", "{record}", "shop{topic}.Payment"), ("topic_record", "{topic}-{record}", "shop.Payment")],
)
def test_subjects_are_found_as_serializers_name_them(
    author: Author,
    client: SchemaRegistryClient,
    request: pytest.FixtureRequest,
    strategy: str,
    subject: str,
    record: str,
) -> None:
    """By the record, or by topic and record; Protobuf's message of that name is the one that is checked."""
    topic = request.node.name
    record = record.format(topic="".join(filter(str.isalnum, topic)))
    name = subject.format(topic=topic, record=record)
    author.write(f'format="protobuf", subject_name="{strategy}", records="{record}"')
    client.register_schema(name, Schema(PROTOBUF.replace("shop", record.partition(".")[0]), "PROTOBUF"))

    assert author.run("check-schema", "--subject", name) == (0, f"{name}: nothing breaks")
    code, said = author.run("check-schema", "--subject", f"{topic}-value")
    assert code != 0
    assert f"subjects are: {name}" in said
    assert f'subject "{name}", version 1: compatibility is NONE' in author.run("plan")[1]


@pytest.mark.kafka
def test_json_schemas_are_checked_too_and_units_with_them(
    author: Author, client: SchemaRegistryClient, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Of a file against the newest, whose units it has to keep; of the registry against the version before."""
    subject = f"{request.node.name}-value"
    author.write('format="json_schema", fields={"country": "bank.country"}')
    client.register_schema(subject, Schema(JSON.replace('"number"', '"number", "unit": "EUR"'), "JSON"))
    next_one = tmp_path / "next.json"
    next_one.write_text(JSON.replace('"number"', '"number", "unit": "cents"').replace('"bank"', '"bench"'))

    code, said = author.run("check-schema", "--subject", subject, "--file", str(next_one))
    assert code == 1
    assert 'amount was in "EUR", and is in "cents"; its values would mean something else' in said
    assert 'country: the schema has no field "bank.country"; it would be null' in said
    client.set_config(subject, ServerConfig(compatibility=ConfigCompatibilityLevel.NONE))
    client.register_schema(subject, Schema(JSON.replace('"number"', '"number", "unit": "USD"'), "JSON"))
    code, said = author.run("check-schema", "--subject", subject, "--format", "json")
    assert [one["column"] for one in json.loads(said)["breaks"]] == ["amount"]
    author.write('format="json_schema", units={"amount": "EUR"}, fields={"country": "bank.country"}')
    code, said = author.run("plan")
    assert code != 0
    assert 'amount is in "USD", and the source says "EUR"' in said


def test_a_registry_that_does_not_answer_is_noted_and_holds_nothing_up(tmp_path: Path) -> None:
    """It may be down, and the repo is planned all the same; a file is checked, but for its units."""
    author = Author(tmp_path, f"http://127.0.0.1:{free_port()}", "payments")
    author.write()
    (tmp_path / "next.avsc").write_text(avro())

    code, said = author.run("plan")
    assert code == 0
    assert 'note: source "payments" is not checked against its schema: schema registry http://127.0.0.1:' in said
    code, said = author.run("check-schema", "--subject", "payments-value", "--file", str(tmp_path / "next.avsc"))
    assert code == 0
    assert "units are not compared with those of the newest schema" in said


def test_a_package_that_is_missing_is_noted_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who only plans need not have the stream's packages."""
    author = Author(tmp_path, "http://127.0.0.1:1", "payments")
    author.write()
    for module in ("confluent_kafka", "confluent_kafka.schema_registry"):
        monkeypatch.setitem(sys.modules, module, None)

    assert "confluent_kafka" in author.run("plan")[1]


def test_plain_json_asks_no_registry(tmp_path: Path) -> None:
    """Not even for its address."""
    author = Author(tmp_path, "http://127.0.0.1:1", "payments")
    author.write("")

    assert "note" not in author.run("plan")[1]


def test_fields_and_subjects_that_cannot_be_are_problems(tmp_path: Path) -> None:
    """A field that is a value and an object; subjects after records without one; a unit of no column."""
    author = Author(tmp_path, "http://127.0.0.1:1", "payments")
    author.write(
        'fields={"card_id": "card", "country": "card.country"}, units={"amuont": "EUR"}, subject_name="record"'
    )

    said = author.run("plan")[1]
    assert 'column "country" is a field of "card", which is column "card_id"' in said
    assert 'it has a unit for a column "amuont" that it does not have; did you mean "amount"?' in said
    assert "the subjects of its schemas are called after records, and none is named" in said
