"""`featurestore plan`: what an apply would add, change and remove."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.settings import format_option, load_settings, print_json, repo_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featurestore.definitions.changes import Plan

EXIT_CHANGES = 10
"""With --exit-code: there are changes."""


@click.command("plan")
@repo_option
@click.option("--physical", is_flag=True, help="Show instead which views are stored together, and what that saves.")
@click.option("--exit-code", is_flag=True, help=f"Exit with {EXIT_CHANGES} when there are changes.")
@format_option
def command(repo: Path | None, physical: bool, exit_code: bool, output: str) -> int:
    """Compare the repo's definitions, and what else an apply writes, with what is registered; nothing is changed.

    A view computes something else when the hash of its definition differs. Every mistake in the repo and in its
    feature_store.yaml is reported at once.
    """
    from featurestore.definitions.repo import load_repo
    from featurestore.definitions.written import plan_of

    settings = load_settings(repo=repo)
    loaded = load_repo(settings.require_repo(), settings.project)
    after = loaded.compile()
    if physical:
        from featurestore.cli.repo.physical import show_physical

        show_physical(after.spec.views, output)
        return 0
    changes = plan_of(loaded, after, settings.registry)
    show_plan(changes, after.notes, output)
    return EXIT_CHANGES if exit_code and not changes.is_empty else 0


def show_plan(plan: Plan, notes: Sequence[str], output: str) -> None:
    """Print what changes, and what is to be known about the repo: beside the table on stderr, in JSON with it."""
    from featurestore.definitions.changes import render

    if output == "json":
        changes = [
            {
                "action": change.action.name.lower(),
                "kind": change.kind,
                "name": change.name,
                "summary": change.summary,
                "details": list(change.details),
            }
            for change in plan.changes
        ]
        print_json({"project": plan.project, "changes": changes, "unchanged": plan.unchanged, "notes": list(notes)})
        return
    click.echo(render(plan))
    for note in notes:
        click.echo(f"note: {note}", err=True)
