"""`featurestore apply`: register the repo's definitions in the Feast registry."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.repo.plan import show_plan
from featurestore.cli.settings import format_option, load_settings, policies_option, repo_option


@click.command("apply")
@repo_option
@policies_option
@format_option
def command(repo: Path | None, policies: str | None, output: str) -> None:
    """Check the repo, show what changes, and register it; the same as `feast apply` with the checks before it.

    The stream picks changed views up as new generations: the old values are served until the new ones have caught up.
    One whose history Kafka no longer has waits for a bootstrap.
    """
    from featurestore.cli.repo.planning import planned_repo
    from featurestore.definitions.repo import apply_repo

    planned = planned_repo(load_settings(repo=repo), policies)
    apply_repo(planned.loaded)
    show_plan(planned, output)
