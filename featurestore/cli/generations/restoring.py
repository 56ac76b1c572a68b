"""Erasures that are on record and not everywhere: of a store or an event log that was lost, or came back from a copy.

The records are in the online store and beside each event log, and receipts have them too. Whatever was lost, the
others know. What they say together is written to all, and deleted wherever it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from featurestore.cli.generations.erasing import PlaceReport, Say, attempt, report_of
from featurestore.clock import Clock
from featurestore.core.spec import RepoSpec
from featurestore.definitions.compile.versions import stored_views
from featurestore.errors import InvalidRequest
from featurestore.offline.event_log.address import below, place_of
from featurestore.offline.event_log.erasing import erase_again as erase_rows_again
from featurestore.offline.event_log.erasures import read_erasures
from featurestore.offline.event_log.table import LogTable, is_log_table
from featurestore.online.store import OnlineStore
from featurestore.online.write.erasure.book import ErasureBook
from featurestore.online.write.erasure.project import erase_again
from featurestore.wire.erasures import Erasure


def of_receipts(paths: Iterable[Path]) -> list[Erasure]:
    """The records that receipts have.

    Raises:
        InvalidRequest: one is no receipt.
    """
    try:
        return [msgspec.json.decode(path.read_bytes(), type=Erasure) for path in paths]
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidRequest("a receipt of an erasure cannot be read", detail=str(error)) from error


def of_event_logs(root: str, repo: RepoSpec) -> dict[str, list[Erasure]]:
    """The records beside each event log of a registry's sources.

    Raises:
        CorruptData: one does not decode.
        Unavailable: a file system does not answer.
    """
    names = sorted({view.source.name for view in (*stored_views(repo), *repo.views)})
    places = [below(root, name) for name in names]
    return {place: read_erasures(place_of(place)) for place in places if is_log_table(place_of(place))}


def furthest(*records: Iterable[Erasure]) -> list[Erasure]:
    """Of each value, the record that reaches furthest."""
    found: dict[str, Erasure] = {}
    for one in (one for several in records for one in several):
        known = found.get(one.name)
        if known is None or known.before_ms < one.before_ms:
            found[one.name] = one
    return list(found.values())


def missing(known: Iterable[Erasure], all_records: Iterable[Erasure]) -> list[Erasure]:
    """Records that are not among the known ones, or reach further there."""
    reach = {one.name: one.before_ms for one in known}
    return [one for one in all_records if one.name not in reach or reach[one.name] < one.before_ms]


def restore(
    store: OnlineStore,
    repo: RepoSpec,
    logs: Mapping[str, Sequence[Erasure]],
    receipts: Sequence[Erasure],
    clock: Clock,
    say: Say,
) -> tuple[int, list[PlaceReport]]:
    """Apply all records everywhere, again and again without harm; how many records, and what was removed.

    Args:
        store: the online store.
        repo: what is registered.
        logs: the event logs, and the records beside each.
        receipts: records from elsewhere.
        clock: for expiry.
        say: told what is being done.
    """
    book = ErasureBook(store, repo.project)
    records = furthest(book.all(), *logs.values(), receipts)
    # All of them first: whoever begins a generation, or a version of a log, from now on leaves those events out.
    for one in records:
        book.keep(one)
    done = erase_again(store, repo.project, repo.plain_views, clock, say)
    reports = [report_of(one) for one in done]
    for place in logs:
        reports += attempt("event log", place, partial(_of_log, place, records, clock, say))
    return len(records), reports


def _of_log(place: str, records: Sequence[Erasure], clock: Clock, say: Say) -> list[PlaceReport]:
    """What was removed from an event log."""
    done = erase_rows_again(place_of(place), records, clock, say)
    return [PlaceReport("event log", place, "rows", done.rows, done.version)]


def due(root: str, repo: RepoSpec, store: OnlineStore) -> dict[str, int]:
    """How many records each place lacks that another one has: of the online store and of event logs.

    Args:
        root: of the event logs.
        repo: what is registered.
        store: the online store.
    """
    logs, stored = of_event_logs(root, repo), ErasureBook(store, repo.project).all()
    records = furthest(stored, *logs.values())
    found = {"online store": len(missing(stored, records))}
    for place, known in logs.items():
        names = LogTable(place_of(place)).schema.names
        found[f"event log {place}"] = len(missing(known, [one for one in records if one.join_key in names]))
    return {place: count for place, count in found.items() if count}
