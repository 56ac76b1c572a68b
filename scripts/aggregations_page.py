"""Write docs/aggregations.md from the catalog: every function, what it takes and answers, and what a tile of it costs.

python scripts/aggregations_page.py            writes the page; a test holds the page against the code
"""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np

from featurestore.core.aggregations.base import Aggregation
from featurestore.core.aggregations.catalog import (
    BY_EXAMPLES,
    CATALOG,
    NULL_EXAMPLES,
    OVER_EXAMPLES,
    CatalogEntry,
    resolve,
)
from featurestore.core.aggregations.keyed.by_key import KEYS_DEFAULT
from featurestore.core.aggregations.ordered.event_lists import ENTRIES_MAX
from featurestore.core.aggregations.ordered.newest_events import FUNCTIONS
from featurestore.core.aggregations.parameters import signature
from featurestore.core.lowering.lowering import Lowering
from featurestore.core.lowering.view_input import FeatureFields, LoweredView
from featurestore.core.spec import SCALAR_TYPES, Column, FeatureSpec, ValueType, Window
from featurestore.core.tiles.parts import EventRows
from featurestore.core.tiles.tiles import TileLayout
from featurestore.testing.batches import event_columns
from featurestore.testing.oracle.naive import NaiveEvent, NaiveValue
from featurestore.wire.codecs.body import encode_body

PAGE = Path(__file__).resolve().parents[1] / "docs" / "aggregations.md"

TILES = 100
"""Tiles of the body that is measured."""

AMOUNT = Column("amount", ValueType.INT64)
_HOUR_MS = 3_600_000

_INTRODUCTION = """\
# Aggregations

Written by `python scripts/aggregations_page.py` from the catalog in `featurestore/core/aggregations/`; do not edit.

A function is the text in `Aggregation(function=...)`, with its parameters. Null values of the column are skipped, and
NaN is null. "Over nothing" is the answer when no event counts. Every function takes every kind of window
([a series](windows.md#series) only where a list can hold its answers), a `where` condition, late events and any order
of arrival.

**Exact** functions are held against a naive oracle of plain loops: integers to the bit, floats to 1e-9 of what was
added up. The others state their error; what is "exactly mergeable" gives the same answer online and from history.
**Can undo** says whether a view with an `undo` condition may have the function.

**Bytes a tile** are measured on a body of 100 tiles over an int64 amount (a currency code for functions of text), for
tiles of one event and of fifty, without the bits that say when each begins. Functions of one column share what they
have in common: count, sum, mean and stddev of one column are stored once, so a view costs less than the sum of its
rows.
A tile with more than max(bound, 1,000) distinct values takes 4,097 bytes for `count_distinct`, `histogram`, `mode` and
`entropy` of a column; one with too many keys takes one byte for a function by a secondary key.

| function | takes | answers | over nothing | exact | can undo | bytes a tile of 1 / of 50 events |
|---|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = "".join(_row(entry) for entry in CATALOG)
    return _INTRODUCTION + rows + "\n" + "\n".join(_section(entry) for entry in CATALOG) + "\n" + _made_of_others()


def _row(entry: CatalogEntry) -> str:
    """The table row of one function."""
    aggregation = resolve(entry.examples[0])
    answers = {kind: aggregation.output_type(kind) for kind in SCALAR_TYPES}
    taken = [kind for kind, answer in answers.items() if answer is not None]
    takes = ("" if aggregation.requires_column else "events, ") + ("any type" if len(taken) == 5 else ", ".join(taken))
    outputs = {answers[kind] for kind in taken}
    output = str(outputs.pop()) if len(outputs) == 1 else ("the column's type" if _keeps_type(answers) else "by type")
    cells = (
        f"[`{signature(entry.name, entry.parameters)}`](#{entry.name.replace(' ', '-')})",
        takes,
        output,
        _over_nothing(aggregation),
        _exactness(entry),
        "yes" if aggregation.is_invertible else "no",
        " / ".join(f"{_tile_bytes(aggregation, events):.0f}" for events in (1, 50)),
    )
    return "| " + " | ".join(cells) + " |\n"


def _section(entry: CatalogEntry) -> str:
    """What the function's own documentation says."""
    aggregation = resolve(entry.examples[0])
    text = inspect.getdoc(type(aggregation)) or ""
    more = (
        "" if aggregation.is_exactly_mergeable else "\n\nIts answer depends on the order of merging, within that bound."
    )
    return f"## {entry.name}\n\nFor example `{entry.examples[0]}`. {text.split('Args:')[0].strip()}{more}\n"


