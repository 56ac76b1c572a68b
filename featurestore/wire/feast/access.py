"""Permissions of a registry, and what they are about, as specs."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import Any

from featurestore.core.spec.access import AccessSpec, Guarded, Permission
from featurestore.errors import InvalidRequest
from featurestore.wire.feast.protos import message_class

_LISTS = {
    "STREAM_FEATURE_VIEW": "stream_feature_views",
    "FEATURE_VIEW": "feature_views",
    "ON_DEMAND_FEATURE_VIEW": "on_demand_feature_views",
    "FEATURE_SERVICE": "feature_services",
}

_SOURCES = ("stream_source", "batch_source")
_PII, _PERSONAL = "pii", ("personal", "sensitive")
"""The tag, which is also the beginning of those of columns, and the classes that are meant; see governance/about.py."""


def access_of(registry: bytes, project: str) -> AccessSpec:
    """Who may do what in a project.

    Args:
        registry: a serialized feast.core.Registry that has been decoded before.
        project: Feast project.

    Raises:
        InvalidRequest: a pattern of names is no regular expression.
    """
    message: Any = message_class("feast.core.Registry")()
    message.ParseFromString(registry)

    def mine(messages: Iterable[Any]) -> list[Any]:
        return [each.spec for each in messages if each.spec.project in ("", project)]

    guarded: dict[tuple[str, str], Guarded] = {}
    personal: set[str] = set()
    for kind, name in _LISTS.items():  # services last: they are what the views behind them are
        for spec in mine(getattr(message, name)):
            if is_personal := _is_personal(spec, personal):
                personal.add(spec.name)
            guarded[kind, spec.name] = Guarded(kind, spec.name, spec.owner, dict(spec.tags), is_personal)
    return AccessSpec(tuple(_permission(spec) for spec in mine(message.permissions)), guarded)


def _is_personal(spec: Any, personal: Container[str]) -> bool:
    """Whether an object, or what it reads, is said to tell who somebody is."""
    fields, tags = spec.DESCRIPTOR.fields_by_name, [spec.tags]
    views: list[str] = []
    if spec.DESCRIPTOR.name == "FeatureServiceSpec":
        views = [projection.feature_view_name for projection in spec.features]
    else:
        tags += [one.tags for one in spec.features]
        tags += [getattr(spec, name).tags for name in _SOURCES if name in fields and spec.HasField(name)]
    said = (value for one in tags for name, value in one.items() if name == _PII or name.startswith(f"{_PII}."))
    return any(value in _PERSONAL for value in said) or any(view in personal for view in views)


def _permission(spec: Any) -> Permission:
    policy = getattr(spec.policy, spec.policy.WhichOneof("policy_type") or "", None)
    try:
        patterns = tuple(re.compile(one) for one in spec.name_patterns)
    except re.error as error:
        raise InvalidRequest(
            f'a name pattern of permission "{spec.name}" is no regular expression',
            detail=str(error),
            hint="correct name_patterns and run `featurestore apply`",
        ) from error
    return Permission(
        name=spec.name,
        kinds=frozenset(_names(spec, "types")),
        name_patterns=patterns,
        required_tags=dict(spec.required_tags),
        actions=frozenset(_names(spec, "actions")),
        roles=frozenset(getattr(policy, "roles", ())),
        groups=frozenset(getattr(policy, "groups", ())),
        namespaces=frozenset(getattr(policy, "namespaces", ())),
        is_for_everybody=policy is None,
    )


def _names(spec: Any, field: str) -> list[str]:
    """Names of the values of a repeated enum."""
    values = spec.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number
    return [values[number].name for number in getattr(spec, field) if number in values]
