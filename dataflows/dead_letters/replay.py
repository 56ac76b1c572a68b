"""Which letters can be replayed so that each counts once, and why others cannot.

    record 17   refused, a letter       ... mended ...       record 900   the same bytes, a second time
                └── nobody counted it, or somebody has since: whoever fills anew reads 17 before 900 ──┘

A replay gives the record to its topic again, as a producer's retry would. Whoever could not use record 17 counts record
900. Whoever could, for it fills anew since, drops record 900 by its event id, if it still knows the id then: an id is
known for one horizon of its partition's event time. So a letter is fit for a replay if its source has an event id, and
its partition has not gone on by a horizon since; and if what is registered now can use the record. That makes also a
second replay of the same letter a retry, which counts nothing.

How far a partition had come at record 17 is told by the records just before it, and by the record's own time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dataflows.dead_letters.book import KeptLetter
from dataflows.logs.sources import SourceLog
from featurestore.clock import Clock
from featurestore.core.events import EventBatch
from featurestore.core.spec import REPLACE, RepoSpec, SourceSpec
from featurestore.core.windows.durations import format_duration
from featurestore.definitions.compile.versions import stored_views
from featurestore.errors import EventsLost
from featurestore.wire.changes.decoder import Decoder, decoder_of
from featurestore.wire.contracts import ContractCheck, letters_of
from featurestore.wire.entity_routing import columns_read
from featurestore.wire.payloads import DeadLetterReason, RawBatch

RECORDS_BEFORE = 1_000
"""Records before a letter's that tell how far its partition had come."""

MARGIN_MS = 60_000
"""Progress of a partition that may come while letters are replayed; half a horizon where that is less."""

_READ_RECORDS = 8_192
_PAUSE_SECONDS = 0.005

REPLAYABLE = frozenset(
    {
        DeadLetterReason.UNDECODABLE,
        DeadLetterReason.MISSING_EVENT_TIME,
        DeadLetterReason.EVENT_TIME_OUT_OF_RANGE,
        DeadLetterReason.TOO_FAR_IN_FUTURE,
        DeadLetterReason.MISSING_EVENT_ID,
    }
)
"""Reasons for which nobody has the record, neither views nor the event log."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A letter, and why it cannot be replayed; "" where it can."""

    letter: KeptLetter
    why_not: str


