"""Bodies of version 5: however a column is stored, it comes back to the bit; forged bodies are refused."""

from __future__ import annotations

import inspect
from dataclasses import replace
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.core.events import BlobRow, Int64Array
from featurestore.core.spec import FeatureSpec, ValueType, ViewSpec, Window
from featurestore.core.tiles.tiles import TileLayout, TileTable
from featurestore.core.view import CompiledView
from featurestore.errors import CorruptTile, InvariantBroken
from featurestore.testing.strategies import ANCHOR_MS, DAY_MS, SOURCE, StreamCase, stream_cases
from featurestore.wire.codecs.bodies import packing, read_loops, text_forms, version5
from featurestore.wire.codecs.bodies.frame import WIDTHS_MS
from featurestore.wire.codecs.body import EntityCodec, decode_body, encode_body
from tests.wire.codecs.test_body_and_head import head_of, same, small_view, table_of, two_events
from tests.wire.codecs.version4 import encode_version4

_UUIDS = [f"550e8400-e29b-41d4-a716-4466554400{index:02x}".encode() for index in range(40)]
_HEX = [(0x9E3779B97F4A7C15 * index % (1 << 64)).to_bytes(8, "big").hex().encode() for index in range(1, 40)]
_ODD = [b"", b"0", b"00", b"07", b"-1", b"9" * 18, b"9" * 19, b"SE", b"\x00", b"a" * 255, b"b" * 256, b"c" * 9]


def _layout() -> TileLayout:
    """Integers, times, a second and a third moment, and four columns of strings."""
    day = Window(DAY_MS, 900_000)
    features = [
        FeatureSpec(f"{function}_{column}", function, column, day, value_type)
        for function, column, value_type in (
            ("sum", "amount", ValueType.INT64),
            ("stddev_samp", "amount", ValueType.FLOAT64),
            ("skew", "price", ValueType.FLOAT64),
            ("last", "market", ValueType.STRING),
            ("first", "market", ValueType.STRING),
            ("last", "amount", ValueType.INT64),
        )
    ]
    return CompiledView(ViewSpec("v", (), SOURCE, tuple(features), 90_000_000)).layout


def _sealed(body: bytes) -> bytes:
    """With a right checksum."""
    return body[:-8] + xxhash.xxh3_64_intdigest(body[1:-8]).to_bytes(8, "little")


def _spans(data: st.DataObject, count: int) -> tuple[Int64Array, Int64Array]:
    """Begins and ends of tiles of any rungs, in any order, one of them perhaps of no rung."""
    rungs = data.draw(st.lists(st.integers(0, len(WIDTHS_MS) - 1), min_size=count, max_size=count))
    gaps = data.draw(st.lists(st.sampled_from((0, 1, 1_000, DAY_MS, 1 << 45, 1 << 57)), min_size=count, max_size=count))
    start = data.draw(st.sampled_from((-(1 << 61), -ANCHOR_MS, 0, ANCHOR_MS))) + np.cumsum(np.minimum(gaps, 1 << 57))
    end = start + WIDTHS_MS[rungs]
    if data.draw(st.booleans()):
        end[0] = start[0] + 12_345
    return start, end


def _repeating(data: st.DataObject, values: st.SearchStrategy[Any], count: int, earlier: list[list[Any]]) -> list[Any]:
    """A column: anything, one value, or what an earlier one has in all or some rows."""
    column = data.draw(st.lists(values, min_size=count, max_size=count))
    how = data.draw(st.sampled_from(("any", "constant", "same", "partly")))
    if how == "constant":
        return column[:1] * count
    if how == "any" or not earlier:
        return column
    other = data.draw(st.sampled_from(earlier))
    if how == "same":
        return list(other)
    keeps = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return [there if keep else here for here, there, keep in zip(column, other, keeps, strict=True)]


