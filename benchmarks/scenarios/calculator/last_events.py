"""last_events: functions of the ten newest events, and edges that may be null, beside the same over all of a window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.parts import applied_repo
from benchmarks.scenario import Line, Result, Run, digest, require
from benchmarks.scenarios.calculator.core import VIEW, keyed_events, tiles_of, timed
from benchmarks.workload import Workload, answer_text, make_workload
from featurestore.core.aggregations.catalog import resolve
from featurestore.core.spec import Column, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.core.tiles.parts import EventRows
from featurestore.core.tiles.tiles import TileTable
from featurestore.core.view import CompiledView
from featurestore.testing.answers import answer_values
from featurestore.testing.oracle.naive import NaiveAnswer, naive_values
from featurestore.testing.oracle.tolerance import agrees, magnitude
from featurestore.wire.codecs.body import decode_entity, encode_body
from featurestore.wire.codecs.head import head_codec

DAY_MS = 86_400_000
MONTH = Window(30 * DAY_MS, DAY_MS // 2)
AMOUNT = Column("amount", ValueType.INT64)
FUNCTIONS = ("sum", "mean", "max", "stddev_pop")

KINDS = {
    "4 functions over 30d": FUNCTIONS,
    "the same over last_events(10)": tuple(f"{name} over last_events(10)" for name in FUNCTIONS),
    "last over 30d": ("last",),
    "last respect nulls": ("last respect nulls",),
}
"""Views that are measured; each second one is compared with the one before it."""


def run(run: Run) -> Result:
    """Encode heads, roll events up, and answer, for each kind of view."""
    example = next(view for view in applied_repo(run.directory).spec.views if view.name == VIEW)
    workload = make_workload(0, cards=run.choose(smoke=30, full=1_000), merchants=200, days=90)
    card = workload.sample(VIEW, 3)[1]
    events = list({event.event_id: event for event in workload.naive_events(VIEW, card)}.values())
    as_of_ms = max(event.event_time_ms for event in events) + 1
    lines: list[Line] = []
    answers: list[str] = []
    before: tuple[float, ...] | None = None
    for name, functions in KINDS.items():
        view = _view(example, functions)
        found, answered = _measured(run, view, workload, card, as_of_ms)
        expected = naive_values(view, events, as_of_ms)
        for feature in view.features:
            pair = expected[feature.name], answered[feature.name]
            require(agrees(*pair, scale=magnitude(feature, events)), f"{feature.name}: oracle and core say {pair}")
        answers.append(answer_text(view, answered))
        what = ("encode heads", "lift and roll up", "body of a card", "decode it", "answer")
        units = ("us/event", "us/event", "bytes", "us", "us")
        ratios = (
            [None] * len(found) if before is None else [mine / its for mine, its in zip(found, before, strict=True)]
        )
        lines += [
            Line(f"{name}: {one}", value, unit, ratio, "" if ratio is None else "over the window")
            for one, value, unit, ratio in zip(what, found, units, ratios, strict=True)
        ]
        before = found if before is None else None
    return Result(
        scenario="last_events",
        question="What do the ten newest events cost, and nulls that are kept, beside the same function over a window?",
        lines=tuple(lines),
        answer_hash=digest(answers),
        checked=f"all features of a card of {len(events)} events equal the oracle's",
        notes=("A lookup of one card, without I/O; a body of 90 days.",),
    )


def _measured(
    run: Run, view: ViewSpec, workload: Workload, card: int, as_of_ms: int
) -> tuple[tuple[float, ...], dict[str, NaiveAnswer | None]]:
    """Microseconds to encode and roll up an event; bytes of a body, microseconds to decode and answer it; answers."""
    repeats, few = run.choose(smoke=5, full=2_000), run.choose(smoke=1, full=5)
    compiled, keyed = CompiledView(view), keyed_events(view, workload)
    rows = EventRows(keyed.event_time_ms, keyed.event_ids, keyed.columns)
    newest_ms = np.zeros(len(keyed.keys), dtype=np.int64)
    np.maximum.at(newest_ms, keyed.key_index, keyed.event_time_ms)

    def roll_up() -> TileTable:
        return compiled.roll_up.compact(compiled.layout.lift(rows), keyed.key_index, newest_ms).table

    _, encode_s = timed(lambda: head_codec(compiled).encode(rows), few)
    roll_up()  # a loop that is new is compiled
    _, roll_up_s = timed(roll_up, few)
    body = encode_body(tiles_of(compiled, keyed, str(workload.key(VIEW, card)).encode()))
    decoded, decode_s = timed(lambda: decode_entity(compiled, body, None), repeats)
    answer, answer_s = timed(lambda: compiled.answer(decoded, as_of_ms), repeats)
    per_event = 1e6 / len(workload.rows)
    figures = (encode_s * per_event, roll_up_s * per_event, float(len(body)), decode_s * 1e6, answer_s * 1e6)
    return figures, answer_values(view, answer)


def _view(example: ViewSpec, functions: tuple[str, ...]) -> ViewSpec:
    """A view of cards with those functions of the amount over 30 days."""
    features = []
    for number, name in enumerate(functions):
        output = resolve(name).output_type(AMOUNT.type)
        assert output is not None, "all of them take an amount"
        features.append(FeatureSpec(f"feature_{number}", name, AMOUNT.name, MONTH, output))
    return replace(example, features=tuple(features), derived=(), retention_ms=91 * DAY_MS)
