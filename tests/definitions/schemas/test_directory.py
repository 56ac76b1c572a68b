"""A directory in the place of a registry."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from featurestore.definitions.schemas import subjects
from featurestore.definitions.schemas.directory import SchemaDirectory
from featurestore.errors import InvalidRequest
from tests.definitions.schemas.test_breaks import avro


def test_what_is_registered_is_found_by_id_and_by_subject(tmp_path: Path) -> None:
    """Ids are of all subjects; a schema that is there keeps its own."""
    directory = SchemaDirectory(tmp_path / "schemas")
    first, second = avro(), avro(more="int")
    assert directory.text(1) is None
    assert directory.newest("payments-value") is None

    assert [directory.register("payments-value", text) for text in (first, second, first)] == [1, 2, 1]
    assert directory.register("refunds-value", first) == 3
    assert [directory.text(schema_id) for schema_id in (1, 2, 3, 4)] == [first, second, first, None]
    newest = directory.newest("payments-value")
    assert newest is not None
    assert (newest.text, newest.kind, newest.version) == (second, "AVRO", 2)
    before = directory.before("payments-value", 2)
    assert before is not None
    assert before.text == first
    assert directory.before("payments-value", 1) is None


def test_protobuf_takes_its_imports_from_beside_it(tmp_path: Path) -> None:
    """By their names, as a registry has references."""
    directory = SchemaDirectory(tmp_path)
    directory.register(
        "payments-value", 'syntax = "proto3"; import "card.proto"; message P { Card card = 1; }', ".proto"
    )
    (tmp_path / "payments-value" / "card.proto").write_text('syntax = "proto3"; message Card { string id = 1; }')

    files = directory.files(1)
    assert files is not None
    assert [message.name for file in files.file for message in file.message_type if file.name == "card.proto"] == [
        "Card"
    ]
    newest = directory.newest("payments-value")
    assert newest is not None
    assert list(newest.references) == ["card.proto"]


def test_an_id_of_several_schemas_is_an_error(tmp_path: Path) -> None:
    """Nobody could tell which one a record is of."""
    directory = SchemaDirectory(tmp_path)
    directory.register("payments-value", avro())
    (tmp_path / "refunds-value").mkdir()
    (tmp_path / "refunds-value" / "1.avsc").write_text(avro(more="int"))

    with pytest.raises(InvalidRequest, match="has several schemas of id 1"):
        directory.text(1)


def test_examples_in_docstrings_are_true() -> None:
    """Of addresses with users."""
    assert doctest.testmod(subjects).failed == 0