@st.composite
def tables(draw: st.DrawFn, *, rows_max: int = 24) -> TileTable:
    """Tables of numbers and strings that no events would make."""
    data, layout = draw(st.data()), _layout()
    count = data.draw(st.integers(1, rows_max))
    start, end = _spans(data, count)
    numbers = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-300, 300) | st.integers(1, 3)
    times = st.integers(0, 10_000).map(lambda behind: int(start[0]) + behind)
    ints: list[list[int]] = []
    for identity in layout.int_identities.tolist():
        ints.append(_repeating(data, numbers | times | st.just(identity), count, ints))
    reals = st.floats() | st.integers(0, 1_000).map(float) | st.just(0.0) | st.just(-0.0)
    reals |= st.integers(1, 10_000).map(lambda number: number / 7)
    floats: list[list[float]] = []
    for _ in layout.float_fields:
        floats.append(_repeating(data, reals, count, floats))
    texts: list[list[bytes]] = []
    for _ in layout.blob_fields:
        decimals = st.integers(0, 1 << 62).map(lambda number: b"%d" % number)
        pool = data.draw(st.sampled_from((_UUIDS, _HEX, _ODD, [b"SE", b"DK", b""], None)))
        texts.append(_repeating(data, decimals if pool is None else st.sampled_from(pool), count, texts))
    blobs = layout.blobs_of({at: BlobRow.of(column) for at, column in enumerate(texts)}, count)
    matrix = np.array(ints, dtype=np.int64), np.array(floats, dtype=np.float64).reshape(-1, count)
    return TileTable(layout, start, end, *matrix, blobs, data.draw(st.sampled_from((-(1 << 63), 0, ANCHOR_MS))))


@given(table=tables())
def test_any_table_comes_back(table: TileTable) -> None:
    """References, masks, runs, frames of every width, patterns, decimals and dictionaries."""
    assert same(table, decode_body(table.layout, encode_body(table)))


@given(case=stream_cases(), data=st.data())
def test_readers_get_the_parts_that_they_want(case: StreamCase, data: st.DataObject) -> None:
    """What the wanted columns refer to is decoded beside; whatever version, with a head or without."""
    if not case.events:
        return
    stored, table = CompiledView(case.view), table_of(case.view, case.events)
    lifetime_end_ms = np.where(np.arange(table.count) == 0, table.start_ms + 12_345, table.end_ms)
    table = replace(
        table, end_ms=lifetime_end_ms, dropped_before_ms=data.draw(st.sampled_from((-(1 << 63), ANCHOR_MS)))
    )
    features = data.draw(st.lists(st.sampled_from(case.view.features), min_size=1, max_size=3, unique=True))
    wanted = CompiledView(replace(case.view, features=tuple(features))).layout
    whole, part = EntityCodec(stored, stored.layout), EntityCodec(stored, wanted)

    for body in (encode_body(table), encode_version4(table)):
        assert same(table, whole.decode(body, None))
        found = part.decode(body, None)
        assert np.array_equal(table.start_ms, found.start_ms)
        assert np.array_equal(table.end_ms, found.end_ms)
        assert table.dropped_before_ms == found.dropped_before_ms
        for placed in wanted.parts:
            sources = table.fields(stored.layout.position_of(placed.part).fields)
            for source, target in zip(sources, found.fields(placed.fields), strict=True):
                if isinstance(source, BlobRow) and isinstance(target, BlobRow):
                    assert source.values() == target.values()
                else:
                    assert np.asarray(source).tobytes() == np.asarray(target).tobytes()


def test_a_body_has_at_most_one_tile_of_no_rung() -> None:
    """A writer's bug."""
    table = table_of(small_view("market"), two_events())
    with pytest.raises(InvariantBroken, match="irregular width"):
        encode_body(replace(table, end_ms=table.start_ms + 12_345))


def test_runs_and_tiles_beyond_a_byte_come_back() -> None:
    """Hundreds of runs of one tile, and one run of many thousands."""
    table = table_of(small_view("market"), two_events())
    for count, rungs in ((700, [0, 1]), (70_000, [0])):
        rows = np.arange(count) % 2
        start = np.arange(count, dtype=np.int64) * 60_000
        many = replace(table.take(rows), start_ms=start, end_ms=start + WIDTHS_MS[rungs][np.arange(count) % len(rungs)])
        assert same(many, decode_body(many.layout, encode_body(many)))


