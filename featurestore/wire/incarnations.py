"""Which topic it was that was read, beside the positions in it: see `dataflows.logs.incarnations`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from featurestore.errors import CorruptData

Incarnations: TypeAlias = Mapping[tuple[str, int], str]
"""By (topic, partition)."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[tuple[str, int, str]])


def encode_incarnations(incarnations: Incarnations) -> bytes:
    """Canonical bytes, compared when they are replaced."""
    return _encoder.encode(sorted((*place, incarnation) for place, incarnation in incarnations.items()))


def decode_incarnations(data: bytes | None) -> dict[tuple[str, int], str]:
    """What `encode_incarnations` wrote; nothing of nothing.

    Raises:
        CorruptData: it did not write that.
    """
    if not data:
        return {}
    try:
        return {(topic, partition): incarnation for topic, partition, incarnation in _decoder.decode(data)}
    except msgspec.MsgspecError as error:
        raise CorruptData("the record of the topics that were read does not decode", detail=str(error)) from error
