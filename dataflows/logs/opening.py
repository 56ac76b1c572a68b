"""Where the events of sources come from: an embedded log, or Kafka."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dataflows.logs.file_log import FileLog, embedded_registry
from dataflows.logs.kafka_log import KafkaLog
from dataflows.logs.schemas import SchemaRegistries
from dataflows.settings import options_setting, path_setting
from featurestore.clock import Clock

LOOK_OPTIONS = frozenset(
    {
        "log_dir",
        "bootstrap_servers",
        "kafka_option",
        "kafka_config",
        "schema_registry_option",
        "schema_registry_config",
    }
)
"""Names of the stream's options that say where records are."""


def open_source_log(
    log_dir: Path | None,
    bootstrap_servers: str,
    options: Mapping[str, str],
    registry_options: Mapping[str, str],
    clock: Clock,
    *,
    group: str = "",
) -> FileLog | KafkaLog:
    """The log of an embedded directory, or else of Kafka; nothing is asked of it yet.

    Args:
        log_dir: directory of the embedded log; None for Kafka.
        bootstrap_servers: addresses of Kafka; "" for those of the definitions.
        options: of librdkafka.
        registry_options: of the schema registry's client.
        clock: processing time.
        group: whose committed positions lag tools see; "" for none.
    """
    if log_dir is not None:
        return FileLog(log_dir, embedded_registry(log_dir, registry_options))
    return KafkaLog(
        bootstrap_servers=bootstrap_servers,
        options=options,
        group=group,
        clock=clock,
        schemas=SchemaRegistries(registry_options),
    )


def log_of(texts: Mapping[str, str], clock: Clock) -> FileLog | KafkaLog:
    """As `open_source_log`, from the texts of LOOK_OPTIONS by name.

    Raises:
        InvalidRequest: one is malformed.
    """
    return open_source_log(
        path_setting(texts["log_dir"]),
        texts["bootstrap_servers"],
        options_setting("kafka", texts["kafka_config"], texts["kafka_option"]),
        options_setting("schema registry", texts["schema_registry_config"], texts["schema_registry_option"]),
        clock,
    )
