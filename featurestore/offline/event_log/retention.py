"""Drops event dates that are older than is wanted.

The first date that is kept is written down before anything is deleted, and never falls: our reader shows nothing from
before it, also not the late rows that may still arrive there, which the next run drops. On a local disk a date leaves
in one step, and its files are deleted an hour later, so that scans that began before can finish; on an object store one
object goes after the other.
"""

from __future__ import annotations

from datetime import date, timedelta

import msgspec

from featurestore.clock import Clock
from featurestore.errors import InvalidRequest
from featurestore.offline.event_log.compaction import COMPACTION_LOCK, place_for_replaced, purge_replaced
from featurestore.offline.event_log.files import LogFiles
from featurestore.offline.event_log.layout import (
    RETENTION_PATH,
    SCHEMA_PATH,
    date_directory,
    date_of_directory,
    event_date_of,
)
from featurestore.offline.event_log.snapshot import read_retention
from featurestore.offline.event_log.writer import PUBLISH_LOCK


def retain(files: LogFiles, clock: Clock, *, days: int) -> list[date]:
    """Keep the event dates of today and of the `days` days before, and later ones.

    Args:
        files: of the log.
        clock: says what today is, UTC.
        days: >= 1.

    Returns:
        The dates that were dropped now, ascending.

    Raises:
        InvalidRequest: there is no log, or no day is to be kept.
    """
    if days < 1:
        raise InvalidRequest(f"{days} days of the event log cannot be kept", hint="keep one day or more")
    if not files.exists(SCHEMA_PATH):
        raise InvalidRequest(f'there is no event log at "{files.uri}"')
    kept_from = event_date_of(clock.now_ms()) - timedelta(days=days)
    with files.lock(COMPACTION_LOCK):
        before = read_retention(files)
        kept_from = kept_from if before is None else max(before, kept_from)
        if kept_from != before:
            files.replace(RETENTION_PATH, msgspec.json.encode({"kept_from": kept_from}))
        purge_replaced(files, clock)
        dropped = [event_date for event_date in _dates(files) if event_date < kept_from]
        for event_date in dropped:
            _drop(files, event_date, clock)
    return dropped


def _dates(files: LogFiles) -> list[date]:
    """Event dates that have a directory."""
    dates = map(date_of_directory, files.directories())
    return [event_date for event_date in dates if event_date is not None]


def _drop(files: LogFiles, event_date: date, clock: Clock) -> None:
    """Take a date out of sight, and delete it where that is not one step."""
    directory = date_directory(event_date)
    with files.lock(PUBLISH_LOCK):
        if files.exchanger is None:
            files.delete_directory(directory)
        else:
            files.move(directory, f"{place_for_replaced(clock)}/{directory}")
