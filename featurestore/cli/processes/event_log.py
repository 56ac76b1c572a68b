"""`featurestore event-log run | compact | retain | show`: every record once, as Parquet by event date."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.processes.program import ProgramCommand, become
from featurestore.cli.settings import format_option, load_settings, print_json, registry_options, repo_option
from featurestore.clock import SystemClock
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest
from featurestore.offline.event_log.address import open_files
from featurestore.offline.event_log.compaction import (
    FILES_MIN_DEFAULT,
    TARGET_BYTES_DEFAULT,
    CompactionPolicy,
    compact,
)
from featurestore.offline.event_log.layout import SCHEMA_PATH
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.retention import retain

PROGRAM = "dataflows.log_to_files"
VARIABLE = "FEATURESTORE_EVENT_LOG"
DEFAULT = "data/event_log"
RENAMED = {"--store-patience-seconds": "--patience-seconds"}
"""What `stream` calls it works here too."""

MEGABYTE = 1024 * 1024

log_option = click.option(
    "--event-log",
    metavar="URI",
    envvar=VARIABLE,
    show_envvar=True,
    help=f"Directory or URI of the logs. Default: {DEFAULT} of the repo.",
)


@click.group("event-log")
def command() -> None:
    """Write the events to Parquet, by event date and each once, and look after the files.

    Each source has its log in a directory of its name. DuckDB, Polars, Spark and pandas read it as it is.
    """


@command.command(
    short_help="Follow the stream and write what comes.",
    cls=ProgramCommand,
    options="dataflows.log_to_files.settings:EVENT_LOG_OPTIONS",
    given=frozenset({"project", "registry", "event_log"}),
)
@registry_options
@log_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[STREAM OPTIONS]")
def run(
    repo: Path | None, project: str | None, registry: str | None, event_log: str | None, options: tuple[str, ...]
) -> None:
    """Follow Kafka, or an embedded log (--log-dir), and write what comes until stopped."""
    settings = load_settings(repo=repo, project=project, registry=registry)
    environment = {
        "FEATURESTORE_PROJECT": settings.project,
        "FEATURESTORE_REGISTRY": settings.registry,
        VARIABLE: log_root(repo, event_log),
    }
    become("event-log run", PROGRAM, list(options), environment, RENAMED)


@command.command("compact", short_help="Merge small files.")
@repo_option
@log_option
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only this source's log; may be repeated.")
@click.option("--full", is_flag=True, help="Merge whatever can be merged, once, however little it is.")
@click.option(
    "--target-mb",
    type=click.IntRange(min=1),
    default=TARGET_BYTES_DEFAULT // MEGABYTE,
    show_default=True,
    help="Megabytes up to which files are merged into one.",
)
@click.option(
    "--files-min",
    type=click.IntRange(min=2),
    default=FILES_MIN_DEFAULT,
    show_default=True,
    help="So many small files are worth a merge.",
)
@click.option(
    "--allow-overlap", is_flag=True, help="On an object store: plain readers may see rows twice for a moment."
)
def compact_command(
    repo: Path | None,
    event_log: str | None,
    sources: tuple[str, ...],
    full: bool,
    target_mb: int,
    files_min: int,
    allow_overlap: bool,
) -> None:
    """Merge small files while the log is read and written; `run` does it too, every ten minutes."""
    root = log_root(repo, event_log)
    policy = CompactionPolicy(target_mb * MEGABYTE, files_min, is_full=full)
    for name in _sources(root, sources):
        before = after = 0
        for done in compact(open_files(f"{root}/{name}"), SystemClock(), policy, may_overlap=allow_overlap):
            click.echo(f"{name}  {done.event_date}  {done.files_before} files became {done.files_after}")
            before, after = before + done.files_before, after + done.files_after
        if not before:
            click.echo(f"{name}  nothing to merge")


@command.command("retain")
@repo_option
@log_option
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only this source's log; may be repeated.")
@click.option("--days", type=click.IntRange(min=1), required=True, help="Keep today and so many days before.")
def retain_command(repo: Path | None, event_log: str | None, sources: tuple[str, ...], days: int) -> None:
    """Drop old event dates for good.

    Features can be computed only from what is kept.
    """
    root = log_root(repo, event_log)
    for name in _sources(root, sources):
        dropped = retain(open_files(f"{root}/{name}"), SystemClock(), days=days)
        span = f"{dropped[0]} to {dropped[-1]}" if dropped else "nothing"
        click.echo(f"{name}  dropped {span}")


@command.command("show", short_help="Rows, files, bytes and positions.")
@repo_option
@log_option
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only this source's log; may be repeated.")
@format_option
def show_command(repo: Path | None, event_log: str | None, sources: tuple[str, ...], output: str) -> None:
    """Rows, files and bytes of each event date, and how far each partition has been read."""
    root = log_root(repo, event_log)
    logs = {name: EventLog(f"{root}/{name}") for name in _sources(root, sources)}
    if output == "json":
        print_json([_as_json(name, log) for name, log in logs.items()])
        return
    for name, log in logs.items():
        snapshot = log.snapshot()
        click.echo(click.style(name, bold=True) + f"  {log.uri}")
        total_rows = total_bytes = 0
        for size in log.sizes(snapshot):
            total_rows, total_bytes = total_rows + size.rows, total_bytes + size.size_bytes
            click.echo(
                f"  {size.event_date}  {size.rows:>14,} rows  {size.files:>6,} files  {_megabytes(size.size_bytes)}"
            )
        click.echo(f"  {'all':<10}  {total_rows:>14,} rows  {len(snapshot.files):>6,} files  {_megabytes(total_bytes)}")
        if snapshot.kept_from is not None:
            click.echo(f"  event dates before {snapshot.kept_from} were dropped")
        for (topic, partition), offset in sorted(snapshot.positions.items()):
            click.echo(f"  {topic}[{partition}]  next offset {offset:,}")


def _as_json(name: str, log: EventLog) -> dict[str, object]:
    """One source's log."""
    snapshot = log.snapshot()
    return {
        "source": name,
        "uri": log.uri,
        "kept_from": None if snapshot.kept_from is None else str(snapshot.kept_from),
        "event_dates": [
            {"event_date": str(one.event_date), "rows": one.rows, "files": one.files, "size_bytes": one.size_bytes}
            for one in log.sizes(snapshot)
        ],
        "positions": [
            {"topic": topic, "partition": partition, "next_offset": offset}
            for (topic, partition), offset in sorted(snapshot.positions.items())
        ],
    }


def log_root(repo: Path | None, event_log: str | None) -> str:
    """Where the logs are: as given, else below the repo."""
    if event_log:
        return event_log.rstrip("/")
    directory = load_settings(repo=repo).repo
    if directory is None:
        raise InvalidRequest("the event log's address is not known", hint=f"give --event-log or set {VARIABLE}")
    return str(directory / DEFAULT)


def _sources(root: str, wanted: tuple[str, ...]) -> list[str]:
    """Names of the sources that have a log."""
    files = open_files(root)
    known = [name for name in files.directories() if files.exists(f"{name}/{SCHEMA_PATH}")]
    if not known:
        raise InvalidRequest(
            f'there is no event log below "{root}"', hint="write one with `featurestore event-log run`"
        )
    for name in wanted:
        if name not in known:
            raise InvalidRequest(f'source "{name}" has no event log below "{root}"', hint=suggest(name, known))
    return sorted(wanted) or known


def _megabytes(size_bytes: int) -> str:
    """A size for people."""
    return f"{size_bytes / MEGABYTE:>10,.1f} MB"
