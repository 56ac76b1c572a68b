"""Training sets of labels and histories as they come: empty, null, repeated, encoded, chunked, of other types."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from featurestore.errors import InvalidRequest
from featurestore.offline.training_set.build import build_training_set
from featurestore.offline.training_set.histories import FileHistory
from tests.offline.training_set.label_tables import CARD, NOON_MS, PAIR, payments, repo_of

REPO = repo_of(CARD, PAIR)
HISTORY = payments(
    ("p1", 0, "c-1", 1, 50, "DE"),
    ("p2", 1_000, "c-1", 2, 150, "SE"),
    ("p3", 1_000, "c-2", 1, 70, None),
    ("p4", 2_000, None, 1, 70, "FI"),
)
LABELS = pa.table(
    {
        "card": ["c-1", "c-2", "c-1", None, "c-9"],
        "shop": [1, 1, 2, 1, 1],
        "event_timestamp": pa.array([NOON_MS + 3_000] * 5, pa.timestamp("ms", tz="UTC")),
    }
)
FEATURES = ["count_1h", "amount_1h", "market_last", "large_1h", "pair_count"]
EXPECTED: dict[str, list[object]] = {
    "count_1h": [2, 1, 2, None, 0],
    "amount_1h": [200, 70, 200, None, 0],
    "market_last": ["SE", None, "SE", None, None],
    "large_1h": [1, 0, 1, None, 0],
    "pair_count": [1, 1, 1, None, 0],
}
NOTHING = {name: [None] * 5 for name in FEATURES}


def answers(labels: pa.Table, history: pa.Table, **options: int) -> dict[str, list[object]]:
    """The features; labels are given back as they are."""
    found = build_training_set(REPO, "all", labels, history=FileHistory(history), **options)  # type: ignore[arg-type]  # numbers
    assert labels.equals(found.select(labels.column_names))
    assert [*labels.column_names, *FEATURES] == found.column_names
    return dict(found.select(FEATURES).to_pydict())


def recast(table: pa.Table, **types: pa.DataType) -> pa.Table:
    """The table with columns of other types."""
    for name, kind in types.items():
        column = table[name].dictionary_encode() if pa.types.is_dictionary(kind) else table[name].cast(kind)
        table = table.set_column(table.column_names.index(name), name, column)
    return table


ENCODED = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize("memory_bytes", [1 << 30, 1])
@pytest.mark.parametrize(
    ("of_labels", "of_history"),
    [
        ({}, {}),
        ({"card": ENCODED, "shop": pa.int16()}, {"card": ENCODED, "shop": pa.int32(), "market": ENCODED}),
        ({"card": pa.large_string()}, {"card": pa.large_string(), "payment_id": pa.large_string()}),
        ({"shop": pa.float64()}, {"amount": pa.int16(), "payment_id": ENCODED}),
        ({"card": pa.binary()}, {"card": pa.binary(), "market": pa.binary()}),
        ({"card": pa.large_binary()}, {"card": pa.string_view(), "market": pa.large_binary()}),
        ({"event_timestamp": pa.timestamp("ns", tz="Asia/Tokyo")}, {"paid_at": pa.timestamp("us")}),
    ],
    ids=["as they are", "dictionaries", "large", "narrow and pandas", "binary", "views and large binary", "times"],
)
def test_types_that_lose_nothing_are_understood(
    of_labels: dict[str, pa.DataType], of_history: dict[str, pa.DataType], memory_bytes: int
) -> None:
    """Dictionaries, large texts, narrow integers, and integers that pandas made floats for the sake of a null."""
    labels, history = recast(LABELS, **of_labels), recast(HISTORY, **of_history)

    assert EXPECTED == answers(labels, history, memory_bytes=memory_bytes)


def test_chunks_and_their_dictionaries_make_no_difference() -> None:
    """Tables of many chunks, some empty, each with a dictionary of its own."""
    encoded = {"card": ENCODED, "market": ENCODED}
    rows = [recast(HISTORY.slice(at, 1), **encoded) for at in range(HISTORY.num_rows)]
    labels = [recast(LABELS.slice(at, 1), card=ENCODED) for at in range(LABELS.num_rows)]

    assert EXPECTED == answers(
        pa.concat_tables([labels[0].slice(1), *labels]), pa.concat_tables([rows[0].slice(1), *rows])
    )


def test_no_labels_are_no_rows_with_all_columns() -> None:
    """Types of the features stay."""
    found = build_training_set(REPO, "all", LABELS.slice(0, 0), history=FileHistory(HISTORY))

    assert 0 == found.num_rows
    every = build_training_set(REPO, "all", LABELS, history=FileHistory(HISTORY))
    assert every.schema.equals(found.schema)


@pytest.mark.parametrize("memory_bytes", [1 << 30, 1])
def test_no_events_are_entities_without_events(memory_bytes: int) -> None:
    """An empty history, and one in which nobody has a key."""
    nobodys = HISTORY.set_column(2, "card", pa.nulls(HISTORY.num_rows, pa.string()))
    expected = {
        name: [None if value is None or isinstance(value, str) else 0 for value in values]
        for name, values in EXPECTED.items()
    }

    assert expected == answers(LABELS, HISTORY.slice(0, 0), memory_bytes=memory_bytes)
    assert expected == answers(LABELS, nobodys, memory_bytes=memory_bytes)


@pytest.mark.parametrize("nulls", [pa.nulls(5), pa.nulls(5, pa.string()), pa.nulls(5, ENCODED)], ids=str)
def test_labels_without_any_key_have_nulls(nulls: pa.Array) -> None:
    """Whatever type the nulls have."""
    assert NOTHING == answers(LABELS.set_column(0, "card", nulls), HISTORY)


def test_labels_without_any_time_have_nulls() -> None:
    """Nothing is asked for."""
    times = pa.nulls(5, pa.timestamp("ms", tz="UTC"))

    assert NOTHING == answers(LABELS.set_column(2, "event_timestamp", times), HISTORY)


def test_repeated_label_rows_are_answered_each() -> None:
    """Rows that are equal stay apart."""
    tripled = pa.concat_tables([LABELS, LABELS, LABELS])

    assert {name: values * 3 for name, values in EXPECTED.items()} == answers(tripled, HISTORY)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: (recast(LABELS, shop=pa.string()), HISTORY), '"shop" is of type string, not int64'),
        (lambda: (LABELS.set_column(1, "shop", [[1.5] * 5]), HISTORY), '"shop" of type double cannot be read as int64'),
        (lambda: (LABELS.set_column(0, "card", [[b"\xff"] * 5]), HISTORY), '"card" of type binary cannot be read as'),
        (lambda: (LABELS.set_column(0, "card", [[["c-1"]] * 5]), HISTORY), '"card" is of type list<'),
        (lambda: (LABELS, recast(HISTORY, shop=pa.string())), '"shop" is of type string, not int64'),
        (lambda: (recast(LABELS, shop=pa.timestamp("us")), HISTORY), r'"shop" is of type timestamp\[us\], not int64'),
        (lambda: (LABELS, recast(HISTORY, amount=pa.duration("s"))), r'"amount" is of type duration\[s\], not int64'),
        (lambda: (LABELS, HISTORY.set_column(4, "amount", [["5"] * 4])), '"amount" is of type string, not int64'),
        (lambda: (LABELS, HISTORY.set_column(1, "paid_at", [[0.5] * 4])), '"paid_at" of type double holds no times'),
        (lambda: (LABELS, HISTORY.drop_columns(["payment_id"])), 'has no column "payment_id"'),
        (lambda: (LABELS.append_column("card", LABELS["card"]), HISTORY), 'have 2 columns "card"'),
    ],
)
def test_what_would_be_guessed_at_is_refused_by_name(
    spoil: Callable[[], tuple[pa.Table, pa.Table]], message: str
) -> None:
    """The message names the column, what it is and what it should be."""
    labels, history = spoil()

    with pytest.raises(InvalidRequest, match=message):
        build_training_set(REPO, "all", labels, history=FileHistory(history))


def test_events_without_a_time_are_none() -> None:
    """As the stream sends them to the dead letters."""
    untimed = pc.if_else(
        pa.array([False, True, False, False]), pa.scalar(None, HISTORY.schema.field(1).type), HISTORY["paid_at"]
    )

    assert [1, 1, 1, None, 0] == answers(LABELS, HISTORY.set_column(1, "paid_at", untimed))["count_1h"]
