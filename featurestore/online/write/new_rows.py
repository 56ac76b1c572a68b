"""Columns of new events on their way into the store: what the checkpoints have not seen, of all batches together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from featurestore.core.events import BlobRow, BoolArray, ColumnValues, Horizon, Int64Array, KeyedBatch, ObjectArray
from featurestore.core.tiles.parts import EventRows
from featurestore.online.store import PackedAppends
from featurestore.online.write.pack_folding import PACK_HEAD_BYTES_MAX
from featurestore.wire.codecs.head import HeadCodec
from featurestore.wire.codecs.pack import records_of
from featurestore.wire.entity_key import packs_of
from featurestore.wire.store_layout import GenerationKeys

HashArray = NDArray[np.uint64]
"""Hashes of event ids."""

PACK_APPENDS_MAX = 256
"""Entities of a pack that the commit script asks for at once: Lua hands over some thousand arguments at most."""

_KEY_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio, odd."""


@dataclass(frozen=True, slots=True)
class UnseenRows:
    """A batch and the rows of it that are new; None for all."""

    batch: KeyedBatch
    rows: Int64Array | None
    skipped: int


@dataclass(frozen=True, slots=True)
class NewRows:
    """New rows of all batches together; the same entity key may occur once a batch in `keys`."""

    event_time_ms: Int64Array
    event_ids: ObjectArray | None
    keys: Sequence[bytes]
    key_index: Int64Array
    key_lanes: Int64Array
    columns: dict[str, ColumnValues]

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.event_time_ms)

    @property
    def lanes(self) -> Int64Array:
        """Lane of each row."""
        return self.key_lanes[self.key_index]

    def take(self, rows: Int64Array | BoolArray) -> NewRows:
        """The given rows."""
        return NewRows(
            self.event_time_ms[rows],
            None if self.event_ids is None else self.event_ids[rows],
            self.keys,
            self.key_index[rows],
            self.key_lanes,
            {name: column.take(rows) for name, column in self.columns.items()},
        )


def horizons_of(batches: Sequence[UnseenRows]) -> dict[tuple[str, int], Horizon]:
    """Where the horizon of each partition stands after some batches, where its events replace one another."""
    found = ((unseen.batch.topic, unseen.batch.partition, unseen.batch.horizon) for unseen in batches)
    return {(topic, partition): horizon for topic, partition, horizon in found if horizon is not None}


def _rows_of(unseen: UnseenRows, names: Sequence[str]) -> NewRows:
    """The new rows of one batch."""
    batch = unseen.batch
    columns = {name: batch.columns[name] for name in names}
    rows = NewRows(batch.event_time_ms, batch.event_ids, batch.keys, batch.key_index, batch.key_lanes, columns)
    return rows if unseen.rows is None else rows.take(unseen.rows)


def new_rows(batches: Sequence[UnseenRows], names: Sequence[str]) -> NewRows:
    """The new rows of all batches."""
    parts = [_rows_of(unseen, names) for unseen in batches if len(unseen.batch.offsets)]
    if len(parts) == 1:
        return parts[0]
    nothing = np.empty(0, dtype=np.int64)
    if not parts:
        return NewRows(nothing, None, (), nothing, nothing, {})
    shifts = np.cumsum([0, *(len(part.keys) for part in parts[:-1])])
    ids = [part.event_ids for part in parts if part.event_ids is not None]
    return NewRows(
        np.concatenate([part.event_time_ms for part in parts]),
        np.concatenate(ids) if ids else None,
        list(itertools.chain.from_iterable(part.keys for part in parts)),
        np.concatenate([part.key_index + shift for part, shift in zip(parts, shifts, strict=True)]),
        np.concatenate([part.key_lanes for part in parts]),
        {name: _join_columns([part.columns[name] for part in parts]) for name in names},
    )


def _join_columns(columns: Sequence[ColumnValues]) -> ColumnValues:
    """One column after another; all valid unless one is not."""
    values = np.concatenate([column.values for column in columns])
    if all(column.valid is None for column in columns):
        return ColumnValues(values)
    masks = [np.ones(len(c.values), dtype=np.bool_) if c.valid is None else c.valid for c in columns]
    return ColumnValues(values, np.concatenate(masks))


@dataclass(frozen=True, slots=True)
class LaneRows:
    """What a lane gets of new rows.

    Attributes:
        entities: their keys; one may be there several times, as those of several batches are.
        appends: head rows of each, where every entity has keys of its own.
        packed: the same, where there are packs.
    """

    entities: Sequence[bytes]
    appends: Sequence[bytes] = ()
    packed: PackedAppends | None = None