class ReplayCheck:
    """Judges letters by what is registered now.

    Args:
        log: where the records are.
        repo: the registered definitions.
        clock: processing time.
    """

    def __init__(self, log: SourceLog, repo: RepoSpec, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._topics: dict[str, _Topic] = {}
        views = stored_views(repo)
        for source in {view.source: None for view in (*views, *repo.views)}:
            columns = [name for view in views if view.source == source for name in columns_read(view)]
            check = ContractCheck(source, [one for one in repo.expectations if one.source == source.name])
            for one in source.per_topic:
                decoder = decoder_of(one, [*columns, *check.columns], log.schemas(one))
                self._topics[one.topic] = _Topic(one, decoder, check)

    @property
    def topics(self) -> list[str]:
        """Topics of all registered sources."""
        return sorted(self._topics)

    def judge(self, letters: Sequence[KeptLetter]) -> list[Judged]:
        """Each letter, in the same order.

        Raises:
            SourceUnavailable: the log does not answer.
        """
        found: dict[KeptLetter, str] = {}
        usable: dict[tuple[str, int], dict[KeptLetter, int]] = {}
        for letter in letters:
            found[letter] = self._why_never(letter)
            if not found[letter]:
                event_time_ms, found[letter] = self._used(letter)
                if not found[letter]:
                    usable.setdefault((letter.topic, letter.partition), {})[letter] = event_time_ms
        for (topic, partition), times_ms in usable.items():
            found |= self._too_late(self._topics[topic], partition, times_ms)
        return [Judged(letter, found[letter]) for letter in letters]

    def _why_never(self, letter: KeptLetter) -> str:
        """What no mending of definitions helps."""
        if letter.is_replayed:
            return "it has been replayed"
        if letter.view is not None:
            return f'only "{letter.view}" refused it; a changed definition of that reads the record at its own place'
        if letter.reason == DeadLetterReason.EXPECTATION_FAILED:
            return "topic and event log have it: a changed contract fills its views anew, and reads it at its own place"
        if letter.reason not in REPLAYABLE:
            return f'nothing is known of letters of the reason "{letter.reason}"'
        topic = self._topics.get(letter.topic)
        if topic is None:
            return f'no registered source reads topic "{letter.topic}"'
        if topic.source.event_id_column is None:
            return f'source "{topic.source.name}" has no event id: a view that fills anew could count the record twice'
        if topic.source.changes == REPLACE:
            return f'events of source "{topic.source.name}" replace one another: it would replace what came after it'
        if letter.payload is None:
            return "its payload was not kept, or no key opens it"
        return "" if letter.is_whole else "only the beginning of its payload was kept"

    def _used(self, letter: KeptLetter) -> tuple[int, str]:
        """The event time of a letter's record as it is read now, or why it would be refused again."""
        topic, payload = self._topics[letter.topic], letter.payload
        assert payload is not None, "letters without one are not asked about"
        offsets = np.array([letter.offset], dtype=np.int64)
        raw = RawBatch(letter.topic, letter.partition, letter.offset, letter.offset + 1, offsets, [payload])
        decoded = topic.decoder.decode(raw, now_ms=self._clock.now_ms())
        if decoded.dead_letters:
            return 0, f"it would be refused again: {decoded.dead_letters[0].detail}"
        flagged = topic.check.flagged(decoded.events)
        if broken := letters_of(topic.check.failures(flagged), flagged, raw):
            return 0, f"it would be refused again: {broken[0].detail}"
        if not len(decoded.events.offsets):
            return 0, "there is no event in it"
        return int(decoded.events.event_time_ms.min()), ""

    def _too_late(self, topic: _Topic, partition: int, times_ms: dict[KeptLetter, int]) -> dict[KeptLetter, str]:
        """Of letters of one partition, those whose ids may have been forgotten since.

        Args:
            topic: theirs.
            partition: theirs.
            times_ms: event time of each letter's record.
        """
        horizon_ms = topic.source.dedup_horizon_ms
        allowed_ms = horizon_ms - min(MARGIN_MS, horizon_ms // 2)
        rest = sorted(times_ms, key=lambda letter: letter.offset)
        at_ms: dict[KeptLetter, int] = {}
        newest_ms: int | None = None
        for events in self._events(topic, partition, rest[0].offset - RECORDS_BEFORE):
            while rest and events.next_offset > rest[0].offset:
                letter = rest.pop(0)
                before = events.event_time_ms[events.offsets < letter.offset]
                known = [one for one in (newest_ms, int(before.max()) if len(before) else None) if one is not None]
                at_ms[letter] = max([times_ms[letter], *known])
            if len(events.event_time_ms):
                newest_ms = max(int(events.event_time_ms.max()), newest_ms or int(events.event_time_ms.max()))
        at_ms |= {letter: times_ms[letter] for letter in rest}  # their places are gone from the log
        gone_on_ms = {letter: 0 if newest_ms is None else newest_ms - at_ms[letter] for letter in times_ms}
        text = "its partition has gone on by {}, and ids are known for {}: a view that fills anew could count it twice"
        return {
            letter: text.format(format_duration(gone_ms), format_duration(horizon_ms))
            for letter, gone_ms in gone_on_ms.items()
            if gone_ms >= allowed_ms
        }

    def _events(self, topic: _Topic, partition: int, start: int) -> Iterator[EventBatch]:
        """Times of a partition's records from an offset, or from where it begins now, to its end."""
        try:
            reader = self._log.open(topic.source, partition, max(0, start))
        except EventsLost:
            reader = self._log.open(topic.source, partition, None)
        decoder = decoder_of(topic.source, (), self._log.schemas(topic.source))
        try:
            while True:
                raw = reader.read(_READ_RECORDS)
                if raw is not None:
                    yield decoder.decode(raw, now_ms=self._clock.now_ms()).events
                elif reader.has_reached_end:
                    return
                else:
                    self._clock.sleep(_PAUSE_SECONDS)
        finally:
            reader.close()


@dataclass(frozen=True, slots=True)
class _Topic:
    """How a topic's records are read now."""

    source: SourceSpec
    decoder: Decoder
    check: ContractCheck
