"""From what comes with a request to a user: a bearer token, or the names in a certificate.

    authorization: Bearer eyJ... ──> signature, issuer, audience, time ──> name, roles, groups, namespaces
    certificate (mTLS) ──> its names, which are its roles too

A token is verified once, which takes a tenth of a millisecond, and remembered until it expires.

Source: RFC 7519 (JWT), RFC 6750 (bearer tokens).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jwt

from featurestore.clock import Clock
from featurestore.core.spec.access import User
from featurestore.errors import Unauthenticated
from featurestore.serving.request.issuer_keys import KeySet

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""With a public key: who can verify a token cannot make one."""

LEEWAY_SECONDS = 10
"""For clocks that differ."""

TOKENS_MAX = 10_000
"""That are remembered; the oldest are forgotten first."""

NAME_CLAIMS = ("preferred_username", "upn", "azp", "appid", "sub")
"""Where a user's name is looked for, in this order, as Feast does it."""

HEADER, SCHEME = "authorization", "bearer"

ANONYMOUS = User("anonymous")

_MS_PER_SECOND = 1_000


class Caller(Protocol):
    """Who asks, as the contexts of the servers tell it."""

    def invocation_metadata(self) -> Any:
        """(Key in lower case, value) pairs; None for none."""
        ...

    def peer_identities(self) -> Any:
        """Names in the caller's certificate, as bytes; None without one."""
        ...


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """Whose tokens hold.

    Attributes:
        issuer: their `iss`.
        audience: one of their `aud`.
        keys: path or URL of the issuer's JWKS; "" asks the issuer where it is.
        client: whose roles in `resource_access` count, as Keycloak writes them; "" for none.
    """

    issuer: str
    audience: str
    keys: str = ""
    client: str = ""


class Tokens:
    """Verifies tokens; safe to share between threads.

    Args:
        settings: whose tokens hold.
        clock: says when they expire.

    Raises:
        InvalidRequest: see KeySet.
    """

    def __init__(self, settings: OidcSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._keys = KeySet(settings.issuer, settings.keys)
        self._known: dict[bytes, tuple[User, int]] = {}

    def user_of(self, token: str) -> User:
        """Who shows a token.

        Raises:
            Unauthenticated: it does not hold.
            Unavailable: the issuer's keys are not known.
        """
        digest = hashlib.blake2b(token.encode(), digest_size=16).digest()
        known = self._known.get(digest)
        if known is not None and self._clock.now_ms() < known[1]:
            return known[0]
        self._known.pop(digest, None)
        claims = self._claims(token)
        user = self._user(claims)
        if len(self._known) >= TOKENS_MAX:
            # Oldest first; another thread may have been faster.
            self._known.pop(next(iter(tuple(self._known))), None)
        self._known[digest] = user, (int(claims["exp"]) + LEEWAY_SECONDS) * _MS_PER_SECOND
        return user

    def stop(self) -> None:
        """End."""
        self._keys.stop()

    def _claims(self, token: str) -> dict[str, Any]:
        """What a token says, verified."""
        settings = self._settings
        try:
            key = self._keys.find(jwt.get_unverified_header(token).get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("the token has expired", hint=f'get another one of "{settings.issuer}"') from error
        except jwt.PyJWTError as error:
            raise Unauthenticated(
                "the token does not hold",
                detail=str(error),
                hint=f'send one that "{settings.issuer}" has issued for "{settings.audience}"',
            ) from error
        return claims

    def _user(self, claims: Mapping[str, Any]) -> User:
        name = next((claims[one] for one in NAME_CLAIMS if isinstance(claims.get(one), str)), None)
        if name is None:
            raise Unauthenticated("the token names nobody", hint=f"it needs one of the claims {', '.join(NAME_CLAIMS)}")
        roles = _texts(claims, ("roles",)) | _texts(claims, ("resource_access", self._settings.client, "roles"))
        return User(name, roles, _texts(claims, ("groups",)), _texts(claims, ("namespaces",)))


class Callers:
    """Who asks, of every request.

    Args:
        tokens: verifies them; None takes none.
        certificates: whether the names in a client's certificate say who he is.
        anonymous: whether those are let in who do not say who they are; they have no roles.
    """

    def __init__(self, tokens: Tokens | None, *, certificates: bool, anonymous: bool) -> None:
        self._tokens, self._certificates, self._anonymous = tokens, certificates, anonymous

    def user_of(self, caller: Caller) -> User:
        """Who asks.

        Raises:
            Unauthenticated: nobody knows.
            Unavailable: the issuer's keys are not known.
        """
        if self._tokens is not None:
            token = _token_of(caller.invocation_metadata() or ())
            if token is not None:
                return self._tokens.user_of(token)
        if self._certificates and (names := _decoded(caller.peer_identities() or ())):
            return User(names[0], frozenset(names))
        if self._anonymous:
            return ANONYMOUS
        ways = [f'send "{HEADER}: Bearer TOKEN"'] if self._tokens is not None else []
        ways += ["connect with a client certificate"] if self._certificates else []
        raise Unauthenticated("the request does not say who asks", hint=" or ".join(ways))

    def stop(self) -> None:
        """End."""
        if self._tokens is not None:
            self._tokens.stop()


def _token_of(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The bearer token among a request's headers; None where there is none."""
    for name, value in metadata:
        if name == HEADER:
            scheme, _, token = (value.decode() if isinstance(value, bytes) else value).partition(" ")
            if scheme.lower() == SCHEME:
                return token.strip()
    return None


def _decoded(names: Sequence[bytes]) -> list[str]:
    return [one.decode(errors="replace") for one in names]


def _texts(claims: Mapping[str, Any], path: Sequence[str]) -> frozenset[str]:
    """The strings of a list within claims; of anything else none."""
    found: Any = claims
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return frozenset(one for one in found if isinstance(one, str)) if isinstance(found, list) else frozenset()
