"""The unit of an event-time column, from the author's word to the source that streams read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from featurestore.core.spec import SourceSpec
from featurestore.definitions.authoring import kafka_source
from featurestore.definitions.compile.repo import compile_repo
from featurestore.errors import DefinitionError
from tests.definitions.records import repo, source, view


def compiled(**given: object) -> SourceSpec:
    """A source as a view embeds it."""
    (found,) = compile_repo(repo(view(reads=source(**given)))).require_sound().views  # type: ignore[arg-type]  # passed on
    return found.source


def test_a_tag_of_the_source_says_the_unit_and_milliseconds_are_the_rule() -> None:
    """The helper writes the tag, and none where nothing is declared."""
    columns = {"at": "bigint"}
    told = kafka_source(name="p", topic="p", columns=columns, event_time="at", event_time_unit="s")
    untold = kafka_source(name="p", topic="p", columns=columns, event_time="at")

    assert compiled(tags=told.tags).event_time_unit == "s"
    assert compiled(tags=untold.tags).event_time_unit == "ms"
    assert untold.tags == {}


def test_a_unit_that_is_none_is_reported() -> None:
    """With those that there are."""
    with pytest.raises(DefinitionError) as raised:
        compiled(tags={"event_time_unit": "seconds"})

    assert 'source "payments": tag "event_time_unit" is "seconds"; write s, ms, us, ns' in str(raised.value)


def test_a_column_that_is_called_milliseconds_holds_no_others() -> None:
    """The event log has a column of that name for itself."""
    reads = source(
        tags={"event_time_unit": "us"},
        schema="event_time_ms bigint, amount bigint, card string",
        time="event_time_ms",
    )
    found = compile_repo(repo(replace(view(reads=reads), timestamp_field="event_time_ms")))

    [problem] = found.problems
    assert '"event_time_ms" is declared to hold microseconds' in str(problem)
