"""A busy merchant: distinct counts beyond their bound, through tiles, compactions, bodies, lookups and history.

cards       a new one every few seconds, for a day
windows     10 min, 1 h: exact        6 h, 4 d, lifetime: more than a thousand, so an estimate
tiles       whole where they are narrow, registers where they are 6 h wide
"""

from __future__ import annotations

import pytest

from featurestore.core.spec import Column, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.core.tiles.tiles import TileTable, concatenate
from featurestore.core.view import CompiledView
from featurestore.testing.answers import answer_values
from featurestore.testing.oracle.naive import NaiveEvent, NaiveValue
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE
from featurestore.wire.codecs.body import decode_entity, encode_body
from tests.core.test_point_in_time import point_in_time
from tests.core.test_tiles_against_naive import assert_answers, by_start, fold, roll_up

MINUTE_MS = 60_000
WINDOWS = (
    Window(10 * MINUTE_MS, MINUTE_MS),
    Window(60 * MINUTE_MS, MINUTE_MS),
    Window(360 * MINUTE_MS, 15 * MINUTE_MS),
    Window(4 * DAY_MS, 360 * MINUTE_MS),
    Window(None),
)
COUNT = 6_000
STEP_MS = 14_007
"""Between two payments: the windows hold 43, 257, 1,543 and up to 6,000 of them."""


def view_of(column: str) -> ViewSpec:
    """Counts of a column in all windows, beside a function of the same multiset that ends at the bound."""
    features = [
        FeatureSpec(f"{function}_{number}", function, column, window, kind)
        for number, window in enumerate(WINDOWS)
        for function, kind in (("count_distinct(100)", ValueType.INT64), ("entropy(1000)", ValueType.FLOAT64))
    ]
    return ViewSpec("v", (Column("card_id", ValueType.STRING),), SOURCE, tuple(features), None, 10 * MINUTE_MS)


def payments(column: str) -> list[NaiveEvent]:
    """One value each, every seventh one seen before."""
    numbers = [index if index % 7 else index // 2 for index in range(COUNT)]
    values: dict[str, list[NaiveValue]] = {
        "amount": [number * 7_919 - 10**6 for number in numbers],
        "price": [number / 8 - 100.0 for number in numbers],
        "market": [f"merchant-{number:06}" for number in numbers],
        "opened_at": [ANCHOR_MS - number for number in numbers],
    }
    return [
        NaiveEvent(b"c", ANCHOR_MS + index * STEP_MS, b"%06d" % index, {column: value})
        for index, value in enumerate(values[column])
    ]


@pytest.mark.parametrize("column", ["amount", "price", "market", "opened_at"])
def test_a_busy_entity_is_counted_like_the_oracle_counts_it(column: str) -> None:
    """After each of several compactions, through the bytes of its body; history says the same at each moment."""
    compiled, events = CompiledView(view_of(column)), payments(column)
    table, done, asks, answers = compiled.layout.empty(), 0, [], []
    for size in (900, 1_600, 100, 3_000, 400):
        table = concatenate([table, fold(compiled, events[done : done + size])])
        done += size
        newest_ms = events[done - 1].event_time_ms
        table = through_bytes(compiled, roll_up(compiled, by_start(table), newest_ms))
        assert_answers(compiled, table, events[:done], newest_ms - 5 * MINUTE_MS)
        assert_answers(compiled, table, events[:done], newest_ms + 1)
        asks.append((b"c", newest_ms + 1))
        answers.append([*answer_values(compiled.spec, compiled.answer(table, newest_ms + 1)).values()])
    sizes = [len(state) for state in table.blobs.row(0).values()]

    assert [4_097, 4_097] == sizes[:2]
    assert max(sizes[10:]) < 4_097
    assert answers == point_in_time(compiled.spec, events, asks)
    assert [False, False, True, True, True] == [answer is None for answer in answers[-1][1::2]]


def test_arrival_and_tiling_do_not_show_in_an_estimate() -> None:
    """The same payments in two orders, compacted at other times, leave equal bytes for the oldest and widest tile."""
    compiled, events = CompiledView(view_of("market")), payments("market")
    newest_ms = events[-1].event_time_ms
    at_once = roll_up(compiled, by_start(fold(compiled, events)), newest_ms)
    table = compiled.layout.empty()
    for start in range(7):
        some = events[start::7][::-1]
        table = concatenate([table, fold(compiled, some)])
        table = roll_up(compiled, by_start(table), max(event.event_time_ms for event in some))
    table = roll_up(compiled, by_start(table), newest_ms)

    assert encode_body(at_once) == encode_body(table)


def through_bytes(compiled: CompiledView, table: TileTable) -> TileTable:
    """The tiles as a reader of the body gets them."""
    return decode_entity(compiled, encode_body(table), None)