def rows_by_lane(codec: HeadCodec, rows: NewRows, keys: GenerationKeys, packs: int) -> dict[int, LaneRows]:
    """New rows by lane and entity, those of an entity in order of arrival.

    Args:
        codec: of their view.
        rows: N of them.
        keys: of their generation.
        packs: how many a lane has, in whose order entities then are; 0 for none.
    """
    if not rows.count:
        return {}
    pack = packs_of(rows.keys, packs) if packs else np.zeros(len(rows.keys), dtype=np.int64)
    place = rows.key_lanes * max(packs, 1) + pack
    by_place = np.argsort(place, kind="stable")
    rank = np.empty(len(by_place), dtype=np.int64)
    rank[by_place] = np.arange(len(by_place))
    order, entity = _in_order(rank[rows.key_index], len(by_place))
    starts = np.flatnonzero(np.diff(entity, prepend=-1))
    of_entity = by_place[entity[starts]]
    chosen = rows.take(order)
    encoded = codec.encode(EventRows(chosen.event_time_ms, chosen.event_ids, chosen.columns))
    bounds = np.append(starts, len(entity))
    entities = [rows.keys[key] for key in of_entity.tolist()]
    lanes = rows.key_lanes[of_entity]
    lane_starts = np.flatnonzero(np.diff(lanes, prepend=-1)).tolist()
    spans = [(int(lanes[low]), low, high) for low, high in itertools.pairwise((*lane_starts, len(lanes)))]
    if not packs:
        appends = encoded.joined(bounds)
        return {lane: LaneRows(entities[low:high], appends[low:high]) for lane, low, high in spans}
    of_each = BlobRow(encoded.buffer, encoded.begins[starts], encoded.ends[bounds[1:] - 1])
    records, pack = records_of(entities, of_each), pack[of_entity]
    return {
        lane: LaneRows(entities[low:high], packed=packed_appends(keys, lane, pack[low:high], records[low:high]))
        for lane, low, high in spans
    }


def _in_order(values: Int64Array, bound: int) -> tuple[Int64Array, Int64Array]:
    """How numbers in [0, bound) are ordered, those that are equal as they come; and the numbers in that order."""
    # Small ones are sorted by their digits, in a tenth of the time.
    order = np.argsort(values.astype(np.uint16) if bound <= 1 << 16 else values, kind="stable")
    return order, values[order]


def packed_appends(keys: GenerationKeys, lane: int, pack: Int64Array, records: BlobRow) -> PackedAppends:
    """What is appended for some entities of a lane, pack by pack.

    Args:
        keys: of the generation.
        lane: which.
        pack: (N,) of each entity, those of a pack together; one or more.
        records: of each, one after another.
    """
    starts = np.flatnonzero(np.diff(pack, prepend=-1))
    sizes = np.diff(starts, append=len(pack))
    if sizes.max() > PACK_APPENDS_MAX:
        starts = np.concatenate(
            [np.arange(at, at + size, PACK_APPENDS_MAX) for at, size in zip(starts, sizes, strict=True)]
        )
    bounds = np.append(starts, len(pack))
    return PackedAppends(
        head_prefix=keys.pack_head_prefix(lane),
        body_prefix=keys.pack_body_prefix(lane),
        names=[b"%d" % number for number in pack[starts].tolist()],
        ends=bounds[1:].tolist(),
        records=records.joined(bounds),
        report_bytes_min=PACK_HEAD_BYTES_MAX,
    )


def hash_entity_ids(ids: Sequence[bytes] | ObjectArray, keys: Sequence[bytes], key_index: Int64Array) -> HashArray:
    """A hash of each event id within its entity: an id repeats an event of the same entity only.

    Args:
        ids: N event ids.
        keys: canonical entity keys.
        key_index: (N,) whose event it is.
    """
    digest = xxhash.xxh3_64_intdigest
    of_ids = np.fromiter(map(digest, ids), dtype=np.uint64, count=len(ids))
    of_keys = np.fromiter(map(digest, keys), dtype=np.uint64, count=len(keys))
    # An odd factor keeps every bit, and keeps an id that equals its key from cancelling out.
    return of_ids ^ (of_keys[key_index] * _KEY_FACTOR)


def ids_by_lane(rows: NewRows, hashes: HashArray) -> dict[int, bytes]:
    """The new hashes of each lane as bytes."""
    if not rows.count:
        return {}
    lanes = rows.lanes
    order = np.argsort(lanes, kind="stable")
    lanes, data = lanes[order], hashes[order].astype("<u8")
    starts = np.flatnonzero(np.diff(lanes, prepend=-1)).tolist()
    return {int(lanes[low]): data[low:high].tobytes() for low, high in itertools.pairwise((*starts, len(lanes)))}


def newest_by_lane(rows: NewRows) -> dict[int, int]:
    """Newest event time of each lane that has rows."""
    if not rows.count:
        return {}
    lanes = rows.lanes
    newest = np.full(int(lanes.max()) + 1, -1, dtype=np.int64)
    np.maximum.at(newest, lanes, rows.event_time_ms)
    return {lane: int(newest[lane]) for lane in np.unique(lanes).tolist()}
