"""Every method of the server, as the table from which both kinds of gRPC server are built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from featurestore.core.spec.access import DESCRIBE, READ_ONLINE
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.packed_columns import SERVICE_NAME as PACKED_SERVICE
from featurestore.serving.request.gate import Asked
from featurestore.serving.request.steps import Handler, encoded, without_reading
from featurestore.serving.services.explain import ExplainService
from featurestore.serving.services.feast import SERVICE_NAME as FEAST_SERVICE
from featurestore.serving.services.feast import (
    FeastService,
    FeaturesRequest,
    FeaturesResponse,
    InfoRequest,
    InfoResponse,
    asked_of,
)
from featurestore.serving.services.packed import PackedService, looks_up


@dataclass(frozen=True, slots=True)
class Method:
    """One method, of one message each way or of a stream of them, each with its answer.

    Attributes:
        service: full name of the gRPC service.
        name: of the method.
        handle: (request message, deadline) -> steps to the response's bytes.
        decode: bytes -> request message.
        names_service: whether the request has a `feature_service`.
        is_stream: whether there are many of both.
        asks: what a request message wants of whom permissions are about; None where everybody may have it.
    """

    service: str
    name: str
    handle: Handler
    decode: Callable[[bytes], Any]
    names_service: bool = False
    is_stream: bool = False
    asks: Callable[[Any], Asked | None] = lambda _request: None

    @property
    def path(self) -> str:
        """As traces name it."""
        return f"{self.service}/{self.name}"


def all_methods(packed: PackedService, explain: ExplainService, feast: FeastService) -> tuple[Method, ...]:
    """The methods of both services."""
    lookup = Method(
        PACKED_SERVICE,
        "Lookup",
        encoded(packed.lookup, pb.LookupResponse.SerializeToString),
        pb.LookupRequest.FromString,
        names_service=True,
        asks=looks_up,
    )
    return (
        lookup,
        replace(lookup, name="LookupStream", is_stream=True),
        Method(
            PACKED_SERVICE,
            "DescribeFeatureService",
            encoded(without_reading(packed.describe), pb.DescribeFeatureServiceResponse.SerializeToString),
            pb.DescribeFeatureServiceRequest.FromString,
            asks=lambda request: Asked(DESCRIBE, request.feature_service),
        ),
        Method(
            PACKED_SERVICE,
            "ListFeatureServices",
            encoded(without_reading(packed.list_services), pb.ListFeatureServicesResponse.SerializeToString),
            pb.ListFeatureServicesRequest.FromString,
            asks=lambda _request: Asked(DESCRIBE),
        ),
        Method(
            PACKED_SERVICE,
            "Explain",
            encoded(explain.explain, pb.ExplainResponse.SerializeToString),
            pb.ExplainRequest.FromString,
            asks=lambda request: Asked(READ_ONLINE, request.lookup.feature_service),
        ),
        Method(
            FEAST_SERVICE,
            "GetOnlineFeatures",
            encoded(feast.features, FeaturesResponse.SerializeToString),
            FeaturesRequest.FromString,
            names_service=True,
            asks=asked_of,
        ),
        Method(
            FEAST_SERVICE,
            "GetFeastServingInfo",
            encoded(without_reading(feast.info), InfoResponse.SerializeToString),
            InfoRequest.FromString,
        ),
    )
