"""The rows of a file, looked up into another."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from featurestore.online.answer.schema import ServiceSchema
    from featurestore.serving.client.clients import LookupClient

ROWS_TIMEOUT_S = 60.0
"""Of a thousand rows of a file, for which a server takes its time, unless --timeout says otherwise."""


@dataclass(frozen=True, slots=True)
class RowFile:
    """What --entities was given.

    Attributes:
        entities: the rows.
        out: Parquet file to write.
        event_sources: of which each row is an event.
        statuses: whether each feature has a column FEATURE__status.
        full_names: whether features are called VIEW__FEATURE.
        as_of_column: for each row's read time; empty for none.
    """

    entities: Path
    out: Path
    event_sources: tuple[str, ...]
    statuses: bool
    full_names: bool
    as_of_column: str


def row_file_options(function: Callable[..., None]) -> Callable[..., None]:
    """--entities and what belongs to it, for a click command; it gets all as `row_file`, None where rows are typed."""

    @functools.wraps(function)
    def command(entity_file: Path | None, out: Path | None, **others: Any) -> None:
        of_file = {name: others.pop(name) for name in ("event_sources", "statuses", "full_names", "as_of_column")}
        if (entity_file is None) != (out is None) or (entity_file is None and any(of_file.values())):
            raise click.UsageError(
                "give --entities with --out; --include-event, --statuses, --full-names and --as-of-column are for them"
            )
        row_file = None if entity_file is None or out is None else RowFile(entity_file, out, **of_file)
        function(row_file=row_file, **others)

    for option in (
        click.option(
            "--as-of-column", metavar="NAME", default="", help="To --out, with each row's read time in this column."
        ),
        click.option("--full-names", is_flag=True, help="To --out, with features called VIEW__FEATURE."),
        click.option("--statuses", is_flag=True, help="To --out, with a column FEATURE__status beside each feature."),
        click.option(
            "--include-event",
            "event_sources",
            multiple=True,
            metavar="SOURCE",
            help="The rows of --entities are events of this source: the features of each count its own, the payment in"
            " flight. May be repeated.",
        ),
        click.option(
            "--out",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Parquet file for the rows of --entities and their features; there when it is complete.",
        ),
        click.option(
            "--entities",
            "entity_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Look up all rows of a Parquet or CSV file; with --out. A thousand rows have a minute, or --timeout.",
        ),
    ):
        command = option(command)
    return command


def rows_timeout_s(timeout_s: float) -> float:
    """What --timeout says, if it says something."""
    is_given = click.get_current_context().get_parameter_source("timeout_s") is not ParameterSource.DEFAULT
    return timeout_s if is_given else ROWS_TIMEOUT_S


def look_up_rows(
    client: LookupClient,
    schema: ServiceSchema,
    row_file: RowFile,
    features: Sequence[str],
    *,
    as_of_ms: int | None,
    timeout_s: float,
) -> None:
    """Look up the rows of a file, with a bar on a terminal, and say how many they were."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from featurestore.serving.client.entity_file import EntityFile
    from featurestore.serving.client.vector_file import VectorColumns, write_vectors

    out = row_file.out
    if out.suffix.lower() == ".csv":
        raise click.UsageError(f'"{out}" would be a Parquet file: let its name end in .parquet')
    if out.exists() and out.samefile(row_file.entities):
        raise click.UsageError(f'"{out}" is read, and would be written over: name another file')
    if row_file.event_sources and as_of_ms is not None:
        raise click.UsageError("--include-event says that each row has a time of its own: leave --as-of out")
    entities = EntityFile(row_file.entities, schema, event_sources=row_file.event_sources)
    added = VectorColumns(features, row_file.statuses, row_file.as_of_column, row_file.full_names)
    console = Console(stderr=True)
    bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*bars, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("rows", total=entities.row_count)
        count = write_vectors(
            client,
            schema,
            entities,
            out,
            columns=added,
            as_of_ms=as_of_ms,
            timeout_s=timeout_s,
            progress=lambda done: progress.update(task, completed=done),
        )
    click.echo(f"{out}: {count:,} rows, {len(features)} features")
