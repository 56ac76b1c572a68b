"""The stream: events to the tables of the event log.

    read ──> decode ──> collect ──> commit      payloads, rows, files of a commit, a version of the table
               │
               └──> dead letters                what cannot be decoded, durable before the commit that passes it

    control    heartbeats, and the goodbye that ends all processes of a cluster together; compaction now and then

Run it as `featurestore event-log run` or as `python -m dataflows.log_to_table`; settings as in settings.py:

    python -m dataflows.log_to_table --project payments --registry data/registry.db --event-log data/event_log

Where to go on is in the log itself: each partition from its last commit (docs/decisions/0013-event-log-table.md). It
shares sources, dead letters, clusters and exit codes with dataflows/log_to_tiles/flow.py, and no state.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators import KeyedStream

from dataflows import supervisor
from dataflows.dead_letters.writer import DeadLetterWriter
from dataflows.log_to_table.settings import EventLogSettings, event_log_settings
from dataflows.log_to_table.sink import CommitTiming, EventLogSink, LoggedPartition, LogItem, LogRowsStep
from dataflows.log_to_table.watch import CompactionWatch
from dataflows.logs.incarnations import anew, found_incarnations, made_anew
from dataflows.logs.partitions import PartitionWatch
from dataflows.logs.sources import ControlSource, EventSource, PartitionStart, Shared, SourceLog, Watch
from dataflows.plan.definitions import Definitions, RegistryWatch
from dataflows.retry import patiently
from dataflows.run_outcome import PartitionEnd
from featurestore.core.spec import REPLACE, RepoSpec, SourceSpec
from featurestore.definitions.problems import suggest
from featurestore.errors import EventsLost, InvalidRequest
from featurestore.offline.event_log.address import TablePlace, below, place_of
from featurestore.offline.event_log.schema import log_schema
from featurestore.offline.event_log.table import LogTable, is_log_table
from featurestore.offline.event_log.writer import prepare_log
from featurestore.wire.changes.versions import Recall
from featurestore.wire.incarnations import Incarnations

FLOW_NAME = "event_log"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogParts:
    """What a flow is built from.

    Attributes:
        definitions: the registered ones.
        sources: what is logged, each of one topic.
        places: of each source's log, by the source's name.
        tables: names of those that events are enriched from.
        log: where events come from.
        dead_letters: where refused records go.
        shared: what all steps of this process share.
    """

    definitions: Definitions
    sources: tuple[SourceSpec, ...]
    places: Mapping[str, TablePlace]
    tables: frozenset[str]
    log: SourceLog
    dead_letters: DeadLetterWriter
    shared: Shared


def build(settings: EventLogSettings, parts: LogParts, partitions: Sequence[LoggedPartition]) -> Dataflow:
    """The dataflow of one plan."""
    flow = Dataflow(FLOW_NAME)
    shared = parts.shared
    timing = CommitTiming(settings.commit_seconds, max(1, settings.commit_rows // max(1, len(settings.addresses))))
    sink = EventLogSink(partitions, timing, shared)
    watches = _watches(settings, parts, partitions)
    control = op.input("control", flow, ControlSource(sink.list_parts(), shared, watches))
    rows: list[KeyedStream[LogItem]] = []
    for number, source in enumerate(parts.sources):
        own = [one for one in partitions if one.source == source]
        starts = [PartitionStart(source, one.partition, one.start) for one in own]
        events = EventSource(
            source.name, parts.log, starts, shared, records_max=settings.batch_records, on_lost=_refuse_gap
        )
        read = op.input(f"read_{number}", flow, events)
        rows.append(
            op.flat_map(
                f"decode_{number}",
                read,
                LogRowsStep(
                    source,
                    partitions,
                    parts.log.schemas(source),
                    parts.dead_letters,
                    shared,
                    is_table=source.name in parts.tables,
                ),
            )
        )
    op.output("commit", op.merge("with_control", control, *rows), sink)
    return flow


def run(settings: EventLogSettings) -> None:
    """The stream, until a run ends for good; raises as `supervisor.keep_running`."""
    definitions = Definitions(settings.registry, settings.project)

    def run_once(shared: Shared, peers_patience_s: float | None) -> bool:
        conductor = shared.conductor
        parts = supervisor.unless_stopped(conductor, partial(connect, settings, definitions, shared))
        if parts is None:
            return False
        partitions = supervisor.unless_stopped(conductor, partial(patiently, shared, partial(plan, parts)))
        if partitions is None or conductor.is_ending:
            return False
        _logger.info("logging %s from %d partitions", ", ".join(parts.places), len(partitions))
        if settings.until_end:
            conductor.await_ends(PartitionEnd(one.source.name, one.source.topic, one.partition) for one in partitions)
        supervisor.run_planned(build(settings, parts, partitions), settings, shared, peers_patience_s)
        return True

    supervisor.keep_running(settings, run_once)


def connect(settings: EventLogSettings, definitions: Definitions, shared: Shared) -> LogParts:
    """Open everything a flow needs.

    Raises:
        FeatureStoreError: something cannot be used; what does not answer is retried for the patience first.
    """
    repo = patiently(shared, definitions.read)
    sources, tables = _sources(settings, repo), frozenset(_tables(repo))
    log, dead_letters = supervisor.open_log(settings, sources, shared.clock)
    places = {source.name: place_of(below(settings.event_log, source.name)) for source in sources}
    return LogParts(definitions, sources, places, tables, log, dead_letters, shared)


def plan(parts: LogParts) -> list[LoggedPartition]:
    """Every partition, and where its log goes on.

    Raises:
        Unavailable: the source or the log's file system does not answer.
        EventsLost: a partition that was logged is gone.
        InvalidRequest: the log has a column of another type.
    """
    planned: list[LoggedPartition] = []
    for source in parts.sources:
        place, schema = parts.places[source.name], log_schema(source)
        numbers = parts.log.partitions(source)
        found = found_incarnations(parts.log, [source])
        if is_log_table(place):
            _check_same_topic(LogTable(place), source, numbers, found)
        table = prepare_log(place, schema, {one: found.get(one, "") for one in ((source.topic, n) for n in numbers)})
        # The clock may have stepped back since any of them was written.
        ingested_ms = max((file.ingest_times_ms[1] for file in table.files if file.ingest_times_ms), default=0)
        for number in numbers:
            start, recall = _where_to_go_on(parts.log, table, source, number)
            planned.append(LoggedPartition(source, place, schema, number, start, ingested_ms, recall))
    return planned


def _where_to_go_on(
    log: SourceLog, table: LogTable, source: SourceSpec, number: int
) -> tuple[int | None, Recall | None]:
    """Where a partition goes on: where events replace one another, before what the table has, if the log has that."""
    position = table.position((source.topic, number))
    if source.changes != REPLACE or position is None:
        return position, None
    horizon = table.horizon((source.topic, number))
    if horizon is None:
        raise InvalidRequest(
            f'the event log of source "{source.name}" was written before its events replaced one another',
            hint="move this log away and write a new one",
        )
    is_lost = bool(log.lost(source, {number: horizon.begin}))
    return position if is_lost else horizon.begin, Recall(horizon, position, position)


def _check_same_topic(table: LogTable, source: SourceSpec, numbers: Sequence[int], found: Incarnations) -> None:
    """What the log has of a topic is of the one that is there now.

    Raises:
        EventsLost: a partition that was logged is gone, or the topic is another one now.
    """
    logged = [place for place in table.partitions if place[0] == source.topic]
    vanished = sorted(number for _, number in logged if number not in numbers)
    if vanished:
        raise EventsLost(
            f'topic "{source.topic}" has no partition {vanished[0]}, which the event log has read from',
            hint="restore the topic, or write a new event log",
        )
    replaced = made_anew(table.incarnations, found, [place for place in logged if table.position(place)])
    if replaced:
        raise anew(*replaced[0], f'move this log away ("{table.place.uri}") and write a new one')


def main(arguments: list[str] | None = None, *, program: str = "python -m dataflows.log_to_table") -> int:
    """Write the event log until stopped; returns the process's exit code (see supervisor.py)."""
    given = sys.argv[1:] if arguments is None else arguments
    return supervisor.main(lambda: event_log_settings(given, os.environ, program=program), run)


