"""The newest records of a source, decoded: a look at what is there, which moves no position and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from dataflows.logs.opening import LOOK_OPTIONS, log_of
from dataflows.logs.sources import PartitionReader
from dataflows.settings import OPTIONS, complete_options
from featurestore.clock import Clock, SystemClock
from featurestore.core.spec import SourceSpec
from featurestore.errors import SourceUnavailable
from featurestore.offline.event_log.schema import log_schema, payload_columns, rows_of
from featurestore.wire.changes.decoder import decoder_of
from featurestore.wire.payloads import RawBatch

READ_TOGETHER_MAX = 10_000

PATIENCE_SECONDS = 30.0
"""For a partition that says nothing, although it has records."""

PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Newest:
    """What was found.

    Attributes:
        rows: of an event log, partition by partition.
        records: how many records were read.
        partitions: of how many partitions.
        refused: how many could not be decoded.
        first_refusal: why the first of these could not be.
    """

    rows: pa.Table
    records: int
    partitions: int
    refused: int
    first_refusal: str


def newest_of(source: SourceSpec, count: int, given: Mapping[str, str], environment: Mapping[str, str]) -> Newest:
    """The newest records of a source's topics, about as many of each partition.

    Args:
        source: whose records.
        count: how many at most.
        given: texts of the options in LOOK_OPTIONS by name; those that are absent come from the environment.
        environment: variables.

    Raises:
        InvalidRequest: an option is malformed, or there is no such topic.
        SourceUnavailable: the log does not answer.
    """
    clock = SystemClock()
    options = [option for option in OPTIONS if option.name in LOOK_OPTIONS]
    log = log_of(complete_options(options, given, environment), clock)
    places = [(one, number) for one in source.per_topic for number in log.partitions(one)]
    share = -(-count // max(1, len(places)))
    batches: list[pa.RecordBatch] = []
    records, refused, why = 0, 0, ""
    for one, number in places:
        begin = max(0, log.ends(one, [number])[number] - share)
        # What the log has forgotten was not among the newest that it still has.
        start = None if log.lost(one, {number: begin}) else begin
        decoder, reader = decoder_of(one, payload_columns(one), log.schemas(one)), log.open(one, number, start)
        try:
            for raw in _until_its_end(reader, clock, f'partition {number} of topic "{one.topic}"'):
                records += len(raw.payloads)
                decoded = decoder.decode(raw, now_ms=clock.now_ms())
                refused += len(decoded.dead_letters)
                why = why or next((letter.detail for letter in decoded.dead_letters), "")
                batches.append(rows_of(decoded.events, log_schema(source), ingest_time_ms=clock.now_ms()))
        finally:
            reader.close()
    return Newest(pa.Table.from_batches(batches, log_schema(source)), records, len(places), refused, why)


def _until_its_end(reader: PartitionReader, clock: Clock, what: str) -> Iterator[RawBatch]:
    """Everything that was there when a partition was opened.

    Raises:
        SourceUnavailable: it says nothing for a while.
    """
    silent_ns = clock.monotonic_ns()
    while not reader.has_reached_end:
        raw = reader.read(READ_TOGETHER_MAX)
        if raw is not None:
            silent_ns = clock.monotonic_ns()
            yield raw
        elif clock.monotonic_ns() - silent_ns > PATIENCE_SECONDS * 1e9:
            raise SourceUnavailable(f"{what} says nothing")
        else:
            clock.sleep(PAUSE_SECONDS)
