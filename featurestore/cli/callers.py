"""Who asks: how `featurestore serve` learns it of its callers, and every other command of whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from featurestore.definitions.governance.access.auth_section import OIDC, TOKEN_FILE_VARIABLE, VARIABLES, AuthSection
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.cli.settings import Settings
    from featurestore.clock import Clock
    from featurestore.core.spec.access import AccessSpec, User
    from featurestore.definitions.governance.access.require import ProcessUser, Wanted
    from featurestore.definitions.governance.audit.acting import Action
    from featurestore.definitions.registry import Registry
    from featurestore.online.generation import Generation
    from featurestore.serving.request.callers import Callers
    from featurestore.serving.request.tls import Tls

_Command = TypeVar("_Command", bound=Callable[..., Any])

USER = "featurestore.user"
TOKEN_FILE = "featurestore.token-file"
"""Where a command's context keeps the option: who asks is of no concern to the commands themselves."""


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


def token_option(command: _Command) -> _Command:
    """The option --token-file, for a command that somebody may have to be allowed to run."""

    def remember(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
        context.meta[TOKEN_FILE] = path

    return click.option(
        "--token-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar=TOKEN_FILE_VARIABLE,
        show_envvar=True,
        expose_value=False,
        callback=remember,
        help="Token that says who asks, where the registry has permissions.",
    )(command)


def process_user(settings: Settings) -> ProcessUser:
    """Who runs this command."""
    from featurestore.definitions.governance.access.require import ProcessUser

    return ProcessUser(settings.auth, click.get_current_context().meta.get(TOKEN_FILE))


def registered_access(settings: Settings) -> AccessSpec:
    """What the registry permits, whatever mistakes its definitions have; nothing where nothing is registered yet.

    Raises:
        InvalidRequest, CorruptData, SourceUnavailable: it cannot be read.
    """
    from featurestore.core.spec.access import AccessSpec
    from featurestore.definitions.registry import find_registry_bytes
    from featurestore.wire.feast.access import access_of

    content = find_registry_bytes(settings.registry)
    return AccessSpec() if content is None else access_of(content, settings.project)


def require_permission(
    settings: Settings,
    action: str,
    *,
    views: Iterable[str] = (),
    service: str = "",
    access: AccessSpec | None = None,
) -> User | None:
    """Let a command go on, before it says anything of what is there; who runs it.

    Args:
        settings: of the command.
        action: of Feast's AuthzedAction.
        views: with what; a version is its view.
        service: with what.
        access: what the registry permits, where that is known already.

    Raises:
        PermissionDenied, Unauthenticated, InvalidRequest, SourceUnavailable: see `ProcessUser.require`.
    """
    from featurestore.core.spec.access import FEATURE_SERVICE
    from featurestore.definitions.governance.access.require import Wanted

    access = registered_access(settings) if access is None else access
    what = [access.find(FEATURE_SERVICE, service)] if service else []
    what += [access.view(view) for view in views]
    return require_wanted(settings, access, [Wanted(action, one) for one in what])


def require_generations(settings: Settings, view: str, known: Mapping[str, Sequence[Generation]]) -> User | None:
    """Let a command go on that says which of a view's generations serves, or stays.

    Args:
        settings: of the command.
        view: a view's name, or a storage group's, which takes the right to all that it holds.
        known: what the store has.
    """
    from featurestore.core.spec.access import WRITE_ONLINE

    members = {member.name for one in known.get(view, ()) for member in one.view.members}
    return require_permission(settings, WRITE_ONLINE, views=sorted(members) or [view])


def require_wanted(settings: Settings, access: AccessSpec, wants: Iterable[Wanted]) -> User | None:
    """The same for whatever is wanted; who was refused is in the audit log."""
    from featurestore.definitions.governance.audit.acting import Action
    from featurestore.errors import PermissionDenied, Unauthenticated

    wants = tuple(wants)
    asking = process_user(settings)
    try:
        user = click.get_current_context().meta[USER] = asking.require(access, wants)
    except (PermissionDenied, Unauthenticated) as error:
        Action(settings.audit, _known_user(settings), _what(), ", ".join(map(str, wants))).refuse(error)
        raise
    return user


def begin_action(settings: Settings, on: str, **details: object) -> Action:
    """Write into the audit log that this command begins; what came of it is written when the command ends.

    Args:
        settings: of the command, which has been let in.
        on: what it does something with.
        details: JSON values.

    Raises:
        SourceUnavailable: the log cannot be written; nothing must be done then.
    """
    from featurestore.definitions.governance.audit.acting import Action

    user = None if settings.audit is None else _known_user(settings)
    return click.get_current_context().with_resource(Action(settings.audit, user, _what(), on, details))


def _known_user(settings: Settings) -> User | None:
    """Who runs this command, where a token that holds says so."""
    meta = click.get_current_context().meta
    if meta.get(USER) is None:
        meta[USER] = process_user(settings).find_or_none()
    found: User | None = meta.get(USER)
    return found


def _what() -> str:
    """The command's name, as it was typed."""
    context = click.get_current_context()
    root = context.find_root()
    return context.command_path.removeprefix(root.command_path).strip() or context.command_path


def open_callers(
    registry: Registry, options: Mapping[str, Any], clock: Clock, auth: AuthSection | None = None
) -> Callers | None:
    """Who asks; None where nobody needs to say so.

    Args:
        registry: has permissions, or not.
        options: of `callers_options`.
        clock: says when tokens expire.
        auth: what the repo's file says, where the options say nothing.

    Raises:
        click.UsageError: the options do not go together.
        InvalidRequest: the registry has permissions, and nobody would say who asks.
    """
    settings, auth = CallersSettings(**options), auth or AuthSection()
    ways = settings.auth or ((OIDC,) if auth.is_oidc else ())
    oidc = auth.oidc({variable: getattr(settings, f"oidc_{name}") or "" for name, variable in VARIABLES.items()})
    if "mtls" in ways and settings.tls_client_ca is None:
        raise click.UsageError("--auth mtls needs --tls-client-ca, which signs the callers' certificates")
    if OIDC in ways and oidc is None:
        where = "issuer and audience in auth of feature_store.yaml"
        raise click.UsageError(f"--auth oidc needs --oidc-issuer and --oidc-audience, or {where}")
    if not ways:
        registry.stamp()
        if registry.read().access.permissions and not settings.anonymous:
            raise InvalidRequest(
                "the registry has permissions, but callers have no way to say who they are",
                hint="give --auth oidc or --auth mtls; or --anonymous, to serve everybody whatever they say",
            )
        return None
    from featurestore.definitions.governance.access.tokens import Tokens
    from featurestore.serving.request.callers import Callers

    tokens = Tokens(oidc, clock) if oidc is not None and OIDC in ways else None
    return Callers(tokens, certificates="mtls" in ways, anonymous=settings.anonymous)


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
