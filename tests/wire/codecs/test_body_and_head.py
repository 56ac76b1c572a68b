"""Bodies and heads: what is written comes back, what is damaged is refused, and the bytes do not drift."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.events import BlobRow
from featurestore.core.spec import FeatureSpec, ValueType, ViewSpec, Window
from featurestore.core.tiles.parts import EventRows
from featurestore.core.tiles.tiles import TileTable
from featurestore.core.view import CompiledView
from featurestore.errors import CorruptData, CorruptTile, TileLost, UnknownTileVersion
from featurestore.testing.batches import keyed_batch
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE, StreamCase, stream_cases
from featurestore.wire.codecs.body import beside_each_other, decode_body, decode_entity, encode_body
from featurestore.wire.codecs.head import head_codec
from tests.wire.codecs.version4 import encode_version4

GOLDEN_BODY = (
    "fb0500000200000000a8da769b0100000000000002000204010201ff0004130f0000020001000101010c0001000100020002"
    "65300002000253457a0262fe9863da7f"
)
GOLDEN_VERSION_4 = (
    "fb04000000000000020000001800000000a8da769b0100000000000000000080000000000000008000000000000000000000"
    "050000000000000005f60101010005f6008003000000000102010200000002000000040000006530534521bc4093ea23e7c1"
)
GOLDEN_HEAD = "fc00a8da769b01000005000000000000000002000200653053456b88bbda769b010000f6ffffffffffffff02020000006531"


def table_of(view: ViewSpec, events: Sequence[NaiveEvent]) -> TileTable:
    """Events of one entity as tiles of one millisecond, normalized."""
    compiled, entity = CompiledView(view), np.zeros(len(events), dtype=np.int64)
    nothing_is_old = np.array([ANCHOR_MS - 20_000 * DAY_MS])
    return compiled.roll_up.compact(
        compiled.layout.lift(rows_of(view, events)), entity, nothing_is_old
    ).table.normalize()


def same(left: TileTable, right: TileTable) -> bool:
    """Equal to the bit."""
    return (
        np.array_equal(left.start_ms, right.start_ms)
        and np.array_equal(left.end_ms, right.end_ms)
        and np.array_equal(left.ints, right.ints)
        and left.floats.tobytes() == np.ascontiguousarray(right.floats).tobytes()
        and all(left.blobs.row(n).values() == right.blobs.row(n).values() for n in range(len(left.layout.blob_fields)))
        and left.dropped_before_ms == right.dropped_before_ms
    )


def rows_of(view: ViewSpec, events: Sequence[NaiveEvent]) -> EventRows:
    """Events as columns."""
    batch = keyed_batch(view, events)
    return EventRows(batch.event_time_ms, batch.event_ids, batch.columns)


def head_of(view: ViewSpec, events: Sequence[NaiveEvent]) -> bytes:
    """A head of these events."""
    return head_codec(CompiledView(view)).encode(rows_of(view, events)).buffer


@given(case=stream_cases())
def test_bodies_and_heads_come_back_as_they_were_written(case: StreamCase) -> None:
    """decode(encode(tiles)) == tiles, for bodies, heads and both together; heads as columns and as compiled loops."""
    if not case.events:
        return
    compiled, table = CompiledView(case.view), table_of(case.view, case.events)
    lifted = compiled.layout.lift(rows_of(case.view, case.events))

    assert same(table, decode_body(table.layout, encode_body(table)))
    assert same(table, decode_body(table.layout, encode_version4(table)))
    head = head_of(case.view, case.events)
    assert same(lifted, compiled.layout.lift(head_codec(compiled).decode(head)))
    in_order = lifted.take(lifted.start_ms.argsort(kind="stable"))
    assert same(in_order, decode_entity(compiled, None, head))
    both = decode_entity(compiled, *beside_each_other(encode_body(table), head_of(case.view, case.events)))
    assert table.count + len(case.events) == both.count
    assert (np.diff(both.start_ms) >= 0).all()


@given(case=stream_cases(), cut=st.integers(1, 40), flip=st.integers(0, 10_000))
def test_a_damaged_body_is_refused(case: StreamCase, cut: int, flip: int) -> None:
    """A body that was cut short, grew, or had any byte changed raises CorruptData, never an answer."""
    if not case.events:
        return
    table = table_of(case.view, case.events)
    body = encode_body(table)
    index = flip % len(body)
    changed = body[:index] + bytes([body[index] ^ 0x41]) + body[index + 1 :]

    for damaged in (body[:-cut], body + b"\0" * cut, changed):
        with pytest.raises(CorruptData):
            decode_body(table.layout, damaged)


@given(data=st.data())
def test_integers_of_any_width_come_back(data: st.DataObject) -> None:
    """Constants, identities, times before and behind their tiles, and the ends of every width, field by field."""
    layout = CompiledView(small_view("market")).layout
    count = data.draw(st.integers(1, 12))
    start = np.arange(count, dtype=np.int64) * 1_000 + data.draw(st.sampled_from((-ANCHOR_MS, 0, ANCHOR_MS)))
    rows = []
    for identity in layout.int_identities.tolist():
        bits = data.draw(st.sampled_from((1, 7, 8, 15, 16, 31, 32, 63)))
        edges = [-(1 << bits), 1 - (1 << bits), (1 << bits) - 1, 0, identity]
        values = st.sampled_from(edges) | st.sampled_from(edges[:4]).map(lambda one: one + int(start[0]))
        row = data.draw(st.lists(values, min_size=count, max_size=count) | values.map(lambda one: [one] * count))
        rows.append([min(max(one, -(1 << 63)), (1 << 63) - 1) for one in row])
    ids = {at: BlobRow.of([b"e"] * count) for at in range(len(layout.blob_fields))}
    ints, floats = np.array(rows, dtype=np.int64), np.zeros((len(layout.float_fields), count))
    table = TileTable(layout, start, start + 1, ints, floats, layout.blobs_of(ids, count))

    assert same(table, decode_body(layout, encode_body(table)))


@pytest.mark.parametrize("columns", [(), ("market",)])
def test_no_flipped_bit_of_an_entity_goes_unnoticed(columns: tuple[str, ...]) -> None:
    """Each bit of body and head, marks and checks included: refused, never another answer."""
    view = small_view(*columns)
    compiled = CompiledView(view)
    body, head = encode_body(table_of(view, two_events())), head_of(view, two_events())
    stored = {"both": beside_each_other(body, head), "body": (body, b""), "head": (b"", head)}

    for body, head in stored.values():
        for bit in range(8 * (len(body) + len(head))):
            changed = bytearray(body + head)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(CorruptData):
                decode_entity(compiled, bytes(changed[: len(body)]), bytes(changed[len(body) :]))


def test_body_and_head_miss_each_other() -> None:
    """What vanished is known from what is left; and two that were never together are not taken for one entity's."""
    view = small_view("market")
    compiled = CompiledView(view)
    alone = encode_body(table_of(view, two_events())), head_of(view, two_events())
    body, head = beside_each_other(*alone)

    assert 4 == decode_entity(compiled, body, head).count
    with pytest.raises(TileLost, match="the head of the entity is gone"):
        decode_entity(compiled, body, None)
    with pytest.raises(TileLost, match="the body of the entity is gone"):
        decode_entity(compiled, None, head)
    for mixed in (alone, (alone[0], head), (body, alone[1])):
        with pytest.raises(CorruptTile, match="do not know of each other"):
            decode_entity(compiled, *mixed)


