"""Changes of a table's rows to events: an insert does, a delete undoes, an update undoes one row and does another.

    offset 7   u   before p-1 c-1 10.50        ──>   7   p-1 c-1 10.50   p-1@26387352-   is_undo
                   after  p-1 c-1 11.00              7   p-1 c-1 11.00   p-1@26387352+

A row is an event as any other: its columns, its event time, its entity. What a row was is undone where and when it was
done, so in any window that has the one there is the other. Which order changes come in does not matter. A change that
is sent again has the same ids, which a connector's restart makes likely.

Whether a row can be used is decided by the row alone, so that what was refused is refused when it is undone, too. What
a row was must be there as a whole. Without it nothing of the change is used: half of an update would count a row twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featurestore.core.events import ColumnValues, EventBatch, Int64Array
from featurestore.core.spec import CHANGE_ID, IS_UNDO, SourceSpec
from featurestore.wire.formats.columns import NoSchemas, ReadColumns, Schemas, objects
from featurestore.wire.formats.debezium.avro_envelopes import AvroEnvelopes
from featurestore.wire.formats.debezium.envelope import AFTER, BEFORE, FULL, EnvelopeReader, Envelopes
from featurestore.wire.formats.debezium.json_envelopes import JsonEnvelopes
from featurestore.wire.payloads import DeadLetter, DeadLetterReason, DecodedBatch, EventDecoder, RawBatch

_SIGNS = {BEFORE: b"-", AFTER: b"+"}


class ChangeDecoder:
    """Decodes the records of one topic of a source of changes.

    Args:
        source, columns, schemas: as of `decoder_of`.
    """

    def __init__(self, source: SourceSpec, columns: Iterable[str], schemas: Schemas | None = None) -> None:
        names, schemas = tuple(dict.fromkeys(columns)), schemas or NoSchemas()
        self._generated = [name for name in names if name in (CHANGE_ID, IS_UNDO)]
        self._envelopes: EnvelopeReader
        if source.format == "avro":
            self._envelopes = AvroEnvelopes(source, schemas)
            sources = {side: source.rows_at(side, "avro") for side in (BEFORE, AFTER)}
        else:
            self._envelopes = JsonEnvelopes(has_header=source.format == "json_schema")
            sources = {side: source.rows_at("", "json") for side in (BEFORE, AFTER)}
        wanted = [name for name in names if name not in self._generated]
        self._decoders = {side: EventDecoder(one, wanted, schemas) for side, one in sources.items()}
        known = [column.name for column in sources[BEFORE].columns if column.name != source.row_id_column]
        self._whole = EventDecoder(sources[BEFORE], known, schemas)
        self._telling = [name for name in known if name != source.topic_column]

    def decode(self, raw: RawBatch, *, now_ms: int) -> DecodedBatch:
        """Events of the changes that can be used, undone before done; dead letters of the others and of bad rows.

        Args:
            raw: N payloads.
            now_ms: processing time, for rows dated too far ahead.

        Raises:
            SourceUnavailable: the schema registry does not answer.
        """
        envelopes = self._envelopes.read(raw.payloads)
        letters = _Letters(raw)
        for number, mistake in envelopes.mistakes.items():
            letters.add(number, DeadLetterReason.UNUSABLE_CHANGE if mistake.is_change else _UNDECODABLE, mistake.detail)
        undone = self._rows(raw, envelopes, BEFORE, envelopes.undone)
        if key_only := self._key_only(undone):
            for number in key_only:
                letters.add(number, DeadLetterReason.UNUSABLE_CHANGE, f"before has only the key: {FULL}")
            undone = self._rows(raw, envelopes, BEFORE, [one for one in envelopes.undone if one not in key_only])
        done = self._rows(raw, envelopes, AFTER, [one for one in envelopes.done if one not in key_only])
        if undated := set(done.numbers[self._are_of_1970(done)].tolist()):
            for number in undated:
                letters.add(number, DeadLetterReason.UNUSABLE_CHANGE, _OF_1970)
            done = self._rows(raw, envelopes, AFTER, [one for one in done.numbers.tolist() if one not in undated])
        parts = []
        for side, rows in ((BEFORE, undone), (AFTER, done)):
            found = self._decoders[side].events_of(rows.raw, rows.read, now_ms=now_ms)
            for letter in found.dead_letters:
                letters.add(int(raw.offsets.searchsorted(letter.offset)), letter.reason, f"{side}: {letter.detail}")
            parts.append(self._as_changes(raw, envelopes, found.events, side))
        return DecodedBatch(together(*parts), letters.in_order())

    def _rows(self, raw: RawBatch, envelopes: Envelopes, side: str, numbers: Sequence[int]) -> _Rows:
        """The rows of one side of some payloads."""
        payloads = envelopes.rows(side, numbers)
        at = np.array(numbers, dtype=np.int64)
        own = replace(raw, offsets=raw.offsets[at], payloads=payloads)
        return _Rows(at, own, self._decoders[side].read(payloads))

    def _are_of_1970(self, rows: _Rows) -> Int64Array:
        """Which rows are dated 0, which Debezium writes into columns that it does not know and that cannot be null."""
        times = self._decoders[BEFORE].times_of(rows.read)
        is_zero = np.asarray(times.values) == 0
        found: Int64Array = rows.read.rows[is_zero if times.valid is None else is_zero & times.valid]
        return found

    def _key_only(self, undone: _Rows) -> set[int]:
        """Payloads whose row before is not there as a whole.

        Databases that do not log it leave all columns but the key without a value: null, or zero where that cannot be.
        So a row of 1970 is none, and one without a time is none if it says nothing else. Which a row can be that is
        there as a whole, too; but then it was refused when it was done.
        """
        found = set(undone.numbers[self._are_of_1970(undone)].tolist())
        times = self._decoders[BEFORE].times_of(undone.read)
        if times.valid is None:
            return found
        untimed = undone.read.rows[~times.valid]
        whole = self._whole.read([undone.raw.payloads[row] for row in untimed.tolist()])
        says_nothing = np.ones(len(whole.rows), dtype=np.bool_)
        for name in self._telling:
            column = whole.columns[name]
            is_empty = np.array([not value for value in np.asarray(column.values).tolist()], dtype=np.bool_)
            says_nothing &= is_empty if column.valid is None else is_empty | ~column.valid
        return found | set(undone.numbers[untimed[whole.rows[says_nothing]]].tolist())

    def _as_changes(self, raw: RawBatch, envelopes: Envelopes, events: EventBatch, side: str) -> EventBatch:
        """Rows as events that do or undo, each with the id of its change."""
        assert events.event_ids is not None, "a source of changes has the id of a row"
        numbers = raw.offsets.searchsorted(events.offsets).tolist()
        ids = objects(
            [
                b"%b@%b%b" % (row_id, envelopes.positions[number], _SIGNS[side])
                for row_id, number in zip(events.event_ids.tolist(), numbers, strict=True)
            ]
        )
        made = {
            CHANGE_ID: ColumnValues(ids),
            IS_UNDO: ColumnValues(np.full(len(ids), side == BEFORE, dtype=np.int64)),
        }
        return replace(
            events, event_ids=ids, columns={**events.columns, **{name: made[name] for name in self._generated}}
        )


_UNDECODABLE = DeadLetterReason.UNDECODABLE
_OF_1970 = "after: its event time is 0, which stands for a time that is not known"


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of one side of some payloads.

    Attributes:
        numbers: (M,) the payloads.
        raw: their rows as payloads, at the offsets of their changes.
        read: what is in them.
    """

    numbers: Int64Array
    raw: RawBatch
    read: ReadColumns


