"""`featurestore history`: a training set from label rows, exactly as the features were at each row's time."""

from __future__ import annotations

import functools
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.callers import begin_action, require_wanted, token_option
from featurestore.cli.history.label_options import AskedRows, rows_options
from featurestore.cli.history.spark import (
    PlaceType,
    SparkOptions,
    are_files,
    local_file,
    spark_options,
    write_with_spark,
)
from featurestore.cli.lookup.given import MomentType
from featurestore.cli.settings import (
    Settings,
    event_log_option,
    event_places,
    lineage_option,
    load_settings,
    registry_options,
    tell_lineage,
)
from featurestore.definitions.governance.access.calls import asked_offline, wanted_offline
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.core.spec import RepoSpec, ValueType
    from featurestore.definitions.governance.audit.acting import Action
    from featurestore.offline.training_set.build import TrainingSetProgress
    from featurestore.offline.training_set.histories import History
    from featurestore.offline.training_set.plain_join import PlainHistory

OTHER_FORMATS = frozenset(
    {".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".arrow", ".feather", ".ipc", ".orc", ".avro", ".xlsx"}
)
"""Endings that promise something else than the Parquet that is written."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", re.IGNORECASE)


class BytesType(click.ParamType[int]):
    """An amount of memory: 2GB, 512MiB, 1000000."""

    name = "bytes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse one amount."""
        found = _BYTES.fullmatch(str(value).strip())
        if found is None:
            self.fail(f'"{value}" is no amount of memory, such as 2GB', param, ctx)
        return int(float(found[1]) * _UNITS[(found[2] or "").lower()])


@click.command("history")
@registry_options
@rows_options
@click.option("--service", metavar="NAME", help="Feature service whose features are added.")
@click.option(
    "--feature",
    "features",
    multiple=True,
    metavar="VIEW:FEATURE",
    help="One feature, instead of a service; may be repeated.",
)
@click.option("--out", required=True, type=PlaceType(exists=False), help="Parquet file to write.")
@event_log_option(
    "events",
    "[SOURCE=]PATH|URI",
    "Root of the event logs; or Parquet files, or a Delta or Iceberg table, with a source's columns; may be repeated.",
    is_list=True,
)
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="VIEW=PATH:TIMESTAMP[:CREATED]",
    help="Another table for a materialized view than its registered FileSource, as Parquet, Delta or Iceberg; may be"
    " repeated.",
)
@click.option("--at", "at_ms", type=MomentType(), help="One moment for all rows, instead of a column.")
@click.option(
    "--include-event",
    "event_sources",
    multiple=True,
    metavar="SOURCE",
    help="The label rows are events of this source: the features of each count its own, as a lookup counts the payment"
    " in flight. May be repeated.",
)
@click.option("--full-names", is_flag=True, help="Call features VIEW__FEATURE.")
@click.option(
    "--memory",
    "memory_bytes",
    type=BytesType(),
    default="2GB",
    show_default=True,
    help="What events may take; more go through the disk.",
)
@click.option(
    "--work-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keeps finished parts: the same command goes on after it was killed.",
)
@click.option(
    "--ingested-before",
    "ingested_before_ms",
    type=MomentType(),
    help="Events as they were known then: of an event log, or of files with its ingest_time_ms.",
)
@token_option
@lineage_option
@spark_options
def command(
    repo: Path | None,
    project: str | None,
    registry: str | None,
    asked: AskedRows,
    service: str | None,
    features: tuple[str, ...],
    out: Path | str,
    events: tuple[str, ...],
    tables: tuple[str, ...],
    at_ms: int | None,
    event_sources: tuple[str, ...],
    full_names: bool,
    memory_bytes: int,
    work_dir: Path | None,
    ingested_before_ms: int | None,
    spark: SparkOptions | None,
) -> None:
    """Add features to label rows, as they were at each row's time; rows, order and columns stay.

    Example: featurestore history --entities labels.parquet --service fraud_detection --out train.parquet
    """
    from featurestore.cli.history.label_file import read_label_rows
    from featurestore.definitions.governance.audit.evidence import rows_evidence
    from featurestore.definitions.registry import read_registry
    from featurestore.offline.training_set.build import versions_read, write_training_set
    from featurestore.offline.training_set.plan import plan_training_set

    if bool(service) == bool(features):
        raise click.UsageError("give --service, or --feature once or more")
    settings = load_settings(repo=repo, project=project, registry=registry)
    spec = read_registry(settings.registry, project=settings.project)
    wanted: str | list[str] = service or list(features)
    action = _begin(settings, spec, wanted, entities=asked.place, out=str(out))
    places, plain = event_places(events), _tables(tables, spec)
    _check_out(out, places, plain)
    read = functools.partial(read_label_rows, join_keys=_column_types(spec, wanted))
    if spark is not None:
        write_with_spark(
            *(spark, (spec, wanted), asked.entities or "", read, out),
            events=_places_for_spark(places, settings, ingested_before_ms),
            ingested_before_ms=ingested_before_ms,
            plain=plain,
            moments=(asked.timestamp_column, at_ms),
            full_names=full_names,
            event_sources=event_sources,
            repo_path=settings.repo,
            work_dir=work_dir,
        )
        return
    labels, timestamp_column = asked.read(spec, read, settings.repo, out)
    action.add_evidence(lambda: rows_evidence(labels, timestamp_column, at_ms))
    plan = plan_training_set(
        *(spec, wanted, labels),
        timestamp_column=timestamp_column,
        at_ms=at_ms,
        full_names=full_names,
        event_sources=event_sources,
    )
    history = _history(places, settings, ingested_before_ms)
    write = functools.partial(write_training_set, plan, local_file(out), history=history, plain=plain)
    with _sigterm_as_interrupt(), _progress() as report:
        rows = write(memory_bytes=memory_bytes, work_dir=work_dir, progress=report, repo_path=settings.repo)
    action.add(features=len(plan.names), events=dict(versions_read(history)))
    click.echo(f"{out}: {rows:,} rows, {len(plan.names)} features")
    for uri, version in versions_read(history).items():
        click.echo(f"events of {uri}, version {version}", err=True)


