"""`featurestore apply`: register the repo's definitions in the Feast registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.callers import begin_action, require_wanted, token_option
from featurestore.cli.repo.plan import show_plan
from featurestore.cli.settings import (
    Settings,
    format_option,
    lineage_option,
    lineage_sender,
    load_settings,
    policies_option,
    repo_option,
)

if TYPE_CHECKING:
    from featurestore.cli.repo.planning import PlannedRepo


@click.command("apply")
@repo_option
@policies_option
@token_option
@lineage_option
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
    sender = lineage_sender(settings.project)
    with apply_turn(settings.registry, settings.project):
        planned = planned_repo(settings, policies)
        followers = {view.name for view in planned.followers}
        require_wanted(settings, *wanted_of(planned.plan, planned.loaded, settings.registry, followers))
        begin_action(settings, f'project "{settings.project}"', **_evidence(settings, planned))
        apply_repo(planned.loaded, settings.repo_name if planned.is_shared else None, planned.followers)
    show_plan(planned, output)
    if sender is not None:
        from featurestore.catalog.lineage.openlineage import dataset_events
        from featurestore.clock import SystemClock
        from featurestore.definitions.registry import compile_registry, read_registry_bytes

        content = read_registry_bytes(settings.registry)
        spec = compile_registry(content, project=settings.project).spec
        sender.send(dataset_events(spec, content, SystemClock().now_ms()))


def _evidence(settings: Settings, planned: PlannedRepo) -> dict[str, object]:
    """What the audit log keeps of an apply: what changes, the definitions' hashes, and the commit they are of."""
    from featurestore.definitions.governance.audit.evidence import checkout_of

    if settings.audit is None:
        return {}
    changes = [
        {**change.as_record(), "definition_hash": planned.hashes.get(change.name, "")}
        for change in planned.plan.changes
    ]
    return {"changes": changes, **checkout_of(settings.require_repo())}
