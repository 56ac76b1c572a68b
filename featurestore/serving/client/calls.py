"""The methods of the packed API on a channel, and how channels are set up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.packed_columns import SERVICE_NAME
from featurestore.serving.request.limits import REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX

HEADER = "authorization"
"""Metadata key under which a token goes."""

CHANNEL_OPTIONS = (
    # Ours to send, the server's to answer.
    ("grpc.max_send_message_length", REQUEST_BYTES_MAX),
    ("grpc.max_receive_message_length", RESPONSE_BYTES_MAX),
    # Pauses between payments must not let a firewall forget the connection.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Two clients of one process get a connection each.
    ("grpc.use_local_subchannel_pool", 1),
)
"""Of every client."""


def calls_of(channel: Any) -> dict[str, Callable[..., Any]]:
    """The methods by name; `channel` is gRPC's, of either kind."""
    messages: dict[str, tuple[Callable[..., Any], Any, Any]] = {
        "Lookup": (channel.unary_unary, pb.LookupRequest, pb.LookupResponse),
        "LookupStream": (channel.stream_stream, pb.LookupRequest, pb.LookupResponse),
        "DescribeFeatureService": (
            channel.unary_unary,
            pb.DescribeFeatureServiceRequest,
            pb.DescribeFeatureServiceResponse,
        ),
        "Explain": (channel.unary_unary, pb.ExplainRequest, pb.ExplainResponse),
        "ListFeatureServices": (channel.unary_unary, pb.ListFeatureServicesRequest, pb.ListFeatureServicesResponse),
    }
    return {
        name: method(
            f"/{SERVICE_NAME}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        for name, (method, request, response) in messages.items()
    }
