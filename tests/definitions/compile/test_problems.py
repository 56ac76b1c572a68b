"""Every mistake that a feature repo can contain is reported, where it is and with what to do about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from featurestore.definitions.compile.repo import compile_repo
from featurestore.errors import DefinitionError
from featurestore.wire.feast.registry import RegisteredEntity, RegisteredField, RegisteredRepo
from tests.definitions.records import (
    CARD,
    HOUR_NS,
    MS_NS,
    aggregation,
    field,
    plain_view,
    projection,
    repo,
    service,
    source,
    view,
)

LIFETIME = {"window": "lifetime"}

FEATURE = 'feature view "activity", feature "total": '
VIEW = 'feature view "activity": '
SOURCE = 'source "payments": '
SERVICE = 'feature service "model"'

MISTAKES: dict[str, tuple[RegisteredRepo, str, str]] = {
    "number of entities in words": (
        repo(view(tags={"expected_entities": "4 million"})),
        VIEW + 'tag "expected_entities" is "4 million"',
        "write how many entities there will be",
    ),
    "no entities at all": (
        repo(view(tags={"expected_entities": "-1"})),
        VIEW + 'tag "expected_entities" is "-1"',
        "1 to 1000000000000",
    ),
    "unknown function": (
        repo(view([aggregation("summ")])),
        FEATURE + 'unknown aggregation function "summ"',
        'did you mean "sum"',
    ),
    "unknown column": (
        repo(view([aggregation(column="amuont")])),
        FEATURE + 'column "amuont" is not a column of source "payments"',
        'did you mean "amount"?',
    ),
    "column of a type that is not read": (
        repo(view([aggregation(column="blob")])),
        FEATURE + 'column "blob" is of type array<int>, which is not read',
        "use a column of type bool, float64, int64",
    ),
    "no column for a function that needs one": (
        repo(view([aggregation(column="")])),
        FEATURE + 'function "sum" needs a column',
        "give Aggregation(column=...)",
    ),
    "type that the function cannot take": (
        repo(view([aggregation(column="market")])),
        FEATURE + 'function "sum" cannot take string column "market"',
        "use a column of type bool, float64, int64",
    ),
    "field of another type than the answer": (
        repo(view(fields=[field(value_type="DOUBLE")])),
        FEATURE + 'the Field is of type DOUBLE, but sum of int64 column "amount" is INT64',
        "write dtype=Int64",
    ),
    "field of too narrow a type": (
        repo(view([aggregation("mean")], [field(value_type="FLOAT")])),
        FEATURE + 'the Field is of type FLOAT, but mean of int64 column "amount" is DOUBLE',
        "write dtype=Float64",
    ),
    "aggregation without its field": (
        repo(view([aggregation(), aggregation(name="other")])),
        'feature view "activity", feature "other": the aggregation has no Field of that name',
        'add Field(name="other", dtype=...) to the schema',
    ),
    "aggregation whose default name has no field": (
        repo(view([aggregation(), aggregation(name="")])),
        'feature view "activity", feature "sum_amount_3600s": the aggregation has no Field of that name',
        'add Field(name="sum_amount_3600s", dtype=...) to the schema',
    ),
    "field without its aggregation": (
        repo(view(fields=[field(), field("totals")])),
        'feature view "activity", feature "totals": the Field has no aggregation of that name',
        'did you mean "total"?',
    ),
    "no schema": (
        repo(view(fields=[])),
        VIEW + "it has no schema",
        'give one Field per aggregation ("total" ...)',
    ),
    "hop longer than the window": (
        repo(view([aggregation(slide_ns=2 * HOUR_NS)])),
        FEATURE + "its hop of 2h is longer than its window of 1h",
        "leave slide_interval out (1m), or make it a divisor of 1h",
    ),
    "hop that does not divide the window": (
        repo(view([aggregation(slide_ns=7 * 60_000 * MS_NS)])),
        FEATURE + "its hop of 7m does not divide its window of 1h",
        "leave slide_interval out (1m), or make it a divisor of 1h",
    ),
    "hop below a millisecond": (
        repo(view([aggregation(slide_ns=MS_NS // 2)])),
        FEATURE + "its hop is 0.5 ms",
        "use whole milliseconds",
    ),
    "window that is no whole milliseconds": (
        repo(view([aggregation(window_ns=1_500_000)])),
        FEATURE + "its window is 1.5 ms",
        "use whole milliseconds",
    ),
    "window of nothing": (
        repo(view([aggregation(window_ns=0)])),
        FEATURE + "its window is 0 ms",
        "use whole milliseconds",
    ),
    "window beyond the limit": (
        repo(view([aggregation(window_ns=HOUR_NS * 24 * 4_000)])),
        FEATURE + "its window is 3.456e+11 ms",
        "or lifetime",
    ),
    "no window and no lifetime intent": (
        repo(view([aggregation(window_ns=None)])),
        FEATURE + "it has no window",
        'Field(tags={"window": "lifetime"}) if all of time is meant',
    ),
    "lifetime intent beside a window": (
        repo(view(fields=[field(tags=LIFETIME)])),
        FEATURE + "it is tagged lifetime and has a time_window",
        "remove one of the two",
    ),
    "window tag with another value": (
        repo(view(fields=[field(tags={"window": "1h"})])),
        FEATURE + 'tag "window" is "1h"',
        'its values are "lifetime", "session", "today"',
    ),
    "offset that is no duration": (
        repo(view(fields=[field(tags={"offset": "a week"})])),
        FEATURE + 'tag "offset": "a week" is not a duration',
        "write a whole number and a unit",
    ),
    "offset of a lifetime": (
        repo(view([aggregation(window_ns=None)], [field(tags={**LIFETIME, "offset": "7d"})])),
        FEATURE + "a lifetime has no end to offset",
        'remove the tag "offset"',
    ),
    "two features of one name": (
        repo(view([aggregation(), aggregation("max")])),
        FEATURE + "2 aggregations have that name",
        "give each its own name",
    ),
    "feature named as a join key": (
        repo(view([aggregation(), aggregation(name="card")])),
        'feature view "activity", feature "card": the name is also that of a join key',
        "rename the aggregation",
    ),
    "feature name that is too long": (
        repo(view([aggregation(name="x" * 201)], [field("x" * 201)])),
        "the name is longer than 200 characters",
        "shorten it",
    ),
    "more features than the limit": (
        repo(view([aggregation(name=f"f{i}") for i in range(1025)], [field(f"f{i}") for i in range(1025)])),
        VIEW + "it has 1025 features, at most 1024 are supported",
        "split the view",
    ),
    "two views of one name": (
        repo(view(), plain=[plain_view(field("a"), name="activity")]),
        VIEW + "the name is used by 2 of them",
        "rename all but one",
    ),
    "ttl shorter than a window": (
        repo(view(ttl_ns=HOUR_NS // 2)),
        FEATURE + "it reaches back 1h, but the view's ttl is 30m",
        "leave ttl out, or make it 1h or longer",
    ),
    "ttl beside a lifetime": (
        repo(view([aggregation(window_ns=None)], [field(tags=LIFETIME)], ttl_ns=HOUR_NS)),
        FEATURE + "it covers the entity's lifetime, but the view's ttl is 1h",
        "leave ttl out",
    ),
    "lookback that is no duration": (
        repo(view(tags={"lookback": "long"})),
        VIEW + 'tag "lookback": "long" is not a duration',
        "write a whole number and a unit",
    ),
    "lookback beyond the limit": (
        repo(view(tags={"lookback": "31d"})),
        VIEW + 'tag "lookback" is 31d, longer than the limit of 30d',
        "shorten it",
    ),
    "join key not in the source": (
        repo(view(reads=source(schema="id string, at timestamp, crad string, amount bigint"))),
        VIEW + 'join key "card" is not a column of source "payments"',
        'did you mean "crad"?',
    ),
    "join key of another type in the source": (
        repo(view(reads=source(schema="at timestamp, card bigint, amount bigint"))),
        VIEW + 'join key "card" is string in its entity and int64 in source "payments"',
        "give both the same type",
    ),
    "entity that is not registered": (
        repo(view(entities=["card_entty"])),
        VIEW + 'entity "card_entty" is not registered',
        'did you mean "card_entity"?',
    ),
    "entity without a value type": (
        repo(view(entities=["shop"]), entities=[RegisteredEntity("shop", "shop", "INVALID")]),
        'entity "shop": it has no value type',
        "give Entity(value_type=ValueType.STRING) or INT64",
    ),
    "schema that cannot be read": (
        repo(view(reads=source(schema="card"))),
        SOURCE + 'its schema cannot be read: "card" is not a column',
        'write "name type, name type, ..."',
    ),
    "source without topic": (
        repo(view(reads=source(topic=""))),
        SOURCE + "it has no topic",
        "give KafkaSource(topic=...)",
    ),
    "event-time column not in the source": (
        repo(view(reads=source(time="happened_at"), time="happened_at")),
        SOURCE + 'event-time column "happened_at" is not in its schema',
        "known are",
    ),
    "event-time column of another type": (
        repo(view(reads=source(time="market"), time="market")),
        SOURCE + 'event-time column "market" is of type string',
        "make it timestamp (ISO 8601 text) or bigint",
    ),
    "view and source disagree on the event time": (
        repo(view(time="amount")),
        VIEW + 'its timestamp_field is "amount", but that of its source is "at"',
        "give both the same column",
    ),
    "event-id column not in the source": (
        repo(view(reads=source(tags={"event_id": "idd"}))),
        SOURCE + 'event-id column "idd" is not in its schema',
        'did you mean "id"?',
    ),
    "event-id column of another type": (
        repo(view(reads=source(tags={"event_id": "score"}))),
        SOURCE + 'event-id column "score" is of type float64',
        "use a string or bigint column",
    ),
    "horizon that is no duration": (
        repo(view(reads=source(tags={"event_id": "id", "dedup_horizon": "1 hour"}))),
        SOURCE + 'tag "dedup_horizon": "1 hour" is not a duration',
        "write a whole number and a unit",
    ),
    "horizon without an event id": (
        repo(view(reads=source(tags={"dedup_horizon": "1h"}))),
        SOURCE + 'tag "dedup_horizon" is set, but no event id',
        'add the tag "event_id" with the id column',
    ),
    "copies of one source that differ": (
        repo(view(), view(name="other", reads=source(servers="elsewhere:9092"))),
        SOURCE + 'feature view "other" sees it with other columns, tags or address than other views do',
        "apply the repo as a whole",
    ),
    "service of a view that is not registered": (
        repo(view(), services=[service(projection("activty"))]),
        SERVICE + ': feature view "activty" is not registered',
        'did you mean "activity"?',
    ),
    "service whose shadow is not registered": (
        repo(view(), services=[service(projection(), shadow="modle_next"), service(projection(), name="model_next")]),
        f'{SERVICE}: its shadow "modle_next" is not registered',
        "model_next",
    ),
    "service whose shadow wants a key that it does not": (
        repo(
            view(),
            view(name="other", entities=["market"]),
            entities=[CARD, RegisteredEntity("market", "market", "STRING")],
            services=[service(projection(), shadow="next"), service(projection("other"), name="next")],
        ),
        f'{SERVICE}: its shadow "next" wants join key "market" (string), which requests to it do not have',
        'ask "model" for something that reads it',
    ),
    "service that is its own shadow": (
        repo(view(), services=[service(projection(), shadow="model")]),
        f"{SERVICE}: it is its own shadow",
        "name another service",
    ),
    "service of a feature that the view does not have": (
        repo(view(), services=[service(projection("activity", "totals"))]),
        SERVICE + ', feature "totals": feature view "activity" has no such feature',
        'did you mean "total"?',
    ),
    "service that lists a feature twice": (
        repo(view(), services=[service(projection("activity", "total", "total"))]),
        SERVICE + ', feature "total": it is listed 2 times of "activity"',
        "list it once",
    ),
    "service that takes a view twice": (
        repo(view(), services=[service(projection(), projection())]),
        SERVICE + ', feature "activity__total": 2 features would have that name in the answer',
        "give one view an alias by with_name()",
    ),
}


UNHANDLED = {
    "entity of a type that is no key": (
        repo(view(entities=["ratio"]), entities=[CARD, RegisteredEntity("ratio", "ratio", "DOUBLE")]),
        'it has entity "ratio" of type DOUBLE, and keys are STRING or INT64',
    ),
    "view without entity": (repo(view(entities=[])), "it has no entity"),
    "view of too many entities": (repo(view(entities=["card_entity"] * 9)), "it has more than 8 entities"),
    "view with a name that is too long": (repo(view(name="n" * 201)), "it has a name of more than 200 characters"),
    "source that is no stream": (
        repo(view(reads=source(kind="PUSH_SOURCE"))),
        "it reads a source of kind PUSH_SOURCE, not a stream of events",
    ),
    "Avro of which nobody says what to read": (
        repo(view(reads=source(message_format="avro_format"))),
        'it reads messages of avro_format without the tag "columns", which says what of them',
    ),
    "Protobuf of which nobody says what to read": (
        repo(view(reads=source(message_format="proto_format"))),
        'it reads messages of proto_format without the tag "columns", which says what of them',
    ),
    "function before aggregating": (
        repo(view(has_function=True)),
        "it transforms events by a function before aggregating",
    ),
    "service without features": (repo(view(), services=[service()]), "it has no features, or a view without any"),
}
"""Legal in Feast, but not done here."""


@pytest.mark.parametrize(("registered", "fact", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_reported_with_place_and_remedy(registered: RegisteredRepo, fact: str, remedy: str) -> None:
    """Every kind of mistake names the object, says what is wrong and what to write instead."""
    texts = [str(problem) for problem in compile_repo(registered).problems]

    matching = [text for text in texts if fact in text]
    assert len(matching) == 1, texts
    assert remedy in matching[0]


@pytest.mark.parametrize(("registered", "fact"), UNHANDLED.values(), ids=UNHANDLED.keys())
def test_what_is_legal_but_not_done_here_is_noted(registered: RegisteredRepo, fact: str) -> None:
    """It is left out and told, and is no reason to stop everything else: stream and server start."""
    beside = view(name="beside")
    compilation = compile_repo(replace(registered, stream_views=(*registered.stream_views, beside)))

    assert () == compilation.problems
    assert "beside" in [each.name for each in compilation.spec.views]
    assert 1 == sum(fact in note for note in compilation.notes)


def test_two_types_of_one_join_key_keep_a_service_from_being_served() -> None:
    """Feast allows two entities with one join key; a lookup could not tell which of them is meant."""
    other = RegisteredEntity("other", "card", "INT64")
    compilation = compile_repo(
        repo(
            view(),
            entities=[CARD, other],
            plain=[replace(plain_view(field("n"), name="other"), entities=("other",))],
            services=[service(projection(), projection("other", "n"), name="both")],
        )
    )

    assert () == compilation.problems
    assert 'join key "card" is int64 in feature view "other" and string before' == compilation.unserved["both"]


@pytest.mark.parametrize("function", ["sum", "first"])
def test_a_sound_view_has_no_problems(function: str) -> None:
    """The records of these tests are sound unless one is told otherwise, so a reported mistake is the one meant."""
    compilation = compile_repo(repo(view([aggregation(function, slide_ns=MS_NS)]), services=[service(projection())]))

    assert compilation.problems == ()
    assert compilation.notes == ()


def test_all_mistakes_of_a_repo_are_reported_at_once() -> None:
    """An author sees every mistake in one go, and an error carries the whole list."""
    broken = repo(
        view([aggregation("summ"), aggregation(column="amuont", name="b")], [field(), field("b"), field("c")]),
        view([aggregation(slide_ns=2 * HOUR_NS)], name="hops"),
        services=[service(projection("nowhere"))],
    )
    compilation = compile_repo(broken)

    assert len(compilation.problems) == 5
    with pytest.raises(DefinitionError, match='project "test" has 5 problems') as caught:
        compilation.require_sound()
    assert len(caught.value.problems) == 5


def test_a_broken_view_is_left_out_and_its_services_are_not_blamed() -> None:
    """One mistake is one problem: a service of the broken view adds none, and everything else still compiles."""
    compilation = compile_repo(
        repo(
            view([aggregation("summ")]),
            view(name="sound"),
            services=[service(projection()), service(projection("sound"), name="fine")],
        )
    )

    assert len(compilation.problems) == 1
    assert [each.name for each in compilation.spec.views] == ["sound"]
    assert [each.name for each in compilation.spec.services] == ["fine"]


def test_columns_are_not_checked_against_a_source_that_cannot_be_read() -> None:
    """A wrong source is one problem, not one for every column that cannot be found in it."""
    problems = compile_repo(repo(view(reads=source(message_format="")))).problems

    assert len(problems) == 1


def test_an_entity_takes_its_type_from_the_schema_when_it_declares_none() -> None:
    """A join key's Field in the schema is as good as Entity(value_type=...)."""
    undeclared = RegisteredEntity("card_entity", "card", "INVALID")
    compilation = compile_repo(
        repo(view(fields=[field(), RegisteredField("card", "STRING", {})]), entities=[undeclared])
    )

    assert compilation.problems == ()
