"""`featurestore publish SERVICE --to TOPIC`: pass feature vectors on, as events change them.

The stream is a program of its own (`python -m dataflows.log_to_features`), because Bytewax must own its process. This
command finds out where the repo, registry and store are, and becomes it.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

from featurestore.cli.callers import begin_action, require_permission, token_option
from featurestore.cli.extras import require_packages
from featurestore.cli.processes.program import ProgramCommand, become
from featurestore.cli.processes.stream import environment_of
from featurestore.cli.settings import load_settings, settings_options
from featurestore.core.spec.access import READ_ONLINE
from featurestore.online.embedded import EmbeddedStore

COMMAND = "publish"
PROGRAM = "dataflows.log_to_features"

RENAMED: Mapping[str, str] = {"--store-patience-seconds": "--patience-seconds"}
"""What `stream` calls it works here too."""


@click.command(
    COMMAND,
    cls=ProgramCommand,
    options="dataflows.log_to_features.settings:PUBLISH_OPTIONS",
    given=frozenset({"project", "registry", "store_url", "store_cluster", "service", "to"}),
)
@token_option
@settings_options
@click.argument("service")
@click.option(
    "--to",
    required=True,
    envvar="FEATURESTORE_TO",
    metavar="TOPIC",
    help="Topic of the source's cluster, or of its embedded log; made unless it is there.",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[STREAM OPTIONS]")
def command(*, service: str, to: str, options: tuple[str, ...], **given: object) -> None:
    """Publish the feature vector of each entity that events change to a topic, each change once."""
    require_packages(COMMAND)
    settings = load_settings(**given)  # type: ignore[arg-type]  # click gives exactly its parameters
    require_permission(settings, READ_ONLINE, service=service)
    begin_action(settings, f'feature service "{service}"', to=to)
    url = settings.store.url or EmbeddedStore.for_repo(settings.repo).ensure()
    environment = {**environment_of(settings, url), "FEATURESTORE_SERVICE": service, "FEATURESTORE_TO": to}
    become(COMMAND, PROGRAM, list(options), environment, RENAMED)
