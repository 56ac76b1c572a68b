"""The oracle itself, on timelines whose answers can be done in one's head."""

from __future__ import annotations

import math

import pytest

from featurestore.core.spec import CalendarUnit, Column, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.testing.oracle.events import Conditions
from featurestore.testing.oracle.naive import INT64_MAX, NaiveEvent, NaiveValue, naive_found, naive_value, naive_values
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.testing.strategies import SOURCE

CONDITIONS: Conditions = {"is_declined": lambda columns: columns["is_declined"] == 1}


def feature(function: str, window: Window, column: str | None = "amount", where: str = "") -> FeatureSpec:
    """A feature over `amount` unless told otherwise."""
    return FeatureSpec("feature", function, column, window, ValueType.INT64, where)


def event(event_time_ms: int, amount: NaiveValue | None, *, event_id: str = "") -> NaiveEvent:
    """An event of one card; the id is the time unless given."""
    return NaiveEvent(b"card", event_time_ms, (event_id or f"{event_time_ms:03d}").encode(), {"amount": amount})


def test_a_window_starts_on_its_hop_and_ends_exactly_before_the_read_time() -> None:
    """Sawtooth: the tail is floored to the hop, the head is exact and half-open.

    hop 5       |         |         |
    events      5:1  9:2  10:4  19:8   20:16
    t=20, w=10            [10 .......... 20)          -> 4 + 8
    t=19, w=10  [5 ................. 19)              -> 1 + 2 + 4
    """
    events = [event(5, 1), event(9, 2), event(10, 4), event(19, 8), event(20, 16)]
    window = Window(10, 5)

    assert naive_value(feature("sum", window), events, 20) == 4 + 8
    assert naive_value(feature("sum", window), events, 19) == 1 + 2 + 4
    assert naive_value(feature("sum", window), events, 21) == 4 + 8 + 16


def test_an_offset_window_has_both_edges_on_the_hop_grid() -> None:
    """floor(t - o - w, h) <= e < floor(t - o, h).

    hop 5, t=22, o=5, w=10: t - o = 17 -> [5, 15)
    """
    events = [event(4, 1), event(5, 2), event(14, 4), event(15, 8), event(16, 16)]

    assert naive_value(feature("sum", Window(10, 5, 5)), events, 22) == 2 + 4


def test_lifetime_reaches_back_to_the_first_event_but_never_to_the_read_time() -> None:
    """Lifetime is everything strictly before the read time."""
    events = [event(-(10**12), 1), event(5, 2), event(6, 4)]

    assert naive_value(feature("sum", Window(None)), events, 6) == 3


def test_a_calendar_window_begins_at_local_midnight() -> None:
    """Midnight of 1970-01-02 in Tokyo is 15:00 UTC of the day before.

    UTC hours   14:1  15:2  16:4            t = 17 -> [15 .. 17)
    """
    hour_ms = 3_600_000
    events = [event(14 * hour_ms, 1), event(15 * hour_ms, 2), event(16 * hour_ms, 4)]
    window = Window(24 * hour_ms, hour_ms, calendar=CalendarUnit.DAY, timezone="Asia/Tokyo")

    assert naive_value(feature("sum", window), events, 17 * hour_ms) == 2 + 4
    assert naive_value(feature("sum", window), events, 15 * hour_ms) == 0
    assert naive_value(feature("sum", window), events, 15 * hour_ms - 1) == 1


def test_a_session_reaches_back_to_the_first_long_silence() -> None:
    """Gap 5: neighbours may be 5 apart and no more, the newest event and the read time likewise.

    events      1:1     7:2  12:4  14:8       longest 10, hop 1
    t=15            [7 ........... 15)        -> 2 + 4 + 8
    t=19                [9 ........... 19)    -> 4 + 8, cut at the longest
    t=20                                      -> none is open
    """
    events = [event(1, 1), event(7, 2), event(12, 4), event(14, 8)]
    session = feature("sum", Window(10, 1, gap_ms=5))

    assert [naive_value(session, events, t) for t in (7, 8, 15, 19, 20)] == [0, 2, 14, 12, 0]


def test_a_series_is_a_list_of_windows_oldest_first() -> None:
    """Two windows of 10, hop 5, read at 20: [0, 10) and [10, 20)."""
    events = [event(5, 1), event(9, 2), event(10, 4), event(20, 8)]
    series = FeatureSpec("feature", "sum", "amount", Window(10, 5, series=2), ValueType.INT64_LIST)

    assert naive_value(series, events, 20) == [3, 4]


def test_a_null_in_a_series_is_nan_among_floats_and_no_answer_among_integers() -> None:
    """Nothing in [0, 10); an amount of 4 and one of 6 in [10, 20)."""
    events = [event(10, 4), event(15, 6)]
    means = FeatureSpec("means", "mean", "amount", Window(10, 5, series=2), ValueType.FLOAT64_LIST)
    sums = FeatureSpec("sums", "sum", "amount", Window(10, 5, series=2), ValueType.INT64_LIST)

    assert naive_value(means, events, 20) == pytest.approx([math.nan, 5.0], nan_ok=True)
    assert naive_value(sums, events, 20) == [0, 10]
    assert naive_value(sums, [*events, event(16, INT64_MAX)], 20) is None


