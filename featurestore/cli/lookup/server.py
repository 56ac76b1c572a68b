"""Options that say which server to ask, and the client that asks it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.callers import TOKEN_FILE, token_option
from featurestore.cli.settings import Decorated, FiniteRange
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.serving.client.clients import LookupClient

DEFAULT_ADDRESS = "127.0.0.1:6566"
TIMEOUT_S_MAX = 86_400.0


def server_options(function: Decorated) -> Decorated:
    """How to reach a running server; the command gets `address`, `timeout_s`, `tls_ca`, `tls_cert` and `tls_key`."""
    for option in (
        token_option,
        click.option(
            "--tls-key",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="PEM private key of --tls-cert.",
        ),
        click.option(
            "--tls-cert",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="PEM certificate to present, where the server asks for one; with --tls-key.",
        ),
        click.option(
            "--tls-ca",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Connect by TLS; PEM authority that signed the server's certificate.",
        ),
        click.option(
            "--timeout",
            "timeout_s",
            type=FiniteRange(0, TIMEOUT_S_MAX, min_open=True),
            default=5.0,
            show_default=True,
            help="Seconds, retries included.",
        ),
        click.option(
            "--address",
            metavar="HOST:PORT",
            default=DEFAULT_ADDRESS,
            envvar="FEATURESTORE_ADDRESS",
            show_default=True,
            show_envvar=True,
            help="Where the server listens.",
        ),
    ):
        function = option(function)
    return function


def connect(
    address: str, timeout_s: float, *, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None
) -> LookupClient:
    """A client of that server.

    Raises:
        InvalidRequest: a file of TLS or of the token is not what it should be.
    """
    from featurestore.cli.lookup.tls import check_tls_files
    from featurestore.serving.client.clients import LookupClient
    from featurestore.serving.client.tls import ClientTls

    check_tls_files(authority=tls_ca, certificate=tls_cert, key=tls_key)
    tls = ClientTls(tls_ca, tls_cert, tls_key) if tls_ca or tls_cert else None
    path = click.get_current_context().meta[TOKEN_FILE]
    try:
        token = None if path is None else path.read_text().strip()
    except (OSError, ValueError) as error:
        raise InvalidRequest(f'the token in "{path}" cannot be read', detail=str(error)) from error
    return LookupClient(address, timeout_s=timeout_s, tls=tls, token=token)
