"""What is expected of a source's records: SQL in its tags, checked by the plan, part of what views mean or not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from feast import KafkaSource

from featurestore.core.spec import Expectation, Measure, OnFail, UsualHours, ViewSpec
from featurestore.definitions.compile.repo import Compilation, compile_repo
from featurestore.definitions.compile.storage_groups import plan_storage, storage_group
from featurestore.errors import InvalidRequest
from featurestore.features import (
    ExpectedOfHours,
    ExpectedOfRecords,
    expect,
    kafka_source,
    null_share,
    one_of,
    usual_lateness,
    usual_volume,
)
from featurestore.wire.codecs.view_json import decode_view, definition_hash, encode_view
from tests.definitions.records import repo, source, view

POSITIVE, CHEAP = "dead_letter: amount > 0", "dead_letter: amount < 100"

MISTAKES: Mapping[str, tuple[Mapping[str, str], str, str]] = {
    "a mistake in the SQL": ({"expect.x": "count: amuont > 0"}, 'expectation "x": ', "amount"),
    "no condition": ({"expect.x": "count: amount + 1"}, 'expectation "x" is of type int64, not a condition', "true"),
    "nothing": ({"expect.x": "count: "}, 'expectation "x" has no condition', "dead_letter: amount >= 0"),
    "nothing to do": ({"expect.x": "amount > 0"}, 'expectation "x" is "amount > 0"', "dead_letter: amount >= 0"),
    "something else to do": ({"expect.x": "stop: ok"}, 'expectation "x" is "stop: ok"', "count at most"),
    "no share": ({"expect.x": "count at most 2%: ok"}, "at most 2% of the records may fail", "from 0 to 1"),
    "more than all": ({"expect.x": "count at most 1.5: ok"}, "at most 1.5 of the records may fail", "from 0 to 1"),
    "no name": ({"expect.": "count: ok"}, "its name is not of 1 to 200 characters", "rename it"),
    "too many": ({f"expect.{n}": "count: ok" for n in range(101)}, "it has 101 expectations, at most 100", "join some"),
}


@pytest.mark.parametrize(("tags", "fact", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_in_an_expectation_is_reported_once_with_its_remedy(
    tags: Mapping[str, str], fact: str, remedy: str
) -> None:
    """However many views read the source."""
    texts = [str(one) for one in compile_repo(repo(view(reads=source(tags=tags)))).problems]

    assert 1 == len(texts), texts
    assert texts[0].startswith('source "payments": ')
    assert fact in texts[0]
    assert remedy in texts[0]


def test_expectations_are_compiled_by_name_whatever_they_do() -> None:
    """Canonical SQL, and the share of records that may fail."""
    tags = {"expect.b": "count at most 0.02: market IS NOT NULL", "expect.a": "dead_letter:amount>0"}

    assert compiled(tags).spec.expectations == (
        Expectation("payments", "a", "amount > 0", OnFail.DEAD_LETTER, 0.0),
        Expectation("payments", "b", "market IS NOT NULL", OnFail.COUNT, 0.02),
    )


def test_what_makes_dead_letters_is_part_of_what_views_mean_and_what_counts_is_not() -> None:
    """A rule that is only counted begins no generation; one that leaves records out does, whatever it is called."""
    plain = hash_with({})

    assert plain == hash_with({"expect.a": "count: amount > 0", "expect.b": "count at most 0.5: ok"})
    assert plain != hash_with({"expect.a": POSITIVE})
    assert hash_with({"expect.a": POSITIVE}) == hash_with({"expect.z": POSITIVE, "expect.a": "count: ok"})
    both = hash_with({"expect.a": POSITIVE, "expect.b": CHEAP})
    assert both == hash_with({"expect.a": CHEAP, "expect.b": POSITIVE})
    assert both != hash_with({"expect.a": POSITIVE})


def test_a_stored_definition_keeps_its_contract() -> None:
    """A generation goes on as it was begun; one of an older release has none."""
    [strict] = compiled({"expect.a": POSITIVE}).spec.views

    assert "amount > 0" == strict.required
    assert strict == decode_view(encode_view(strict))
    assert "" == decode_view(encode_view(strict).replace(b',"required":"amount > 0"', b"")).required


def test_views_of_one_contract_share_storage_without_conditions_of_their_own() -> None:
    """What all of them leave out needs no flag in heads; a version from before the contract is stored elsewhere."""
    tags = {"expect.a": POSITIVE}
    one, other = (compiled(tags, name).spec.views[0] for name in ("one", "other"))
    before = compiled({}, "before").spec.views[0]

    plan = plan_storage([one, other, before])

    [(name, members)] = plan.groups.items()
    group = storage_group(name, members)
    assert (before,) == plan.apart
    assert ("", "amount > 0") == (group.where, group.required)
    assert {""} == {feature.where for feature in group.features}


def test_copies_of_a_source_that_differ_in_what_is_expected_are_a_mistake() -> None:
    """As for everything else of a source: the stream is read once for all views."""
    expected = {"a": "count: ok", "b": POSITIVE}
    views = [view(name=name, reads=source(tags={"expect.a": text})) for name, text in expected.items()]
    [problem] = compile_repo(repo(*views)).problems

    assert 'source "payments": feature view "b" sees it with other expectations' in str(problem)


def test_helpers_write_tags() -> None:
    """The SQL that an author would write, under names that people read."""
    written = tags_of(
        expect("amount >= 0", on_fail="dead_letter"),
        expect("amount < 1e6", on_fail="count", name="plausible", at_most=0.001),
        null_share("card.bin", at_most=0.02),
        one_of("channel", ["chip", "it's"], on_fail="count"),
        one_of("state", [1, 2], on_fail="dead_letter", name="known state"),
        usual_volume(at_least=0.5, at_most=2),
        usual_lateness(at_most=3),
    )

    assert written == {
        "expect.amount >= 0": "dead_letter: amount >= 0",
        "expect.plausible": "count at most 0.001: amount < 1e6",
        "expect.card.bin is not null": 'count at most 0.02: "card.bin" IS NOT NULL',
        "expect.channel is known": "count: \"channel\" IN ('chip', 'it''s')",
        "expect.known state": 'dead_letter: "state" IN (1, 2)',
        "usual_hour.lateness": "0 to 3",
        "usual_hour.volume": "0.5 to 2",
    }


def test_what_is_usual_is_said_by_two_factors() -> None:
    """No view means anything else for it; what is no factor is a mistake by tag."""
    tags = {"usual_hour.volume": "0.5 to 2"}
    assert compiled(tags).spec.usual_hours == (UsualHours("payments", Measure.VOLUME, 0.5, 2.0),)
    assert hash_with(tags) == hash_with({})
    wrong = {"usual_hour.volume": "2 to 0.5", "usual_hour.lateness": "3", "usual_hour.size": "0 to 1"}
    facts = [str(one) for one in compile_repo(repo(view(reads=source(tags=wrong)))).problems]
    assert ['is "3"', 'is about "size"', 'is "2 to 0.5"'] == [
        part for one in facts for part in ('is "3"', 'is about "size"', 'is "2 to 0.5"') if part in one
    ]


def test_two_expectations_of_one_name_are_refused_where_they_are_written() -> None:
    """One of them would be lost."""
    with pytest.raises(InvalidRequest, match='source "s" has two expectations called "ok"'):
        tags_of(expect("ok", on_fail="count"), expect("ok", on_fail="dead_letter"))


def compiled(tags: Mapping[str, str], name: str = "activity") -> Compilation:
    """A repo of one view."""
    found = compile_repo(repo(view(name=name, reads=source(tags=tags))))
    assert () == found.problems
    return found


def hash_with(tags: Mapping[str, str]) -> str:
    """Of the view, with these tags of its source."""
    [spec] = compiled(tags).spec.views
    assert isinstance(spec, ViewSpec)
    return definition_hash(spec)


def tags_of(*expectations: ExpectedOfRecords | ExpectedOfHours) -> dict[str, str]:
    """What the helper writes."""
    made: KafkaSource = kafka_source(
        name="s", topic="t", columns={"ok": "boolean"}, event_time="ok", expectations=expectations
    )
    return {tag: text for tag, text in made.tags.items() if tag.startswith(("expect.", "usual_hour."))}
