"""Permissions of a registry, and what they are about, as specs."""

from __future__ import annotations

import re
from collections.abc import Iterable
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

    guarded = {
        (kind, spec.name): Guarded(kind, spec.name, spec.owner, dict(spec.tags))
        for kind, name in _LISTS.items()
        for spec in mine(getattr(message, name))
    }
    return AccessSpec(tuple(_permission(spec) for spec in mine(message.permissions)), guarded)


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
