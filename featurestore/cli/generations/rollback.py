"""`featurestore rollback VIEW`: the generation that served before serves again."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.callers import begin_action, require_generations, token_option
from featurestore.cli.settings import format_option, load_settings, print_json, settings_options
from featurestore.core.spec import RepoSpec
from featurestore.definitions.changes import registered_or_empty
from featurestore.errors import InvalidRequest, OnlineStoreDown
from featurestore.online.embedded import EmbeddedStore
from featurestore.online.generation import GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.store_status import read_checkpoints
from featurestore.online.redis.store import connect
from featurestore.online.registration import lost_versions
from featurestore.wire.codecs.view_json import base_name
from featurestore.wire.store_layout import smallest_positions


@click.command("rollback")
@click.argument("view")
@token_option
@settings_options
@format_option
def command(
    view: str,
    repo: Path | None,
    registry: str | None,
    project: str | None,
    store_url: str | None,
    cluster: bool | None,
    output: str,
) -> None:
    """Let the generation of VIEW serve again that served before the one that serves now.

    Readers switch within a second. The stream feeds it again from where it was left and so catches it up within Kafka's
    retention; the other one is kept but not fed, and its definition is not filled anew until another one is registered.
    Running it twice returns to where it began.
    """
    settings = load_settings(repo=repo, registry=registry, project=project, store_url=store_url, cluster=cluster)
    url = settings.store.url
    if url is None:
        embedded = EmbeddedStore.for_repo(settings.repo).status()
        if embedded is None:
            raise OnlineStoreDown(
                "no embedded store runs", hint="run `featurestore store start`, or name a store by --store-url"
            )
        url = embedded.url
    store = connect(url, cluster=settings.store.cluster)
    try:
        catalog = GenerationCatalog(store, settings.project)
        require_generations(settings, view, catalog.all())
        _refuse_to_lose(catalog, view, registered_or_empty(settings.registry, settings.project))
        lanes = catalog.lane_count()
        action = begin_action(settings, f'feature view "{view}"')
        serves, away = catalog.roll_back(view)
        action.add(serves=serves.number, kept=away.number)
        reached, was = (
            smallest_positions([checkpoint.next_offsets() for checkpoint in read_checkpoints(store, one, lanes)])
            for one in (serves, away)
        )
    finally:
        store.close()
    behind = sum(max(0, offset - reached.get(partition, 0)) for partition, offset in was.items())
    if output == "json":
        print_json({"view": view, "serves": serves.number, "kept": away.number, "behind_records": behind})
        return
    click.echo(f"{view}@{serves.number} serves again, {view}@{away.number} is kept but not fed")
    click.echo(f"{behind:,} records are to be caught up; see `featurestore status`")


def _refuse_to_lose(catalog: GenerationCatalog, view: str, registered: RepoSpec) -> None:
    """What is rolled back is not fed any more, and nobody would answer for a version that is pinned.

    Raises:
        InvalidRequest: a feature service pins what serves now, and nothing else answers for it.
    """
    known = catalog.all()
    serving = next((one for one in known.get(view, ()) if one.state is GenerationState.SERVING), None)
    before = None if serving is None else serving.replaces
    back = next((one for one in known.get(view, ()) if one.number == before), None)
    for version in lost_versions(known, view, back, [one.view for one in registered.pinned]):
        services = next(one.services for one in registered.pinned if one.view.name == version)
        raise InvalidRequest(
            f'feature service "{services[0]}" pins {version}, and what serves of {view} now is all that answers for it',
            hint=f"let it pin another version, or follow {base_name(version)}, and apply that first",
        )
