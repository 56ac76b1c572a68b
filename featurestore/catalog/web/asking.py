"""Values for the pages: asked of the running server, with the rights of whoever looks, and never with others.

The page has no rights of its own: no token, no certificate. What is typed is sent on, and forgotten with the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featurestore.catalog.web.explained import Explained, explained
from featurestore.catalog.web.words import moment_text, value_text
from featurestore.core.lowering.request_time import RequestValue
from featurestore.core.spec import Column, ValueType
from featurestore.core.windows.durations import readable_duration
from featurestore.errors import InvalidRequest
from featurestore.online.answer.explaining.explanation import Explanation
from featurestore.online.answer.schema import ServiceSchema
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.client.result import LookupResult
from featurestore.serving.client.tls import ClientTls
from featurestore.wire.formats.iso8601 import parse_text

TIMEOUT_S = 5.0

TOKEN_FIELD, FEATURE_FIELD, KEY_PREFIX = "token", "feature", "key."
"""Fields of the forms: who asks, what to explain, and each key or column of the request."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where values are asked for.

    Attributes:
        address: "host:port".
        tls_authority: PEM file, where it is reached by TLS; None in clear text.
    """

    address: str
    tls_authority: Path | None = None

    def client(self, token: str) -> LookupClient:
        """For one question of somebody."""
        tls = None if self.tls_authority is None else ClientTls(self.tls_authority)
        return LookupClient(self.address, timeout_s=TIMEOUT_S, tls=tls, token=token or None)


@dataclass(frozen=True, slots=True)
class AnsweredFeature:
    """A value as it is shown.

    Attributes:
        name: in the answer.
        view: where it is from.
        value: as text.
        status: by its name.
    """

    name: str
    view: str
    value: str
    status: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A row that was looked up.

    Attributes:
        as_of: the read time.
        features: in answer order.
        views: of each, how old its newest event is, in words.
    """

    as_of: str
    features: Sequence[AnsweredFeature]
    views: Sequence[tuple[str, str]]


def look_up_form(server: Server, service: str, form: Mapping[str, str]) -> Answered:
    """As `look_up`, of a form's fields."""
    return look_up(server, service, _typed(form), form.get(TOKEN_FIELD, "").strip())


def explain_form(server: Server, service: str, form: Mapping[str, str]) -> Explained:
    """As `explain`, of a form's fields."""
    token = form.get(TOKEN_FIELD, "").strip()
    return explained(explain(server, service, form.get(FEATURE_FIELD, ""), _typed(form), token))


def look_up(server: Server, service: str, typed: Mapping[str, str], token: str) -> Answered:
    """The vector of one entity.

    Args:
        server: that answers.
        service: name of the feature service.
        typed: join key or column of the request -> text.
        token: who asks; "" for nobody.

    Raises:
        FeatureStoreError: as the server raised it, or a value is not of its column's type.
    """
    with server.client(token) as client:
        schema = client.describe(service)
        entities, request = _given(schema, typed)
        result = client.lookup(service, entities, request=request, with_metadata=True)
    values, statuses = result.rows()[0], {one.name: result.status(one.name)[0].name for one in schema.features}
    types = {one.name: one.type for one in schema.features}
    features = [
        AnsweredFeature(name, _view_of(result, name), value_text(values[name], types[name]), statuses[name])
        for name in result.names
    ]
    ages = [
        (
            view.view,
            f"newest event {readable_duration(ms)} before" if (ms := int(view.freshness_ms[0])) >= 0 else "no event",
        )
        for view in result.views
    ]
    return Answered(moment_text(result.as_of_ms[0]), features, ages)


def explain(server: Server, service: str, feature: str, typed: Mapping[str, str], token: str) -> Explanation:
    """Why a feature has its value; see `look_up`."""
    with server.client(token) as client:
        schema = client.describe(service)
        entities, request = _given(schema, typed)
        return client.explain(service, entities, features=[feature], request=request)


def _typed(form: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(KEY_PREFIX): text for name, text in form.items() if name.startswith(KEY_PREFIX)}


def _view_of(result: LookupResult, name: str) -> str:
    slot = next(one for one in result.schema.features if one.name == name)
    return result.schema.views[slot.view].name


def _given(schema: ServiceSchema, typed: Mapping[str, str]) -> tuple[dict[str, str | int], dict[str, RequestValue]]:
    """Join keys and columns of the request, typed as the service has them."""
    entities: dict[str, str | int] = {}
    for key in schema.join_keys:
        text = typed.get(key.name, "").strip()
        if not text:
            raise InvalidRequest(f'join key "{key.name}" is empty')
        entities[key.name] = _integer(key, text) if key.type is ValueType.INT64 else text
    keys = set(entities)
    columns = [column for column in schema.request_columns if column.name not in keys]
    return entities, {column.name: _value(column, typed.get(column.name, "").strip()) for column in columns}


def _value(column: Column, text: str) -> RequestValue:
    """Nothing is null."""
    if not text:
        return None
    if column.type is ValueType.INT64:
        return _integer(column, text)
    if column.type is ValueType.FLOAT64:
        try:
            return float(text)
        except ValueError:
            raise _not_of_type(column, text) from None
    if column.type is ValueType.BOOL:
        if text.lower() not in ("true", "false"):
            raise _not_of_type(column, text)
        return text.lower() == "true"
    if column.type is ValueType.TIMESTAMP:
        moment_ms = int(text) if text.isdecimal() else parse_text(text)
        if moment_ms is None:
            raise _not_of_type(column, text)
        return moment_ms
    return text


def _integer(column: Column, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _not_of_type(column, text) from None


def _not_of_type(column: Column, text: str) -> InvalidRequest:
    return InvalidRequest(f'"{column.name}" is of type {column.type.value}, "{text}" is not')
