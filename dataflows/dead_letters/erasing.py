"""Dead letters of somebody are taken away, out of files and out of topics: what is left is written anew.

Whose a letter is, is told by its record as its source is read now; where that does not decode, by whether the value
stands in the bytes or in the reason's words. A letter that only a key opens that is not here tells nobody's name: it is
counted apart.

A topic cannot lose single records. So the letters that stay are produced again, behind the others, with their headers
and times, and then everything up to where the topic ended before is deleted. A letter is known by its place, and counts
once (`book.collect`): whatever dies in between, nothing is lost, and the next run does the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from confluent_kafka import KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from dataflows.dead_letters.book import REPLAYED, FileBook, KeptLetter
from dataflows.dead_letters.kafka_book import KafkaBook
from dataflows.dead_letters.writer import MESSAGE_BYTES_MAX, TOPIC_SUFFIX
from dataflows.logs.kafka_log import of_kafka
from dataflows.logs.sources import SourceLog
from dataflows.logs.whole_topic import messages_of
from featurestore.clock import Clock
from featurestore.core.events import BlobRow
from featurestore.core.spec import SourceSpec
from featurestore.errors import SourceUnavailable
from featurestore.offline.disk import filter_lines, of_disk
from featurestore.wire.changes.decoder import record_decoder_of
from featurestore.wire.payloads import RawBatch

_TIMEOUT_SECONDS = 60.0
_GROUP = "featurestore-erase"


@dataclass(frozen=True, slots=True)
class ErasedLetters:
    """What became of a topic's letters.

    Attributes:
        topic: whose.
        erased: letters that were taken away, or found.
        unknown: letters of which nobody can say whose they are.
    """

    topic: str
    erased: int
    unknown: int


class LetterJudge:
    """Tells whose letters are.

    Args:
        log: knows the schemas of payloads.
        sources: by topic.
        join_key: name of the column.
        value: canonical bytes.
        before_ms: letters of records that happened then or later stay.
        clock: processing time.
    """

    def __init__(
        self,
        log: SourceLog,
        sources: Mapping[str, SourceSpec],
        join_key: str,
        value: bytes,
        before_ms: int,
        clock: Clock,
    ) -> None:
        self._join_key, self._value, self._before_ms, self._clock = join_key, value, before_ms, clock
        # Whole words alone: 17 is not in 2017.
        self._words = re.compile(rb"(?<![\w-])" + re.escape(value) + rb"(?![\w-])")
        self._decoders = {
            topic: record_decoder_of(source, [join_key], log.schemas(source))
            for topic, source in sources.items()
            if source.column(join_key) is not None
        }

    def is_of_somebody(self, letter: KeptLetter) -> bool | None:
        """Whether a letter is to go; None where nothing tells."""
        if letter.reason == REPLAYED:
            return False
        if self._words.search(letter.detail.encode()):
            return True
        if letter.payload is None:
            return None if letter.payload_bytes else False
        decoded = self._decoded(letter)
        if decoded is not None:
            return decoded
        return self._words.search(letter.payload) is not None and self._was_before(letter)

    def _decoded(self, letter: KeptLetter) -> bool | None:
        """By the record's columns; None where it does not decode."""
        decoder = self._decoders.get(letter.topic)
        if decoder is None or not letter.is_whole:
            return None
        assert letter.payload is not None, "it is whole"
        at = np.array([letter.offset], dtype=np.int64)
        raw = RawBatch(letter.topic, letter.partition, letter.offset, letter.offset + 1, at, [letter.payload])
        events = decoder.decode(raw, now_ms=self._clock.now_ms()).events
        if not len(events.offsets):
            return None
        values = events.columns[self._join_key].values
        found = [values[row] for row in range(len(values))] if isinstance(values, BlobRow) else values.tolist()
        return any(
            (one if isinstance(one, bytes) else b"%d" % one) == self._value and int(event_time_ms) < self._before_ms
            for one, event_time_ms in zip(found, events.event_time_ms.tolist(), strict=True)
        )

    def _was_before(self, letter: KeptLetter) -> bool:
        """A record whose time nobody can read is as old as its letter."""
        return letter.written_ms is None or letter.written_ms < self._before_ms


