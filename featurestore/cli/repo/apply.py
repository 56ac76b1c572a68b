"""`featurestore apply`: register the repo's definitions in the Feast registry."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.settings import load_settings, repo_option


@click.command("apply")
@repo_option
def command(repo: Path | None) -> None:
    """Check the repo, show what changes, and register it; the same as `feast apply` with the checks before it.

    The stream picks changed views up as new generations: the old values are served until the new ones have caught up.
    """
    from featurestore.definitions.changes import compare, registered_or_empty, render
    from featurestore.definitions.repo import apply_repo, load_repo

    settings = load_settings(repo=repo)
    loaded = load_repo(settings.require_repo(), settings.project)
    after = loaded.compile()
    changes = compare(registered_or_empty(settings.registry, settings.project), after.require_sound())
    apply_repo(loaded)
    click.echo(render(changes))
    for note in after.notes:
        click.echo(f"note: {note}", err=True)
