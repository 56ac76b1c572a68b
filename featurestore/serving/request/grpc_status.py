"""Errors as gRPC statuses, and back: the one place where the two meet.

    InvalidRequest   INVALID_ARGUMENT    UnknownFeatureService  NOT_FOUND
    Unavailable      UNAVAILABLE         DeadlineSpent          DEADLINE_EXCEEDED
    Overloaded       RESOURCE_EXHAUSTED  Unauthenticated        UNAUTHENTICATED
    CorruptData      DATA_LOSS           PermissionDenied       PERMISSION_DENIED
    the rest         INTERNAL

The status message carries message, detail and hint as lines. The trailing metadata "featurestore-error" carries the
class name: clients in any language can tell kinds apart without reading prose, and ours raise what the server raised.
"""

from __future__ import annotations

import grpc

from featurestore import errors
from featurestore.errors import (
    CorruptData,
    DeadlineSpent,
    FeatureStoreError,
    InternalError,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    QuotaSpent,
    Unauthenticated,
    Unavailable,
    UnknownFeatureService,
)

ERROR_KIND_KEY = "featurestore-error"
"""Key of the trailing metadata with the error's class name."""

RETRY_AFTER_KEY = "grpc-retry-pushback-ms"
"""Key of the trailing metadata with the time until a retry has a chance, as gRPC's own retries heed it."""

ERROR_CHUNK_KEY = "featurestore-chunk"
"""Key of the trailing metadata with the number of the chunk that ended a stream, which is how many were answered."""

HINT_MARK = "hint: "
"""Begins the line of a status message that holds the hint, as in `FeatureStoreError.__str__`."""

_CODES: tuple[tuple[type[FeatureStoreError], grpc.StatusCode], ...] = (
    (UnknownFeatureService, grpc.StatusCode.NOT_FOUND),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (DeadlineSpent, grpc.StatusCode.DEADLINE_EXCEEDED),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (CorruptData, grpc.StatusCode.DATA_LOSS),
    (FeatureStoreError, grpc.StatusCode.INTERNAL),
)
"""First match wins, so subclasses come before their bases."""

_KINDS_WITHOUT_METADATA: dict[grpc.StatusCode, type[FeatureStoreError]] = {
    grpc.StatusCode.NOT_FOUND: UnknownFeatureService,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.LimitExceeded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineSpent,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    # Nobody but a server that stops, or a proxy, cancels a call that its caller still waits for.
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DATA_LOSS: CorruptData,
}
"""What a status means that gRPC itself, or a proxy, answered."""

_KINDS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, FeatureStoreError)
}


def code_of(error: FeatureStoreError) -> grpc.StatusCode:
    """The status code of an error."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def metadata_of(error: FeatureStoreError) -> tuple[tuple[str, str], ...]:
    """The trailing metadata of an error."""
    kind = (ERROR_KIND_KEY, type(error).__name__)
    return (kind, (RETRY_AFTER_KEY, str(error.retry_after_ms))) if isinstance(error, QuotaSpent) else (kind,)


def error_of(code: grpc.StatusCode, details: str, kind_name: str | None) -> FeatureStoreError:
    """The error that a status stands for.

    Args:
        code: the status code.
        details: the status message.
        kind_name: value of the trailing metadata, None when the answer did not come from this server's code.
    """
    kind = _KINDS.get(kind_name or "") or _KINDS_WITHOUT_METADATA.get(code, InternalError)
    lines = (details or code.name.lower()).split("\n")
    hint = next((line.removeprefix(HINT_MARK) for line in lines[1:] if line.startswith(HINT_MARK)), "")
    detail = "\n".join(line for line in lines[1:] if not line.startswith(HINT_MARK))
    if kind is Unavailable and not hint:
        hint = "check that the server runs at this address"
    return kind(lines[0], detail=detail, hint=hint)


def is_transient(error: FeatureStoreError) -> bool:
    """Whether the same call may succeed a moment later, and trying again does no harm, as to an overloaded server."""
    return isinstance(error, Unavailable) and not isinstance(error, DeadlineSpent | Overloaded)
