"""`featurestore store start | stop | status`: the embedded store of a feature repo."""

from __future__ import annotations

from pathlib import Path

import click

from featurestore.cli.settings import FILE_NAME, REPO_DEFAULTS, format_option, print_json, repo_option
from featurestore.online.embedded import EmbeddedStore

EXIT_NOT_RUNNING = 3
"""Of `status`, as of an init script."""


@click.group("store")
def command() -> None:
    """Start, stop or look at the embedded store, the one that is used when none is configured.

    Its data lie in data/store of the repo, or in FEATURESTORE_DATA_DIR.
    """


@command.command()
@repo_option
def start(repo: Path | None) -> None:
    """Start it unless it runs, and print its address."""
    click.echo(_store(repo).ensure())


@command.command()
@repo_option
def stop(repo: Path | None) -> None:
    """Let it write its data and end.

    Nothing happens when it does not run.
    """
    click.echo("stopped" if _store(repo).stop() else "was not running")


@command.command()
@repo_option
@format_option
@click.pass_context
def status(context: click.Context, repo: Path | None, output: str) -> None:
    """Print its address and process.

    Exit code 3 when it does not run.
    """
    store = _store(repo)
    server = store.status()
    if output == "json":
        print_json({"url": server and server.url, "pid": server and server.pid, "data_dir": str(store.data_dir)})
        context.exit(EXIT_NOT_RUNNING if server is None else 0)
    if server is None:
        click.echo(f"no embedded store runs on {store.data_dir}")
        context.exit(EXIT_NOT_RUNNING)
    click.echo(f"{server.url} (process {server.pid}, data in {store.data_dir})")


def _store(repo: Path | None) -> EmbeddedStore:
    """Of the named repo, else of the one that is near."""
    return EmbeddedStore.for_repo(repo or next((path for path in REPO_DEFAULTS if _is_repo(path)), None))


def _is_repo(path: Path) -> bool:
    return (path / FILE_NAME).is_file()
