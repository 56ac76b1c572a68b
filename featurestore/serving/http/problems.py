"""Errors as problem+json (RFC 9457), of the same kinds as over gRPC.

    INVALID_ARGUMENT    400       RESOURCE_EXHAUSTED  429, Retry-After      DATA_LOSS  500
    UNAUTHENTICATED     401       UNAVAILABLE         503, Retry-After      INTERNAL   500
    PERMISSION_DENIED   403
    NOT_FOUND           404       DEADLINE_EXCEEDED   504

The kind stands where gRPC has it in its trailers: in the header `featurestore-error`, and in the body once more.
"""

from __future__ import annotations

import math
import re
from http import HTTPStatus

import grpc
import msgspec

from featurestore.errors import FeatureStoreError
from featurestore.serving.http.messages import Response
from featurestore.serving.request.grpc_status import ERROR_KIND_KEY, RETRY_AFTER_KEY, error_of
from featurestore.serving.request.handling import Refusal

CONTENT_TYPE = "application/problem+json"

RETRY_AFTER_SECONDS = 1
"""Until a caller who was refused, or found the store down, may try again; the store is looked at as often."""

_STATUS: dict[grpc.StatusCode, HTTPStatus] = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}
"""All others are the server's failures."""

_MS_PER_SECOND = 1_000
_WORD = re.compile(r"(?<!^)(?=[A-Z])")


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request has no answer.

    Attributes:
        type: names the kind of problem, `urn:featurestore:error:` and the kind; `about:blank` where HTTP's status says
            it all.
        title: the kind in words.
        status: HTTP's.
        detail: what is wrong with this request.
        hint: what to do about it.
        featurestore_error: the kind of error, the same as over gRPC.
    """

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""
    featurestore_error: str = ""


def refused(refusal: Refusal, status: HTTPStatus | None = None) -> Response:
    """The answer to a request that has none.

    Args:
        refusal: how it ended.
        status: instead of the one that its code stands for.
    """
    kind = dict(refusal.metadata).get(ERROR_KIND_KEY)
    error = error_of(refusal.code, refusal.text, kind)
    status = _STATUS.get(refusal.code, HTTPStatus.INTERNAL_SERVER_ERROR) if status is None else status
    headers = [] if kind is None else [(ERROR_KIND_KEY, kind)]
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        after_ms = dict(refusal.metadata).get(RETRY_AFTER_KEY)
        after_s = RETRY_AFTER_SECONDS if after_ms is None else math.ceil(int(after_ms) / _MS_PER_SECOND)
        headers.append(("retry-after", str(after_s)))
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append(("www-authenticate", "Bearer"))
    return _response(status, error, kind, tuple(headers))


def plain(status: HTTPStatus, detail: str, *, hint: str = "", headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """A problem that is HTTP's alone, such as a path that leads nowhere."""
    return _response(status, FeatureStoreError(detail, hint=hint), None, headers)


def _response(
    status: HTTPStatus, error: FeatureStoreError, kind: str | None, headers: tuple[tuple[str, str], ...]
) -> Response:
    problem = Problem(
        type="about:blank" if kind is None else f"urn:featurestore:error:{kind}",
        title=status.phrase if kind is None else _WORD.sub(" ", kind).capitalize(),
        status=status.value,
        detail="\n".join(text for text in (error.message, error.detail) if text),
        hint=error.hint,
        featurestore_error=kind or "",
    )
    return Response(status.value, msgspec.json.encode(problem), CONTENT_TYPE, headers)