def _made_of_others() -> str:
    """What is no entry of the catalog, but made of them."""
    newest, nulls = (inspect.getdoc(type(resolve(one[0]))) or "" for one in (OVER_EXAMPLES, NULL_EXAMPLES))
    return (
        _secondary_key()
        + f"\n## Over the last events\n\nFor example `{OVER_EXAMPLES[0]}`, which the helpers write for "
        f'`over=last_events(3, within="30d")`: 1 to {ENTRIES_MAX} events. {newest} Ties of a millisecond are broken by '
        "event id. Nulls are skipped, so an event without a value is none of them.\n\n"
        f"Taken so: {', '.join(f'`{name}`' for name in FUNCTIONS)}. A tile keeps what `last_n` keeps, but for `count`, "
        "which keeps a count. None of them can take an event back.\n"
        f"\n## Respect nulls\n\nFor example `{NULL_EXAMPLES[0]}`, which the helpers write for "
        f"`ignore_nulls=False`; `first`, too. {nulls} No `where` of the feature goes with it; that of the view does.\n"
    )


def _secondary_key() -> str:
    """Functions by a further column."""
    text = inspect.getdoc(type(resolve(BY_EXAMPLES[0]))) or ""
    examples = ", ".join(f"`{example}`" for example in BY_EXAMPLES)
    return (
        f"## By a secondary key\n\nFor example {examples}: a function, a column and how many keys an answer may have "
        f"({KEYS_DEFAULT} by default). {text}\n\n"
        "Sums, counts, means, minima and maxima can be taken so; others are refused, with the reason.\n"
    )


def _exactness(entry: CatalogEntry) -> str:
    """Whether the answer is the value itself; most estimates say so in their name."""
    if entry.name == "count_distinct":
        return "up to `bound`"
    return "see below" if entry.name.startswith("approx_") or entry.name == "median" else "yes"


def _keeps_type(answers: dict[ValueType, ValueType | None]) -> bool:
    """Whether the answer has the type of the column."""
    return all(answer in (None, kind) for kind, answer in answers.items())


def _over_nothing(aggregation: Aggregation) -> str:
    """The answer over no events."""
    column = _column_for(aggregation)
    further = [Column(name, ValueType.INT64) for name in aggregation.further_columns]
    layout = TileLayout(aggregation.parts(column, further))
    parts = tuple(layout.position_of(part) for part in aggregation.parts(column, further))
    output = aggregation.output_type(None if column is None else column.type)
    assert output is not None
    spec = FeatureSpec("f", aggregation.name, None if column is None else column.name, Window(None), output)
    lowering = Lowering([LoweredView.of(layout, 1, [FeatureFields(spec, aggregation, parts, (0,))], [])])
    merged = lowering.gathered(1)
    lowering.gather_nothing(0, merged, 0)
    lowered = lowering.lower(merged, np.zeros(1, dtype=np.int64))
    if lowered.null[0, 0]:
        return "null"
    return str(lowered.objects[0][0]) if 0 in lowered.objects else f"{lowered.ints[0, 0] or lowered.floats[0, 0]:g}"


def _column_for(aggregation: Aggregation) -> Column | None:
    """The column that is measured: an amount, else a text."""
    if aggregation.output_type(ValueType.INT64) is not None and aggregation.name.split("(")[0].split()[0] != "mode":
        return AMOUNT
    return Column("market", ValueType.STRING)


def _tile_bytes(aggregation: Aggregation, events_a_tile: int) -> float:
    """Bytes of the fields of a tile, in a body of many."""
    column = _column_for(aggregation)
    assert column is not None
    further = [Column(name, ValueType.INT64) for name in aggregation.further_columns if name != column.name]
    every = [column, *further]
    rng = np.random.default_rng(7)
    events = [
        NaiveEvent(b"k", tile * _HOUR_MS + index * 60_000, b"%016x" % int(rng.integers(1 << 60)), _values(every, rng))
        for tile in range(TILES)
        for index in range(events_a_tile)
    ]
    by_name = {one.name: one for one in every}
    layout = TileLayout(aggregation.parts(column, [by_name[name] for name in aggregation.further_columns]))
    bare = _body_bytes(TileLayout([]), [], events, events_a_tile)
    return (_body_bytes(layout, every, events, events_a_tile) - bare) / TILES


def _body_bytes(layout: TileLayout, columns: list[Column], events: list[NaiveEvent], events_a_tile: int) -> int:
    """Size of the body of those events, an hour a tile."""
    times = np.array([event.event_time_ms for event in events], dtype=np.int64)
    ids = np.array([event.event_id for event in events], dtype=np.object_)
    lifted = layout.lift(EventRows(times, ids, event_columns(columns, events)))
    starts = np.arange(0, len(events), events_a_tile)
    hours = np.arange(TILES, dtype=np.int64) * _HOUR_MS
    return len(encode_body(lifted.merge_groups(starts, hours, hours + _HOUR_MS).normalize()))


def _values(columns: list[Column], rng: np.random.Generator) -> dict[str, NaiveValue | None]:
    """One event: an amount of some hundred euro in cents, a handful of countries."""
    amount = int(rng.lognormal(8.5, 1.2))
    market = str(rng.choice(["SE", "DE", "FR", "NO", "FI", "GB"]))
    return {column.name: market if column.type is ValueType.STRING else amount for column in columns}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
