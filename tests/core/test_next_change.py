"""When a value changes by itself, because a window slid: held against the oracle at every moment in between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.aggregations.catalog import names, resolve
from featurestore.core.spec import CalendarUnit, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.core.view import CompiledView
from featurestore.core.windows.calendar_windows import calendar_window
from featurestore.core.windows.windows import session_window
from featurestore.testing.oracle.naive import NaiveEvent, naive_found, naive_value
from featurestore.testing.strategies import ANCHOR_MS, SOURCE, StreamCase, stream_cases
from tests.core.test_tiles_against_naive import by_start, distinct, fold, roll_up

CHANGES_FOLLOWED_MAX = 10
DAY_MS = 86_400_000


def values_at(view: ViewSpec, events: list[NaiveEvent], as_of_ms: int) -> list[object]:
    """What the oracle answers, of features that do not age."""
    found = naive_found(view, events, as_of_ms)
    lasting = [feature for feature in view.features if not resolve(feature.function).ages]
    return [found, *(repr(naive_value(feature, events if found else (), as_of_ms)) for feature in lasting)]


def assert_constant_between_changes(view: ViewSpec, events: list[NaiveEvent], as_of_ms: int) -> list[int]:
    """Follow the changes from a moment on; returns them."""
    compiled = CompiledView(view)
    table = by_start(fold(compiled, events))
    changes: list[int] = []
    rng = np.random.default_rng(as_of_ms & 0xFFFF)
    while len(changes) < CHANGES_FOLLOWED_MAX:
        following = compiled.next_change_ms(table, as_of_ms)
        end_ms = as_of_ms + 800 * DAY_MS if following is None else following
        assert end_ms > as_of_ms
        between = {end_ms - 1, *rng.integers(as_of_ms, end_ms, size=2).tolist()}
        assert [values_at(view, events, moment) for moment in between] == [values_at(view, events, as_of_ms)] * len(
            between
        )
        if following is None:
            break
        changes.append(following)
        as_of_ms = following
    return changes


@pytest.mark.parametrize("function", names())
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_nothing_changes_before_the_next_change(function: str, data: st.DataObject) -> None:
    """Of any function, over any windows, from any moment on; rolled-up tiles may say an earlier one, never a later."""
    case: StreamCase = data.draw(stream_cases(functions=(function,)))
    key = case.events[0].key if case.events else b""
    events = distinct([event for event in case.events if event.key == key])
    for as_of_ms in case.as_of_ms[:1]:
        assert_constant_between_changes(case.view, events, as_of_ms)
    if not events:
        return
    compiled = CompiledView(case.view)
    newest_ms = max(event.event_time_ms for event in events)
    rolled = by_start(roll_up(compiled, fold(compiled, events), newest_ms))
    whole = compiled.next_change_ms(by_start(fold(compiled, events)), newest_ms)
    found = compiled.next_change_ms(rolled, newest_ms)
    assert found == whole or (found is not None and whole is not None and found <= whole)


def test_each_kind_of_window_says_when() -> None:
    """A count of ten seconds on a grid of five; an offset; a day in Berlin; a session; events to come."""
    for window, expected in (
        (Window(10_000, 5_000), [15_000]),
        (Window(10_000, 5_000, offset_ms=10_000), [15_000, 25_000]),
        (session_window(3_000), [4_001]),
    ):
        view = ViewSpec("v", (), SOURCE, (FeatureSpec("n", "count", None, window, ValueType.INT64),), 100 * DAY_MS)
        events = [NaiveEvent(b"k", ANCHOR_MS + 1_000, b"1", {})]
        changes = [at - ANCHOR_MS for at in assert_constant_between_changes(view, events, ANCHOR_MS + 1_001)]
        assert set(expected) <= set(changes), (window, changes)
    day = calendar_window(CalendarUnit.DAY, "Europe/Berlin")
    view = ViewSpec("v", (), SOURCE, (FeatureSpec("n", "count", None, day, ValueType.INT64),), 100 * DAY_MS)
    for at_ms in (1_774_738_800_000 + 1, 1_792_879_200_000 + 5):  # the days of 23 and of 25 hours of 2026
        changes = assert_constant_between_changes(view, [NaiveEvent(b"k", at_ms, b"1", {})], at_ms + 1)
        assert (at_ms - changes[0]) % DAY_MS != 0
    ahead = [NaiveEvent(b"k", ANCHOR_MS + 5, b"1", {})]
    assert ANCHOR_MS + 6 == assert_constant_between_changes(view, ahead, ANCHOR_MS)[0]


def test_what_is_over_lifetime_never_changes_by_itself() -> None:
    """Nor does an entity without events."""
    view = ViewSpec("v", (), SOURCE, (FeatureSpec("n", "count", None, Window(None), ValueType.INT64),), None)
    compiled = CompiledView(view)
    table = fold(compiled, [NaiveEvent(b"k", ANCHOR_MS, b"1", {})])

    assert compiled.next_change_ms(table, ANCHOR_MS + 1) is None
    assert compiled.next_change_ms(compiled.layout.empty(), ANCHOR_MS) is None
