"""Every method of the server, as the table from which both kinds of gRPC server are built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from featurestore.serving import feast_service, packed_service
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.deadline import Deadline
from featurestore.serving.feast_service import FeastService
from featurestore.serving.packed_service import PackedService


@dataclass(frozen=True, slots=True)
class Method:
    """One unary method.

    Attributes:
        service: full name of the gRPC service.
        name: of the method.
        handle: (request message, deadline) -> response message; raises FeatureStoreError.
        decode: bytes -> request message.
        encode: response message -> bytes.
    """

    service: str
    name: str
    handle: Callable[[Any, Deadline], Any]
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


def all_methods(packed: PackedService, feast: FeastService) -> tuple[Method, ...]:
    """The methods of both services."""
    service = packed_service.SERVICE_NAME
    return (
        Method(service, "Lookup", packed.lookup, pb.LookupRequest.FromString, pb.LookupResponse.SerializeToString),
        Method(
            service,
            "DescribeFeatureService",
            packed.describe,
            pb.DescribeFeatureServiceRequest.FromString,
            pb.DescribeFeatureServiceResponse.SerializeToString,
        ),
        Method(
            service,
            "ListFeatureServices",
            packed.list_services,
            pb.ListFeatureServicesRequest.FromString,
            pb.ListFeatureServicesResponse.SerializeToString,
        ),
        Method(
            feast_service.SERVICE_NAME,
            "GetOnlineFeatures",
            feast.features,
            feast_service.FeaturesRequest.FromString,
            feast_service.FeaturesResponse.SerializeToString,
        ),
        Method(
            feast_service.SERVICE_NAME,
            "GetFeastServingInfo",
            feast.info,
            feast_service.InfoRequest.FromString,
            feast_service.InfoResponse.SerializeToString,
        ),
    )
