"""Settings of the stream that writes the event log; options and environment variables as in settings.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataflows.settings import (
    BATCH_RECORDS_DEFAULT,
    METRICS_HOST_DEFAULT,
    OPTIONS,
    PROGRESS_SECONDS_DEFAULT,
    STORE_PATIENCE_SECONDS_DEFAULT,
    Option,
    addresses_setting,
    complete_options,
    integer_setting,
    is_set,
    kafka_options_setting,
    path_setting,
    port_setting,
    read_options,
    require_batch,
    require_place,
    seconds_setting,
)
from featurestore.errors import InvalidRequest

COMMIT_SECONDS_DEFAULT = 30.0
COMMIT_ROWS_DEFAULT = 1_000_000
"""A few hundred bytes of memory each, and twice as many while a commit runs."""

COMPACT_MINUTES_DEFAULT = 10.0

_SHARED = frozenset(
    {
        "project",
        "registry",
        "log_dir",
        "bootstrap_servers",
        "kafka_option",
        "kafka_config",
        "dead_letter_dir",
        "addresses",
        "process_id",
        "batch_records",
        "until_end",
        "metrics_port",
        "host",
        "progress_seconds",
    }
)
"""Options of the tile stream that mean the same here."""


@dataclass(frozen=True, slots=True)
class EventLogSettings:
    """What a process that writes the event log needs to know.

    Attributes:
        project: Feast project.
        registry: path or URL of the Feast registry.
        event_log: directory or URI under which each source has its log, in a directory of its name.
        sources: names of the sources to log; empty logs those of all stream views.
        log_dir: directory of the embedded log; None reads Kafka.
        bootstrap_servers: Kafka addresses, overriding those of the definitions.
        kafka_options: librdkafka settings passed through.
        kafka_group: consumer group under which committed positions are published for lag tools; never read back.
        dead_letter_dir: directory of dead-letter files; None: the log directory, or topics when Kafka is read.
        addresses: host:port of every process of a Bytewax cluster; empty runs one process.
        process_id: index of this process in `addresses`.
        batch_records: records in one read of a partition.
        until_end: stop at the end that every partition had at the start.
        metrics_port: port of the Prometheus endpoint; None serves none.
        host: address that it listens on.
        progress_seconds: time between plain progress lines.
        patience_seconds: how long an unreachable source or file system is retried before the process gives up.
        commit_seconds: a row is committed so long after it was read, at the latest.
        commit_rows: so many rows, over all partitions, are committed without waiting longer; bounds the memory.
        compact_minutes: time between compactions; 0 leaves them to `featurestore event-log compact`.
    """

    project: str
    registry: str
    event_log: str
    sources: tuple[str, ...] = ()
    log_dir: Path | None = None
    bootstrap_servers: str = ""
    kafka_options: Mapping[str, str] = field(default_factory=dict)
    kafka_group: str = ""
    dead_letter_dir: Path | None = None
    addresses: tuple[str, ...] = ()
    process_id: int = 0
    batch_records: int = BATCH_RECORDS_DEFAULT
    until_end: bool = False
    metrics_port: int | None = None
    host: str = METRICS_HOST_DEFAULT
    progress_seconds: float = PROGRESS_SECONDS_DEFAULT
    patience_seconds: float = STORE_PATIENCE_SECONDS_DEFAULT
    commit_seconds: float = COMMIT_SECONDS_DEFAULT
    commit_rows: int = COMMIT_ROWS_DEFAULT
    compact_minutes: float = COMPACT_MINUTES_DEFAULT

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is connected."""
        require_batch(self.batch_records)
        require_place(self.process_id, self.addresses)
        if self.commit_rows < 1 or self.commit_seconds < 0:
            raise InvalidRequest("commits of the event log need at least one row and no negative time")
        if self.compact_minutes < 0:
            raise InvalidRequest(f"compaction every {self.compact_minutes:g} minutes is not possible")


EVENT_LOG_OPTIONS: tuple[Option, ...] = (
    *(option for option in OPTIONS if option.name in _SHARED),
    Option("event_log", "directory or URI under which each source has its log", is_required=True),
    Option("source", "name of a source to log, may be repeated; default: all", is_list=True),
    Option("event_log_group", "publish committed positions under this consumer group, for lag tools"),
    Option("commit_seconds", f"commit a row so long after it was read, default {COMMIT_SECONDS_DEFAULT:g}"),
    Option("commit_rows", f"commit at so many rows, over all partitions, default {COMMIT_ROWS_DEFAULT}"),
    Option("compact_minutes", f"time between compactions, default {COMPACT_MINUTES_DEFAULT:g}, 0 for none"),
    Option("patience_seconds", f"retry what does not answer, default {STORE_PATIENCE_SECONDS_DEFAULT:g}"),
)
"""Every option of `python -m dataflows.log_to_table`, in the order of its help."""


def event_log_settings(arguments: Sequence[str], environment: Mapping[str, str], *, program: str) -> EventLogSettings:
    """Settings from options, and from the environment where an option is absent.

    Raises:
        InvalidRequest: a setting is missing or malformed. (`--help` and unknown options end the process, as usual.)
    """
    given = read_options(
        EVENT_LOG_OPTIONS, arguments, program=program, purpose="Write the event stream to Delta tables."
    )
    texts = complete_options(EVENT_LOG_OPTIONS, given, environment)
    return EventLogSettings(
        project=texts["project"],
        registry=texts["registry"],
        event_log=texts["event_log"],
        sources=tuple(texts["source"].split()),
        log_dir=path_setting(texts["log_dir"]),
        bootstrap_servers=texts["bootstrap_servers"],
        kafka_options=kafka_options_setting(texts["kafka_config"], texts["kafka_option"]),
        kafka_group=texts["event_log_group"],
        dead_letter_dir=path_setting(texts["dead_letter_dir"]),
        addresses=addresses_setting(texts["addresses"]),
        process_id=integer_setting("process_id", texts, 0),
        batch_records=integer_setting("batch_records", texts, BATCH_RECORDS_DEFAULT),
        until_end=is_set(texts["until_end"]),
        metrics_port=port_setting("metrics_port", texts),
        host=texts["host"] or METRICS_HOST_DEFAULT,
        progress_seconds=seconds_setting("progress_seconds", texts, PROGRESS_SECONDS_DEFAULT),
        patience_seconds=seconds_setting("patience_seconds", texts, STORE_PATIENCE_SECONDS_DEFAULT),
        commit_seconds=seconds_setting("commit_seconds", texts, COMMIT_SECONDS_DEFAULT),
        commit_rows=integer_setting("commit_rows", texts, COMMIT_ROWS_DEFAULT),
        compact_minutes=seconds_setting("compact_minutes", texts, COMPACT_MINUTES_DEFAULT),
    )