def erase_from_files(book: FileBook, topic: str, judge: LetterJudge, *, is_trial: bool = False) -> ErasedLetters:
    """Take letters out of files; a stream that writes some meanwhile writes them behind what is left.

    Raises:
        SourceUnavailable: a file cannot be read or written.
    """
    erased = unknown = 0
    for path in book.files(topic):
        try:
            with path.open("rb") as file:
                verdicts = [judge.is_of_somebody(book.letter(line)) for line in file if book.is_letter(line)]
            if True in verdicts and not is_trial:
                filter_lines(path, lambda line: not (book.is_letter(line) and judge.is_of_somebody(book.letter(line))))
        except OSError as error:
            raise of_disk(error, "dead letters cannot be erased", path, unavailable=SourceUnavailable) from error
        erased += verdicts.count(True)
        unknown += verdicts.count(None)
    return ErasedLetters(topic, erased, unknown)


def erase_from_topic(book: KafkaBook, topic: str, judge: LetterJudge, *, is_trial: bool = False) -> ErasedLetters:
    """Write the letters that stay anew, and delete what was there before.

    Raises:
        SourceUnavailable: Kafka does not answer.
        InvalidRequest: it refuses; what was written anew counts once with what it was.
    """
    settings, letters_topic = book.settings(topic), topic + TOPIC_SUFFIX
    ends, erased, unknown = dict[int, int](), 0, 0
    for message in messages_of(letters_topic, settings, group=_GROUP):
        partition, offset = _place(message)
        ends[partition] = offset + 1
        verdict = judge.is_of_somebody(book.letter(message))
        erased += verdict is True
        unknown += verdict is None
    if erased and not is_trial:
        stays = (
            message
            for message in messages_of(letters_topic, settings, group=_GROUP)
            if _place(message)[1] < ends.get(_place(message)[0], 0) and not judge.is_of_somebody(book.letter(message))
        )
        try:
            _write_anew(letters_topic, settings, stays)
            _delete_before(letters_topic, settings, ends)
        except (KafkaException, TimeoutError) as error:
            fact = f'topic "{letters_topic}" cannot be written anew without what is erased'
            raise of_kafka(error, fact, hint="this client needs the right to write it and to delete records") from error
    return ErasedLetters(topic, erased, unknown)


def _place(message: Message) -> tuple[int, int]:
    """Partition and offset of a message that was read."""
    return cast(int, message.partition()), cast(int, message.offset())


def _write_anew(topic: str, settings: Mapping[str, str | int | bool], kept: Iterable[Message]) -> None:
    """Produce messages again, as they were, and wait until all are there."""
    failed: list[object] = []
    producer = Producer({"message.max.bytes": MESSAGE_BYTES_MAX, **settings, "enable.idempotence": True})

    def on_delivery(error: object, _: Message) -> None:
        """Note what was not taken."""
        if error is not None:
            failed.append(error)

    for message in kept:
        for is_last in (False, True):
            try:
                producer.produce(
                    topic,
                    value=message.value(),
                    key=message.key(),
                    partition=_place(message)[0],
                    headers=message.headers(),
                    timestamp=message.timestamp()[1],
                    on_delivery=on_delivery,
                )
                break
            except BufferError:
                if is_last:
                    raise SourceUnavailable(f'topic "{topic}" takes no more just now') from None
                producer.flush(_TIMEOUT_SECONDS)
    if producer.flush(_TIMEOUT_SECONDS) or failed:
        raise SourceUnavailable(
            f'topic "{topic}" cannot be written anew', detail=str(failed[0]) if failed else "Kafka did not answer."
        )


def _delete_before(topic: str, settings: Mapping[str, str | int | bool], ends: Mapping[int, int]) -> None:
    """Delete the records of each partition that lie before an offset."""
    wanted = [TopicPartition(topic, partition, offset) for partition, offset in sorted(ends.items())]
    # Held: its futures end with it.
    admin = AdminClient(dict(settings))
    for future in admin.delete_records(wanted, request_timeout=_TIMEOUT_SECONDS).values():
        future.result(timeout=_TIMEOUT_SECONDS)