class _Letters:
    """At most one dead letter of each payload, with all that is wrong with it."""

    def __init__(self, raw: RawBatch) -> None:
        self._raw = raw
        self._found: dict[int, DeadLetter] = {}

    def add(self, number: int, reason: DeadLetterReason, detail: str) -> None:
        """What is wrong with a payload."""
        raw = self._raw
        if (known := self._found.get(number)) is not None:
            self._found[number] = replace(known, detail=f"{known.detail}; {detail}")
            return
        place = (raw.topic, raw.partition, int(raw.offsets[number]))
        self._found[number] = DeadLetter(reason, detail, *place, raw.payloads[number])

    def in_order(self) -> tuple[DeadLetter, ...]:
        """By offset."""
        return tuple(self._found[number] for number in sorted(self._found))


def together(first: EventBatch, second: EventBatch) -> EventBatch:
    """The events of two parts of one read, by offset; of one offset those of the first part first."""
    if not len(first.offsets) or not len(second.offsets):
        return first if len(first.offsets) else second
    assert first.event_ids is not None, "changes have ids"
    assert second.event_ids is not None, "changes have ids"
    order = np.argsort(np.concatenate([first.offsets, second.offsets]), kind="stable")
    return replace(
        first,
        offsets=np.concatenate([first.offsets, second.offsets])[order],
        event_time_ms=np.concatenate([first.event_time_ms, second.event_time_ms])[order],
        event_ids=np.concatenate([first.event_ids, second.event_ids])[order],
        columns={name: _joined(column, second.columns[name]).take(order) for name, column in first.columns.items()},
    )


def _joined(first: ColumnValues, second: ColumnValues) -> ColumnValues:
    """A column of all rows."""
    valid = None
    if first.valid is not None or second.valid is not None:
        flags = [np.ones(len(one.values), np.bool_) if one.valid is None else one.valid for one in (first, second)]
        valid = np.concatenate(flags)
    return ColumnValues(np.concatenate([np.asarray(first.values), np.asarray(second.values)]), valid)
