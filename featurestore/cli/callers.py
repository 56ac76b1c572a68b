"""How `featurestore serve` learns who asks: its options, and what they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.clock import Clock
    from featurestore.definitions.registry import Registry
    from featurestore.serving.request.callers import Callers
    from featurestore.serving.request.tls import Tls

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class CallersSettings:
    """What the options say.

    Attributes:
        tls_cert, tls_key, tls_client_ca: see `Tls`.
        auth: "oidc" and "mtls", as far as they are wanted.
        anonymous: whether callers are let in who do not say who they are.
        oidc_issuer, oidc_audience, oidc_keys, oidc_client: see `OidcSettings`.
    """

    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    auth: tuple[str, ...]
    anonymous: bool
    oidc_issuer: str | None
    oidc_audience: str | None
    oidc_keys: str
    oidc_client: str


def callers_options(command: _Command) -> _Command:
    """Add the options to a command, TLS among them."""
    a_file = click.Path(exists=True, dir_okay=False, path_type=Path)
    for option in reversed(
        (
            click.option("--tls-cert", type=a_file, help="PEM certificate."),
            click.option("--tls-key", type=a_file, help="PEM private key."),
            click.option(
                "--tls-client-ca",
                type=a_file,
                help="PEM authority; clients must present a certificate that it signed.",
            ),
            click.option(
                "--auth",
                type=click.Choice(["oidc", "mtls"]),
                multiple=True,
                help="How callers say who they are, for the registry's permissions: a token of an issuer, or the names "
                "in a certificate of --tls-client-ca; may be repeated.",
            ),
            click.option("--anonymous", is_flag=True, help="Serve callers too who do not say who they are."),
            click.option("--oidc-issuer", metavar="URL", envvar="FEATURESTORE_OIDC_ISSUER", help="Whose tokens hold."),
            click.option(
                "--oidc-audience", metavar="NAME", envvar="FEATURESTORE_OIDC_AUDIENCE", help="For whom they must be."
            ),
            click.option(
                "--oidc-keys",
                metavar="URL|FILE",
                envvar="FEATURESTORE_OIDC_KEYS",
                default="",
                show_default="the issuer says where",
                help="The issuer's public keys (JWKS).",
            ),
            click.option(
                "--oidc-client",
                metavar="NAME",
                envvar="FEATURESTORE_OIDC_CLIENT",
                default="",
                help="Client whose roles in resource_access count, as Keycloak writes them.",
            ),
        )
    ):
        command = option(command)
    return command


def open_callers(registry: Registry, options: Mapping[str, Any], clock: Clock) -> Callers | None:
    """Who asks; None where nobody needs to say so.

    Args:
        registry: has permissions, or not.
        options: of `callers_options`.
        clock: says when tokens expire.

    Raises:
        click.UsageError: the options do not go together.
        InvalidRequest: the registry has permissions, and nobody would say who asks.
    """
    settings = CallersSettings(**options)
    if "mtls" in settings.auth and settings.tls_client_ca is None:
        raise click.UsageError("--auth mtls needs --tls-client-ca, which signs the callers' certificates")
    if "oidc" in settings.auth and not (settings.oidc_issuer and settings.oidc_audience):
        raise click.UsageError("--auth oidc needs --oidc-issuer and --oidc-audience")
    if not settings.auth:
        registry.stamp()
        if registry.read().access.permissions and not settings.anonymous:
            raise InvalidRequest(
                "the registry has permissions, but callers have no way to say who they are",
                hint="give --auth oidc or --auth mtls; or --anonymous, to serve everybody whatever they say",
            )
        return None
    from featurestore.serving.request.callers import Callers, OidcSettings, Tokens

    tokens = None
    if settings.oidc_issuer and settings.oidc_audience and "oidc" in settings.auth:
        oidc = OidcSettings(settings.oidc_issuer, settings.oidc_audience, settings.oidc_keys, settings.oidc_client)
        tokens = Tokens(oidc, clock)
    return Callers(tokens, certificates="mtls" in settings.auth, anonymous=settings.anonymous)


def tls_of(options: Mapping[str, Any]) -> Tls | None:
    """The files of TLS; None for none. Half a set-up is refused: listening in clear text is not what was meant.

    Args:
        options: of `callers_options`.

    Raises:
        click.UsageError: a certificate without its key, a key without its certificate, an authority without both.
    """
    certificate, key, authority = options["tls_cert"], options["tls_key"], options["tls_client_ca"]
    if (certificate is None) is not (key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    if authority is not None and certificate is None:
        raise click.UsageError("--tls-client-ca needs --tls-cert and --tls-key")
    if certificate is None or key is None:
        return None
    from featurestore.serving.request.tls import Tls

    return Tls(certificate, key, authority)
