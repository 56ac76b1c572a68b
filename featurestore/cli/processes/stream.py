"""`featurestore stream`: keep the features fresh from the stream of events.

The stream is a program of its own (`python -m dataflows.log_to_tiles`), because Bytewax must own its process. This
command finds out where the repo, registry and store are, starts the embedded store if no other is configured, and
becomes it.
"""

from __future__ import annotations

import click

from featurestore.cli.extras import require_packages
from featurestore.cli.processes.program import ProgramCommand, become
from featurestore.cli.settings import Settings, load_settings, settings_options
from featurestore.definitions.registry import open_registry
from featurestore.online.embedded import EmbeddedStore

COMMAND = "stream"
PROGRAM = "dataflows.log_to_tiles"

RENAMED = {"--patience-seconds": "--store-patience-seconds"}
"""What `event-log run` calls it works here too."""


@click.command(
    COMMAND,
    cls=ProgramCommand,
    options="dataflows.settings:OPTIONS",
    given=frozenset({"project", "registry", "store_url", "store_cluster"}),
)
@settings_options
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[STREAM OPTIONS]")
def command(*, options: tuple[str, ...], **given: object) -> None:
    """Fold the events of Kafka, or of an embedded log (--log-dir), into the online store until stopped."""
    require_packages(COMMAND)  # before the embedded store is started for it
    settings = load_settings(**given)  # type: ignore[arg-type]  # click gives exactly its parameters
    become(COMMAND, PROGRAM, list(options), environment_of(settings), RENAMED)


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment variables by which the stream gets its settings."""
    url = settings.store.url
    if url is None:
        # A registry that is not there must not leave a store behind that was started for nothing.
        open_registry(settings.registry, settings.project).stamp()
        url = EmbeddedStore.for_repo(settings.repo).ensure()
    return {
        "FEATURESTORE_PROJECT": settings.project,
        "FEATURESTORE_REGISTRY": settings.registry,
        "FEATURESTORE_STORE_URL": url,
        "FEATURESTORE_STORE_CLUSTER": str(settings.store.cluster).lower(),
    }
