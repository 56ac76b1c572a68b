"""Sources of changes: what they are compiled to, and which features cannot be kept of rows that change."""

from __future__ import annotations

import pytest

from featurestore.core.spec import CHANGE_ID, IS_UNDO, Column, ValueType
from featurestore.definitions.authoring import aggregate, count, kafka_source, stream_view
from featurestore.definitions.compile.repo import compile_repo
from featurestore.definitions.compile.view import compile_stream_view
from featurestore.definitions.problems import ProblemList
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.feast.registry import RegisteredRepo
from tests.definitions.records import CARD, aggregation, field, repo, source, view

CHANGES = {"changes": "debezium", "event_id": "id"}
REPLACES = {"on_duplicate": "replace", "event_id": "id"}
SOURCE = 'source "payments": '
TOTAL = 'feature view "activity", feature "total": '
CHANGED = 'source "payments" has rows that are changed and deleted, but '

MISTAKES: dict[str, tuple[RegisteredRepo, str, str]] = {
    "a function that cannot forget": (
        repo(view([aggregation("max")], reads=source(tags=CHANGES))),
        TOTAL + CHANGED + "max cannot take an event back",
        "use count, sum or mean",
    ),
    "a session": (
        repo(
            view(
                [aggregation(window_ns=None)],
                [field(tags={"window": "session", "gap": "5m"})],
                reads=source(tags=CHANGES),
            )
        ),
        TOTAL + CHANGED + "a session cannot take an event back",
        "use a sliding window",
    ),
    "an undo of the view's own": (
        repo(view(tags={"undo": "ok"}, reads=source(tags=CHANGES))),
        'feature view "activity": it has "undo", but what is taken back is said by the changes of source "payments"',
        "leave it out",
    ),
    "rows without a key": (
        repo(view(reads=source(tags={"changes": "debezium"}))),
        SOURCE + "its payloads are changes of rows, and nothing says which row",
        'add the tag "event_id"',
    ),
    "no horizon": (
        repo(view(reads=source(tags={**CHANGES, "dedup_horizon": "0s"}))),
        SOURCE + 'its payloads are changes of rows, and tag "dedup_horizon" is 0',
        "a connector that starts again sends changes again",
    ),
    "changes of another kind": (
        repo(view(reads=source(tags={**CHANGES, "changes": "maxwell"}))),
        SOURCE + 'tag "changes" is "maxwell"',
        'write "debezium"',
    ),
    "changes in Protobuf": (
        repo(
            view(
                reads=source(
                    tags={
                        **CHANGES,
                        "columns": "id string, at timestamp, card string, amount bigint",
                        "schema_registry": "http://schemas.test",
                    },
                    message_format="proto_format",
                )
            )
        ),
        SOURCE + "its payloads are changes in Protobuf, which are not read",
        "JSON or Avro",
    ),
    "a function that cannot forget what is replaced": (
        repo(view([aggregation("max")], reads=source(tags=REPLACES))),
        TOTAL + 'source "payments" has events that replace one another, but max cannot take an event back',
        "use count, sum or mean",
    ),
    "an undo of the view's own of events that are replaced": (
        repo(view(tags={"undo": "ok"}, reads=source(tags=REPLACES))),
        'it has "undo", but what is taken back is said by the replacements of source "payments"',
        "leave it out",
    ),
    "replacements without an id": (
        repo(view(reads=source(tags={"on_duplicate": "replace"}))),
        SOURCE + 'tag "on_duplicate" is "replace", but no event id',
        'add the tag "event_id"',
    ),
    "replacements without a horizon": (
        repo(view(reads=source(tags={**REPLACES, "dedup_horizon": "0s"}))),
        SOURCE + 'tag "on_duplicate" is "replace", and tag "dedup_horizon" is 0',
        "how long an event can be replaced",
    ),
    "replacements of changes": (
        repo(view(reads=source(tags={**CHANGES, **REPLACES}))),
        SOURCE + 'tag "on_duplicate" is "replace", and its payloads are changes of rows',
        'leave "on_duplicate" out',
    ),
    "another word": (
        repo(view(reads=source(tags={**REPLACES, "on_duplicate": "keep"}))),
        SOURCE + 'tag "on_duplicate" is "keep"',
        'write "drop" or "replace"',
    ),
    "a column of the rows called as one that is made": (
        repo(view(reads=source(tags=CHANGES, mapping={"market": "is_undo"}))),
        SOURCE + '2 of its columns are called "is_undo"',
        "give each its own name",
    ),
}


@pytest.mark.parametrize(("registered", "fact", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_what_changes_cannot_be_is_reported_with_place_and_remedy(
    registered: RegisteredRepo, fact: str, remedy: str
) -> None:
    """By feature, where it is one."""
    texts = [str(problem) for problem in compile_repo(registered).problems]
    matching = [text for text in texts if fact in text]

    assert len(matching) == 1, texts
    assert remedy in matching[0]


def test_a_source_of_changes_has_two_more_columns_and_its_views_undo_by_one() -> None:
    """The event id tells changes apart, the author's column rows."""
    problems = ProblemList()
    compiled = compile_stream_view(view(reads=source(tags=CHANGES)), {"card_entity": CARD}, problems)

    assert compiled is not None
    assert [] == problems.found
    assert "is_undo" == compiled.undo
    spec = compiled.source
    assert ("debezium", CHANGE_ID, "id") == (spec.changes, spec.event_id_column, spec.row_id_column)
    assert (Column(CHANGE_ID, ValueType.STRING), Column(IS_UNDO, ValueType.BOOL)) == spec.columns[-2:]


def test_views_of_events_are_named_as_before() -> None:
    """A source that is none of changes has the hash that it had."""
    compiled = compile_stream_view(view(), {"card_entity": CARD}, ProblemList())

    assert compiled is not None
    assert "1baf3b41c56dda0caac14ceb2779074c" == definition_hash(compiled)


def test_an_author_writes_one_word() -> None:
    """Types of the columns that are made are known where the view is written."""
    payment = kafka_source(
        name="payment",
        topic="shop.public.payment",
        changes="debezium",
        columns={"id": "bigint", "at": "timestamp", "amount": "double"},
        event_time="at",
        event_id="id",
    )
    activity = stream_view(
        name="activity",
        entities=[],
        source=payment,
        features=[*count(over="1h", where="not is_undo"), *aggregate(CHANGE_ID, "count", over="1h")],
    )

    assert ("debezium", "id") == (payment.tags["changes"], payment.tags["event_id"])
    assert "on_duplicate" not in payment.tags
    assert ["count_1h", "change_id_count_1h"] == [one.name for one in activity.features]
