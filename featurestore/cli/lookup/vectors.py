"""The rows of a file, looked up into another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from featurestore.online.answer.schema import ServiceSchema
    from featurestore.serving.client.clients import LookupClient
    from featurestore.serving.client.vector_file import VectorColumns


ROWS_TIMEOUT_S = 60.0
"""Of a thousand rows of a file, for which a server takes its time, unless --timeout says otherwise."""


def rows_timeout_s(timeout_s: float) -> float:
    """What --timeout says, if it says something."""
    is_given = click.get_current_context().get_parameter_source("timeout_s") is not ParameterSource.DEFAULT
    return timeout_s if is_given else ROWS_TIMEOUT_S


def look_up_rows(
    client: LookupClient,
    schema: ServiceSchema,
    entity_file: Path,
    out: Path,
    added: VectorColumns,
    *,
    as_of_ms: int | None,
    timeout_s: float,
) -> None:
    """Look up the rows of a file, with a bar on a terminal, and say how many they were."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from featurestore.serving.client.entity_file import EntityFile
    from featurestore.serving.client.vector_file import write_vectors

    if out.suffix.lower() == ".csv":
        raise click.UsageError(f'"{out}" would be a Parquet file: let its name end in .parquet')
    if out.exists() and out.samefile(entity_file):
        raise click.UsageError(f'"{out}" is read, and would be written over: name another file')
    entities = EntityFile(entity_file, schema.join_keys)
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
    click.echo(f"{out}: {count:,} rows, {len(added.features)} features")
