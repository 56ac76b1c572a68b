"""Every error this package raises on purpose, and what its caller must do about it.

    FeatureStoreError(message, *, detail="", hint="")
    ├─ InvalidRequest        fix the call
    │  ├─ DefinitionError       fix the feature repo; carries every problem found, not the first
    │  ├─ InvalidExpression     the SQL of a condition or a computed column cannot be used
    │  ├─ UnknownFeatureService the name is not registered
    │  ├─ Unauthenticated       say who asks
    │  ├─ PermissionDenied      ask the owner for a permission
    │  ├─ UnknownJoinKey        the entity column is not one the service needs, or is missing
    │  ├─ UnknownRequestColumn  a column of the request is not one the service reads, or is missing
    │  ├─ LimitExceeded         ask for less at once
    │  └─ AsOfTooOld            the tiles can no longer tell that moment apart
    ├─ Unavailable           retry with backoff
    │  ├─ OnlineStoreDown       the store does not answer
    │  │  └─ StoreFull              it has no memory left for what is to be written
    │  ├─ SourceUnavailable     the event source does not answer
    │  ├─ Overloaded            the server refuses what it could not answer in time
    │  │  └─ QuotaSpent             the caller, or the service, has asked for as much as it may
    │  └─ DeadlineSpent         the caller's deadline passed; the work was given up
    ├─ CorruptData           stop, page, repair
    │  ├─ CorruptTile           the bytes of an entity are not a body or a head
    │  │  └─ TileLost              one of the two is gone from the store
    │  ├─ UnknownTileVersion    written by a version that this one cannot read
    │  ├─ StoreMismatch         the store was laid out by another definition, lane count or project
    │  └─ EventsLost            the source no longer holds offsets that were never applied
    ├─ WriterStopped         this writer must not go on
    │  ├─ WriterFenced          another writer took the lanes over: exit
    │  └─ StoreRolledBack       the store is older than what was committed: reopen from its checkpoint
    └─ InternalError         our bug: crash and report
       └─ InvariantBroken

Messages are lowercase facts that name the object; `detail` is a sentence; `hint` says what to do next.
The mapping to gRPC status codes lives in `serving/request/grpc_status.py` alone.
"""

from __future__ import annotations

import os
import re

TRACEBACK_VARIABLE = "FEATURESTORE_TRACEBACK"
"""Environment variable: set to anything, every error that ends a process comes with its traceback."""


_SECRETS = re.compile(r"(?i)\b(password|passwd|username|user|token|secret)=[^&,;\s\"']*")
_USER = re.compile(r"(?<=://)\S*@")


def redacted(address: str) -> str:
    """An address as it may be shown: without user and password, wherever they stand.

    >>> redacted("rediss://user:p@ss@10.0.0.7:6379/0?password=x@y&ssl_ca_certs=ca.pem")
    'rediss://10.0.0.7:6379/0?password=...&ssl_ca_certs=ca.pem'
    >>> redacted("10.0.0.7:6379,password=x@y,ssl=true")
    '10.0.0.7:6379,password=...,ssl=true'
    """
    return _USER.sub("", _SECRETS.sub(r"\1=...", address))


class FeatureStoreError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: lowercase fact that names the object, no full stop.
        detail: one sentence of context, may be empty.
        hint: what to type or change next, may be empty.
        public: what a caller in another process is told instead, where the rest names parts of this system that are
            none of its business; empty for all of it.
    """

    def __init__(self, message: str, *, detail: str = "", hint: str = "", public: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint
        self.public = public

    def __str__(self) -> str:
        """Message, detail and hint on one line each, empty ones left out."""
        parts = [self.message]
        if self.detail:
            parts.append(self.detail)
        if self.hint:
            parts.append(f"hint: {self.hint}")
        return "\n".join(parts)


class InvalidRequest(FeatureStoreError):
    """The call is wrong; the same call will fail again."""


class DefinitionError(InvalidRequest):
    """The feature repo has problems; all of them are in `problems`."""

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, detail="\n".join(f"  * {problem}" for problem in problems), hint=hint)
        self.problems = problems


class InvalidExpression(InvalidRequest):
    """The SQL of an expression does not parse, does not fit its columns, or is not supported."""


class UnknownFeatureService(InvalidRequest):
    """No feature service (or feature view) of that name is registered."""


class Unauthenticated(InvalidRequest):
    """Nobody knows who asks: no credentials came, or none that hold."""


class PermissionDenied(InvalidRequest):
    """Who asks may not have what is asked for; see `core.spec.access`."""


class UnknownJoinKey(InvalidRequest):
    """An entity column is missing, or is not a join key of the request's views."""


