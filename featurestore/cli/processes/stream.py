"""`featurestore stream`: keep the features fresh from the stream of events.

The stream is a program of its own (`python -m dataflows.log_to_tiles`), because Bytewax must own its process. This
command finds out where the repo, registry and store are, starts the embedded store if no other is configured, and
becomes it.
"""

from __future__ import annotations

import os
import sys

import click

from featurestore.cli.settings import Settings, load_settings, settings_options
from featurestore.online.embedded import EmbeddedStore

PROGRAM = "dataflows.log_to_tiles"


@click.command(
    "stream",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@settings_options
@click.option("-h", "--help", "wants_help", is_flag=True, help="Show all options.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[STREAM OPTIONS]")
@click.pass_context
def command(context: click.Context, /, wants_help: bool, options: tuple[str, ...], **given: object) -> None:
    """Fold the events of Kafka, or of an embedded log (--log-dir), into the online store until stopped."""
    if wants_help:
        click.echo(context.get_help())
        click.echo("\nAll other options are those of the stream itself:\n")
        sys.stdout.flush()
        _become(["--help"], {})
    settings = load_settings(**given)  # type: ignore[arg-type]  # click gives exactly its parameters
    _become(list(options), environment_of(settings))


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment variables by which the stream gets its settings."""
    url = settings.store.url
    if url is None:
        url = EmbeddedStore.for_repo(settings.repo).ensure()
    return {
        "FEATURESTORE_PROJECT": settings.project,
        "FEATURESTORE_REGISTRY": settings.registry,
        "FEATURESTORE_STORE_URL": url,
        "FEATURESTORE_STORE_CLUSTER": str(settings.store.cluster).lower(),
    }


def _become(options: list[str], environment: dict[str, str]) -> None:
    """Replace this process by the stream: signals and the exit code are then its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    variables = {**os.environ, **environment, "FEATURESTORE_PROGRAM": "featurestore stream"}
    os.execve(sys.executable, [sys.executable, "-m", PROGRAM, *options], variables)
