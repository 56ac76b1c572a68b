"""The bytes of every function's state, so that a change of them cannot pass unseen: stores outlive releases."""

import numpy as np
import pytest
import xxhash

from featurestore.core.aggregations.catalog import names, resolve
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import EventRows
from featurestore.core.tiles.tiles import TileLayout
from featurestore.testing.batches import event_columns
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.wire.codecs.body import encode_body

BEGIN_MS = 1_780_000_000_000
HOUR_MS = 3_600_000
COLUMNS = (
    Column("amount", ValueType.INT64),
    Column("market", ValueType.STRING),
    Column("is_declined", ValueType.BOOL),
)
EVENTS = tuple(
    NaiveEvent(
        b"k",
        BEGIN_MS + index * 1_000_003,
        b"id-%d" % (index * 7 % 20),
        {
            "amount": None if index == 5 else (-1) ** index * index**5,
            "market": ("SE", "DE", "", "日本", None)[index % 5],
            "is_declined": index % 3 == 0,
        },
    )
    for index in range(20)
)

GOLDEN = {
    "count": "40c6de3191917b9c",
    "sum": "c39f22a05b9aa277",
    "mean": "b25075f166f7d7d9",
    "min": "e6afd8c26b9789e8",
    "max": "4fa70b9bf56c5f8b",
    "first": "d0cfdbd40fda5b7f",
    "last": "429ce1812a98682b",
    "first_n(3)": "5912e9b7bfbd3c43",
    "last_n(3)": "50d245457aca717b",
    "first_distinct_n(3)": "5912e9b7bfbd3c43",
    "last_distinct_n(3)": "50d245457aca717b",
    "first_event_time": "4d88d8e801224977",
    "last_event_time": "0920fb6ae0c1bdff",
    "time_since_first": "4d88d8e801224977",
    "time_since_last": "0920fb6ae0c1bdff",
    "mean_gap": "56e9496a5a1052cf",
    "max_gap(256)": "c60834fd9f8c5070",
    "max_gap(5)": "8424d8abde8b66bd",
    "min_gap(256)": "c60834fd9f8c5070",
    "min_gap(5)": "8424d8abde8b66bd",
    "count_distinct(1000)": "83968f8c5da208ca",
    "count_distinct(2)": "83968f8c5da208ca",
    "approx_count_distinct(12)": "34e22688fec66b7b",
    "approx_percentile(0.95)": "d1afc207c97a5c5f",
    "approx_percentile(0.1, 0.5, 1)": "d1afc207c97a5c5f",
    "median": "d1afc207c97a5c5f",
    "top_k(3)": "11d6c954f596dffb",
    "bottom_k(3)": "f61830d6db34ff37",
    "top_k_by(3, amount)": "8ad6f2de8e1d918c",
    "bottom_k_by(3, amount)": "fcdc99bd0c4990cc",
    "approx_heavy_hitters(5)": "83968f8c5da208ca",
    "histogram(100)": "83968f8c5da208ca",
    "histogram(2)": "83968f8c5da208ca",
    "mode(100)": "83968f8c5da208ca",
    "mode(2)": "83968f8c5da208ca",
    "entropy(100)": "83968f8c5da208ca",
    "entropy(2)": "83968f8c5da208ca",
    "count by market(100)": "841d0826f0a4b5e2",
    "sum by amount(2)": "bb6efd515df310c7",
    "mean by is_declined(100)": "4d497d556dcf24cb",
    "max by market(3)": "bb6efd515df310c7",
}
"""Function -> XXH3-64 of its state."""


def state_of(function: str) -> bytes:
    """The body of three tiles of the events; empty where floats are in it, whose last bit may differ by machine."""
    aggregation = resolve(function)
    by_name = {column.name: column for column in COLUMNS}
    layout = TileLayout(aggregation.parts(COLUMNS[0], [by_name[name] for name in aggregation.further_columns]))
    if layout.float_fields:
        return b""
    times = np.array([event.event_time_ms for event in EVENTS])
    ids = np.array([event.event_id for event in EVENTS], dtype=np.object_)
    lifted = layout.lift(EventRows(times, ids, event_columns(COLUMNS, EVENTS)))
    hours = BEGIN_MS + HOUR_MS * np.arange(3)
    return encode_body(lifted.merge_groups(np.array([0, 7, 14]), hours, hours + HOUR_MS).normalize())


@pytest.mark.parametrize("function", [name for name in names() if state_of(name)])
def test_the_bytes_of_a_state_do_not_drift(function: str) -> None:
    """A change of these bytes needs a new layout version (wire.view_codec.LAYOUT_VERSION)."""
    assert GOLDEN[function] == xxhash.xxh3_64_hexdigest(state_of(function))
