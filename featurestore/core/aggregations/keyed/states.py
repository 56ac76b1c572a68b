"""Keyed states: what a tile keeps for each distinct key, as one byte string; see `kernels` for the bytes.

    events          DE 5, SE 7, DE 1
    state           TEXT | DE 2 | SE 1              counts by value (a multiset)
                    TEXT | DE 2 6 | SE 1 7          count and sum by another column

Multisets, top lists, heavy hitters, percentile sketches and aggregations by a secondary key are all of this kind. They
differ in what the key is, which numbers it has, and what happens when there are too many keys.

    laws required     ADD, MIN and MAX of the numbers, so any order of merging gives equal bytes; but for floats that
                      are added up, and the heaviest keys (`HEAVIEST`), which depend on what was merged first
    time              merging: see `kernels`
    space             bounded by the limit

A tile that holds more keys than a bounded state may forgets them all and says so, for ever: whatever it is merged into
holds too many as well. So whether an answer is given depends on the set of keys in the window and on nothing else. What
it says in their place is the part's: nothing, or how many they were (`multiset`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.aggregations.keyed.kernels import (
    ADD,
    BOUNDED,
    INT_KEYS,
    TEXT_KEYS,
    TOO_MANY,
    decode_keyed,
    lift_keyed,
    merge_keyed,
)
from featurestore.core.events import BlobRow, BoolArray, ColumnValues, Float64Array, Int64Array, ObjectArray
from featurestore.core.spec import Column, ValueType
from featurestore.core.tiles.parts import (
    Array,
    EventRows,
    Field,
    FieldValues,
    Lift,
    Merge,
    Part,
    PartBase,
    RangeFamily,
    Storage,
)

INT_TAG, FLOAT_TAG, TEXT_TAG, BOOL_TAG = 1, 2, 3, 4
"""First byte of a state: what its keys are, so that an answer can be read without knowing the column."""

KEY_TAGS = 8
"""A part may add multiples of this to the tag, to say more."""

TAG_OF_TYPE = {
    ValueType.INT64: INT_TAG,
    ValueType.TIMESTAMP: INT_TAG,
    ValueType.FLOAT64: FLOAT_TAG,
    ValueType.STRING: TEXT_TAG,
    ValueType.BOOL: BOOL_TAG,
}

UNLIMITED = 1 << 62

ONCE = np.ones(1, dtype=np.int64)
"""The count of a key that was just lifted."""

SHARED_WINDOWS_MAX = 64
"""Each window passes over all keys of the rows that it shares with others: worth it for a lookup, not for history."""

_FLOAT_BYTES = 8
_VARINT_BYTES_MAX = 10
_ALL_BUT_SIGN = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class StateLayout:
    """What a keyed state holds.

    Attributes:
        tag: its first byte.
        int_merges: how the integers of an entry merge; ADD, MIN or MAX of `kernels`.
        float_merges: likewise the floats.
        policy: what happens beyond the limit, BOUNDED by default.
        limit: number of keys that it may hold.
    """

    tag: int
    int_merges: tuple[int, ...] = ()
    float_merges: tuple[int, ...] = ()
    policy: int = BOUNDED
    limit: int = UNLIMITED

    @property
    def kind(self) -> int:
        """INT_KEYS or TEXT_KEYS."""
        return INT_KEYS if self.tag % KEY_TAGS in (INT_TAG, FLOAT_TAG, BOOL_TAG) else TEXT_KEYS

    @property
    def shape(self) -> Int64Array:
        """As the compiled loops take it."""
        numbers = (self.kind, self.tag, len(self.int_merges), len(self.float_merges), self.policy, self.limit)
        return np.array(numbers, dtype=np.int64)

    @property
    def merges(self) -> Int64Array:
        """Likewise."""
        return np.array((*self.int_merges, *self.float_merges), dtype=np.int64)

    @property
    def entry_bytes_min(self) -> int:
        """Fewest bytes of an entry."""
        return 1 + len(self.int_merges) + _FLOAT_BYTES * len(self.float_merges)

    @property
    def entry_bytes_max(self) -> int:
        """Most bytes of an entry; text keys come on top."""
        return _VARINT_BYTES_MAX * (1 + len(self.int_merges)) + _FLOAT_BYTES * len(self.float_merges)


@dataclass(frozen=True, slots=True)
class Entries:
    """A state, read: E keys in ascending order with their numbers.

    Attributes:
        state: all of it.
        numbers: (E,) keys that are no texts, floats as `ordered_bits`; of texts where they begin.
        ends: (E,) where texts end.
        ints: (integers, E).
        floats: (floats, E).
    """

    state: bytes
    numbers: Int64Array
    ends: Int64Array
    ints: Int64Array
    floats: Float64Array

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def tag(self) -> int:
        """What the keys are."""
        return self.state[0]

    def key_values(self) -> list[int] | list[float] | list[bytes]:
        """int, float, 0 and 1 (flags) or bytes (text), by the tag."""
        kind, state = self.tag % KEY_TAGS, self.state
        if kind in (INT_TAG, BOOL_TAG):
            return [int(number) for number in self.numbers.tolist()]
        if kind == FLOAT_TAG:
            return [float(number) for number in floats_of_bits(self.numbers).tolist()]
        return [state[low:high] for low, high in zip(self.numbers.tolist(), self.ends.tolist(), strict=True)]

    def texts(self) -> list[str]:
        """The keys as the keys of a map: numbers as Python writes them, flags as true and false."""
        if self.tag % KEY_TAGS == BOOL_TAG:
            return ["true" if key else "false" for key in self.key_values()]
        return [key.decode() if isinstance(key, bytes) else str(key) for key in self.key_values()]


class KeyedPart(PartBase):
    """Base of parts that keep a keyed state; a subclass says what is lifted.

    Args:
        key: canonical text of the part.
        layout: of its states.
    """

    def __init__(self, key: str, layout: StateLayout) -> None:
        self.key = key
        self.layout = layout
        self._shape, self._merges = layout.shape, layout.merges

    fields: tuple[Field, ...] = (Field("state", Storage.BLOB, Merge.OWN, b"", Lift.OWN),)
    requires: tuple[Part, ...] = ()
    reads_event_ids = False
    family: RangeFamily | None = None

    def lift_entries(self, keys: ColumnValues | BlobRow, valid: BoolArray | None, numbers: Sequence[Array]) -> BlobRow:
        """States of N events.

        Args:
            keys: (N,) texts, or numbers whose order is the keys' (see `ordered_bits`).
            valid: (N,) False for events that leave no entry; None when all leave one.
            numbers: the integers, then the floats, (N,) or (1,) each.
        """
        spans = keys if isinstance(keys, BlobRow) else None
        count = len(keys) if isinstance(keys, BlobRow) else len(keys.values)
        flags = np.ones(count, np.uint8) if valid is None else valid.view(np.uint8)
        bits = np.empty((len(numbers), count), dtype=np.int64)
        for index, values in enumerate(numbers):
            bits[index] = values if values.dtype == np.int64 else values.view(np.int64)
        room = count * (1 + self.layout.entry_bytes_max)
        if spans is None:
            assert isinstance(keys, ColumnValues)
            begins = ends = np.ascontiguousarray(keys.values)
        else:
            begins, ends = np.ascontiguousarray(spans.begins), np.ascontiguousarray(spans.ends)
            room += int((ends - begins).sum())
        data = np.frombuffer(b"" if spans is None else spans.buffer, np.uint8)
        out, out_ends = np.empty(room, np.uint8), np.empty(count, np.int64)
        size = lift_keyed(data, begins, ends, flags, bits, self._shape, out, out_ends)
        return BlobRow.consecutive(out[:size].tobytes(), out_ends)

    def merge_groups(
        self, mine: Sequence[FieldValues], required: Sequence[FieldValues], starts: Int64Array
    ) -> tuple[FieldValues, ...]:
        """All runs in one call of the compiled loop."""
        states = mine[0]
        assert isinstance(states, BlobRow)
        return (self.merge_states(states, starts, np.append(starts[1:], len(states)), 1),)

    def merge_ranges(
        self, mine: Sequence[FieldValues], lows: Int64Array, highs: Int64Array
    ) -> tuple[FieldValues | None, ...]:
        """All ranges in one call; the few of a lookup, which overlap, share the work of reading their rows."""
        states = mine[0]
        assert isinstance(states, BlobRow)
        return (self.merge_states(states, lows, highs, len(lows) if len(lows) <= SHARED_WINDOWS_MAX else 1),)

    def merge_states(self, states: BlobRow, lows: Int64Array, highs: Int64Array, windows_a_span: int) -> BlobRow:
        """States of W ranges of rows, of which `windows_a_span` after another share their rows; see `merge_keyed`."""
        begins, ends = np.ascontiguousarray(states.begins), np.ascontiguousarray(states.ends)
        total = np.zeros(len(begins) + 1, dtype=np.int64)
        np.cumsum(ends - begins, out=total[1:])
        sizes = total[np.maximum(lows, highs)] - total[lows]
        entries = np.minimum(sizes // self.layout.entry_bytes_min, self.layout.limit)
        room = len(lows) * 2 + int(entries.sum()) * self.layout.entry_bytes_max
        if self.layout.kind == TEXT_KEYS:
            room += int(sizes.sum())
        out, out_ends = np.empty(room, np.uint8), np.empty(len(lows), np.int64)
        data = np.frombuffer(states.buffer, np.uint8)
        size = merge_keyed(data, begins, ends, lows, highs, windows_a_span, self._shape, self._merges, out, out_ends)
        return BlobRow.consecutive(out[:size].tobytes(), out_ends)


class ValueCounts(KeyedPart):
    """Base of parts that count the non-null values of a column, each under itself as the key.

    Args:
        key: canonical text of the part.
        column: whose values.
        policy: what happens beyond the limit.
        limit: number of distinct values that a state may hold.
    """

    def __init__(self, key: str, column: Column, *, policy: int = BOUNDED, limit: int) -> None:
        super().__init__(key, StateLayout(TAG_OF_TYPE[column.type], (ADD,), policy=policy, limit=limit))
        self.column = column

    def lift(self, rows: EventRows) -> Mapping[str, FieldValues]:
        """Each value once."""
        values = rows.columns[self.column.name]
        return {"state": self.lift_entries(keys_of(values, self.column.type), values.valid, [ONCE])}


def no_answers(shape: Sequence[int]) -> ObjectArray:
    """(K, R) objects to fill in; 0 stands where there is no answer."""
    answers: ObjectArray = np.empty(tuple(shape), dtype=np.object_)
    answers.fill(0)
    return answers


def is_too_many(state: bytes) -> bool:
    """Whether the state held more keys than it may."""
    return state[:1] == bytes((TOO_MANY,))


def replace_too_many(merged: BlobRow, rows: Int64Array, states: Array) -> BlobRow:
    """Merged states with longer ones in the place of single bytes of too many keys.

    Args:
        merged: W states, as `merge_states` of a keyed part gives them; its spans are changed.
        rows: (M,) which of them had too many keys.
        states: (M, B) bytes of the states that take their places.
    """
    begins = len(merged.buffer) + states.shape[1] * np.arange(len(rows))
    merged.begins[rows], merged.ends[rows] = begins, begins + states.shape[1]
    return BlobRow(b"".join((merged.buffer, states.reshape(-1).data)), merged.begins, merged.ends)


def read_state(state: bytes, int_count: int = 1, float_count: int = 0) -> Entries:
    """The entries of a state that is neither empty nor one of too many keys.

    Args:
        state: what a keyed part keeps.
        int_count: number of integers an entry.
        float_count: number of floats.
    """
    layout = StateLayout(state[0], (ADD,) * int_count, (ADD,) * float_count)
    room = len(state) // layout.entry_bytes_min + 1
    keys, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    bits = np.empty((int_count + float_count, room), np.int64)
    count = decode_keyed(np.frombuffer(state, np.uint8), layout.shape, keys, ends, bits)
    floats = bits[int_count:, :count].view(np.float64)
    return Entries(state, keys[:count], ends[:count], bits[:int_count, :count], floats)


def keys_of(column: ColumnValues, column_type: ValueType) -> ColumnValues | BlobRow:
    """A column as keys: text as it is, numbers as integers of the same order."""
    if column_type is ValueType.STRING:
        return BlobRow.of(column.values)
    if column_type is ValueType.FLOAT64:
        return ColumnValues(ordered_bits(np.asarray(column.values)))
    return column


def ordered_bits(values: Float64Array) -> Int64Array:
    """(N,) integers in the order of the floats; -0.0 is 0.0.

    >>> ordered_bits(np.array([-1.0, -0.0, 0.0, 0.5])).tolist()
    [-4607182418800017409, 0, 0, 4602678819172646912]
    """
    bits = (values + 0.0).view(np.int64)
    return bits ^ ((bits >> 63) & _ALL_BUT_SIGN)


def floats_of_bits(bits: Int64Array) -> Float64Array:
    """The floats of `ordered_bits`."""
    return (bits ^ ((bits >> 63) & _ALL_BUT_SIGN)).view(np.float64)
