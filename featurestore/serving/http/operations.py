"""Every operation over HTTP, as the table from which requests are routed and the OpenAPI document is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec

from featurestore.core.spec.access import DESCRIBE
from featurestore.serving.http.feast import FeastAnswer, FeastBody, features_json, features_request
from featurestore.serving.http.lookups import (
    JsonService,
    LookupAnswer,
    LookupBody,
    ServiceDescription,
    ServiceList,
    lookup_request,
)
from featurestore.serving.request.gate import Asked
from featurestore.serving.request.steps import Handler, Steps, encoded, without_reading
from featurestore.serving.services.feast import FeastService, asked_of
from featurestore.serving.services.packed import PackedService, looks_up

NAME = "{name}"
"""Where a path has the name of a feature service."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What may be asked.

    Attributes:
        verb: of HTTP.
        path: with NAME in it at most once.
        name: what generated clients call it.
        summary: one sentence.
        handle: (message, deadline) -> steps to the answer's JSON.
        decode: (name in the path, body) -> message; raises what `Handling.decoded` expects.
        service_of: message -> feature service, to be let in by; empty for none.
        asks: message -> what it wants, see `rpc.methods.Method`.
        body: what the body is; None where there is none.
        answer: what the answer is.
    """

    verb: str
    path: str
    name: str
    summary: str
    handle: Handler
    decode: Callable[[str, bytes], Any]
    answer: type[msgspec.Struct]
    body: type[msgspec.Struct] | None = None
    service_of: Callable[[Any], str] = lambda _message: ""
    asks: Callable[[Any], Asked | None] = lambda _message: None

    @property
    def title(self) -> str:
        """Verb and path, for messages and metrics."""
        return f"{self.verb} {self.path}"

    def name_in(self, path: str) -> str | None:
        """The name that stands in a path of this operation; empty where it has none, None for other paths."""
        before, mark, after = self.path.partition(NAME)
        if not mark:
            return "" if path == self.path else None
        name = path[len(before) : len(path) - len(after)]
        if not (path.startswith(before) and path.endswith(after) and name) or "/" in name:
            return None
        return unquote(name)


def all_operations(packed: PackedService, feast: FeastService) -> tuple[Operation, ...]:
    """The operations of both services; where two match a path, the first is meant."""
    service = JsonService(packed)
    encode = msgspec.json.Encoder().encode

    def online_features(request: Any, deadline: Any) -> Steps[FeastAnswer]:
        return features_json((yield from feast.features(request, deadline)))

    return (
        Operation(
            "POST",
            f"/v1/services/{NAME}:lookup",
            "lookup",
            "The feature vectors of up to 1,000 entity rows.",
            encoded(service.lookup, encode),
            lookup_request,
            LookupAnswer,
            LookupBody,
            lambda request: request.feature_service,
            looks_up,
        ),
        Operation(
            "GET",
            "/v1/services",
            "listFeatureServices",
            "Every registered feature service.",
            encoded(without_reading(service.services), encode),
            lambda _name, _body: None,
            ServiceList,
            asks=lambda _message: Asked(DESCRIBE),
        ),
        Operation(
            "GET",
            f"/v1/services/{NAME}",
            "describeFeatureService",
            "Names and types of a feature service's features.",
            encoded(without_reading(service.describe), encode),
            lambda name, _body: name,
            ServiceDescription,
            asks=lambda name: Asked(DESCRIBE, name),
        ),
        Operation(
            "POST",
            "/get-online-features",
            "getOnlineFeatures",
            "Online features as Feast's feature server answers them.",
            encoded(online_features, encode),
            features_request,
            FeastAnswer,
            FeastBody,
            lambda request: request.feature_service,
            asked_of,
        ),
    )
