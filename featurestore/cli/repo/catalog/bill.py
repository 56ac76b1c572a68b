"""`featurestore bill`: what lookups took, by the team that owns the feature services."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.narrow_table import narrow_table
from featurestore.cli.repo.catalog.audit import AUDIT_OPTION, log_directory, since_ms_of
from featurestore.cli.settings import format_option, print_json, repo_option

if TYPE_CHECKING:
    from featurestore.definitions.governance.audit.reading import Billed

_BYTES_PER_MB, _US_PER_SECOND = 1_000_000, 1_000_000
NOBODY = "-"

BY = ("team", "service", "caller")


@click.command("bill")
@click.option("--since", metavar="TIME", default="30d", show_default=True, help="Since then: 30d ago, or a moment.")
@click.option(
    "--by",
    type=click.Choice(BY),
    multiple=True,
    default=("team", "service"),
    show_default=True,
    help="A line for each; may be repeated.",
)
@AUDIT_OPTION
@repo_option
@format_option
def command(since: str, by: tuple[str, ...], directory: Path | None, repo: Path | None, output: str) -> None:
    """Add up what lookups took of the servers: processor, bytes, rows; of each team that owns a feature service.

    It is read from the audit log. What views take of the stream is in its metrics, by view and team.
    """
    from rich.console import Console

    from featurestore.definitions.governance.audit.reading import billed

    names = tuple(dict.fromkeys(by))
    found = billed(log_directory(directory, repo), names, since_ms_of(since))
    if output == "json":
        print_json([{**dict(zip(names, one.names, strict=True)), **_amounts(one)} for one in found])
        return
    table = narrow_table("bill", texts=names, numbers=("requests", "rows", "MB", "CPU s", "share"))
    whole = sum(one.cpu_us for one in found) or 1
    for one in found:
        table.add_row(
            *(name or NOBODY for name in one.names),
            f"{one.requests:,}",
            f"{one.rows:,}",
            f"{one.answer_bytes / _BYTES_PER_MB:,.1f}",
            f"{one.cpu_us / _US_PER_SECOND:,.1f}",
            f"{one.cpu_us / whole:.0%}",
        )
    Console().print(table)


def _amounts(one: Billed) -> dict[str, object]:
    return {name: value for name, value in asdict(one).items() if name != "names"}
