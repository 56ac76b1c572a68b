"""What a plan says of a registry that it cannot ask."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from featurestore.cli.repo.check_schema import notes_of_registries
from featurestore.testing.servers import free_port
from tests.definitions.schemas.test_breaks import SOURCE, VIEW


def test_a_registry_that_does_not_answer_is_noted_and_holds_nothing_up() -> None:
    """It may be down, and the repo is planned all the same."""
    source = replace(SOURCE, schema_registry=f"http://127.0.0.1:{free_port()}")

    (note,) = notes_of_registries([replace(VIEW, source=source)])

    assert note.startswith('source "payments" is not checked against its schema: schema registry http://127.0.0.1:')


def test_a_package_that_is_missing_is_noted_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who only plans need not have the stream's packages."""
    for module in ("confluent_kafka", "confluent_kafka.schema_registry"):
        monkeypatch.setitem(sys.modules, module, None)

    (note,) = notes_of_registries([VIEW])

    assert "confluent_kafka" in note


def test_plain_json_asks_no_registry() -> None:
    """Not even for its address."""
    assert list(notes_of_registries([replace(VIEW, source=replace(SOURCE, format="json"))])) == []
