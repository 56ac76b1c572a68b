"""`featurestore apply`: register the repo's definitions in the Feast registry."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.callers import require_wanted, token_option
from featurestore.cli.repo.plan import show_plan
from featurestore.cli.settings import format_option, load_settings, policies_option, repo_option


@click.command("apply")
@repo_option
@policies_option
@token_option
@format_option
def command(repo: Path | None, policies: str | None, output: str) -> None:
    """Check the repo, show what changes, and register it; the same as `feast apply` with the checks before it.

    The stream picks changed views up as new generations: the old values are served until the new ones have caught up.
    One whose history Kafka no longer has waits for a bootstrap. Where the registry has permissions, whoever applies
    must have the right to create, change or remove what the plan shows.
    """
    from featurestore.cli.repo.planning import planned_repo
    from featurestore.definitions.governance.turns import apply_turn
    from featurestore.definitions.repo import apply_repo
    from featurestore.definitions.written.permitted import wanted_of

    settings = load_settings(repo=repo)
    with apply_turn(settings.registry, settings.project):
        planned = planned_repo(settings, policies)
        followers = {view.name for view in planned.followers}
        require_wanted(settings, *wanted_of(planned.plan, planned.loaded, settings.registry, followers))
        apply_repo(planned.loaded, settings.repo_name if planned.is_shared else None, planned.followers)
    show_plan(planned, output)
