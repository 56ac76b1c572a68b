"""`featurestore event-log run | show | compact | retain | import`: each record once, in Delta tables by event date."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.processes.program import ProgramCommand, become
from featurestore.cli.settings import (
    EVENT_LOG_VARIABLE,
    event_log_option,
    format_option,
    load_settings,
    print_json,
    registry_options,
    repo_option,
)
from featurestore.clock import SystemClock
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest
from featurestore.offline.event_log.address import below, directory_names, place_of
from featurestore.offline.event_log.adoption import adopt
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.event_log.table import is_log_table
from featurestore.offline.event_log.upkeep import (
    FILES_MIN_DEFAULT,
    TARGET_BYTES_DEFAULT,
    CompactionPolicy,
    compact,
    retain,
    vacuum,
)

PROGRAM = "dataflows.log_to_table"
RENAMED = {"--store-patience-seconds": "--patience-seconds"}
"""What `stream` calls it works here too."""

MEGABYTE = 1024 * 1024

log_option = event_log_option("event_log", "URI", "Directory or URI of the logs.")


@click.group("event-log")
def command() -> None:
    """Write the events to Delta tables, by event date and each once, and look after them.

    Each source has its table in a directory of its name. Databricks, Spark, Trino, DuckDB and Polars read it as it is.
    """


@command.command(
    short_help="Follow the stream and write what comes.",
    cls=ProgramCommand,
    options="dataflows.log_to_table.settings:EVENT_LOG_OPTIONS",
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
        EVENT_LOG_VARIABLE: log_root(repo, event_log),
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
def compact_command(
    repo: Path | None,
    event_log: str | None,
    sources: tuple[str, ...],
    full: bool,
    target_mb: int,
    files_min: int,
) -> None:
    """Merge small files while the log is read and written; `run` does it too, every ten minutes.

    Files that no version of the last week needs are deleted.
    """
    root = log_root(repo, event_log)
    policy = CompactionPolicy(target_mb * MEGABYTE, files_min, is_full=full)
    for name in log_sources(root, sources):
        place = place_of(below(root, name))
        is_merged = False
        for done in compact(place, policy):
            click.echo(f"{name}  {done.event_date}  {done.files_before} files became {done.files_after}")
            is_merged = True
        if not is_merged:
            click.echo(f"{name}  nothing to merge")
        deleted = vacuum(place)
        if deleted:
            click.echo(f"{name}  {deleted} files that no version needs were deleted")


@command.command("retain")
@repo_option
@log_option
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only this source's log; may be repeated.")
@click.option("--days", type=click.IntRange(min=1), required=True, help="Keep today and so many days before.")
def retain_command(repo: Path | None, event_log: str | None, sources: tuple[str, ...], days: int) -> None:
    """Drop old event dates for good.

    Features can be computed only from what is kept. The files go a week later, for the sake of whoever reads them.
    """
    root = log_root(repo, event_log)
    for name in log_sources(root, sources):
        dropped = retain(place_of(below(root, name)), SystemClock(), days=days)
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
    logs = {name: EventLog(below(root, name)) for name in log_sources(root, sources)}
    if output == "json":
        print_json([_as_json(name, log) for name, log in logs.items()])
        return
    for name, log in logs.items():
        click.echo(click.style(name, bold=True) + f"  {log.uri}  version {log.version}")
        sizes = log.sizes()
        for size in sizes:
            click.echo(
                f"  {size.event_date}  {size.rows:>14,} rows  {size.files:>6,} files  {_megabytes(size.size_bytes)}"
            )
        total_bytes = sum(size.size_bytes for size in sizes)
        click.echo(f"  {'all':<10}  {log.row_count:>14,} rows  {len(log.files):>6,} files  {_megabytes(total_bytes)}")
        if log.kept_from is not None:
            click.echo(f"  event dates before {log.kept_from} were dropped")
        for (topic, partition), offset in sorted(log.positions().items()):
            click.echo(f"  {topic}[{partition}]  next offset {offset:,}")


@command.command("import", short_help="Make a table of a log that was written before.")
@click.argument("directory", metavar="DIR")
def import_command(directory: str) -> None:
    """Make DIR, the log of one source as releases before Delta tables wrote it, a table: where it stands, and once.

    Stop who writes it first. No row is copied; positions, retention and topics come with it.
    """
    done = adopt(place_of(directory))
    click.echo(f"{directory}: {done.rows:,} rows in {done.files:,} files, {done.partitions} partitions")


def _as_json(name: str, log: EventLog) -> dict[str, object]:
    """One source's log."""
    return {
        "source": name,
        "uri": log.uri,
        "version": log.version,
        "kept_from": None if log.kept_from is None else str(log.kept_from),
        "event_dates": [
            {"event_date": str(one.event_date), "rows": one.rows, "files": one.files, "size_bytes": one.size_bytes}
            for one in log.sizes()
        ],
        "positions": [
            {"topic": topic, "partition": partition, "next_offset": offset}
            for (topic, partition), offset in sorted(log.positions().items())
        ],
    }


def log_root(repo: Path | None, event_log: str | None) -> str:
    """Where the logs are: as given, else below the repo."""
    return event_log.rstrip("/") if event_log else load_settings(repo=repo).event_logs


def log_sources(root: str, wanted: tuple[str, ...] = ()) -> list[str]:
    """Names of the sources that have a log.

    Args:
        root: directory of the logs.
        wanted: those that are asked for; none are all.

    Raises:
        InvalidRequest: there is none, or not one that is wanted.
    """
    known = [name for name in directory_names(root) if is_log_table(place_of(below(root, name)))]
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