def test_an_event_id_counts_once() -> None:
    """Duplicates of an id are ignored, wherever they arrive."""
    events = [event(1, 3, event_id="a"), event(2, 5, event_id="b"), event(1, 3, event_id="a")]

    assert naive_value(feature("sum", Window(None)), events, 10) == 8
    assert naive_value(feature("count", Window(None), None), events, 10) == 2


def test_a_condition_chooses_what_counts_but_not_where_a_session_begins() -> None:
    """Only declined events count; all of them are signs of life.

    events      1:1 declined    5:2     9:4 declined        gap 5, read at 12
    """
    events = [
        NaiveEvent(b"card", time_ms, b"%d" % time_ms, {"amount": amount, "is_declined": is_declined})
        for time_ms, amount, is_declined in ((1, 1, 1), (5, 2, 0), (9, 4, 1))
    ]

    for window, declined in ((Window(None), 5), (Window(10, 5), 5), (Window(5, 1), 4), (Window(100, 1, gap_ms=5), 5)):
        assert naive_value(feature("sum", window, where="is_declined"), events, 12, CONDITIONS) == declined
    with pytest.raises(KeyError, match="is_declined"):
        naive_value(feature("sum", Window(None), where="is_declined"), events, 12)


def test_an_undoing_event_counts_with_a_sign_of_minus_one() -> None:
    """+7 +5 -7 -5 -1, read before each and after the last; a mean needs more done than undone."""
    features = tuple(
        FeatureSpec(function, function, "amount", Window(None), ValueType.INT64)
        for function in ("count", "sum", "mean")
    )
    view = ViewSpec("v", (Column("card_id", ValueType.STRING),), SOURCE, features, None, undo="is_declined")
    events = [
        NaiveEvent(b"card", time_ms, b"%d" % time_ms, {"amount": amount, "is_declined": undoes})
        for time_ms, (amount, undoes) in enumerate(((7, 0), (5, 0), (7, 1), (5, 1), (1, 1)))
    ]

    assert [list(naive_values(view, events, t, CONDITIONS).values()) for t in range(6)] == [
        [0, 0, None],
        [1, 7, 7.0],
        [2, 12, 6.0],
        [1, 5, 5.0],
        [0, 0, None],
        [-1, -1, None],
    ]


def test_count_without_column_counts_rows_and_with_column_values() -> None:
    """Rows with a null in the column differ."""
    events = [event(1, 7), event(2, None)]

    assert naive_value(feature("count", Window(None), None), events, 10) == 2
    assert naive_value(feature("count", Window(None)), events, 10) == 1


def test_a_view_is_found_while_an_event_is_within_its_retention() -> None:
    """Retention is half-open like a window; the read time's own event does not count."""
    view = ViewSpec(
        "card_activity",
        (Column("card_id", ValueType.STRING),),
        SOURCE,
        (FeatureSpec("amount_sum", "sum", "amount", Window(10, 5), ValueType.INT64),),
        retention_ms=20,
    )

    assert [naive_found(view, [event(5, 1)], t) for t in (5, 6, 25, 26)] == [False, True, True, False]
    assert naive_values(view, [event(5, 1)], 6) == {"amount_sum": 1}


def test_retention_lies_on_a_grid_of_at_most_a_sixtieth() -> None:
    """An event at 5 ms is forgotten after a minute on a grid of a second; a millisecond less has a grid of 1 ms."""
    for retention_ms, found_last_ms in ((60_000, 60_999), (59_999, 60_004)):
        view = ViewSpec("v", (), SOURCE, (feature("sum", Window(10, 5)),), retention_ms)

        assert [naive_found(view, [event(5, 1)], found_last_ms + after_ms) for after_ms in (0, 1)] == [True, False]


def test_agreement_is_exact_for_integers_and_scaled_for_floats() -> None:
    """Floats may differ by rounding of what was added, integers by nothing."""
    price = feature("sum", Window(None), "price")
    events = [NaiveEvent(b"card", 1, b"a", {"price": -1e9}), NaiveEvent(b"card", 2, b"b", {"price": math.nan})]

    assert magnitude(price, events) == 1e9
    assert magnitude(feature("ewma_sum(1s)", Window(None), "price", "is_declined"), events, 1_001) == 5e8
    assert agrees(0.1, (1e9 + 0.1) - 1e9, scale=1e9)
    assert not agrees(0.1, (1e9 + 0.1) - 1e9)
    assert not agrees(INT64_MAX, INT64_MAX - 1, scale=1e19)
    assert not agrees(0.0, None, scale=1.0)
