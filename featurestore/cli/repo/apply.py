"""`featurestore apply`: register the repo's definitions in the Feast registry."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.repo.plan import show_plan
from featurestore.cli.settings import format_option, load_settings, repo_option


@click.command("apply")
@repo_option
@format_option
def command(repo: Path | None, output: str) -> None:
    """Check the repo, show what changes, and register it; the same as `feast apply` with the checks before it.

    The stream picks changed views up as new generations: the old values are served until the new ones have caught up.
    One whose history Kafka no longer has waits for a bootstrap.
    """
    from featurestore.cli.repo.check_schema import notes_of_registries
    from featurestore.definitions.compile.versions import stored_views
    from featurestore.definitions.registry import find_registry_bytes
    from featurestore.definitions.repo import apply_repo, load_repo
    from featurestore.definitions.written import plan_of

    settings = load_settings(repo=repo)
    loaded = load_repo(settings.require_repo(), settings.project)
    after = loaded.compile(find_registry_bytes(settings.registry, with_all_versions=True))
    notes = (*after.notes, *notes_of_registries(stored_views(after.spec)))
    changes = plan_of(loaded, after, settings.registry)
    apply_repo(loaded)
    show_plan(changes, notes, output)
