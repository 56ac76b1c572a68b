"""What a feature means in one sentence: of every function, every kind of window, and told apart from every other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from featurestore.core.aggregations.catalog import names, phrase_of, resolve
from featurestore.core.spec import (
    CalendarUnit,
    Column,
    ComputedColumn,
    FeatureSpec,
    PlainViewSpec,
    ValueType,
    ViewSpec,
    Window,
)
from featurestore.core.windows.calendar_windows import calendar_window
from featurestore.core.windows.durations import duration_words, parse_duration_ms
from featurestore.core.windows.windows import session_window
from featurestore.definitions.compile.meaning import feature_sentence
from featurestore.testing.strategies import DAY_MS, SOURCE, feature_specs

HOUR_MS = 3_600_000
CARD_ID = Column("card_id", ValueType.STRING)
TRANSACTIONS = replace(SOURCE, name="transactions")


def view_of(*features: FeatureSpec) -> ViewSpec:
    """A view of cards with those features."""
    return ViewSpec("card_activity", (CARD_ID,), TRANSACTIONS, features, 90 * DAY_MS)


def sentence_of(window: Window, function: str = "count", column: str | None = None) -> str:
    """Of one feature of a card."""
    return feature_sentence(view_of(FeatureSpec("it", function, column, window, ValueType.INT64)), "it")


@pytest.mark.parametrize("function", names())
def test_every_function_of_the_catalog_has_words_for_all_that_it_is_given(function: str) -> None:
    """Column and arguments stand in the phrase, and nothing is left unfilled."""
    phrase = phrase_of(function, "market")

    assert "market" in phrase
    assert "{" not in phrase
    assert "None" not in phrase
    for further in resolve(function).further_columns:
        assert further in phrase
    for argument in function.partition("(")[2].rstrip(")").split(","):
        is_duration = argument == "15m"
        assert (duration_words(parse_duration_ms(argument)) if is_duration else argument.strip()) in phrase


@pytest.mark.parametrize("function", [name for name in names() if not resolve(name).requires_column])
def test_what_counts_events_says_so(function: str) -> None:
    """Without a column it is about events, with one about its values."""
    assert "event" in phrase_of(function, None)
    assert "None" not in phrase_of(function, None)
    assert phrase_of(function, None) != phrase_of(function, "market")


@given(left=feature_specs(), right=feature_specs())
def test_two_definitions_that_differ_read_differently(left: FeatureSpec, right: FeatureSpec) -> None:
    """The sentence leaves nothing out that decides about a value."""
    texts = [feature_sentence(view_of(replace(one, name="it")), "it") for one in (left, right)]
    meanings = [(one.function, one.column, one.window) for one in (left, right)]

    assert (texts[0] == texts[1]) == (meanings[0] == meanings[1])


@pytest.mark.parametrize(
    ("window", "words"),
    [
        (Window(7 * DAY_MS, HOUR_MS), "over 7 days, exact to 1 h at the old end"),
        (Window(5_400_000, 1), "over 1 h 30 min, exact to 1 ms at the old end"),
        (Window(None), "over all time"),
        (Window(DAY_MS, HOUR_MS, 7 * DAY_MS), "over the 1 day that ended 7 days before, exact to 1 h at both ends"),
        (
            Window(HOUR_MS, 60_000, 0, 24),
            "in each of 24 windows of 1 h in a row, exact to 1 min at their ends",
        ),
        (
            Window(HOUR_MS, 60_000, DAY_MS, 2),
            "in each of 2 windows of 1 h in a row that ended 1 day before, exact to 1 min at their ends",
        ),
        (calendar_window(CalendarUnit.MONTH, "Europe/Berlin"), "since the month began in Europe/Berlin"),
        (
            session_window(1_800_000),
            "in the session that is open, with no silence longer than 30 min, of at most 1 day to 15 min",
        ),
    ],
)
def test_every_kind_of_window_has_its_words(window: Window, words: str) -> None:
    """Length, hop, offset, zone and gap, in full."""
    assert sentence_of(window) == f"number of events in the transactions of a card_id {words}"


def test_conditions_of_view_and_feature_both_count() -> None:
    """And so do events that take others back."""
    feature = FeatureSpec("it", "sum", "amount", Window(None), ValueType.INT64, "NOT is_declined")
    view = replace(view_of(feature), where="market = 'DE'", undo="is_declined")
    alone = replace(view, where="", undo="")

    assert feature_sentence(alone, "it") == (
        "sum of amount in the transactions of a card_id over all time; only where NOT is_declined"
    )
    assert feature_sentence(view, "it") == (
        "sum of amount in the transactions of a card_id over all time; "
        "only where (market = 'DE') AND (NOT is_declined); where is_declined an event takes an earlier one back"
    )


def test_entities_of_several_keys_and_of_none() -> None:
    """A pair is named by both keys; a view without an entity is about everybody."""
    feature = FeatureSpec("it", "count", None, Window(None), ValueType.INT64)
    pair = replace(view_of(feature), join_keys=(CARD_ID, Column("merchant_id", ValueType.INT64)))
    everybody = replace(view_of(feature), join_keys=())

    assert feature_sentence(pair, "it") == (
        "number of events in the transactions of a card_id and merchant_id over all time"
    )
    assert feature_sentence(everybody, "it") == "number of events in all transactions over all time"


def test_what_is_not_kept_in_tiles_says_where_it_comes_from() -> None:
    """A derived feature is its expression, a materialized one its column and how long it holds."""
    view = replace(view_of(), derived=(ComputedColumn("ratio", ValueType.FLOAT64, "a / b"),))
    profile = PlainViewSpec("profile", (CARD_ID,), (Column("risk", ValueType.STRING),), ttl_ms=7 * DAY_MS)

    assert feature_sentence(view, "ratio") == "a / b, of a card_id, computed when it is read"
    assert feature_sentence(profile, "risk") == "risk of a card_id as it was materialized, for 7 days after"
    assert feature_sentence(replace(profile, ttl_ms=None), "risk") == "risk of a card_id as it was materialized"
