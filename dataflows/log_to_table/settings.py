"""Settings of the stream that writes the event log; options and environment variables as in settings.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dataflows.settings import (
    OPTIONS,
    PATIENCE_SECONDS_DEFAULT,
    FlowSettings,
    Option,
    complete_options,
    flow_settings,
    integer_setting,
    read_options,
    seconds_setting,
)
from featurestore.errors import InvalidRequest

COMMIT_SECONDS_DEFAULT = 30.0
COMMIT_ROWS_DEFAULT = 1_000_000
"""A few hundred bytes of memory each, and twice as many while a commit runs."""

COMPACT_MINUTES_DEFAULT = 10.0

_OF_TILES = frozenset({"store_url", "store_cluster", "repo", "kafka_group", "writers", "store_patience_seconds"})
"""Options of the tile stream that mean nothing here, or have another name; all others mean the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLogSettings(FlowSettings):
    """What a process that writes the event log needs to know.

    Attributes:
        event_log: directory or URI under which each source has its log, in a directory of its name.
        sources: names of the sources to log; empty logs those of all stream views.
        commit_seconds: a row is committed so long after it was read, at the latest.
        commit_rows: so many rows, over all partitions, are committed without waiting longer; bounds the memory.
        compact_minutes: time between compactions; 0 leaves them to `featurestore event-log compact`.
    """

    event_log: str
    sources: tuple[str, ...] = ()
    commit_seconds: float = COMMIT_SECONDS_DEFAULT
    commit_rows: int = COMMIT_ROWS_DEFAULT
    compact_minutes: float = COMPACT_MINUTES_DEFAULT

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is connected."""
        FlowSettings.__post_init__(self)  # super() does not find a class that was made anew with slots
        if self.commit_rows < 1 or self.commit_seconds < 0:
            raise InvalidRequest("commits of the event log need at least one row and no negative time")
        if self.compact_minutes < 0:
            raise InvalidRequest(f"compaction every {self.compact_minutes:g} minutes is not possible")


EVENT_LOG_OPTIONS: tuple[Option, ...] = (
    *(option for option in OPTIONS if option.name not in _OF_TILES),
    Option("event_log", "directory or URI under which each source has its log", is_required=True),
    Option("source", "name of a source to log, may be repeated; default: all", is_list=True),
    Option("event_log_group", "publish committed positions under this consumer group, for lag tools"),
    Option("commit_seconds", f"commit a row so long after it was read, default {COMMIT_SECONDS_DEFAULT:g}"),
    Option("commit_rows", f"commit at so many rows, over all partitions, default {COMMIT_ROWS_DEFAULT}"),
    Option("compact_minutes", f"time between compactions, default {COMPACT_MINUTES_DEFAULT:g}, 0 for none"),
    Option("patience_seconds", f"retry what does not answer, default {PATIENCE_SECONDS_DEFAULT:g}"),
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
        **flow_settings(texts, group="event_log_group", patience="patience_seconds"),
        event_log=texts["event_log"],
        sources=tuple(texts["source"].split()),
        commit_seconds=seconds_setting("commit_seconds", texts, COMMIT_SECONDS_DEFAULT),
        commit_rows=integer_setting("commit_rows", texts, COMMIT_ROWS_DEFAULT),
        compact_minutes=seconds_setting("compact_minutes", texts, COMPACT_MINUTES_DEFAULT),
    )
