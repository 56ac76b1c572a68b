"""`featurestore rollback VIEW`: the generation that served before serves again."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.settings import format_option, load_settings, print_json, settings_options
from featurestore.errors import OnlineStoreDown
from featurestore.online.embedded import EmbeddedStore
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.store_status import read_checkpoints
from featurestore.online.redis.store import connect
from featurestore.wire.store_layout import smallest_positions


@click.command("rollback")
@click.argument("view")
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
        lanes = catalog.lane_count()
        serves, away = catalog.roll_back(view)
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
