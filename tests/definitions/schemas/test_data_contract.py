"""A source's contract as a document: valid by the standard's own schema, read back, and held against definitions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft201909Validator
from open_data_contract_standard.model import OpenDataContractStandard

from featurestore.core.expressions import compile_expression
from featurestore.core.spec import (
    Column,
    ComputedColumn,
    Expectation,
    Measure,
    OnFail,
    SourceSpec,
    TopicSpec,
    UsualHours,
    ValueType,
)
from featurestore.definitions.schemas.data_contract import (
    ContractTerms,
    contract_document,
    contract_text,
    differences,
    object_of,
    read_contract,
    rules_of,
)
from featurestore.errors import InvalidRequest

STANDARD = Draft201909Validator(
    json.loads((resources.files("open_data_contract_standard") / "schema.json").read_text(encoding="utf-8"))
)

SOURCE = SourceSpec(
    name="payments",
    topic="payments-v1",
    columns=(
        Column("id", ValueType.STRING),
        Column("at", ValueType.TIMESTAMP),
        Column("card", ValueType.STRING),
        Column("amount", ValueType.INT64),
        Column("score", ValueType.FLOAT64),
        Column("ok", ValueType.BOOL),
        Column("origin", ValueType.STRING),
    ),
    event_time_column="at",
    event_id_column="id",
    dedup_horizon_ms=3_600_000,
    bootstrap_servers="kafka:9092",
    computed=(ComputedColumn("euro", ValueType.FLOAT64, "amount / 1e2"),),
    renamed=(("card", "card.id"),),
    topic_column="origin",
)
CHEAP = compile_expression("euro < 1000.0", {"euro": ValueType.FLOAT64}).text
EXPECTED = (
    Expectation("payments", "not negative", "amount >= 0", OnFail.DEAD_LETTER),
    Expectation("payments", "cheap", CHEAP, OnFail.COUNT, 0.02),
)
USUAL = (UsualHours("payments", Measure.VOLUME, 0.5, 2.0), UsualHours("payments", Measure.LATENESS, 0.0, 3.0))
TERMS = ContractTerms(version="2.1.0", owner="payments team", description="Every payment.", freshness_ms=300_000)


def document(source: SourceSpec = SOURCE, terms: ContractTerms = TERMS) -> dict[str, Any]:
    """The contract, written and read again."""
    return read_contract(contract_text(contract_document("shop", source, EXPECTED, terms, USUAL)))


def assert_valid(found: Mapping[str, Any]) -> None:
    """By the JSON schema of the standard, and by its own model."""
    errors = [error.message for error in STANDARD.iter_errors(found)]
    assert errors == []
    OpenDataContractStandard.model_validate(found)


def test_a_contract_is_a_document_of_the_standard() -> None:
    """Columns where they are in the payload, keys, rules, owner, freshness, servers."""
    found = document()
    assert_valid(found)
    [described] = found["schema"]

    assert ("v3.1.0", "shop.payments", "2.1.0", "active") == tuple(
        found[name] for name in ("apiVersion", "id", "version", "status")
    )
    assert {"name": "payments team"} == found["team"]
    assert [{"property": "freshness", "value": 5, "unit": "m"}] == found["slaProperties"]
    assert [{"server": "kafka", "type": "kafka", "host": "kafka:9092", "format": "json"}] == found["servers"]
    assert "payments-v1" == described["physicalName"]
    properties = {each["name"]: each for each in described["properties"]}
    assert ["id", "at", "card", "amount", "score", "ok"] == list(properties)
    assert properties["id"]["primaryKey"]
    assert properties["id"]["unique"]
    assert "card.id" == properties["card"]["physicalName"]
    assert "timestamp" == properties["at"]["logicalType"]
    assert [0.0, 0.02] == [rule["mustBeLessOrEqualTo"] for rule in described["quality"][:2]]
    assert (
        'SELECT AVG(CASE WHEN amount >= 0 THEN 0.0 ELSE 1.0 END) FROM "payments-v1"' == described["quality"][0]["query"]
    )


@settings(max_examples=20, deadline=None)
@given(
    format=st.sampled_from(("json", "json_schema", "avro", "protobuf")),
    owner=st.text(max_size=20),
    description=st.text(max_size=40),
    freshness_ms=st.sampled_from((0, 1, 1_500, 300_000, 86_400_000)),
    more=st.booleans(),
)
def test_whatever_is_registered_gives_a_valid_contract_that_says_what_is_registered(
    format: str, owner: str, description: str, freshness_ms: int, more: bool
) -> None:
    """For each of its topics; owner and description may be any text."""
    topics = (TopicSpec("refunds", (("id", "refund_id"),)),) if more else ()
    source = replace(SOURCE, format=format, more_topics=topics)
    found = document(source, ContractTerms(owner=owner, description=description, freshness_ms=freshness_ms))

    assert_valid(found)
    for one in source.per_topic:
        assert [] == list(differences(object_of(found, one), one, EXPECTED, USUAL))


def changed(**of_described: Any) -> dict[str, Any]:
    """What the contract says of the topic, but for some things."""
    return {**document()["schema"][0], **of_described}


def without(name: str) -> list[dict[str, Any]]:
    """All properties but one."""
    return [each for each in document()["schema"][0]["properties"] if each["name"] != name]


def with_property(name: str, **other: Any) -> list[dict[str, Any]]:
    """All properties, one of which is otherwise."""
    return [{**each, **(other if each["name"] == name else {})} for each in document()["schema"][0]["properties"]]


NULLS = {"type": "library", "metric": "nullValues", "mustBeLessThan": 5, "unit": "percent"}


@pytest.mark.parametrize(
    ("described", "fact"),
    [
        (changed(properties=without("score")), 'column "score": the contract has no property "score"'),
        (changed(properties=without("card")), 'column "card": the contract has no property "card.id"'),
        (
            changed(properties=with_property("amount", logicalType="string")),
            'column "amount" is read as bigint, the contract has it as string',
        ),
        (
            changed(properties=with_property("id", unique=False, primaryKey=False)),
            'column "id" is the event id, and the contract does not promise that it is unique',
        ),
        (
            changed(quality=document()["schema"][0]["quality"][:3]),
            'source "payments" expects "usual lateness from 0 to 3 times", which the contract does not promise',
        ),
        (changed(quality=[]), 'source "payments" expects "cheap", which the contract does not promise'),
        (
            changed(properties=with_property("score", quality=[NULLS])),
            'rule "nullValues of score" is promised, and source "payments" does not expect it',
        ),
        (
            changed(quality=[*document()["schema"][0]["quality"], {"type": "text", "description": "be nice"}]),
            'rule "be nice" is not understood here',
        ),
        (
            changed(
                quality=[
                    *document()["schema"][0]["quality"],
                    {"name": "r", "customProperties": [{"property": "featurestore.condition", "value": "amuont > 0"}]},
                ]
            ),
            'rule "r" cannot be checked: ',
        ),
    ],
)
def test_a_contract_that_says_something_else_is_told_by_column_and_rule(described: dict[str, Any], fact: str) -> None:
    """Each difference once, in a sentence that names what it is about."""
    found = list(differences(described, SOURCE, EXPECTED, USUAL))

    assert 1 == sum(one.startswith(fact) for one in found), found


def test_rules_of_the_standards_library_are_understood_where_they_are_about_records() -> None:
    """Shares of nulls and of values that are not valid; what counts rows of a table says nothing of a stream."""
    valid = {"metric": "invalidValues", "mustBe": 0, "arguments": {"validValues": ["a", "it's"]}}
    rows = {"metric": "nullValues", "mustBeLessThan": 5, "unit": "rows"}
    rules, others = rules_of(changed(properties=with_property("card", quality=[NULLS, valid, rows])))

    understood = {rule.name: (rule.condition, rule.at_most) for rule in rules}
    assert ('"card" IS NOT NULL', 0.05) == understood["nullValues of card"]
    assert ("\"card\" IN ('a', 'it''s')", 0.0) == understood["invalidValues of card"]
    assert ["card: nullValues"] == others


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("a: [", "the contract is no YAML"),
        ("- a", "the file is no data contract"),
        ("kind: DataContract\napiVersion: v2.2.2", 'the contract is of version "v2.2.2" of the standard'),
        ("kind: DataContract\napiVersion: v3.0.2", "the contract has no schema"),
    ],
)
def test_what_is_no_contract_is_refused(text: str, fact: str) -> None:
    """With what it should be."""
    with pytest.raises(InvalidRequest, match=fact):
        read_contract(text)


def test_a_contract_of_another_topic_is_refused() -> None:
    """It names what it is about."""
    with pytest.raises(InvalidRequest) as raised:
        object_of(document(), replace(SOURCE, name="refunds", topic="refunds"))

    assert 'the contract says nothing of topic "refunds"' == raised.value.message
    assert "it is about payments-v1" == raised.value.hint
    assert "DataContract" == yaml.safe_load(contract_text(document()))["kind"]
