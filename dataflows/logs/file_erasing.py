"""Records of somebody are taken out of an embedded log, beside who writes and reads it: their lines become blank.

    {"card_id": "c-1", ...}    ->    spaces, as many, which are no record

So every other record stays at its offset, and no file gets shorter. The first line of a file stays as it is: a file is
known by it.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataflows.logs.file_log import FileLog
from featurestore.clock import Clock
from featurestore.core.events import BlobRow
from featurestore.core.spec import SourceSpec
from featurestore.errors import SourceUnavailable
from featurestore.offline.disk import of_disk
from featurestore.wire.changes.decoder import record_decoder_of
from featurestore.wire.payloads import RawBatch

LINES_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class ErasedRecords:
    """What became of a topic's records.

    Attributes:
        topic: whose.
        erased: records that were taken out, or found.
        first: records that stay, as their files are known by them.
    """

    topic: str
    erased: int
    first: int


class RecordEraser:
    """Takes records of a value out of the files of an embedded log.

    Args:
        log: of which.
        source: one of `SourceSpec.per_topic`; has the join key.
        join_key: name of the column.
        value: canonical bytes.
        before_ms: records that happened then or later stay.
        clock: processing time.
    """

    def __init__(
        self, log: FileLog, source: SourceSpec, join_key: str, value: bytes, before_ms: int, clock: Clock
    ) -> None:
        self._log, self._source = log, source
        self._join_key, self._value, self._before_ms, self._clock = join_key, value, before_ms, clock
        # Of what does not decode: whole words alone.
        self._words = re.compile(rb"(?<![\w-])" + re.escape(value) + rb"(?![\w-])")
        self._decoder = record_decoder_of(source, [join_key], log.schemas(source))

    def erase(self, *, is_trial: bool = False) -> ErasedRecords:
        """All that is there now.

        Args:
            is_trial: only look.

        Raises:
            SourceUnavailable: a file cannot be read or written, or the topic has none.
        """
        erased = first = 0
        for partition in self._log.partitions(self._source):
            path = self._log.path(self._source, partition)
            try:
                found = self._erase_from(path, is_trial=is_trial)
            except OSError as error:
                fact = f'records of topic "{self._source.topic}" cannot be erased'
                raise of_disk(error, fact, path, unavailable=SourceUnavailable) from error
            erased, first = erased + found[0], first + found[1]
        return ErasedRecords(self._source.topic, erased, first)

    def _erase_from(self, path: Path, *, is_trial: bool) -> tuple[int, int]:
        """How many records of a file, and whether its first one is among those that should go."""
        erased = first = 0
        with path.open("rb" if is_trial else "r+b") as file:
            if not os.fstat(file.fileno()).st_size:
                return 0, 0
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                for spans in _chunks(content):
                    for begin, end in self._of_somebody([content[low:high] for low, high in spans], spans):
                        if not begin:
                            first += 1
                            continue
                        erased += 1
                        if not is_trial:
                            os.pwrite(file.fileno(), b" " * (end - begin), begin)
            if erased and not is_trial:
                os.fsync(file.fileno())
        return erased, first

    def _of_somebody(self, lines: list[bytes], spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Where the lines are that are to go."""
        at = np.arange(len(lines), dtype=np.int64)
        payloads = [self._log.record(self._source, line) for line in lines]
        raw = RawBatch(self._source.topic, 0, 0, len(lines), at, payloads)
        decoded = self._decoder.decode(raw, now_ms=self._clock.now_ms())
        events = decoded.events
        keys = events.columns[self._join_key]
        values = keys.values.values() if isinstance(keys.values, BlobRow) else keys.values.tolist()
        found = {
            offset
            for offset, time_ms, one in zip(events.offsets.tolist(), events.event_time_ms.tolist(), values, strict=True)
            if time_ms < self._before_ms and (one if isinstance(one, bytes) else b"%d" % one) == self._value
        }
        # Nobody can read their time: they are as old as the log.
        found |= {one.offset for one in decoded.dead_letters if self._words.search(one.payload)}
        yield from (spans[row] for row in sorted(found))


def _chunks(content: mmap.mmap) -> Iterator[list[tuple[int, int]]]:
    """Begin and end of lines that are whole and not blank, some at a time."""
    spans, begin = list[tuple[int, int]](), 0
    while (end := content.find(b"\n", begin)) >= 0:
        if not content[begin:end].isspace() and end > begin:
            spans.append((begin, end))
        begin = end + 1
        if len(spans) == LINES_AT_ONCE:
            yield spans
            spans = []
    if spans:
        yield spans
