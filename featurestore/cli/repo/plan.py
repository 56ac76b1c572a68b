"""`featurestore plan`: what an apply would add, change and remove."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.settings import (
    event_log_option,
    event_places,
    format_option,
    load_settings,
    policies_option,
    print_json,
    repo_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featurestore.cli.repo.planning import PlannedRepo
    from featurestore.cli.settings import Settings
    from featurestore.core.spec import ViewSpec

EXIT_CHANGES = 10
"""With --exit-code: there are changes."""


@click.command("plan")
@repo_option
@click.option("--physical", is_flag=True, help="Show instead which views are stored together, and what that saves.")
@click.option("--cost", is_flag=True, help="Show instead what is stored will cost, computed from history.")
@event_log_option(
    "event_logs",
    "[SOURCE=]URI",
    "For --cost: directory or URI of the event logs; or Parquet files, or a Delta or Iceberg table, with a source's"
    " columns; may be repeated.",
    is_list=True,
)
@click.option(
    "--entities",
    multiple=True,
    metavar="[NAME=]N",
    help="For --cost: extrapolate to so many entities, of what is stored as NAME or of everything; may be repeated.",
)
@click.option("--features", is_flag=True, help="For --cost: what each feature adds.")
@policies_option
@click.option("--exit-code", is_flag=True, help=f"Exit with {EXIT_CHANGES} when there are changes.")
@format_option
def command(
    repo: Path | None,
    physical: bool,
    cost: bool,
    event_logs: tuple[str, ...],
    entities: tuple[str, ...],
    features: bool,
    policies: str | None,
    exit_code: bool,
    output: str,
) -> int:
    """Compare the repo's definitions, and what else an apply writes, with what is registered; nothing is changed.

    A view computes something else when the hash of its definition differs. Every mistake in the repo and in its
    feature_store.yaml is reported at once. A new or changed view has to fit the newest schemas of what it reads; what
    they break of the others is noted, and so is a schema registry that does not answer. What breaks a policy is a
    mistake like the others.

    With --cost it takes events that have happened, and folds a sample of the entities as a bootstrap would: bytes in
    Redis, rows to append, and what a lookup takes. No store is needed, and nothing need be registered.
    """
    from featurestore.cli.repo.planning import planned_repo

    if physical and cost:
        raise click.UsageError("give --physical or --cost")
    if (entities or features) and not cost:
        raise click.UsageError("--entities and --features go with --cost")
    settings = load_settings(repo=repo)
    if physical:
        from featurestore.cli.repo.physical import show_physical

        show_physical(_views(settings), output)
        return 0
    if cost:
        _show_cost(_views(settings), settings, event_logs, entities_by_name(entities), features, output)
        return 0
    planned = planned_repo(settings, policies)
    show_plan(planned, output)
    return EXIT_CHANGES if exit_code and not planned.plan.is_empty else 0


def _views(settings: Settings) -> Sequence[ViewSpec]:
    """All that is to be stored of the repo."""
    from featurestore.definitions.compile.versions import stored_views
    from featurestore.definitions.registry import find_registry_bytes
    from featurestore.definitions.repo import load_repo

    loaded = load_repo(settings.require_repo(), settings.project)
    return stored_views(loaded.compile(find_registry_bytes(settings.registry, with_all_versions=True)).spec)


def _show_cost(
    views: Sequence[ViewSpec],
    settings: Settings,
    event_logs: Sequence[str],
    entities: dict[str, int],
    with_features: bool,
    output: str,
) -> None:
    """What the repo's views will cost."""
    from featurestore.cli.repo.cost.history import SourceHistories
    from featurestore.cli.repo.cost.show import CostRequest, show_costs
    from featurestore.clock import SystemClock

    clock = SystemClock()
    places = event_places(event_logs) or settings.event_logs
    sources = {view.source for view in views}
    streams = {one.stream for source in sources for one in source.enrichments if one.stream is not None}
    histories = SourceHistories(
        places, {source.name for source in sources | streams}, clock.now_ms(), settings.require_repo()
    )
    show_costs(views, histories, CostRequest(settings.project, entities, with_features), clock, output)


def entities_by_name(texts: Sequence[str]) -> dict[str, int]:
    """What --entities was given: so many of each name; "" is everything else."""
    found: dict[str, int] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        digits = number.replace(",", "").replace("_", "")
        if not digits.isdecimal() or int(digits) < 1:
            raise click.UsageError(f'--entities "{text}" is not [NAME=]N, N a number of entities')
        if name in found:
            raise click.UsageError(f"--entities is given twice for {name or 'everything'}")
        found[name] = int(digits)
    return found


def show_plan(planned: PlannedRepo, output: str) -> None:
    """Print what changes, and what is to be known about the repo: beside the table on stderr, in JSON with it."""
    from featurestore.definitions.changes import render

    plan = planned.plan
    if output == "json":
        changes = [{**change.as_record(), "owner": change.owner} for change in plan.changes]
        told = {"notes": list(planned.notes), "warnings": list(planned.warnings)}
        print_json({"project": plan.project, "changes": changes, "unchanged": plan.unchanged, **told})
        return
    click.echo(render(plan))
    for warning in planned.warnings:
        click.echo(f"warning: {warning}", err=True)
    for note in planned.notes:
        click.echo(f"note: {note}", err=True)
