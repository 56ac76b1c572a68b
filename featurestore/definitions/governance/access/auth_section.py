"""Whose tokens hold, and where one's own is: environment, else the `auth` of feature_store.yaml, as Feast has it.

    what               environment                 feature_store.yaml
    issuer             FEATURESTORE_OIDC_ISSUER    auth.issuer, else the auth.auth_discovery_url without its end
    audience           FEATURESTORE_OIDC_AUDIENCE  auth.audience
    the issuer's keys  FEATURESTORE_OIDC_KEYS      oidc_keys, else where auth.auth_discovery_url says
    client             FEATURESTORE_OIDC_CLIENT    auth.client_id
    own token          FEATURESTORE_TOKEN_FILE     auth.token, or the variable that auth.token_env_var names; else
                                                   FEAST_OIDC_TOKEN, or what Kubernetes mounts

One section for Feast's servers, this project's server and its commands.

Source: feast.permissions.auth_model, feast.permissions.client.oidc_authentication_client_manager.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from featurestore.errors import InvalidRequest

OIDC = "oidc"

DISCOVERY_PATH = "/.well-known/openid-configuration"

TOKEN_FILE_VARIABLE = "FEATURESTORE_TOKEN_FILE"
FEAST_TOKEN_VARIABLE = "FEAST_OIDC_TOKEN"
KUBERNETES_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

TOKEN_BYTES_MAX = 1 << 16

VARIABLES: Mapping[str, str] = {
    "issuer": "FEATURESTORE_OIDC_ISSUER",
    "audience": "FEATURESTORE_OIDC_AUDIENCE",
    "keys": "FEATURESTORE_OIDC_KEYS",
    "client": "FEATURESTORE_OIDC_CLIENT",
}


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """Whose tokens hold.

    Attributes:
        issuer: their `iss`.
        audience: one of their `aud`.
        keys: path or URL of the issuer's JWKS; "" asks the issuer where it is.
        client: whose roles in `resource_access` count, as Keycloak writes them; "" for none.
        discovery: URL at which the issuer says where its keys are; "" for the usual one.
    """

    issuer: str
    audience: str
    keys: str = ""
    client: str = ""
    discovery: str = ""


@dataclass(frozen=True, slots=True)
class AuthSection:
    """What a repo's file says.

    Attributes:
        is_oidc: whether callers show tokens.
        issuer, audience, keys, client, discovery: as `OidcSettings` has them; "" for nothing.
        token: the token itself; "" for none.
        token_variable: environment variable that has it; "" for none.
    """

    is_oidc: bool = False
    issuer: str = ""
    audience: str = ""
    keys: str = ""
    client: str = ""
    discovery: str = ""
    token: str = ""
    token_variable: str = ""

    def oidc(self, environment: Mapping[str, str]) -> OidcSettings | None:
        """Whose tokens hold; None where issuer or audience is not said."""
        said = {name: environment.get(variable) or getattr(self, name) for name, variable in VARIABLES.items()}
        if not (said["issuer"] and said["audience"]):
            return None
        # Another issuer says elsewhere where its keys are.
        discovery = self.discovery if said["issuer"] == self.issuer else ""
        return OidcSettings(said["issuer"], said["audience"], said["keys"], said["client"], discovery)

    def own_token(self, environment: Mapping[str, str], path: Path | None = None) -> str | None:
        """The token of whoever runs this process; None where he has none.

        Args:
            environment: of the process.
            path: of a file that was named.

        Raises:
            InvalidRequest: a file that was named cannot be read, or a variable that was named is not there.
        """
        if path is None and environment.get(TOKEN_FILE_VARIABLE):
            path = Path(environment[TOKEN_FILE_VARIABLE])
        if path is not None:
            return _token_in(path)
        if self.token:
            return self.token
        if self.token_variable:
            if not environment.get(self.token_variable):
                raise InvalidRequest(
                    f'"{self.token_variable}" is not set, which auth.token_env_var names', hint="put the token into it"
                )
            return environment[self.token_variable]
        if environment.get(FEAST_TOKEN_VARIABLE):
            return environment[FEAST_TOKEN_VARIABLE]
        return _token_in(KUBERNETES_TOKEN) if KUBERNETES_TOKEN.is_file() else None


def auth_section(content: Mapping[str, object], directory: Path) -> AuthSection:
    """The section of a repo's file.

    Args:
        content: of feature_store.yaml.
        directory: from which a relative path of keys counts.
    """
    found = content.get("auth")
    section: Mapping[str, object] = found if isinstance(found, Mapping) else {"type": found}

    def text(name: str) -> str:
        value = section.get(name)
        return value if isinstance(value, str) else ""

    keys = content.get("oidc_keys")
    place = keys if isinstance(keys, str) else ""
    discovery = text("auth_discovery_url")
    return AuthSection(
        is_oidc=text("type") == OIDC,
        issuer=text("issuer") or (discovery.removesuffix(DISCOVERY_PATH) if DISCOVERY_PATH in discovery else ""),
        audience=text("audience"),
        keys=place if "://" in place or not place else str(directory / place),
        client=text("client_id"),
        discovery=discovery,
        token=text("token"),
        token_variable=text("token_env_var"),
    )


def _token_in(path: Path) -> str:
    """The token of a file."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(TOKEN_BYTES_MAX).strip()
    except (OSError, ValueError) as error:
        raise InvalidRequest(f'the token in "{path}" cannot be read', detail=str(error)) from error
