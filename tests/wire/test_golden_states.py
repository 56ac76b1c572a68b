"""The bytes of every function's state, so that a change of them cannot pass unseen: stores outlive releases."""

import numpy as np
import pytest
import xxhash

from featurestore.core.aggregations.catalog import names, resolve
from featurestore.core.parts import EventRows
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles import TileLayout
from featurestore.testing.batches import event_columns
from featurestore.testing.naive import NaiveEvent
from featurestore.wire.tile_codec import encode_body

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
    "count": "28480882f2dd6be0",
    "sum": "a05bfd31240b7edb",
    "mean": "27e6a71f880d9861",
    "min": "cf0d204c75f549bd",
    "max": "efc2bd24e34c4d9f",
    "first": "d2cf33de743cef48",
    "last": "56fe603c10494933",
    "first_n(3)": "c43fd172a9f9b8de",
    "last_n(3)": "df4f2afbc686a6a5",
    "first_distinct_n(3)": "c43fd172a9f9b8de",
    "last_distinct_n(3)": "df4f2afbc686a6a5",
    "first_event_time": "b7834474d286018a",
    "last_event_time": "4f4084e55da8c59e",
    "time_since_first": "b7834474d286018a",
    "time_since_last": "4f4084e55da8c59e",
    "mean_gap": "ff1608a34a8074eb",
    "max_gap(256)": "739694cbc53d169b",
    "max_gap(5)": "58085f2d2314ec35",
    "min_gap(256)": "739694cbc53d169b",
    "min_gap(5)": "58085f2d2314ec35",
    "count_distinct(1000)": "02a41386c1541310",
    "count_distinct(2)": "02a41386c1541310",
    "approx_count_distinct(12)": "ade457bf6db17b32",
    "approx_percentile(0.95)": "1299b00040b08753",
    "approx_percentile(0.1, 0.5, 1)": "1299b00040b08753",
    "median": "1299b00040b08753",
    "top_k(3)": "72ac0303c85872a8",
    "bottom_k(3)": "7cff68d1a2f336a6",
    "top_k_by(3, amount)": "e8ed9b6d85387cb3",
    "bottom_k_by(3, amount)": "6c621f4c78491764",
    "approx_heavy_hitters(5)": "02a41386c1541310",
    "histogram(100)": "02a41386c1541310",
    "histogram(2)": "02a41386c1541310",
    "mode(100)": "02a41386c1541310",
    "mode(2)": "02a41386c1541310",
    "entropy(100)": "02a41386c1541310",
    "entropy(2)": "02a41386c1541310",
    "count by market(100)": "8b655f0a8beacd08",
    "sum by amount(2)": "d703a9d681013a43",
    "mean by is_declined(100)": "67ec89eaffae5675",
    "max by market(3)": "d703a9d681013a43",
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
