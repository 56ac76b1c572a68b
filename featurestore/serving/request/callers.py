"""From what comes with a request to a user: a bearer token, or the names in a certificate.

    authorization: Bearer eyJ... ──> Tokens ──> name, roles, groups, namespaces
    certificate (mTLS) ──> its names, which are its roles too

Source: RFC 6750 (bearer tokens).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from featurestore.core.spec.access import User
from featurestore.definitions.governance.access.tokens import Tokens
from featurestore.errors import Unauthenticated

HEADER, SCHEME = "authorization", "bearer"

ANONYMOUS = User("anonymous")


class Caller(Protocol):
    """Who asks, as the contexts of the servers tell it."""

    def invocation_metadata(self) -> Any:
        """(Key in lower case, value) pairs; None for none."""
        ...

    def peer_identities(self) -> Any:
        """Names in the caller's certificate, as bytes; None without one."""
        ...


class NamedCaller(Caller, Protocol):
    """Who asks, as the contexts of gRPC's servers tell it."""

    def peer(self) -> str:
        """Its address, as "ipv4:127.0.0.1:4242"."""
        ...


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
            return User(names[0], frozenset(names), known_by="certificate")
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


def client_of(caller: NamedCaller, key: str) -> str:
    """Who asks: what the metadata says, else the certificate, else the address without its port."""
    if key:
        return next((str(value) for name, value in caller.invocation_metadata() or () if name == key), "")
    identities = caller.peer_identities()
    if identities:
        return b",".join(identities).decode(errors="replace")
    address, _, _ = caller.peer().rpartition(":")
    return address
