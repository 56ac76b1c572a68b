"""Packs: several small entities in one body and one head, each of which reads as if it were alone."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.core.events import ColumnValues
from featurestore.core.spec import FeatureSpec, ViewSpec, Window
from featurestore.core.tiles.parts import EventRows
from featurestore.core.tiles.tiles import TileTable
from featurestore.core.view import CompiledView
from featurestore.errors import CorruptData, CorruptTile, TileLost, UnknownTileVersion
from featurestore.testing.oracle.naive import NaiveEvent
from featurestore.testing.strategies import ANCHOR_MS, SOURCE, StreamCase, stream_cases
from featurestore.wire.codecs.body import beside_each_other, decode_entity
from featurestore.wire.codecs.head import head_codec
from featurestore.wire.codecs.pack import check_body, member_of, read_member, records_of
from featurestore.wire.codecs.pack_members import read_packs
from tests.wire.codecs.test_body_and_head import head_of, same, small_view, two_events

KEYS = (b"", b"a", b"card-17", b"k" * 200)


def pack_body_of(compiled: CompiledView, events: Sequence[NaiveEvent], owners: Sequence[int]) -> bytes:
    """Events of several entities as compaction leaves them."""
    packs, _ = read_packs(compiled, [(None, pack_head_of(compiled, events, owners))])
    [body] = packs.bodies(np.ones(len(packs.counts), dtype=np.bool_))
    return body


def pack_head_of(compiled: CompiledView, events: Sequence[NaiveEvent], owners: Sequence[int]) -> bytes:
    """Each event as a record of its own."""
    rows = [head_of(compiled.spec, [event]) for event in events]
    return records_of([KEYS[owner] for owner in owners], rows).buffer


def stored_pack(
    compiled: CompiledView, events: Sequence[NaiveEvent], owners: Sequence[int], split: int
) -> tuple[bytes, bytes]:
    """The first events in the body, the others in the head."""
    body = pack_body_of(compiled, events[:split], owners[:split]) if split else b""
    head = pack_head_of(compiled, events[split:], owners[split:])
    return beside_each_other(body, head) if body and head else (body, head)


def alone(compiled: CompiledView, events: Sequence[NaiveEvent]) -> TileTable:
    """The same events of an entity that has keys of its own."""
    return decode_entity(compiled, None, head_of(compiled.spec, events) if events else None)


@given(case=stream_cases(), data=st.data())
def test_a_member_of_a_pack_reads_as_if_it_were_alone(case: StreamCase, data: st.DataObject) -> None:
    """Whichever events are whose, in the body or in the head; and one that has none is not there."""
    compiled, events = CompiledView(case.view), case.events
    owners = data.draw(st.lists(st.integers(0, 2), min_size=len(events), max_size=len(events)))
    split = data.draw(st.integers(0, len(events)))
    body, head = stored_pack(compiled, events, owners, split)

    for number, key in enumerate(KEYS):
        mine = [event for event, owner in zip(events, owners, strict=True) if owner == number]
        assert same(alone(compiled, mine), decode_entity(compiled, member_of(key, body, head), None))


@given(case=stream_cases(), data=st.data())
def test_a_whole_pack_comes_back(case: StreamCase, data: st.DataObject) -> None:
    """Byte for byte: rows of body and head are those that were appended, and stay so when they are folded again."""
    compiled, events = CompiledView(case.view), case.events
    owners = data.draw(st.lists(st.integers(0, 3), min_size=len(events), max_size=len(events)))
    split = data.draw(st.integers(0, len(events)))
    expected: dict[bytes, bytes] = {}
    for event, owner in zip(events, owners, strict=True):
        expected[KEYS[owner]] = expected.get(KEYS[owner], b"") + head_of(case.view, [event])
    found, wrong = read_packs(compiled, [stored_pack(compiled, events, owners, split)])
    stays = np.array(data.draw(st.lists(st.booleans(), min_size=len(expected), max_size=len(expected))), dtype=np.bool_)
    folded, _ = read_packs(compiled, [(body, None) for body in found.bodies(stays)])
    kept = {found.key(one): expected[found.key(one)] for one in np.flatnonzero(stays).tolist()}

    assert not wrong
    assert expected == {found.key(one): found.rows(one) for one in range(len(found.counts))}
    assert kept == {folded.key(one): folded.rows(one) for one in range(len(folded.counts))}
    newest_ms = found.newest_ms(np.arange(len(found.counts))).tolist()
    for one in range(len(found.counts)):
        mine = [events[n].event_time_ms for n, owner in enumerate(owners) if KEYS[owner] == found.key(one)]
        assert min(mine) <= found.newest_at_least_ms[one] <= max(mine) == newest_ms[one]


TEXTS = st.one_of(
    st.sampled_from(("", "DE", "0", "00", "42", "1" * 18, "9" * 19, "fuel", "cafe", "0123abcd" * 40, "x" * 300)),
    st.uuids().map(str),
    st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    st.from_regex(r"t-[0-9a-f]{7,10}", fullmatch=True),
    st.text(max_size=12),
)
NUMBERS = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-100, 100_000))
FLOATS = st.one_of(
    st.floats(), st.integers(-(10**7), 10**7).map(lambda cents: cents / 100), st.sampled_from((-0.0, 1e15))
)


def _every_type() -> CompiledView:
    """The last value of a column of each type."""
    day, types = Window(86_400_000, 900_000), {column.name: column.type for column in SOURCE.columns}
    names = ("amount", "price", "is_declined", "market", "opened_at")
    features = [FeatureSpec(f"{name}_last", "last", name, day, types[name]) for name in names]
    return CompiledView(ViewSpec("v", (), SOURCE, tuple(features), 90_000_000))


EVERY_TYPE = _every_type()


@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS, NUMBERS, NUMBERS, NUMBERS, FLOATS, st.booleans(), st.integers(0, 31))),
    members=st.integers(1, 3),
)
def test_every_row_comes_back(rows: list[tuple[str, str, int, int, int, float, bool, int]], members: int) -> None:
    """Texts of any kind, numbers that are whole hundredths or not, times far off, nulls: byte for byte."""
    codec = head_codec(EVERY_TYPE)
    written = codec.encode(event_rows(rows)).values() if rows else []
    owners = [KEYS[number % members] for number in range(len(rows))]
    packs, _ = read_packs(EVERY_TYPE, [(None, records_of(owners, written).buffer)])
    [body] = packs.bodies(np.ones(len(packs.counts), dtype=np.bool_))
    again, wrong = read_packs(EVERY_TYPE, [(body, None)])

    assert not wrong
    assert len(set(owners)) == len(again.counts)
    for one in range(len(again.counts)):
        mine = b"".join(row for row, owner in zip(written, owners, strict=True) if owner == again.key(one))
        assert mine == again.rows(one)
        assert mine == read_member(member_of(again.key(one), body, None), codec).rows


@given(
    rounds=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 5), TEXTS, TEXTS, NUMBERS, FLOATS), min_size=1, max_size=6),
            st.sets(st.integers(0, 5), max_size=2),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_pack_that_is_folded_again_and_again_has_what_was_appended(
    rounds: list[tuple[list[tuple[int, str, str, int, float]], set[int], bool]],
) -> None:
    """Byte for byte, and its room to the byte: whether rows are copied or packed anew, and whoever goes meanwhile."""
    codec, body, number, expected = head_codec(EVERY_TYPE), b"", 0, dict[bytes, bytes]()
    for appended, gone, has_many_words in rounds:
        drawn = [(event_id, text, time, time, 0, price, True, 3) for _, event_id, text, time, price in appended]
        owners = [b"card-%d" % owner for owner, *_ in appended]
        for _ in range(90 if has_many_words else 0):
            drawn.append((f"word {number}", "DE", 1, 1, 1, 0.5, False, 0))
            owners.append(b"card-%d" % (number % 6))
            number += 1
        written = codec.encode(event_rows(drawn)).values()
        for owner, row in zip(owners, written, strict=True):
            expected[owner] = expected.get(owner, b"") + row
        head = records_of(owners, written).buffer
        packs, _ = read_packs(EVERY_TYPE, [beside_each_other(body, head) if body else (None, head)])
        keys = [packs.key(entity) for entity in range(len(packs.counts))]
        assert expected == {key: packs.rows(entity) for entity, key in enumerate(keys)}
        stays = np.array([key not in {b"card-%d" % one for one in gone} for key in keys], dtype=np.bool_)
        [body] = packs.bodies(stays)
        expected = {key: expected[key] for key, one_stays in zip(keys, stays, strict=True) if one_stays}
        for key, mine in expected.items():
            assert mine == read_member(member_of(key, body, None), codec).rows
        assert (check_body(memoryview(body)) if body else 0) == sum(map(len, (*expected, *expected.values())))


def event_rows(rows: list[tuple[str, str, int, int, int, float, bool, int]]) -> EventRows:
    """As columns; the bits of the last number say which columns are null."""
    event_ids, market, time_ms, amount, opened_at, price, is_declined, nulls = zip(*rows, strict=True)
    texts = [np.array([text.encode() for text in column], dtype=object) for column in (event_ids, market)]
    columns = {
        "market": texts[1],
        "amount": np.array(amount, dtype=np.int64),
        "opened_at": np.array(opened_at, dtype=np.int64),
        "price": np.array(price, dtype=np.float64),
        "is_declined": np.array(is_declined, dtype=np.bool_),
    }
    is_null = [np.array(nulls, dtype=np.int64) >> index & 1 == 1 for index in range(len(columns))]
    given_columns = {
        name: ColumnValues(column, ~null) for (name, column), null in zip(columns.items(), is_null, strict=True)
    }
    return EventRows(np.array(time_ms, dtype=np.int64), texts[0], given_columns)


def test_a_row_takes_less_than_half_of_its_bytes_in_a_body() -> None:
    """Ids of digits two a byte, texts once, times since the last one: what packs are for."""
    compiled = CompiledView(small_view("market"))
    events = [
        NaiveEvent(
            b"", ANCHOR_MS + 977_000 * n, b"%016x" % (n * 0x9E3779B97F4A7C15 % 2**64), {"amount": n, "market": "DE"}
        )
        for n in range(100)
    ]
    body = pack_body_of(compiled, events, [n % 3 for n in range(100)])

    assert 2 * len(body) < len(head_of(compiled.spec, events))


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
            assert is_refused(compiled, *damaged)
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
        assert isinstance(read_packs(compiled, [mixed])[1][0], TileLost)


@given(cut=st.integers(1, 60), at=st.integers(0, 4_000), garbage=st.binary(max_size=40))
def test_a_pack_that_was_cut_or_grown_is_refused_or_right(cut: int, at: int, garbage: bytes) -> None:
    """No loop leaves its bytes, and no answer is another one; a head that ends between two records is a shorter one."""
    compiled = CompiledView(small_view("market"))
    body, head = stored_pack(compiled, [*two_events(), *two_events()], [0, 1, 1, 2], 2)
    position = at % len(body)
    for damaged in (body[:-cut], body + garbage + b"x", body[:position] + garbage + body[position + cut :]):
        if damaged != body:
            assert is_refused(compiled, damaged, head)
            with pytest.raises(CorruptData):
                decode_entity(compiled, member_of(KEYS[0], damaged, head), None)
    assert is_refused(compiled, body, head[: len(head) // 2])
    with pytest.raises(CorruptTile):
        decode_entity(compiled, member_of(KEYS[0], body, head)[: 5 + cut % 20], None)


def test_the_pack_of_another_release_is_refused() -> None:
    """By its version, before anything of it is read."""
    compiled = CompiledView(small_view())
    body, _ = stored_pack(compiled, two_events(), [0, 1], 2)
    other = body[:1] + b"\x51" + body[2:]

    with pytest.raises(UnknownTileVersion, match="layout version 81, this"):
        decode_entity(compiled, member_of(b"a", other, None), None)
    with pytest.raises(UnknownTileVersion, match="layout version 82"):
        decode_entity(compiled, body, None)


def is_refused(compiled: CompiledView, body: bytes, head: bytes) -> bool:
    """Whether a whole pack is, beside one that is as it was written."""
    good = stored_pack(compiled, two_events(), [0, 1], 1)
    try:
        wrong = read_packs(compiled, [(body, head), good])[1]
    except UnknownTileVersion:
        return True
    assert 1 not in wrong
    return 0 in wrong


GOLDEN_PACK_BODY = (
    "fb520200270000003300000000a8da769b010000000105000a00000101010761904e13010202fd0000030265300253450265"
    "31234944d8592da338"
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
