"""`featurestore plan`: what an apply would add, change and remove."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.settings import load_settings, repo_option

EXIT_CHANGES = 10
"""With --exit-code: there are changes."""


@click.command("plan")
@repo_option
@click.option("--exit-code", is_flag=True, help=f"Exit with {EXIT_CHANGES} when there are changes.")
def command(repo: Path | None, exit_code: bool) -> int:
    """Compare the repo's definitions with the registered ones; nothing is changed.

    Definitions count as changed when their hash differs, so that an apply without changes shows none. Every mistake in
    the repo is reported at once.
    """
    from featurestore.definitions.changes import compare, registered_or_empty, render
    from featurestore.definitions.repo import load_repo

    settings = load_settings(repo=repo)
    after = load_repo(settings.require_repo(), settings.project).compile()
    changes = compare(registered_or_empty(settings.registry, settings.project), after.require_sound())
    click.echo(render(changes))
    for note in after.notes:
        click.echo(f"note: {note}", err=True)
    return EXIT_CHANGES if exit_code and not changes.is_empty else 0
