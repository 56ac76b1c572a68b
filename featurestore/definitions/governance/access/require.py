"""Whether somebody may do something, else the error that says what is missing and whom to ask.

server ── user of the request ─┐
                               ├─> Permission objects ──> goes on, or PermissionDenied
command ── own token ── user ──┘
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featurestore.clock import Clock, SystemClock
from featurestore.core.spec.access import AccessSpec, Guarded, User
from featurestore.definitions.governance.access.auth_section import TOKEN_FILE_VARIABLE, AuthSection
from featurestore.definitions.governance.access.tokens import Tokens
from featurestore.errors import FeatureStoreError, PermissionDenied, Unauthenticated


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing that somebody wants to do.

    Attributes:
        action: of Feast's AuthzedAction.
        what: with which object.
    """

    action: str
    what: Guarded

    def __str__(self) -> str:
        """Such as: READ_OFFLINE feature service "card_check"."""
        return f'{self.action} {self.what.kind.lower().replace("_", " ")} "{self.what.name}"'


@dataclass(frozen=True, slots=True)
class ProcessUser:
    """Who runs this process, as far as it shows.

    Attributes:
        auth: whose tokens hold, and where one's own is.
        token_file: that was named.
        environment: of the process.
        clock: says when tokens expire.
    """

    auth: AuthSection
    token_file: Path | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock = field(default_factory=SystemClock)

    def find(self) -> User | None:
        """None where nothing says who it is: no token, or nobody's that would hold.

        Raises:
            Unauthenticated: the token does not hold.
            SourceUnavailable: the issuer's keys cannot be read.
            InvalidRequest: the token or the keys cannot be read.
        """
        token = self.auth.own_token(self.environment, self.token_file)
        settings = self.auth.oidc(self.environment)
        if token is None or settings is None:
            return None
        return Tokens(settings, self.clock, is_brief=True).user_of(token)

    def find_or_none(self) -> User | None:
        """As `find`; a token that does not hold is nobody's."""
        with contextlib.suppress(FeatureStoreError):
            return self.find()
        return None

    def require(self, access: AccessSpec, wants: Iterable[Wanted]) -> User | None:
        """Let a command go on; who runs it, None where no permissions ask.

        Args:
            access: what the registry permits.
            wants: what the command does.

        Raises:
            PermissionDenied: it may not.
            Unauthenticated: the registry has permissions, and nothing says who asks.
            SourceUnavailable, InvalidRequest: see `find`.
        """
        if not access.permissions:
            return None
        wants, user = tuple(wants), self.find()
        if user is None:
            raise self._unknown(access, wants)
        for want in wants:
            require(access, user, want)
        return user

    def _unknown(self, access: AccessSpec, wants: Sequence[Wanted]) -> Unauthenticated:
        """The error where nothing says who asks: what to do about it."""
        if self.auth.oidc(self.environment) is None:
            hint = "write the issuer and the audience into auth of feature_store.yaml, or FEATURESTORE_OIDC_ISSUER and"
            hint += " FEATURESTORE_OIDC_AUDIENCE"
        else:
            hint = f"give a token by --token-file or {TOKEN_FILE_VARIABLE}"
        fact, detail = "the registry has permissions, and nothing says who runs this command", ""
        for want in wants[:1]:
            detail = f"To {want} takes {access.missing(User(''), want.action, want.what) or 'a token'}."
            hint += f"; ask {_keeper(want.what)} for the permission"
        return Unauthenticated(fact, detail=detail, hint=hint)


def require(access: AccessSpec, user: User, want: Wanted) -> None:
    """Let somebody go on.

    Raises:
        PermissionDenied: he may not.
    """
    missing = access.missing(user, want.action, want.what)
    if missing is not None:
        raise denied(user, want, missing)


def denied(user: User, want: Wanted, missing: str) -> PermissionDenied:
    """The error, which says what is missing and whom to ask, and nothing of what is there."""
    return PermissionDenied(
        f'"{user.name}" may not {want}',
        detail=f"It takes {missing}.",
        hint=f"ask {_keeper(want.what)} for it",
    )


def _keeper(what: Guarded) -> str:
    return what.owner or "who keeps the registry"
