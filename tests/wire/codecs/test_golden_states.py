"""The bytes of every function's state, so that a change of them cannot pass unseen: stores outlive releases."""

import numpy as np
import pytest
import xxhash

from featurestore.core.aggregations.catalog import names, resolve
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import EventRows
from featurestore.core.tiles.tiles import TileLayout, TileTable
from featurestore.testing.batches import event_columns
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.wire.codecs.body import encode_body
from tests.wire.codecs.version4 import encode_version4

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
    "count": "94f655ecbbda9f20",
    "sum": "00c22a5c32db95d7",
    "mean": "1474bc99f99afccb",
    "min": "32cb5754ccd7fbaf",
    "max": "7a1a6a29c594e9ab",
    "first": "c751c2f236be77cf",
    "last": "cb0a4a8e75637fa9",
    "first_n(3)": "6d91dbf125e3a682",
    "last_n(3)": "b4897178c359a820",
    "first_distinct_n(3)": "6d91dbf125e3a682",
    "last_distinct_n(3)": "b4897178c359a820",
    "first_event_time": "a093fda195f5cc06",
    "last_event_time": "b92dee96ac94580d",
    "time_since_first": "a093fda195f5cc06",
    "time_since_last": "b92dee96ac94580d",
    "mean_gap": "fea0ab3211080ce7",
    "max_gap(256)": "87e1f7ae65faf095",
    "max_gap(5)": "58337faee7f3bfb1",
    "min_gap(256)": "87e1f7ae65faf095",
    "min_gap(5)": "58337faee7f3bfb1",
    "count_distinct(1000)": "8210f0b76f215f66",
    "count_distinct(2)": "8210f0b76f215f66",
    "approx_count_distinct(12)": "5af66c93330fcbaf",
    "approx_percentile(0.95)": "24c2b17442d83672",
    "approx_percentile(0.1, 0.5, 1)": "24c2b17442d83672",
    "median": "24c2b17442d83672",
    "top_k(3)": "cb7f97d0c3fa0612",
    "bottom_k(3)": "8f182de7f4f36d5d",
    "top_k_by(3, amount)": "db71b526f468d491",
    "bottom_k_by(3, amount)": "38097d36801c454c",
    "approx_heavy_hitters(5)": "8210f0b76f215f66",
    "histogram(100)": "8210f0b76f215f66",
    "histogram(2)": "8210f0b76f215f66",
    "mode(100)": "8210f0b76f215f66",
    "mode(2)": "8210f0b76f215f66",
    "entropy(100)": "8210f0b76f215f66",
    "entropy(2)": "8210f0b76f215f66",
    "count by market(100)": "220537b7743c073a",
    "sum by amount(2)": "d48227476f22d364",
    "mean by is_declined(100)": "a48a0ba6615ada52",
    "max by market(3)": "d48227476f22d364",
    "sum over last_events(3)": "b4897178c359a820",
    "count over last_events(2)": "94f655ecbbda9f20",
    "last respect nulls": "c8cb652fc70de49b",
}
"""Function -> XXH3-64 of its state."""


GOLDEN_BODIES = "299a93e1f669e500"
"""XXH3-64 of all functions' bodies, one after another."""


def tiles_of(function: str) -> TileTable | None:
    """Three tiles of the events; None where floats are in them, whose last bit may differ by machine."""
    aggregation = resolve(function)
    by_name = {column.name: column for column in COLUMNS}
    layout = TileLayout(aggregation.parts(COLUMNS[0], [by_name[name] for name in aggregation.further_columns]))
    if layout.float_fields:
        return None
    times = np.array([event.event_time_ms for event in EVENTS])
    ids = np.array([event.event_id for event in EVENTS], dtype=np.object_)
    lifted = layout.lift(EventRows(times, ids, event_columns(COLUMNS, EVENTS)))
    hours = BEGIN_MS + HOUR_MS * np.arange(3)
    return lifted.merge_groups(np.array([0, 7, 14]), hours, hours + HOUR_MS).normalize()


TILES = {name: tiles for name in names() if (tiles := tiles_of(name)) is not None}


@pytest.mark.parametrize("function", TILES)
def test_the_bytes_of_a_state_do_not_drift(function: str) -> None:
    """A change of these needs a new layout version (wire.codecs.view_json.LAYOUT_VERSION), however bodies look."""
    assert GOLDEN[function] == xxhash.xxh3_64_hexdigest(encode_version4(TILES[function]))


def test_the_bytes_of_bodies_do_not_drift() -> None:
    """A change of these, and not of states, needs a new version of bodies and a reader of the one before it."""
    assert GOLDEN_BODIES == xxhash.xxh3_64_hexdigest(b"".join(encode_body(tiles) for tiles in TILES.values()))
