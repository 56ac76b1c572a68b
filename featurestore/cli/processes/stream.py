"""`featurestore stream`: keep the features fresh from the stream of events.

The stream is a program of its own (`python -m dataflows.log_to_tiles`), because Bytewax must own its process. This
command finds out where the repo, registry and store are, starts the embedded store if no other is configured, and
becomes it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

import click

from featurestore.cli.extras import require_packages
from featurestore.cli.processes.program import ProgramCommand, become, program_words
from featurestore.cli.settings import Settings, lineage_option, lineage_sender, load_settings, settings_options
from featurestore.definitions.registry import open_registry
from featurestore.online.embedded import EmbeddedStore

COMMAND = "stream"
PROGRAM = "dataflows.log_to_tiles"

RENAMED = {"--patience-seconds": "--store-patience-seconds"}
"""What `event-log run` calls it works here too."""

_ANY_STORE = "redis://127.0.0.1"
"""Stands for one that is not started yet."""


@click.command(
    COMMAND,
    cls=ProgramCommand,
    options="dataflows.settings:OPTIONS",
    given=frozenset({"project", "registry", "store_url", "store_cluster", "repo"}),
)
@settings_options
@lineage_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[STREAM OPTIONS]")
def command(*, options: tuple[str, ...], **given: object) -> None:
    """Fold the events of Kafka, or of an embedded log (--log-dir), into the online store until stopped."""
    require_packages(COMMAND)  # before the embedded store is started for it
    settings = load_settings(**given)  # type: ignore[arg-type]  # click gives exactly its parameters
    sender = lineage_sender(settings.project)
    url = settings.store.url
    if url is None:
        # What cannot be must not leave a store behind that was started for nothing.
        check_options(settings, options)
        open_registry(settings.registry, settings.project).stamp()
        url = EmbeddedStore.for_repo(settings.repo).ensure()
    if sender is not None:
        from featurestore.catalog.lineage.openlineage import stream_run
        from featurestore.definitions.registry import read_registry

        sender.begin(stream_run(read_registry(settings.registry, project=settings.project)))
    become(COMMAND, PROGRAM, list(options), environment_of(settings, url), RENAMED)


def check_options(settings: Settings, options: Sequence[str]) -> None:
    """Refuse what the stream would refuse.

    Raises:
        InvalidRequest: an option has no such value. (An unknown one ends the process, as usual.)
    """
    environment = {**os.environ, **environment_of(settings, _ANY_STORE)}
    parse = importlib.import_module("dataflows.settings").from_command_line  # as the help takes its options from there
    parse(program_words(options, RENAMED), environment, program=f"featurestore {COMMAND}")


def environment_of(settings: Settings, url: str) -> dict[str, str]:
    """The environment variables by which the stream gets its settings."""
    repo = {} if settings.repo is None else {"FEATURESTORE_REPO": str(settings.repo.absolute())}
    return {
        **repo,
        "FEATURESTORE_PROJECT": settings.project,
        "FEATURESTORE_REGISTRY": settings.registry,
        "FEATURESTORE_STORE_URL": url,
        "FEATURESTORE_STORE_CLUSTER": str(settings.store.cluster).lower(),
    }
