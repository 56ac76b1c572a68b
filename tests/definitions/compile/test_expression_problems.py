"""Mistakes in topics, computed columns, conditions and derived features are reported like all others."""

from __future__ import annotations

import pytest

from featurestore.definitions.compile.repo import compile_repo
from featurestore.wire.feast.registry import RegisteredRepo
from tests.definitions.records import aggregation, field, repo, source, view

FEATURE = 'feature view "activity", feature "total": '
VIEW = 'feature view "activity": '
SOURCE = 'source "payments": '

MISTAKES: dict[str, tuple[RegisteredRepo, str, str]] = {
    "field mapping of a field that the payload does not have": (
        repo(view(reads=source(mapping={"amuont": "value"}))),
        SOURCE + 'field_mapping names a field "amuont" that its schema does not have',
        "did you mean",
    ),
    "field mapping onto another column": (
        repo(view(reads=source(mapping={"market": "amount"}))),
        SOURCE + '2 of its columns are called "amount"',
        "give each its own name",
    ),
    "further topic that fills an unknown column": (
        repo(view(reads=source(tags={"topic.chargebacks": "value=amuont"}))),
        SOURCE + 'tag "topic.chargebacks" names a column "amuont" that it does not have',
        "did you mean",
    ),
    "further topic whose mapping cannot be read": (
        repo(view(reads=source(tags={"topic.chargebacks": "value"}))),
        SOURCE + 'tag "topic.chargebacks" is "value"',
        'write "field=column, field=column"',
    ),
    "computed column with a mistake": (
        repo(view(reads=source(tags={"computed.half": "amuont / 2"}))),
        SOURCE + 'computed column "half": ',
        "amount",
    ),
    "computed columns that read each other": (
        repo(view(reads=source(tags={"computed.a": "b + 1", "computed.b": "a + 1"}))),
        SOURCE + 'computed column "a": ',
        "or read each other: b",
    ),
    "computed column named as a column of the payload": (
        repo(view(reads=source(tags={"computed.amount": "1"}))),
        SOURCE + 'computed column "amount" is a column of its payload too',
        "give it another name",
    ),
    "condition of a feature with a mistake": (
        repo(view(fields=[field(tags={"where": "amount >"})])),
        FEATURE + 'tag "where": ',
        "",
    ),
    "condition that is no condition": (
        repo(view(fields=[field(tags={"where": "amount + 1"})])),
        FEATURE + 'tag "where" is of type int64, not a condition',
        "write a comparison",
    ),
    "condition of a view over an unknown column": (
        repo(view(tags={"where": "okay"})),
        VIEW + 'tag "where": ',
        "ok",
    ),
    "undoing what cannot be undone": (
        repo(view([aggregation("max")], tags={"undo": "ok"})),
        FEATURE + 'the view has "undo", but max cannot take an event back',
        "move the feature to a view without it",
    ),
    "derived feature over an unknown feature": (
        repo(view(fields=[field(), field("ratio", "DOUBLE", {"expression": "total / amount"})])),
        'feature view "activity", feature "ratio": its expression: ',
        "total",
    ),
    "derived feature whose Field has another type": (
        repo(view(fields=[field(), field("ratio", "INT64", {"expression": "total / 2"})])),
        'feature view "activity", feature "ratio": the Field is of type INT64, but its expression is DOUBLE',
        "write dtype=Float64",
    ),
    "further column that the source does not have": (
        repo(view([aggregation("top_k_by(3, scroe)")], [field("total", "INT64_LIST")])),
        FEATURE + 'column "scroe" of function "top_k_by(3, scroe)" is not a column of source "payments"',
        "did you mean",
    ),
    "ranking by a text": (
        repo(view([aggregation("top_k_by(3, market)")], [field("total", "INT64_LIST")])),
        FEATURE + 'column "market" of type string cannot rank values',
        "rank by a number or a moment",
    ),
}


@pytest.mark.parametrize(("registered", "fact", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_in_sql_is_reported_with_place_and_remedy(registered: RegisteredRepo, fact: str, remedy: str) -> None:
    """Every kind of mistake names the object, says what is wrong and what to write instead."""
    texts = [str(problem) for problem in compile_repo(registered).problems]

    matching = [text for text in texts if fact in text]
    assert len(matching) == 1, texts
    assert remedy in matching[0]
