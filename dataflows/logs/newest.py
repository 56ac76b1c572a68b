"""The newest records of a source, decoded: a look at what is there, which moves no position and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from dataflows.logs.file_log import FileLog, embedded_registry
from dataflows.logs.kafka_log import KafkaLog
from dataflows.logs.schemas import SchemaRegistries
from dataflows.logs.sources import SourceLog
from dataflows.settings import OPTIONS, Option, complete_options, options_setting, path_setting
from featurestore.clock import Clock, SystemClock
from featurestore.core.spec import SourceSpec
from featurestore.errors import SourceUnavailable
from featurestore.offline.event_log.schema import log_schema, payload_columns, rows_of
from featurestore.wire.changes import decoder_of

READ_TOGETHER_MAX = 10_000

PATIENCE_SECONDS = 30.0
"""For a partition that says nothing, although it has records."""

PAUSE_SECONDS = 0.02

LOOK_OPTIONS: tuple[Option, ...] = tuple(
    option
    for option in OPTIONS
    if option.name
    in {
        "log_dir",
        "bootstrap_servers",
        "kafka_option",
        "kafka_config",
        "schema_registry_option",
        "schema_registry_config",
    }
)
"""Of the stream's options, those that say where records are."""


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
        given: texts of LOOK_OPTIONS by name; those that are absent come from the environment.
        environment: variables.

    Raises:
        InvalidRequest: an option is malformed, or there is no such topic.
        SourceUnavailable: the log does not answer.
    """
    clock = SystemClock()
    log = _open(complete_options(LOOK_OPTIONS, given, environment), clock)
    places = [(one, number) for one in source.per_topic for number in log.partitions(one)]
    share = -(-count // max(1, len(places)))
    batches: list[pa.RecordBatch] = []
    records, refused, why = 0, 0, ""
    for one, number in places:
        end = log.ends(one, [number])[number]
        decoder = decoder_of(one, payload_columns(one), log.schemas(one))
        reader = log.open(one, number, max(0, end - share))
        give_up_ns = clock.monotonic_ns() + int(PATIENCE_SECONDS * 1e9)
        try:
            position = max(0, end - share)
            while position < end:
                raw = reader.read(READ_TOGETHER_MAX)
                if raw is None:
                    if clock.monotonic_ns() > give_up_ns:
                        raise SourceUnavailable(f'partition {number} of topic "{one.topic}" says nothing')
                    clock.sleep(PAUSE_SECONDS)
                    continue
                position = raw.next_offset
                records += len(raw.payloads)
                decoded = decoder.decode(raw, now_ms=clock.now_ms())
                refused += len(decoded.dead_letters)
                why = why or next((letter.detail for letter in decoded.dead_letters), "")
                batches.append(rows_of(decoded.events, log_schema(source), ingest_time_ms=clock.now_ms()))
        finally:
            reader.close()
    return Newest(pa.Table.from_batches(batches, log_schema(source)), records, len(places), refused, why)


def _open(texts: Mapping[str, str], clock: Clock) -> SourceLog:
    """An embedded log, or Kafka."""
    registry_options = options_setting(
        "schema registry", texts["schema_registry_config"], texts["schema_registry_option"]
    )
    log_dir = path_setting(texts["log_dir"])
    if log_dir is not None:
        return FileLog(log_dir, embedded_registry(log_dir, registry_options))
    return KafkaLog(
        bootstrap_servers=texts["bootstrap_servers"],
        options=options_setting("kafka", texts["kafka_config"], texts["kafka_option"]),
        group="",
        clock=clock,
        schemas=SchemaRegistries(registry_options),
    )
