"""`featurestore bootstrap VIEW`: compute a view's history from the event log, for the stream to go on from there.

    register the intent ─ snapshot of the log ─ collect by lane ─ fill the missing lanes ─ hand over to the stream

It may be killed at any time and run again: complete lanes are kept, readers see nothing before the stream promotes the
generation. See docs/bootstrap.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click

from featurestore.catalog.lineage.openlineage import bootstrap_run
from featurestore.cli.callers import begin_action, require_permission, token_option
from featurestore.cli.processes.event_log import log_root
from featurestore.cli.settings import (
    event_log_option,
    event_places,
    format_option,
    lineage_option,
    load_settings,
    print_json,
    settings_options,
    tell_lineage,
)
from featurestore.clock import Clock, SystemClock
from featurestore.core.spec import SourceSpec, ViewSpec
from featurestore.core.spec.access import WRITE_ONLINE
from featurestore.definitions.compile.storage_groups import plan_storage
from featurestore.definitions.compile.versions import stored_as, stored_views
from featurestore.definitions.problems import suggest
from featurestore.definitions.registry import read_registry
from featurestore.errors import InvalidRequest
from featurestore.offline.bootstrap_events import LogEvents, PositionedEvents
from featurestore.offline.event_log.address import below
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.foreign_tables.opening import is_table
from featurestore.offline.table_log import TableLog
from featurestore.offline.training_set.histories import EventLogHistory, FileHistory, HistoricTables
from featurestore.online.embedded import EmbeddedStore
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from featurestore.online.registration import bootstrap_target
from featurestore.online.store import OnlineStore
from featurestore.online.write.bootstrap import LaneReport, fill_lanes, hand_over, missing_lanes

_NS_PER_S = 1_000_000_000


@click.command("bootstrap")
@click.argument("view")
@settings_options
@event_log_option(
    "event_log",
    "[SOURCE=]URI",
    "Directory or URI of the logs; or a Delta or Iceberg table with the columns partition and offset (and topic)"
    " that has every record below its largest offsets.",
)
@click.option(
    "--temp-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where events are sorted by entity; needs the size of the view's columns in them. Default: the system's.",
)
@token_option
@lineage_option
@click.option("--anew", is_flag=True, help="Begin another generation, whatever was bootstrapped or begun before.")
@format_option
def command(
    view: str,
    repo: Path | None,
    registry: str | None,
    project: str | None,
    store_url: str | None,
    cluster: bool | None,
    event_log: str | None,
    temp_dir: Path | None,
    anew: bool,
    output: str,
) -> None:
    """Compute the registered definition of VIEW from the event log, or a table like one, into a new generation.

    VIEW is a stream feature view, a version of one that is pinned ("card_activity@v2"), or a storage group of several.
    What a group holds is computed with all of it.

    Run it beside the stream. Readers see the generation that serves now until the stream has brought the new one up to
    date; `featurestore rollback` returns to the old one. Killed, or run again, it goes on with what is missing.
    """
    # In JSON it is the outcome that is printed; how far it has come is told beside it.
    say = partial(click.echo, err=output == "json")
    settings = load_settings(repo=repo, registry=registry, project=project, store_url=store_url, cluster=cluster)
    registered = read_registry(settings.registry, project=settings.project)
    # A version is asked for by its number, and stored under its hash.
    views = stored_views(registered)
    members = [one.name for one in plan_storage(views).groups.get(view, ())]
    require_permission(settings, WRITE_ONLINE, views=members or [view], access=registered.access)
    action, view = begin_action(settings, f'feature view "{view}"', anew=anew), stored_as(registered, view)
    places = event_places([event_log] if event_log else [])
    url = settings.store.url or EmbeddedStore.for_repo(settings.repo).ensure()
    clock = SystemClock()
    store = connect(url, cluster=settings.store.cluster)
    try:
        catalog = GenerationCatalog(store, settings.project)
        spec = _target(catalog, views, view)
        if spec.name != view:
            say(f"{view} is stored in {spec.title}, which is computed with its {len(spec.members)} views")
        log = _log(places, spec.source, repo, clock)
        generation = _begin(catalog, spec, say, is_anew=anew)
        outcome = {"view": spec.name, "generation": generation.number, "state": str(generation.state), "events": 0}
        outcome |= {"event_log": log.uri, "event_log_version": log.version}
        if generation.state is not GenerationState.BOOTSTRAPPING:
            say(f"{_name(generation)} was bootstrapped already and is {generation.state}; --anew begins another")
            if output == "json":
                print_json(outcome)
            return
        tell_lineage(settings.project, partial(bootstrap_run, settings.project, spec))
        with tempfile.TemporaryDirectory(prefix="featurestore-bootstrap-", dir=temp_dir) as directory:
            tables = _tables(places, repo)
            events = _fill(store, catalog, generation, log, clock, Path(directory), say, tables=tables)
        hand_over(store, generation, catalog.lane_count())
        action.add(view=spec.name, generation=generation.number, events=events)
        say(f"{_name(generation)} is complete; the stream brings it up to date, and then it serves")
        if output == "json":
            print_json({**outcome, "state": "complete", "events": events})
    finally:
        store.close()


def _target(catalog: GenerationCatalog, views: Sequence[ViewSpec], name: str) -> ViewSpec:
    """What is to be computed: a stream view as it is registered, or its storage group."""
    target = bootstrap_target(catalog.all(), views, name)
    if target is None:
        known = sorted({*(view.name for view in views), *plan_storage(views).groups})
        raise InvalidRequest(
            f'stream feature view "{name}" is not registered',
            hint=suggest(name, known) or "define it, and run `featurestore apply`",
        )
    return target


def _log(places: dict[str, str] | str | None, source: SourceSpec, repo: Path | None, clock: Clock) -> PositionedEvents:
    """The source's event log, or the table of somebody else's that has its records."""
    if isinstance(places, dict) and source.name not in places:
        raise InvalidRequest(
            f'there is no event log of source "{source.name}"', hint=suggest(source.name, sorted(places))
        )
    place = places[source.name] if isinstance(places, dict) else places
    if isinstance(places, dict) or (place is not None and is_table(place)):
        assert place is not None, "a source's place is not empty"
        return TableLog(place, source, now_ms=clock.now_ms())
    return EventLog(below(log_root(repo, place), source.name))


def _tables(places: dict[str, str] | str | None, repo: Path | None) -> HistoricTables:
    """What events are enriched from: topics have a history where the events have theirs."""
    if isinstance(places, dict) or (places is not None and is_table(places)):
        return HistoricTables(FileHistory(places if isinstance(places, dict) else {}), repo)
    return HistoricTables(EventLogHistory(log_root(repo, places)), repo)


def _begin(catalog: GenerationCatalog, view: ViewSpec, say: Callable[[str], None], *, is_anew: bool) -> Generation:
    """The generation to fill; the keys of one that was begun and is not continued are deleted."""
    before = {one.number: one for one in catalog.generations(view.name)}
    generation = catalog.begin_bootstrap(view, is_anew=is_anew)
    for one in before.values():
        if one.state is GenerationState.BOOTSTRAPPING and one.number != generation.number:
            say(f"{_name(one)} was begun and is dropped: {catalog.drop(one):,} keys")
    return generation


def _fill(
    store: OnlineStore,
    catalog: GenerationCatalog,
    generation: Generation,
    log: PositionedEvents,
    clock: Clock,
    directory: Path,
    say: Callable[[str], None],
    *,
    tables: HistoricTables,
) -> int:
    """Compute the missing lanes from the log as it is now; answers with the number of events in them."""
    lane_count, view, started_ns = catalog.lane_count(), generation.view, clock.monotonic_ns()
    events = LogEvents(log, view, lane_count=lane_count, now_ms=clock.now_ms(), directory=directory, tables=tables)
    lanes = missing_lanes(store, generation, lane_count, events.positions)
    _warn_of_retention(log, view)
    say(
        f"{_name(generation)}: {len(lanes)} of {lane_count} lanes to fill, "
        f"from {log.row_count:,} rows of {log.uri}, version {log.version}"
    )
    rows_read = rows_said = total = 0
    step = 1_000_000

    def on_rows(rows: int) -> None:
        nonlocal rows_read, rows_said
        rows_read += rows
        if rows_read - rows_said >= step:
            rows_said = rows_read
            say(f"  {rows_read:,} rows read  {_rate(rows_read, clock.monotonic_ns() - started_ns)}")

    def on_lane(report: LaneReport) -> None:
        nonlocal total
        total += report.events
        say(
            f"  lane {report.lane}: {report.events:,} events of {report.entities:,} entities, "
            f"{report.stored_bytes / 1e6:,.1f} MB  {_rate(total, clock.monotonic_ns() - started_ns)}"
        )

    events.collect(lanes, on_rows)
    fill_lanes(store, generation, events, lanes, clock, on_lane)
    say(f"  {total:,} events in {(clock.monotonic_ns() - started_ns) / _NS_PER_S:,.1f} s")
    return total


def _warn_of_retention(log: PositionedEvents, view: ViewSpec) -> None:
    """The log may no longer hold all that the windows reach."""
    if log.kept_from is not None:
        click.echo(
            f"note: event dates before {log.kept_from} were dropped from the log; "
            f'windows of "{view.name}" that reach further back lack them',
            err=True,
        )


def _name(generation: Generation) -> str:
    """View and generation, such as card_activity@2."""
    return f"{generation.view.name}@{generation.number}"


def _rate(count: int, elapsed_ns: int) -> str:
    return f"({count * _NS_PER_S / max(1, elapsed_ns):,.0f}/s)"