def test_a_head_goes_on_behind_strings_that_were_made_anew() -> None:
    """Spans of the head count from behind the body, and those that were made anew from behind the head."""
    view = small_view("market")
    compiled, table = CompiledView(view), table_of(view, two_events())
    ids = BlobRow.of([_HEX[0], _HEX[1]])
    texts = dict.fromkeys(range(len(table.layout.blob_fields)), ids)
    table = replace(table, blobs=table.layout.blobs_of(texts, 2))
    body, head = bytes([0x04]) + encode_body(table)[1:], bytearray(head_of(view, two_events()))
    head[0] ^= 0x80
    both = EntityCodec(compiled, compiled.layout).decode(body, bytes(head))

    assert both.count == 4
    found = [set(both.blobs.row(at).values()) for at in range(len(texts))]
    assert all({_HEX[0], _HEX[1]} < one for one in found)
    assert {b"e0", b"SE"} < set().union(*found)


@given(table=tables(rows_max=12), places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1))
def test_a_forged_body_is_refused_or_within_its_bytes(table: TileTable, places: list[tuple[int, int]]) -> None:
    """Whatever bytes a writer with a bug has sealed: no crash, and no string from behind the buffer."""
    body = bytearray(encode_body(table))
    for place, byte in places[:3]:
        at = 2 + place % (len(body) - 10)
        body[at] = byte
    for forged in (_sealed(bytes(body)), _sealed(bytes(body[: len(body) // 2])), _sealed(bytes(body) + bytes(3))):
        try:
            found = decode_body(table.layout, forged)
        except CorruptTile:
            continue
        assert (found.blobs.begins >= 0).all()
        assert (found.blobs.begins <= found.blobs.ends).all()
        assert (found.blobs.ends <= len(found.blobs.buffer)).all()


class _Guarded(np.ndarray[Any, Any]):
    """An array that takes no index that compiled code would not check: below 0, or behind the end."""

    def __getitem__(self, key: Any) -> Any:
        """Elements, rows and slices."""
        self._check(key)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Likewise."""
        self._check(key)
        super().__setitem__(key, value)

    def _check(self, key: Any) -> None:
        for index, size in zip(key if isinstance(key, tuple) else (key,), self.shape, strict=False):
            assert isinstance(index, slice) or 0 <= index < size, f"{index} of {size}"


def _plain(module: ModuleType) -> dict[str, Any]:
    """The loops and helpers of a module as plain functions."""
    found = {}
    for name, value in vars(module).items():
        function = getattr(value, "py_func", None) or getattr(value, "function", None)
        if inspect.isfunction(function):
            found[name] = function
    return found


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(table=tables(rows_max=5), places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1))
@pytest.mark.filterwarnings("ignore:overflow")
def test_no_loop_leaves_its_arrays(table: TileTable, places: list[tuple[int, int]]) -> None:
    """The loop as plain Python, over arrays that check each index, for bodies with some bytes changed."""
    read_tiles: Any = read_loops.read_tiles
    body = bytearray(encode_body(table))
    for place, byte in places[:3]:
        body[20 + place % (len(body) - 28)] = byte

    def read(*arguments: Any) -> int:
        guarded = [one.view(_Guarded) if isinstance(one, np.ndarray) else one for one in arguments]
        try:
            return int(read_tiles.__wrapped__(*guarded))
        except OverflowError:
            # Compiled numbers wrap where those of Python grow.
            return 1

    patches = [patch.multiple(module, **_plain(module)) for module in (packing, text_forms, read_loops)]
    with patch.object(version5, "read_tiles", read), patches[0], patches[1], patches[2]:
        for sealed in (encode_body(table), _sealed(bytes(body))):
            try:
                decode_body(table.layout, sealed)
            except CorruptTile:
                assert sealed != encode_body(table)
