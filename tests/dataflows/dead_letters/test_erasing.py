"""Letters and published vectors of somebody are taken away; others stay, each once, whatever was killed in between."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import Producer

from dataflows.dead_letters import erasing
from dataflows.dead_letters.book import FileBook, KeptLetter
from dataflows.dead_letters.erasing import LetterJudge, erase_from_files, erase_from_topic
from dataflows.dead_letters.kafka_book import KafkaBook
from dataflows.dead_letters.policy import PayloadPolicy, Payloads
from dataflows.dead_letters.writer import FileDeadLetters, KafkaDeadLetters
from dataflows.log_to_features.tombstones import take_back
from dataflows.logs.file_log import FileLog, embedded_registry
from featurestore.core.spec import Column, SourceSpec, ValueType
from featurestore.errors import SourceUnavailable
from featurestore.testing.clock import ManualClock
from featurestore.testing.servers import KafkaBroker
from featurestore.wire.entity_key import encode_key
from featurestore.wire.payloads import DeadLetter, DeadLetterReason
from tests.dataflows.log_to_features.published import read_topic

NOW_MS = 1_790_000_000_000
PAID = NOW_MS - 1_000


def source(topic: str) -> SourceSpec:
    """Payments of cards, whose numbers are text."""
    columns = (Column("card", ValueType.STRING), Column("at", ValueType.INT64))
    return SourceSpec(name="payments", topic=topic, columns=columns, event_time_column="at")


def payload(card: str, at: object = PAID) -> bytes:
    """A record."""
    return json.dumps({"card": card, "at": at}).encode()


PAYLOADS = [
    (payload("17"), True),
    (payload("170"), False),
    (payload("17", NOW_MS + 5), False),  # as of somebody new
    (payload("17", "no time"), True),
    (b'{"card": "17", "at": torn', True),
    (b'{"card": "2017", "at": torn', False),
    (payload("it is 17, says a note"), False),
]
"""Records of letters, and whether they are of card 17 and of before."""


def letters_of(topic: str) -> list[DeadLetter]:
    """One for each record."""
    reason = DeadLetterReason.BEYOND_RETENTION
    return [DeadLetter(reason, "", topic, 0, offset, record) for offset, (record, _) in enumerate(PAYLOADS)]


def judge(topic: str, directory: Path) -> LetterJudge:
    """Of card 17."""
    log = FileLog(directory, embedded_registry(directory, {}))
    return LetterJudge(log, {topic: source(topic)}, "card", b"17", NOW_MS, ManualClock(now_ms=NOW_MS))


def offsets(letters: Sequence[KeptLetter]) -> list[int]:
    """Where their records are."""
    return [one.offset for one in letters]


STAYS = [offset for offset, (_, is_theirs) in enumerate(PAYLOADS) if not is_theirs]


def test_letters_go_from_files(tmp_path: Path) -> None:
    """Letters that no key here opens are counted apart; a stream goes on to append behind."""
    clock = ManualClock(now_ms=PAID)
    writer = FileDeadLetters(tmp_path, clock=clock)
    writer.write(letters_of("payments"))
    closed = PayloadPolicy(Payloads.ENCRYPT, ("a" * 43 + "=",))
    FileDeadLetters(tmp_path, closed, clock).write(
        [DeadLetter(DeadLetterReason.UNDECODABLE, "", "payments", 0, 90, b"x")]
    )
    book, of_card = FileBook(tmp_path, None, PayloadPolicy()), judge("payments", tmp_path)
    found = erase_from_files(book, "payments", of_card, is_trial=True)
    done = erase_from_files(book, "payments", of_card)
    again = erase_from_files(book, "payments", of_card)
    writer.write([DeadLetter(DeadLetterReason.UNDECODABLE, "", "payments", 0, 99, payload("5"))])

    assert (found, again.erased) == (done, 0)
    assert (done.erased, done.unknown) == (len(PAYLOADS) - len(STAYS), 1)
    assert offsets(book.find(["payments"], lambda one: True)) == [*STAYS, 90, 99]


@pytest.mark.kafka
@pytest.mark.slow
def test_topics_are_written_anew_and_vectors_taken_back(
    kafka: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two steps, the letters are there twice and count once; the next run does the rest."""
    topic = f"erased-{uuid.uuid4().hex[:8]}"
    settings = {"bootstrap.servers": kafka.bootstrap_servers}
    KafkaDeadLetters({topic: kafka.bootstrap_servers}, {}).write(letters_of(topic))
    book, of_card = KafkaBook({topic: kafka.bootstrap_servers}, {}, PayloadPolicy()), judge(topic, tmp_path)
    [before] = book.find([topic], lambda one: one.offset == STAYS[0])
    with monkeypatch.context() as killed:
        killed.setattr(erasing, "_delete_before", _killed)
        with pytest.raises(SourceUnavailable):
            erase_from_topic(book, topic, of_card)
    twice = book.find([topic], lambda one: True)
    # A letter whose record has no time is as old as itself: the broker's clock is ahead of the test's.
    done = erase_from_topic(book, topic, of_card)
    after = book.find([topic], lambda one: True)

    assert offsets(twice) == list(range(len(PAYLOADS)))
    assert done.erased >= 1
    assert offsets(after) == [offset for offset in range(len(PAYLOADS)) if offset in STAYS or offset in (3, 4)]
    assert before in after
    assert erase_from_topic(book, topic, of_card).erased == 0

    vectors, keys = topic + "-vectors", [encode_key(["17", "SE"]), encode_key(["5", "17"]), encode_key(["17", "DE"])]
    kafka.create_topic(vectors, partitions=2)
    producer = Producer(settings)
    for key in keys:
        producer.produce(vectors, key=key, value=b"{}")
    producer.produce(vectors, key=b"not a key of ours", value=b"{}")
    assert producer.flush(30) == 0
    later_ms = int(time.time() * 1_000) + 60_000

    def taken(*, is_trial: bool = False) -> int:
        """By the first of two join keys."""
        return take_back(vectors, settings, part=0, part_count=2, value=b"17", before_ms=later_ms, is_trial=is_trial)

    assert [taken(is_trial=True), taken(), taken()] == [2, 2, 0]
    last = {seen.key: seen.value for seen in read_topic(kafka, vectors)}
    assert [last[key] for key in keys] == [None, b"{}", None]


def _killed(*_: object) -> None:
    """What comes next does not happen."""
    raise SourceUnavailable("the process ended here")
