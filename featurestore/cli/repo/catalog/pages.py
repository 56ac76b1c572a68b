"""`featurestore ui`: the catalog as a page that people open."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.settings import FILE_NAME, PORT, load_settings, open_running_store, settings_options
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.catalog.served_values import ServedValues
    from featurestore.clock import Clock

DEFAULT_PORT = 8765


@click.command("ui")
@settings_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option(
    "--port",
    type=PORT,
    default=DEFAULT_PORT,
    show_default=True,
    help="Port; 0 takes a free one.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="HOST",
    help="Host name under which people reach it, behind a proxy say; others are refused. May be repeated.",
)
@click.option(
    "--server",
    metavar="HOST:PORT",
    help="Running server that is asked for values, with the token of whoever asks. Default: no values are shown.",
)
@click.option(
    "--server-tls-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Reach the server by TLS; PEM authority that signed its certificate.",
)
@click.option(
    "--server-http",
    metavar="HOST:PORT",
    help="Where the server speaks HTTP, for the snippets.",
)
@click.option(
    "--log-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="FEATURESTORE_LOG_DIR",
    show_envvar=True,
    help="The embedded log that the stream reads; shows how far behind it is.",
)
@click.option(
    "--parity-report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What `featurestore parity --format json` wrote last.",
)
@click.option(
    "--feature-log",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="What a server logs of its answers: shows statistics of a day, and drift. Needs the extra parity.",
)
@click.option("--callers", is_flag=True, help="Show on each service who has asked it lately, by the audit log.")
def command(
    repo: Path | None,
    registry: str | None,
    project: str | None,
    store_url: str | None,
    cluster: bool | None,
    host: str,
    port: int,
    names: tuple[str, ...],
    server: str | None,
    server_tls_ca: Path | None,
    server_http: str | None,
    log_dir: Path | None,
    parity_report: Path | None,
    feature_log: Path | None,
    callers: bool,
) -> None:
    """Show what is registered, what it means, where it comes from and how it is, as pages. Changes nothing.

    Whoever reaches the page may read all that is registered; who may do that is the matter of --host, or of a proxy in
    front. It has no rights to values: those are looked up by --server, with the token that is typed in.

    Example: featurestore ui --server 127.0.0.1:6566
    """
    from featurestore.catalog.callers import ServiceCallers
    from featurestore.catalog.live import LiveStore
    from featurestore.catalog.model import WatchedCatalog
    from featurestore.catalog.web.asking import Server
    from featurestore.catalog.web.pages import Pages
    from featurestore.catalog.web.running import CatalogServer
    from featurestore.clock import SystemClock
    from featurestore.definitions.schemas.directory import log_ends

    if server_tls_ca is not None and server is None:
        raise click.UsageError("--server-tls-ca is for --server")
    settings = load_settings(repo=repo, registry=registry, project=project, store_url=store_url, cluster=cluster)
    if callers and settings.audit is None:
        hint = f"write audit: DIR into {FILE_NAME}, or set FEATURESTORE_AUDIT"
        raise InvalidRequest("there is no audit log that would say who asks", hint=hint)
    clock = SystemClock()
    catalog = WatchedCatalog(settings.registry, settings.project)
    ends = None if log_dir is None else partial(log_ends, log_dir)
    addresses = {name: text for name, text in (("address", server), ("http", server_http)) if text}
    pages = Pages(
        catalog,
        LiveStore(partial(open_running_store, settings), clock, ends),
        clock,
        server=None if server is None else Server(server, server_tls_ca),
        addresses=addresses,
        parity=parity_report,
        values=_served_values(feature_log, clock),
        callers=ServiceCallers(settings.audit, clock) if callers and settings.audit is not None else None,
    )
    listening = CatalogServer(catalog, pages, host, port, names)
    shown = f"[{host}]" if ":" in host else host
    click.echo(f'catalog of project "{settings.project}" at http://{shown}:{listening.port}')
    listening.run()


def _served_values(log: Path | None, clock: Clock) -> ServedValues | None:
    """What the feature log says, where there is one."""
    if log is None:
        return None
    from featurestore.catalog.served_values import ServedValues

    return ServedValues(log, clock)
