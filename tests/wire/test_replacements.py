"""Events that replace one another: whatever is sent again, and wherever reading begins anew, the last one counts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.core.events import EventBatch, Horizon
from featurestore.core.spec import CHANGE_ID, IS_UNDO
from featurestore.wire.changes.decoder import Decoder, decoder_of
from featurestore.wire.changes.versions import DOUBTFUL, LOST, Recall
from featurestore.wire.payloads import DeadLetter, DeadLetterReason
from tests.wire.changed_table import BEGIN_MS, HOUR_MS, TOPIC, Row
from tests.wire.replaced_events import MINUTE_MS, SOURCE, Producer, left_of, payload_of

NAMES = ("payment_id", "card_id", "cents", "amount", "declined", "note", CHANGE_ID, IS_UNDO)
NOW_MS = BEGIN_MS + 1_000 * HOUR_MS
Event = tuple[object, ...]


def new_decoder(recall: Recall | None = None) -> Decoder:
    """Of all columns."""
    return decoder_of(SOURCE, NAMES, recalls={} if recall is None else {(TOPIC, 0): recall})


def events_in(batch: EventBatch) -> Iterator[tuple[int, Event, Event]]:
    """Offset, what makes it a change, and time and columns of each event."""
    for row, offset in enumerate(batch.offsets.tolist()):
        found: list[object] = []
        for name in NAMES:
            column = batch.columns[name]
            is_null = column.valid is not None and not column.valid[row]
            found.append(None if is_null else column.values[row])
        yield offset, tuple(found[-2:]), (int(batch.event_time_ms[row]), *found[:-2])


def row_values(row: Row) -> Event:
    """The same of a row."""
    values = [row["paid_at"], *(row[name] for name in NAMES[:-2])]
    return tuple(value.encode() if isinstance(value, str) else value for value in values)


class Reader:
    """Reads a partition, now and then anew from where its horizon begins, and counts what comes of it."""

    def __init__(self, producer: Producer, draw: random.Random) -> None:
        self.producer, self.draw = producer, draw
        self.decoder = new_decoder()
        self.at, self.position, self.oldest = 0, 0, 0
        self.horizon: Horizon | None = None
        self.left = Counter[Event]()
        self.events: dict[int, list[Event]] = {}
        self.letters: list[DeadLetter] = []

    def read(self, *, now_ms: int = NOW_MS) -> None:
        """What was sent, in reads of any size; what was counted is not counted again."""
        while self.at < len(self.producer.sent):
            end = min(self.at + self.draw.randint(1, 9), len(self.producer.sent))
            decoded = self.decoder.decode(self.producer.raw(self.at, end), now_ms=now_ms)
            for offset, change, values in events_in(decoded.events):
                if offset >= self.position:
                    self.events.setdefault(offset, []).append((*change, *values))
                    self.left[values] += -1 if change[1] else 1
            self.letters += [one for one in decoded.dead_letters if one.offset >= self.position]
            self.at = end
            if end >= self.position:
                self.position, self.horizon = end, decoded.events.horizon

    def start_anew(self) -> None:
        """A process that knows no more than position and horizon, and what the log still has."""
        assert self.horizon is not None
        self.decoder = new_decoder(Recall(self.horizon, self.position, self.position))
        self.at = self.horizon.begin if self.horizon.begin >= self.oldest else self.position


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=120, deadline=None)
def test_the_last_version_of_each_event_is_left(seed: int) -> None:
    """And one that began anew a few times says, from offset to offset, what one says that never did."""
    draw = random.Random(seed)
    producer = Producer(draw)
    steady, other = Reader(producer, draw), Reader(producer, draw)
    for _ in range(draw.randint(1, 6)):
        producer.send(draw.randint(1, 25))
        steady.read()
        other.read()
        other.start_anew()

    expected = Counter(map(row_values, left_of(producer.sent).values()))
    assert +steady.left == +other.left == expected
    assert min(steady.left.values(), default=0) >= 0
    assert steady.events == other.events
    assert {DeadLetterReason.UNDECODABLE} >= {one.reason for one in (*steady.letters, *other.letters)}
    ids = [event[0] for events in steady.events.values() for event in events]
    assert len(set(ids)) == len(ids)


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=120, deadline=None)
def test_what_nobody_can_know_is_refused_and_never_guessed(seed: int) -> None:
    """Events that the clock refused and would not any more, records that a log lost: letters say what is missing."""
    draw = random.Random(seed)
    producer = Producer(draw)
    reader, now_ms = Reader(producer, draw), BEGIN_MS
    for _ in range(draw.randint(1, 6)):
        producer.send(draw.randint(1, 25), ahead_ms=draw.choice([0, 4 * HOUR_MS, 6 * HOUR_MS]))
        reader.read(now_ms=now_ms)
        now_ms += draw.choice([0, MINUTE_MS, HOUR_MS, 3 * HOUR_MS])
        if draw.random() < 0.3:
            reader.oldest = draw.randint(reader.oldest, reader.position)
        reader.start_anew()

    refused = {one.offset for one in reader.letters}
    seen = {one.offset for one in reader.letters if one.detail == DOUBTFUL}
    expected = Counter(map(row_values, left_of(producer.sent, refused, seen=seen).values()))
    assert +reader.left == expected
    assert len(refused) == len(reader.letters)


def test_a_replacement_undoes_what_it_was() -> None:
    """At its own offset, with the columns and the time of before; a repeat is nothing."""
    row = {"payment_id": "p-1", "paid_at": BEGIN_MS, "card_id": "c-1", "cents": 1, "amount": 0.5, "declined": False}
    moved = {**row, "card_id": "c-2", "paid_at": BEGIN_MS + 5, "note": "moved"}
    producer = Producer(random.Random(1), sent=[row, row, moved, row, {**row, "paid_at": BEGIN_MS + 2 * HOUR_MS}])
    batch = new_decoder().decode(producer.raw(0, 5), now_ms=NOW_MS).events

    found = [(offset, change[0], change[1], values[0], values[2]) for offset, change, values in events_in(batch)]
    place = f"@{TOPIC}/0/".encode()
    assert [
        (0, b"p-1" + place + b"0+", 0, BEGIN_MS, b"c-1"),
        (2, b"p-1" + place + b"2-", 1, BEGIN_MS, b"c-1"),
        (2, b"p-1" + place + b"2+", 0, BEGIN_MS + 5, b"c-2"),
        (3, b"p-1" + place + b"3-", 1, BEGIN_MS + 5, b"c-2"),
        (3, b"p-1" + place + b"3+", 0, BEGIN_MS, b"c-1"),
        (4, b"p-1" + place + b"4+", 0, BEGIN_MS + 2 * HOUR_MS, b"c-1"),
    ] == found
    assert Horizon(0, BEGIN_MS + 2 * HOUR_MS, is_whole=True) == batch.horizon


def test_letters_say_what_could_not_be_known() -> None:
    """One whose version may have been refused by the clock, and one of a time that the log has lost."""
    row = {"payment_id": "p-1", "paid_at": BEGIN_MS, "card_id": "c-1", "cents": 1, "amount": 0.5, "declined": False}
    ahead = {**row, "payment_id": "p-2", "paid_at": BEGIN_MS + 30 * MINUTE_MS}
    raw = Producer(random.Random(1), sent=[row, ahead, {**ahead, "cents": 2}, {**row, "cents": 3}]).raw
    doubt = Recall(Horizon(0, BEGIN_MS + 40 * MINUTE_MS, BEGIN_MS + 30 * MINUTE_MS, True), 2, 2)
    lost = Recall(Horizon(0, BEGIN_MS, is_whole=True), 2, 2)
    erased = Producer(random.Random(1), sent=[None, row, ahead]).raw(0, 3)
    letters = [
        *new_decoder(doubt).decode(raw(0, 4), now_ms=NOW_MS).dead_letters,
        *new_decoder(lost).decode(raw(2, 4), now_ms=NOW_MS).dead_letters,
        *new_decoder(lost).decode(erased, now_ms=NOW_MS).dead_letters[-1:],
    ]

    unusable = DeadLetterReason.UNUSABLE_CHANGE
    assert [(unusable, 2, DOUBTFUL), (unusable, 2, LOST), (unusable, 3, LOST), (unusable, 2, LOST)] == [
        (one.reason, one.offset, one.detail) for one in letters
    ]
    assert payload_of({**row, "cents": 3}) == letters[2].payload