def test_a_head_that_ends_inside_a_row_is_refused() -> None:
    """Half a row is never read as a whole one."""
    for columns in ((), ("market",)):
        view = small_view(*columns)
        head = head_of(view, two_events())
        with pytest.raises(CorruptTile, match="head of"):
            head_codec(CompiledView(view)).decode(head[:-3])


def test_a_body_of_a_later_release_is_named_as_such() -> None:
    """The version byte decides, and the remedy is to upgrade."""
    view = small_view()
    body = encode_body(table_of(view, two_events()))
    with pytest.raises(UnknownTileVersion, match="layout version 9"):
        decode_body(CompiledView(view).layout, body[:1] + b"\x09" + body[2:])


def test_the_bytes_of_a_body_do_not_drift() -> None:
    """Stores outlive releases: a change of these bytes needs a new layout version."""
    table = table_of(small_view("market"), two_events())

    assert GOLDEN_BODY == encode_body(table).hex()
    assert same(table, decode_body(table.layout, bytes.fromhex(GOLDEN_BODY)))


def test_bodies_of_the_release_before_are_read() -> None:
    """Whatever it left in a store."""
    table = table_of(small_view("market"), two_events())

    assert GOLDEN_VERSION_4 == encode_version4(table).hex()
    assert same(table, decode_body(table.layout, bytes.fromhex(GOLDEN_VERSION_4)))


def test_the_bytes_of_a_head_do_not_drift() -> None:
    """Nor may these change within a layout version."""
    assert GOLDEN_HEAD == head_of(small_view("market"), two_events()).hex()


def small_view(*last_of: str) -> ViewSpec:
    """Sum and minimum of amount, and the last value of the given columns."""
    day = Window(86_400_000, 900_000)
    features = [
        FeatureSpec("amount_sum_1d", "sum", "amount", day, ValueType.INT64),
        FeatureSpec("amount_min_1d", "min", "amount", day, ValueType.INT64),
        *(FeatureSpec(f"{name}_last_1d", "last", name, day, ValueType.STRING) for name in last_of),
    ]
    return ViewSpec("v", (), SOURCE, tuple(features), 90_000_000)


def two_events() -> tuple[NaiveEvent, ...]:
    """Five seconds apart; the second has no market."""
    return (
        NaiveEvent(b"k", ANCHOR_MS, b"e0", {"amount": 5, "market": "SE"}),
        NaiveEvent(b"k", ANCHOR_MS + 5_000, b"e1", {"amount": -10, "market": None}),
    )
