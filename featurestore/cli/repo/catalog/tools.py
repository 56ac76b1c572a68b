"""`featurestore mcp`: the catalog for assistants."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from featurestore.cli.settings import load_settings, registry_options


@click.command("mcp")
@registry_options
def command(repo: Path | None, registry: str | None, project: str | None) -> None:
    """Let an assistant search, describe and trace what is registered: a server of the Model Context Protocol.

    It is started by the assistant's program, and answers on standard output what comes on standard input. It reads the
    registry and no value, and changes nothing.
    """
    from featurestore.catalog.model import WatchedCatalog
    from featurestore.catalog.tools import ToolServer

    settings = load_settings(repo=repo, registry=registry, project=project)
    ToolServer(WatchedCatalog(settings.registry, settings.project)).run(sys.stdin.buffer, sys.stdout.buffer)