def _sources(settings: EventLogSettings, repo: RepoSpec) -> tuple[SourceSpec, ...]:
    """The sources to log, by name; one of several topics is logged topic by topic, into one log."""
    known = {view.source.name: view.source for view in repo.views}
    if known:
        known = _tables(repo) | known
    if not known:
        raise InvalidRequest(
            f'project "{settings.project}" has no stream feature views',
            hint="define some, and run `featurestore apply`",
        )
    for name in settings.sources:
        if name not in known:
            raise InvalidRequest(f'no stream feature view reads a source "{name}"', hint=suggest(name, known))
    return tuple(one for name in sorted(settings.sources or known) for one in known[name].per_topic)


def _tables(repo: RepoSpec) -> dict[str, SourceSpec]:
    """Topics that events are enriched from, by the source's name: history looks them up, too."""
    enrichments = [one for view in repo.views for one in view.source.enrichments]
    return {one.stream.name: one.stream for one in enrichments if one.stream is not None}


def _refuse_gap(start: PartitionStart, error: EventsLost) -> None:
    """Say what to do about a log that would have a gap."""
    raise EventsLost(
        f'the event log of source "{start.source.name}" would have a gap: {error.message}',
        detail=error.detail,
        hint="move this log away and write a new one, which begins with the oldest record that there is; keep Kafka's "
        "retention longer than any stop of `featurestore event-log run`",
    ) from error


def _watches(settings: EventLogSettings, parts: LogParts, partitions: Sequence[LoggedPartition]) -> list[Watch]:
    """What is looked at while the flow runs."""
    shared = parts.shared
    watches: list[Watch] = [PartitionWatch(((one.source, one.partition) for one in partitions), parts.log, shared)]
    if len(settings.addresses) <= 1:
        # The steps of a flow are those of its sources: the processes of a cluster must all begin with the same ones.
        sources = partial(_sources, settings)
        watches.append(RegistryWatch(parts.definitions, sources, parts.sources, shared.conductor, shared.clock))
    if settings.compact_minutes and not settings.until_end:
        watches.append(CompactionWatch(parts.places, shared, minutes=settings.compact_minutes))
    return watches
