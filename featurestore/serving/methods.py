"""Every method of the server, as the table from which both kinds of gRPC server are built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from featurestore.errors import LimitExceeded
from featurestore.serving import feast_service, packed_service
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.deadline import Deadline
from featurestore.serving.feast_service import FeastService
from featurestore.serving.limits import RESPONSE_BYTES_MAX
from featurestore.serving.packed_service import PackedService
from featurestore.serving.steps import Handler, Steps, without_reading


@dataclass(frozen=True, slots=True)
class Method:
    """One unary method.

    Attributes:
        service: full name of the gRPC service.
        name: of the method.
        handle: (request message, deadline) -> steps to the response's bytes.
        decode: bytes -> request message.
    """

    service: str
    name: str
    handle: Handler
    decode: Callable[[bytes], Any]


def all_methods(packed: PackedService, feast: FeastService) -> tuple[Method, ...]:
    """The methods of both services."""
    service = packed_service.SERVICE_NAME
    return (
        Method(
            service,
            "Lookup",
            _encoded(packed.lookup, pb.LookupResponse.SerializeToString),
            pb.LookupRequest.FromString,
        ),
        Method(
            service,
            "DescribeFeatureService",
            _encoded(without_reading(packed.describe), pb.DescribeFeatureServiceResponse.SerializeToString),
            pb.DescribeFeatureServiceRequest.FromString,
        ),
        Method(
            service,
            "ListFeatureServices",
            _encoded(without_reading(packed.list_services), pb.ListFeatureServicesResponse.SerializeToString),
            pb.ListFeatureServicesRequest.FromString,
        ),
        Method(
            feast_service.SERVICE_NAME,
            "GetOnlineFeatures",
            _encoded(feast.features, feast_service.FeaturesResponse.SerializeToString),
            feast_service.FeaturesRequest.FromString,
        ),
        Method(
            feast_service.SERVICE_NAME,
            "GetFeastServingInfo",
            _encoded(without_reading(feast.info), feast_service.InfoResponse.SerializeToString),
            feast_service.InfoRequest.FromString,
        ),
    )


def _encoded(handle: Handler, encode: Callable[[Any], bytes]) -> Handler:
    """A handler of response messages as one of bytes; gRPC would refuse too many of them without a hint.

    Raises:
        LimitExceeded: when the response is too large to send.
    """

    def steps(request: Any, deadline: Deadline) -> Steps[bytes]:
        encoded = encode((yield from handle(request, deadline)))
        if len(encoded) > RESPONSE_BYTES_MAX:
            raise LimitExceeded(
                f"the answer is {len(encoded)} bytes long, the limit is {RESPONSE_BYTES_MAX}",
                hint="ask for fewer rows at once",
            )
        return encoded

    return steps