class UnknownRequestColumn(InvalidRequest):
    """A column of the request is missing, or is not one that the request's features read."""


class LimitExceeded(InvalidRequest):
    """The request is larger than a named limit."""


class AsOfTooOld(InvalidRequest):
    """The read time is older than what the entity's tiles can still tell apart."""


class Unavailable(FeatureStoreError):
    """A part does not answer now; retry with backoff."""


class OnlineStoreDown(Unavailable):
    """Redis or Valkey does not answer."""


class StoreFull(OnlineStoreDown):
    """The store has no memory left: nothing of the refused commit was applied, and the same one may be sent again."""


class SourceUnavailable(Unavailable):
    """Kafka or the log directory does not answer."""


class Overloaded(Unavailable):
    """The server has more to do than it can, and refuses what it could not answer in time; trying again adds to it."""


class QuotaSpent(Overloaded):
    """The caller, or the feature service, has asked for as much as it may; there is room again in `retry_after_ms`."""

    def __init__(
        self, message: str, *, detail: str = "", hint: str = "", public: str = "", retry_after_ms: int = 0
    ) -> None:
        super().__init__(message, detail=detail, hint=hint, public=public)
        self.retry_after_ms = retry_after_ms


class DeadlineSpent(Unavailable):
    """The caller's deadline passed before the answer was ready."""


class CorruptData(FeatureStoreError):
    """Stored bytes are wrong; stop, page somebody, repair."""


class WrongKindOfKey(CorruptData):
    """Somebody has written something else under a key of ours: a list, say."""


class CorruptTile(CorruptData):
    """The stored bytes of an entity do not decode as its view's tiles."""


class TileLost(CorruptTile):
    """A body or a head is missing that the other one knows of."""


class UnknownTileVersion(CorruptData):
    """The stored bytes name a layout version that this release does not know."""


class StoreMismatch(CorruptData):
    """The store holds data laid out for another project, lane count or definition."""


class EventsLost(CorruptData):
    """The source no longer has events that the store has not applied yet."""


class WriterStopped(FeatureStoreError):
    """This writer must not commit again."""


class WriterFenced(WriterStopped):
    """Another writer took over the lanes; this one must exit."""


class StoreRolledBack(WriterStopped):
    """The store is older than what was committed; reopen from the store's own checkpoint."""


class InternalError(FeatureStoreError):
    """A bug of this package; crash and report it."""


class InvariantBroken(InternalError):
    """Something that must always hold did not."""


def of_system(error: OSError | ValueError) -> FeatureStoreError:
    """What the operating system or a library refused and nobody foresaw, for the edge of a process.

    Returns:
        The path if there is one, and what is wrong, in one line.
    """
    hint = f"set {TRACEBACK_VARIABLE}=1 to see where it comes from"
    if not isinstance(error, OSError):
        return FeatureStoreError(f"{type(error).__name__}: {error}", hint=hint)
    paths = " and ".join(f'"{path}"' for path in (error.filename, error.filename2) if path is not None)
    reason = error.strerror or str(error) or type(error).__name__
    return FeatureStoreError(f"{paths}: {reason}" if paths else reason, hint=hint)


def shows_tracebacks() -> bool:
    """Whether the user wants to see where errors come from."""
    return bool(os.environ.get(TRACEBACK_VARIABLE))
