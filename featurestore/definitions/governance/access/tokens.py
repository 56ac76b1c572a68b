"""From a token to a user: signature, issuer, audience and time are verified, and then its claims say who it is.

    eyJ... ──> signature, issuer, audience, time ──> name, roles, groups, namespaces

A token is verified once, which takes a tenth of a millisecond, and remembered until it expires.

Source: RFC 7519 (JWT).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jwt

from featurestore.clock import Clock
from featurestore.core.spec.access import User
from featurestore.definitions.governance.access.auth_section import OidcSettings
from featurestore.definitions.governance.access.issuer_keys import KeySet
from featurestore.errors import Unauthenticated

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""With a public key: who can verify a token cannot make one."""

LEEWAY_SECONDS = 10
"""For clocks that differ."""

TOKENS_MAX = 10_000
"""That are remembered; the oldest are forgotten first."""

NAME_CLAIMS = ("preferred_username", "upn", "azp", "appid", "sub")
"""Where a user's name is looked for, in this order, as Feast does it."""

_MS_PER_SECOND = 1_000


class Tokens:
    """Verifies tokens; safe to share between threads.

    Args:
        settings: whose tokens hold.
        clock: says when they expire.
        is_brief: as `KeySet` takes it.

    Raises:
        InvalidRequest, SourceUnavailable: see KeySet.
    """

    def __init__(self, settings: OidcSettings, clock: Clock, *, is_brief: bool = False) -> None:
        self._settings, self._clock = settings, clock
        self._keys = KeySet(settings.issuer, settings.keys, settings.discovery, is_brief=is_brief)
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
        return User(name, roles, _texts(claims, ("groups",)), _texts(claims, ("namespaces",)), known_by="token")


def _texts(claims: Mapping[str, Any], path: Sequence[str]) -> frozenset[str]:
    """The strings of a list within claims; of anything else none."""
    found: Any = claims
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return frozenset(one for one in found if isinstance(one, str)) if isinstance(found, list) else frozenset()
