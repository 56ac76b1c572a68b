"""Events that are sent again with other values: each replaces what it was.

    offset 7   p-1  c-1  10.50     ──>   7   c-1  10.50   p-1@payments/0/7+
    offset 9   p-1  c-2  11.00     ──>   9   c-1  10.50   p-1@payments/0/9-    is_undo
                                         9   c-2  11.00   p-1@payments/0/9+

What an event was is not in the record, so it is remembered (`versions`), by partition and before anything is routed:
the event may be another entity's now, of another time, or none that a view takes. Columns, event time and id are the
source's own; what an undo has are those of the version that it takes back. A record that says what is held already is
nothing, and neither is one that cannot be used: what it was to replace stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from featurestore.core.events import ColumnValues, EventBatch, Int64Array, ObjectArray
from featurestore.core.spec import CHANGE_ID, IS_UNDO, SourceSpec
from featurestore.wire.changes.envelopes import together
from featurestore.wire.changes.versions import Recall, Taken, Versions
from featurestore.wire.formats.columns import ReadColumns, Schemas, objects
from featurestore.wire.moments import EVENT_TIME_MS_MAX
from featurestore.wire.payloads import DeadLetter, DeadLetterReason, DecodedBatch, EventDecoder, RawBatch

_EARLIER_ROW, _LATER_ROW = b"-", b"+"


class ReplacingDecoder:
    """Decodes the records of one topic of a source whose events replace one another: each partition's in order.

    A read that does not go on where its partition's last one ended begins the partition anew.

    Args:
        source, columns, schemas, recalls: as of `decoder_of`.
    """

    def __init__(
        self,
        source: SourceSpec,
        columns: Iterable[str],
        schemas: Schemas | None = None,
        recalls: Mapping[tuple[str, int], Recall] | None = None,
    ) -> None:
        names = tuple(dict.fromkeys(columns))
        self._generated = [name for name in names if name in (CHANGE_ID, IS_UNDO)]
        wanted = [name for name in names if name not in self._generated]
        self._rows = EventDecoder(source.rows_at("", source.format), wanted, schemas)
        self._horizon_ms = source.dedup_horizon_ms
        self._recalls = recalls or {}
        self._partitions: dict[tuple[str, int], Versions] = {}

    def decode(self, raw: RawBatch, *, now_ms: int) -> DecodedBatch:
        """Events of the records that can be used, what they replace undone before; dead letters of the others.

        Args:
            raw: N payloads, the next ones of their partition.
            now_ms: processing time, for events dated too far ahead.

        Raises:
            SourceUnavailable: the schema registry does not answer; nothing was taken note of.
        """
        place = raw.topic, raw.partition
        versions = self._partitions.get(place)
        if versions is None or versions.next_offset != raw.from_offset:
            versions = Versions(self._horizon_ms, raw.from_offset, self._recalls.get(place))
        parts = [(part, self._rows.read(part.payloads)) for part in _cut(raw, versions.bounds)]
        self._partitions[place] = versions
        found = [self._part(versions, part, read, now_ms) for part, read in parts]
        events = found[0].events
        for one in found[1:]:
            events = together(events, one.events)
        whole = replace(events, from_offset=raw.from_offset, next_offset=raw.next_offset, horizon=versions.horizon())
        return DecodedBatch(whole, tuple(letter for one in found for letter in one.dead_letters))

    def _part(self, versions: Versions, part: RawBatch, read: ReadColumns, now_ms: int) -> DecodedBatch:
        """Records that are all taken in one way."""
        versions.begin_at(part.from_offset)
        is_recalled = versions.is_recalled(part.next_offset)
        # The clock has judged what was read before, and its letters were written.
        found = self._rows.events_of(part, read, now_ms=EVENT_TIME_MS_MAX if is_recalled else now_ms)
        if versions.is_foreign(part.next_offset):
            versions.next_offset = part.next_offset
            return DecodedBatch(_changes(_nothing_of(found.events), self._generated), ())
        taken = versions.take(found.events)
        letters = list(found.dead_letters)
        if is_recalled:
            letters = []
        elif letters:
            versions.refuse(*self._ahead(part, read, letters))
        letters += [_letter(part, offset, why) for offset, why in taken.refused.items()]
        letters.sort(key=lambda letter: letter.offset)
        return DecodedBatch(_changes(taken, self._generated), tuple(letters))

    def _ahead(self, part: RawBatch, read: ReadColumns, letters: Iterable[DeadLetter]) -> tuple[Int64Array, Int64Array]:
        """Offsets and event times of records that the clock has refused."""
        refused = [one.offset for one in letters if one.reason is DeadLetterReason.TOO_FAR_IN_FUTURE]
        offsets = part.offsets[read.rows]
        is_refused = np.isin(offsets, refused)
        return offsets[is_refused], np.asarray(self._rows.times_of(read).values)[is_refused]


def _cut(raw: RawBatch, bounds: Iterable[int]) -> list[RawBatch]:
    """A read in parts, none of which spans a bound."""
    parts, rest = [], raw
    for bound in sorted(bounds):
        if rest.from_offset < bound < rest.next_offset:
            count = int(rest.offsets.searchsorted(bound))
            parts.append(replace(rest, next_offset=bound, offsets=rest.offsets[:count], payloads=rest.payloads[:count]))
            rest = replace(rest, from_offset=bound, offsets=rest.offsets[count:], payloads=rest.payloads[count:])
    return [*parts, rest]


def _nothing_of(events: EventBatch) -> Taken:
    """None of some events."""
    none: ObjectArray = objects([])
    columns = {name: column.take(np.empty(0, dtype=np.int64)) for name, column in events.columns.items()}
    empty = replace(
        events, offsets=events.offsets[:0], event_time_ms=events.event_time_ms[:0], event_ids=none, columns=columns
    )
    return Taken(empty, np.ones(0, dtype=np.bool_), {}, {})


def _changes(taken: Taken, generated: Iterable[str]) -> EventBatch:
    """Events that undo and do, in the order of their offsets."""
    done = _as_changes(taken.events, np.flatnonzero(taken.is_kept), taken.events.event_ids, generated, is_undo=False)
    if not taken.replaced:
        return done
    rows, events = np.array(list(taken.replaced), dtype=np.int64), taken.events
    versions = list(taken.replaced.values())
    undone = replace(
        events,
        offsets=events.offsets[rows],
        event_time_ms=np.array([of.event_time_ms[row] for of, row in versions], dtype=np.int64),
        event_ids=None,
        columns={name: _gathered(name, column, versions) for name, column in events.columns.items()},
    )
    assert events.event_ids is not None, "events that replace one another have ids"
    every = np.arange(len(rows))
    return together(_as_changes(undone, every, events.event_ids[rows], generated, is_undo=True), done)


def _gathered(name: str, like: ColumnValues, versions: list[tuple[EventBatch, int]]) -> ColumnValues:
    """One column of some versions."""
    values = [of.columns[name].values[row] for of, row in versions]
    valids = [of.columns[name].valid for of, _ in versions]
    valid = None
    if any(one is not None for one in valids):
        valid = np.array([one is None or one[row] for one, (_, row) in zip(valids, versions, strict=True)], np.bool_)
    kind = np.asarray(like.values).dtype
    return ColumnValues(objects(values) if kind == np.object_ else np.array(values, dtype=kind), valid)


def _as_changes(
    events: EventBatch, rows: Int64Array, ids: ObjectArray | None, generated: Iterable[str], *, is_undo: bool
) -> EventBatch:
    """Some events, each with the id of its change."""
    assert ids is not None, "events that replace one another have ids"
    sign = _EARLIER_ROW if is_undo else _LATER_ROW
    place = f"@{events.topic}/{events.partition}/".encode()
    offsets = events.offsets[rows]
    of_changes = objects(
        [
            b"%b%b%d%b" % (event_id, place, offset, sign)
            for event_id, offset in zip(ids[rows].tolist(), offsets.tolist(), strict=True)
        ]
    )
    made = {
        CHANGE_ID: ColumnValues(of_changes),
        IS_UNDO: ColumnValues(np.full(len(rows), is_undo, dtype=np.int64)),
    }
    columns = {name: column.take(rows) for name, column in events.columns.items()}
    return replace(
        events,
        offsets=offsets,
        event_time_ms=events.event_time_ms[rows],
        event_ids=of_changes,
        columns={**columns, **{name: made[name] for name in generated}},
    )


def _letter(part: RawBatch, offset: int, why: str) -> DeadLetter:
    """The dead letter of a record that may replace something that is not known."""
    payload = part.payloads[int(part.offsets.searchsorted(offset))]
    return DeadLetter(DeadLetterReason.UNUSABLE_CHANGE, why, part.topic, part.partition, offset, payload)
