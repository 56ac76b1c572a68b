"""A registry's Protobuf schemas to descriptors: what the reference compiler takes, and what it says of the rest."""

from __future__ import annotations

import base64
import sys

import pytest

from featurestore.definitions.schemas.proto_text import descriptors
from featurestore.errors import InternalError, InvalidRequest
from featurestore.wire.formats.protobuf.descriptors import Schema

TEXTS = {
    "schema.proto": """
        edition = "2023";
        package bank;
        import "google/protobuf/timestamp.proto";
        import "confluent/meta.proto";
        import "bank/card.proto";
        message Payment {
          google.protobuf.Timestamp at = 1;
          Card card = 2 [(confluent.field_meta).doc = "the payer's"];
          int64 units = 3 [features.field_presence = IMPLICIT];
        }
    """,
    "bank/card.proto": 'syntax = "proto3"; package bank; import "bank/network.proto"; message Card { Net net = 1; }',
    "bank/network.proto": 'syntax = "proto3"; package bank; enum Net { VISA = 0; }',
}


def test_texts_and_serialized_descriptors_may_be_mixed() -> None:
    """Confluent's registry gives the one, and what Python's client has registered may be the other."""
    text, references = TEXTS["schema.proto"], {name: TEXTS[name] for name in ("bank/card.proto", "bank/network.proto")}
    by_text = descriptors(text, references)
    serialized = {file.name: base64.b64encode(file.SerializeToString()).decode() for file in by_text.file}

    found = [
        by_text,
        descriptors(text, {**references, "bank/card.proto": serialized["bank/card.proto"]}),
        descriptors(serialized["schema.proto"], references),
        descriptors(serialized["schema.proto"], {name: serialized[name] for name in references}),
    ]

    for files in found:
        assert files.file[-1].name == "schema.proto"
        message = Schema(files).message((0,))
        assert not isinstance(message, str)
        card = message.fields_by_name["card"].message_type
        assert card is not None
        assert [getattr(field.enum_type, "full_name", "") for field in card.fields] == ["bank.Net"]
        assert [field.has_presence for field in message.fields] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "references", "told"),
    [
        ("message A { optional B b = 1; }", {}, 'does not compile: schema.proto:1:22: "B" is not defined'),
        ("nothing", {}, "does not compile: schema.proto:1:1: Expected top-level statement"),
        ('import "a.proto";', {}, "does not compile: a.proto: File not found"),
        ('import "../a.proto";', {"../a.proto": "message A {}"}, 'imports "../a.proto", which is no name of a file'),
    ],
)
def test_what_is_no_schema_is_told_as_the_compiler_tells_it(text: str, references: dict[str, str], told: str) -> None:
    """With the line and the column; and no reference is written to where it likes."""
    with pytest.raises(InvalidRequest) as raised:
        descriptors(text, references)

    assert f"a Protobuf schema {told}" in raised.value.message


def test_without_a_compiler_no_schema_is_called_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends with what to install, and no record becomes a dead letter."""
    monkeypatch.setitem(sys.modules, "grpc_tools", None)

    with pytest.raises(InternalError) as raised:
        descriptors("message A {}", {})

    assert "grpcio-tools" in raised.value.message
    assert "featurestore[protobuf]" in raised.value.hint
