"""What Feast's own feature server answers to POST /get-online-features, for Feast's `remote` online store and others.

    body -> GetOnlineFeaturesRequest -> services.feast -> vectors -> the JSON that Feast makes of them

A double that JSON cannot say is the text "NaN", "Infinity" or "-Infinity" here, as Feast has it.
"""

from __future__ import annotations

import base64
import math
from typing import Any, Literal

import msgspec

from featurestore.errors import InvalidRequest
from featurestore.serving.http.lookups import Int64, JsonValue
from featurestore.serving.services.feast import FeaturesRequest

Scalar = bool | Int64 | float | str | None


class FeastBody(msgspec.Struct, frozen=True):
    """Online features by feature service or by name, as Feast's feature server takes it.

    Attributes:
        entities: columns of join keys, N values each.
        feature_service: the features of this one, or
        features: these, as "view:feature".
        full_feature_names: answer "view__feature" instead of "feature".
        include_feature_view_version_metadata: also answer the views.
    """

    entities: dict[str, list[Scalar]]
    feature_service: str | None = None
    features: list[str] | None = None
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False


class FeastVector(msgspec.Struct, frozen=True):
    """One feature, or join key: for each row a value, a status, and the time of the newest event behind it."""

    values: list[JsonValue]
    statuses: list[Literal["INVALID", "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]]
    event_timestamps: list[str]


class FeastView(msgspec.Struct, frozen=True):
    """A view behind the answer."""

    name: str


class FeastMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """Names of what stands in `results`, in that order."""

    feature_names: list[str]
    feature_view_metadata: list[FeastView] = []


class FeastAnswer(msgspec.Struct, frozen=True):
    """An answer of Feast's feature server: join keys first, then the features."""

    results: list[FeastVector]
    metadata: FeastMetadata
    status: bool


_STATUS_NAMES: tuple[Any, ...] = ("INVALID", "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE")

_body = msgspec.json.Decoder(FeastBody)


def features_request(_name: str, data: bytes) -> Any:
    """Feast's message from its JSON.

    Raises:
        msgspec.DecodeError: it is no JSON, or not a FeastBody.
        InvalidRequest: both a feature service and a list of features, or neither.
    """
    body = _body.decode(data)
    if (body.feature_service is None) is (not body.features):
        raise InvalidRequest(
            "the request names no features" if body.feature_service is None else "the request names features twice",
            hint='send either "feature_service" or "features"',
        )
    request = FeaturesRequest(
        full_feature_names=body.full_feature_names,
        include_feature_view_version_metadata=body.include_feature_view_version_metadata,
    )
    if body.feature_service is not None:
        request.feature_service = body.feature_service
    else:
        request.features.val.extend(body.features)
    for name, column in body.entities.items():
        values = request.entities[name].val
        for value in column:
            _fill(values.add(), value)
    return request


def features_json(response: Any) -> FeastAnswer:
    """Feast's answer as JSON knows it."""
    views = [FeastView(each.name) for each in response.metadata.feature_view_metadata]
    return FeastAnswer(
        [
            FeastVector(
                [_native(value) for value in vector.values],
                [_STATUS_NAMES[status] for status in vector.statuses],
                [stamp.ToJsonString() for stamp in vector.event_timestamps],
            )
            for vector in response.results
        ],
        FeastMetadata(list(response.metadata.feature_names.val), views),
        response.status,
    )


def _fill(value: Any, given: Scalar) -> None:
    """Put JSON's value into a Feast value; null leaves it unset."""
    if isinstance(given, bool):
        value.bool_val = given
    elif isinstance(given, int):
        value.int64_val = given
    elif isinstance(given, float):
        value.double_val = given
    elif isinstance(given, str):
        value.string_val = given


def _native(value: Any) -> JsonValue:
    """A Feast value as JSON's; None where it is unset."""
    kind = value.WhichOneof("val")
    if kind is None or kind == "null_val":
        return None
    held = getattr(value, kind)
    if kind == "map_val":
        return {key: _native(each) for key, each in held.val.items()}
    return [_scalar(each) for each in held.val] if kind.endswith("_list_val") else _scalar(held)


def _scalar(value: Any) -> Any:
    """Bytes in base 64, and texts for the doubles that JSON has no numbers for."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
