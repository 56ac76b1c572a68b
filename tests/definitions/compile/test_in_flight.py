"""Who counts the payment in flight: the tag of a Field, the helpers that write it, and what plan says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from feast import Entity, ValueType

from featurestore.core.aggregations.catalog import names, resolve
from featurestore.core.spec import ViewSpec
from featurestore.definitions.authoring import aggregate, count, kafka_source, stream_view
from featurestore.definitions.compile.repo import compile_repo
from featurestore.definitions.compile.storage_groups import plan_storage, storage_group
from featurestore.wire.codecs.view_json import decode_view, definition_hash, encode_view
from tests.definitions.records import aggregation, field, projection, repo, service, view


def compiled(tags: Mapping[str, str], function: str = "sum") -> ViewSpec:
    """A view with one feature."""
    compilation = compile_repo(repo(view([aggregation(function)], [field(tags=tags)])))
    assert () == compilation.problems
    return compilation.spec.views[0]


@pytest.mark.parametrize(
    ("function", "tags", "expected"),
    [
        ("sum", {}, True),
        ("sum", {"in_flight": "false"}, False),
        ("last", {}, False),
        ("last", {"in_flight": "true"}, True),
    ],
)
def test_the_tag_decides_and_else_the_function(function: str, tags: Mapping[str, str], expected: bool) -> None:
    """The answer survives the JSON in which generations keep their definitions."""
    spec = compiled(tags, function)

    assert expected is spec.features[0].in_flight
    assert spec == decode_view(encode_view(spec))


def test_only_what_tells_of_the_newest_event_leaves_the_payment_out() -> None:
    """The last market before this payment is worth knowing; that of the payment is known already."""
    left_out = [name.partition("(")[0] for name in names() if not resolve(name).counts_in_flight]

    assert ["last", "last_n", "last_distinct_n", "last_event_time", "time_since_last", "last respect nulls"] == left_out


@pytest.mark.parametrize(
    ("tags", "fact", "remedy"),
    [
        ({"in_flight": "no"}, 'tag "in_flight" is "no"', 'write "true" or "false"'),
        ({"in_flight": "true", "offset": "7d"}, "its window ends before the payment", 'remove the tag "in_flight"'),
    ],
)
def test_a_tag_that_cannot_be_meant_is_reported(tags: Mapping[str, str], fact: str, remedy: str) -> None:
    """With the place and what to write instead."""
    [problem] = compile_repo(repo(view(fields=[field(tags=tags)]))).problems

    assert fact in str(problem)
    assert remedy in str(problem)


def test_helpers_write_the_tag_where_the_author_says_something() -> None:
    """A view made by helpers has no more tags than one that is written by hand."""
    made = stream_view(
        name="activity",
        entities=[Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING)],
        source=kafka_source(
            name="payments", topic="payments", columns={"at": "timestamp", "card_id": "string"}, event_time="at"
        ),
        features=[
            *count(over="1m", in_flight=False),
            *count(over="1h"),
            *aggregate("at", "last", over="1h", in_flight=True),
        ],
    )

    tags = {field.name: field.tags for field in made.schema}  # which Feast keeps in no order
    expected = [{"in_flight": "false"}, {}, {"in_flight": "true"}]
    assert expected == [tags[name] for name in ("count_1m", "count_1h", "at_last_1h")]


def test_nothing_that_is_stored_depends_on_it() -> None:
    """A feature that counts the payment from now on needs no new generation, alone or in a storage group."""
    counting = compiled({"in_flight": "true"})
    other = compiled({"in_flight": "false"})
    companion = replace(counting, name="other", where="amount > 5")

    assert definition_hash(counting) == definition_hash(other)
    groups = [
        storage_group(name, members)
        for one in (counting, other)
        for name, members in plan_storage([one, companion]).groups.items()
    ]
    assert 2 == len(groups)
    assert definition_hash(groups[0]) == definition_hash(groups[1])
    assert groups[0].features == groups[1].features


@pytest.mark.parametrize(
    ("said", "function", "tags", "expected"),
    [
        ({}, "sum", {}, True),
        ({"in_flight": "false"}, "sum", {}, False),
        ({"in_flight": "false"}, "sum", {"in_flight": "true"}, True),
        ({"in_flight": "true"}, "last", {}, True),
        ({"in_flight": "true"}, "last", {"in_flight": "false"}, False),
    ],
)
def test_a_service_chooses_for_features_that_leave_it_open(
    said: dict[str, str], function: str, tags: Mapping[str, str], expected: bool
) -> None:
    """The word of the Field goes before that of the service, and that before what the function does."""
    compilation = compile_repo(
        repo(view([aggregation(function)], [field(tags=tags)]), services=[service(projection(), **said)])
    )

    assert () == compilation.problems
    registered = compilation.spec
    asked = registered.counting_as(registered.service("model"))
    assert expected is asked.views[0].features[0].in_flight
    assert definition_hash(registered.views[0]) == definition_hash(asked.views[0])


def test_what_a_service_says_must_be_true_or_false() -> None:
    """Anything else is reported by the name of the service."""
    [problem] = compile_repo(repo(view(), services=[service(projection(), in_flight="no")])).problems

    assert 'feature service "model": tag "in_flight" is "no"; write "true" or "false"' == str(problem)
