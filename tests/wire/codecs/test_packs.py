"""Packs: several small entities in one body and one head, each of which reads as if it were alone."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.tiles.tiles import TileTable, concatenate
from featurestore.core.view import CompiledView
from featurestore.errors import CorruptData, CorruptTile, InvariantBroken, TileLost, UnknownTileVersion
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import StreamCase, stream_cases
from featurestore.wire.codecs.body import beside_each_other, decode_entity, encode_body
from featurestore.wire.codecs.pack import member_of, record_headers
from featurestore.wire.codecs.pack_tiles import decode_pack, encode_pack, tiles_of
from tests.wire.codecs.test_body_and_head import head_of, rows_of, same, small_view, two_events

KEYS = (b"", b"a", b"card-17", b"k" * 200)


def pack_body_of(compiled: CompiledView, events: Sequence[NaiveEvent], owners: Sequence[int]) -> bytes:
    """Events of several entities as compaction leaves them."""
    lifted = compiled.layout.lift(rows_of(compiled.spec, events))
    order = lifted.start_ms.argsort(kind="stable")
    members = sorted(set(owners))
    numbers = np.array([members.index(owner) for owner in owners], dtype=np.int64)
    return encode_pack([KEYS[owner] for owner in members], lifted.take(order).normalize(), numbers[order])


def pack_head_of(compiled: CompiledView, events: Sequence[NaiveEvent], owners: Sequence[int]) -> bytes:
    """Each event as a record of its own."""
    rows = [head_of(compiled.spec, [event]) for event in events]
    headers = record_headers([KEYS[owner] for owner in owners], [len(row) for row in rows])
    return b"".join(header + row for header, row in zip(headers, rows, strict=True))


def stored_pack(
    compiled: CompiledView, events: Sequence[NaiveEvent], owners: Sequence[int], split: int
) -> tuple[bytes, bytes]:
    """The first events in the body, the others in the head."""
    body = pack_body_of(compiled, events[:split], owners[:split]) if split else b""
    head = pack_head_of(compiled, events[split:], owners[split:])
    return beside_each_other(body, head) if body and head else (body, head)


def alone(compiled: CompiledView, events: Sequence[NaiveEvent], split: int) -> TileTable:
    """The same events of an entity that has keys of its own."""
    body, head = b"", b"" if split == len(events) else head_of(compiled.spec, events[split:])
    if split:
        lifted = compiled.layout.lift(rows_of(compiled.spec, events[:split]))
        body = encode_body(lifted.take(lifted.start_ms.argsort(kind="stable")).normalize())
    return decode_entity(compiled, *(beside_each_other(body, head) if body and head else (body, head)))


@given(case=stream_cases(), data=st.data())
def test_a_member_of_a_pack_reads_as_if_it_were_alone(case: StreamCase, data: st.DataObject) -> None:
    """Whichever events are whose, in the body or in the head; and one that has none is not there."""
    compiled, events = CompiledView(case.view), case.events
    owners = data.draw(st.lists(st.integers(0, 2), min_size=len(events), max_size=len(events)))
    split = data.draw(st.integers(0, len(events)))
    body, head = stored_pack(compiled, events, owners, split)

    for number, key in enumerate(KEYS):
        mine = [event for event, owner in zip(events, owners, strict=True) if owner == number]
        in_body = sum(owner == number for owner in owners[:split])
        found = decode_entity(compiled, member_of(key, body, head), None)
        assert same(alone(compiled, mine, in_body), found)


@given(case=stream_cases(), data=st.data())
def test_a_whole_pack_comes_back(case: StreamCase, data: st.DataObject) -> None:
    """decode(encode(pack)) == pack, and what compaction makes of body and head is what one body would have held."""
    compiled, events = CompiledView(case.view), case.events
    owners = data.draw(st.lists(st.integers(0, 3), min_size=len(events), max_size=len(events)))
    split = data.draw(st.integers(0, len(events)))
    found = decode_pack(compiled, *stored_pack(compiled, events, owners, split))
    tiles, owner = tiles_of(compiled, [found])

    for number, key in enumerate(KEYS):
        mine = [event for event, owner in zip(events, owners, strict=True) if owner == number]
        assert bool(mine) == (key in found.keys)
        if mine:
            table = tiles.take(owner == found.keys.index(key))
            expected = compiled.layout.lift(rows_of(case.view, mine))
            assert same(sorted_by_start(expected), sorted_by_start(table))


def sorted_by_start(table: TileTable) -> TileTable:
    """In the order of time, as it would be written."""
    return table.take(table.start_ms.argsort(kind="stable")).normalize()


@pytest.mark.parametrize("columns", [(), ("market",)])
def test_no_flipped_bit_of_a_pack_goes_unnoticed(columns: tuple[str, ...]) -> None:
    """Each bit of body and head, directory, records and marks included: no member is lost, none gets another's rows."""
    view = small_view(*columns)
    compiled, events, owners = CompiledView(view), [*two_events(), *two_events()], [1, 2, 2, 1]
    for split in (0, 2, 4):
        body, head = stored_pack(compiled, events, owners, split)
        right = [decode_entity(compiled, member_of(key, body, head), None) for key in KEYS]
        for bit in range(8 * (len(body) + len(head))):
            changed = bytearray(body + head)
            changed[bit // 8] ^= 1 << bit % 8
            damaged = bytes(changed[: len(body)]), bytes(changed[len(body) :])
            with pytest.raises(CorruptData):
                decode_pack(compiled, *damaged)
            # A member whose own rows are as they were may be answered.
            for key, expected in zip(KEYS, right, strict=True):
                try:
                    assert same(expected, decode_entity(compiled, member_of(key, *damaged), None))
                except CorruptData:
                    continue


def test_body_and_head_of_a_pack_miss_each_other() -> None:
    """What vanished is known from what is left, whoever is asked for."""
    compiled = CompiledView(small_view("market"))
    body, head = stored_pack(compiled, [*two_events(), *two_events()], [0, 1, 1, 2], 2)

    for key in KEYS:
        with pytest.raises(TileLost, match="the head of the entity is gone"):
            decode_entity(compiled, member_of(key, body, None), None)
        with pytest.raises(TileLost, match="the body of the entity is gone"):
            decode_entity(compiled, member_of(key, None, head), None)
    for mixed in ((body, None), (None, head)):
        with pytest.raises(TileLost):
            decode_pack(compiled, *mixed)


@given(cut=st.integers(1, 60), at=st.integers(0, 4_000), garbage=st.binary(max_size=40))
def test_a_pack_that_was_cut_or_grown_is_refused_or_right(cut: int, at: int, garbage: bytes) -> None:
    """No loop leaves its bytes, and no answer is another one; a head that ends between two records is a shorter one."""
    compiled = CompiledView(small_view("market"))
    body, head = stored_pack(compiled, [*two_events(), *two_events()], [0, 1, 1, 2], 2)
    position = at % len(body)
    for damaged in (body[:-cut], body + garbage + b"x", body[:position] + garbage + body[position + cut :]):
        if damaged != body:
            with pytest.raises(CorruptData):
                decode_pack(compiled, damaged, head)
            with pytest.raises(CorruptData):
                decode_entity(compiled, member_of(KEYS[0], damaged, head), None)
    with pytest.raises(CorruptData):
        decode_pack(compiled, body, head[: len(head) // 2])
    with pytest.raises(CorruptTile):
        decode_entity(compiled, member_of(KEYS[0], body, head)[: 5 + cut % 20], None)


def test_the_pack_of_another_release_is_refused() -> None:
    """By its version, before anything of it is read."""
    compiled = CompiledView(small_view())
    body, _ = stored_pack(compiled, two_events(), [0, 1], 2)
    other = body[:1] + b"\x52" + body[2:]

    with pytest.raises(UnknownTileVersion, match="layout version 82"):
        decode_entity(compiled, member_of(b"a", other, None), None)
    with pytest.raises(UnknownTileVersion, match="layout version 81"):
        decode_entity(compiled, body, None)


def test_a_pack_has_a_limited_number_of_members() -> None:
    """Members are numbered in a byte."""
    compiled = CompiledView(small_view())
    one = compiled.layout.lift(rows_of(compiled.spec, two_events()[:1]))
    tiles = concatenate([one] * 256).normalize()

    with pytest.raises(InvariantBroken, match="256 members"):
        encode_pack([b"%d" % n for n in range(256)], tiles, np.arange(256))
    assert b"" == encode_pack([], compiled.layout.empty(), np.empty(0, dtype=np.int64))


GOLDEN_PACK_BODY = (
    "fb510202000001610001fb0500000200000000a8da769b0100000000000002000204010201ff0004130f0000020001000101"
    "010c0001000100020002653000020002534598b8a18b2395b6aa"
)
GOLDEN_PACK_HEAD = (
    "e9011a61fc00a8da769b0100000500000000000000000200020065305345f70718636172642d31376b88bbda769b010000f6"
    "ffffffffffffff02020000006531"
)


def test_the_bytes_of_packs_do_not_drift() -> None:
    """Stores of older releases are read: a change here needs another version."""
    compiled = CompiledView(small_view("market"))
    body, _ = stored_pack(compiled, two_events(), [0, 1], 2)
    _, head = stored_pack(compiled, two_events(), [1, 2], 0)

    assert GOLDEN_PACK_BODY == body.hex()
    assert GOLDEN_PACK_HEAD == head.hex()