def _begin(settings: Settings, spec: RepoSpec, wanted: str | list[str], **places: str) -> Action:
    """Let the command go on, and say that it does: to the audit log, and to whoever hears of lineage."""
    from featurestore.catalog.lineage.openlineage import training_set_run

    require_wanted(settings, spec.access, wanted_offline(spec.access, wanted))
    action = begin_action(settings, asked_offline(wanted), **places)
    tell_lineage(settings.project, functools.partial(training_set_run, spec, wanted, places["out"]))
    return action


def _column_types(spec: RepoSpec, wanted: str | list[str]) -> dict[str, ValueType]:
    """Types of join keys, and of texts of a request, behind what is asked; a CSV would take "007" for a number.

    None where the names are wrong, which is reported later.
    """
    from featurestore.core.spec import ValueType

    if isinstance(wanted, str):
        service = spec.service(wanted)
        keys = () if service is None else service.join_keys
        names = {reference.view for reference in service.features} if service is not None else set[str]()
    else:
        names = {text.partition(":")[0] for text in wanted}
        views = [spec.view(name) or spec.plain_view(name) or spec.on_demand_view(name) for name in names]
        keys = tuple(key for view in views if view is not None for key in view.join_keys)
    found = {key.name: key.type for key in keys}
    for on_demand in (spec.on_demand_view(name) for name in sorted(names)):
        for column in () if on_demand is None else on_demand.request_columns:
            if column.type is ValueType.STRING:
                found.setdefault(column.name, column.type)
    return found


def _history(places: Mapping[str, str] | str | None, settings: Settings, ingested_before_ms: int | None) -> History:
    """Event logs below a root, or files and tables; by source where the option says so."""
    from featurestore.offline.training_set.histories import EventLogHistory, FileHistory

    if places is not None and are_files(places):
        return FileHistory(places, ingested_before_ms=ingested_before_ms)
    return EventLogHistory(str(places or settings.event_logs), ingested_before_ms=ingested_before_ms)


def _places_for_spark(
    places: Mapping[str, str] | str | None, settings: Settings, ingested_before_ms: int | None
) -> Mapping[str, str] | str:
    """The same places as its engine takes them."""
    if ingested_before_ms is not None and places is not None and are_files(places):
        raise click.UsageError("with --engine spark, --ingested-before needs an event log, not files")
    return places or settings.event_logs


def _tables(texts: Sequence[str], spec: RepoSpec) -> dict[str, PlainHistory]:
    """Tables by view; each must be one of the registry, lest a misspelled one be passed over."""
    from featurestore.definitions.problems import suggest

    found: dict[str, PlainHistory] = {}
    for text in texts:
        view, table = parse_table(text)
        if view in found:
            raise click.UsageError(f'there are two --table of view "{view}"')
        if spec.plain_view(view) is None:
            known = [one.name for one in spec.plain_views]
            raise InvalidRequest(f'there is no materialized feature view "{view}"', hint=suggest(view, known))
        found[view] = table
    return found


def _check_out(out: Path | str, places: Mapping[str, str] | str | None, plain: Mapping[str, PlainHistory]) -> None:
    """What is written is Parquet, and in nobody's place."""
    if not isinstance(out, Path):
        return
    if out.suffix.lower() in OTHER_FORMATS:
        raise click.UsageError(f'"{out}" would be a Parquet file: let its name end in .parquet')
    read = [str(table.data) for table in plain.values()]
    if places is not None:
        read += [places] if isinstance(places, str) else places.values()
    if out.exists() and any(Path(path).exists() and out.samefile(path) for path in read):
        raise click.UsageError(f'"{out}" is read, and would be written over: name another file')


def parse_table(text: str) -> tuple[str, PlainHistory]:
    """A materialized view's table."""
    from featurestore.offline.training_set.plain_join import PlainHistory

    view, _, rest = text.partition("=")
    path, *columns = rest.rsplit(":", 2) if rest.count(":") > 1 else rest.rsplit(":", 1)
    if not view or not columns:
        raise click.UsageError(f'"{text}" is not VIEW=PATH:TIMESTAMP[:CREATED]')
    return view, PlainHistory(path, columns[0], columns[1] if len(columns) > 1 else None)


@contextmanager
def _progress() -> Iterator[Callable[[TrainingSetProgress], None]]:
    """A bar for each step on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    bars = Bars(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    tasks = {}
    with bars:

        def report(progress: TrainingSetProgress) -> None:
            if progress.step not in tasks:
                tasks[progress.step] = bars.add_task(progress.step, total=progress.total)
            bars.update(tasks[progress.step], completed=progress.done, total=progress.total)

        yield report


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does: what goes through the disk can be large, and must not stay behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
