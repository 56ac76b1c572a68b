"""Which views are stored together: views are logical, storage is physical.

    card_activity   count, sum(amount)                     ┐   storage group "transactions:card_id"
    card_declines   count where status = 'declined'        ├─> one head, one body an entity; one set of lanes
    card_markets    sum(amount), count_distinct(market)    ┘   parts: rows, sum(amount), distinct(market) ...

Views of one source, with the same join keys and the same events that undo others, form a group. It is written like any
view: its features are those of all members, each once, whoever asks. A member's condition becomes one of its features.
Retention and lookback are the longest of any member; whether an entity is found stays the member's own affair: a hidden
feature, the time of its newest event, says so where the group's own events do not.

The groups follow from the registered views alone, so every process finds the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from featurestore.core.spec import FeatureSpec, MemberSpec, ValueType, ViewSpec, Window, presence_hop_ms
from featurestore.wire.codecs.view_json import definition_hash

PRESENCE = "last_event_time"
"""Function of the hidden features that tell whether a member has events of an entity."""

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class StoragePlan:
    """What is to be stored for some registered views.

    Attributes:
        groups: each storage group, by name, and the views in it.
        apart: views that are stored by themselves.
    """

    groups: Mapping[str, tuple[ViewSpec, ...]]
    apart: tuple[ViewSpec, ...]


def plan_storage(views: Iterable[ViewSpec]) -> StoragePlan:
    """Divide views into storage groups.

    A view without a companion is stored by itself, as is one that its author wants apart. So is one that counts
    sessions of a part of the source's events: what a session is depends on events that are not in it.
    """
    companions: dict[tuple[object, ...], list[ViewSpec]] = {}
    apart = []
    for view in views:
        if view.is_apart or (view.where and any(feature.window.gap_ms for feature in view.features)):
            apart.append(view)
        else:
            companions.setdefault((view.source, view.join_keys, view.undo, view.required), []).append(view)
    groups = {}
    for members in sorted(companions.values(), key=_group_order):
        if len(members) == 1:
            apart += members
            continue
        name = _group_name(members[0])
        while name in groups:  # of other events that undo, or of another contract
            name += "~"
        groups[name] = tuple(sorted(members, key=lambda view: view.name))
    return StoragePlan(groups, tuple(apart))


def storage_group(name: str, views: Sequence[ViewSpec]) -> ViewSpec:
    """What is stored for the members of a group.

    Args:
        name: of the group.
        views: its members; two or more.
    """
    first = views[0]
    conditions = sorted({view.where for view in views})
    if "" in conditions:
        where = ""
    else:
        where = conditions[0] if len(conditions) == 1 else " OR ".join(f"({text})" for text in conditions)
    retentions = [view.retention_ms for view in views]
    group = ViewSpec(
        name=name,
        join_keys=first.join_keys,
        source=first.source,
        features=(),
        retention_ms=None if None in retentions else max(one for one in retentions if one is not None),
        lookback_ms=max(view.lookback_ms for view in views),
        where=where,
        undo=first.undo,
        required=first.required,
        expected_entities=max(view.expected_entities for view in views),
        members=tuple(
            MemberSpec(
                view.name,
                definition_hash(view),
                view.features,
                view.retention_ms,
                view.lookback_ms,
                view.where,
                view.derived,
            )
            for view in views
        ),
    )
    stored = {stored_feature(group, view, feature) for view in views for feature in view.features}
    stored |= {one for one in (presence_feature(group, view) for view in views) if one is not None}
    ordered = sorted(stored, key=_encoder.encode)
    return replace(group, features=tuple(replace(one, name=str(number)) for number, one in enumerate(ordered)))


def member_views(stored: ViewSpec) -> tuple[ViewSpec, ...]:
    """The views that what is stored answers for: the members of a group, or the view itself."""
    if not stored.members:
        return (stored,)
    return tuple(
        ViewSpec(
            name=member.name,
            join_keys=stored.join_keys,
            source=stored.source,
            features=member.features,
            retention_ms=member.retention_ms,
            lookback_ms=member.lookback_ms,
            where=member.where,
            undo=stored.undo,
            derived=member.derived,
            required=stored.required,
        )
        for member in stored.members
    )


def stored_feature(stored: ViewSpec, view: ViewSpec, feature: FeatureSpec) -> FeatureSpec:
    """A view's feature as a group stores it: without a name, under the view's condition where the group has another.

    Whether a payment in flight counts is no matter of what is stored.
    """
    feature = replace(feature, name="", in_flight=False, fixes_in_flight=False)
    if stored.where == view.where:
        return feature
    where = f"({view.where}) AND ({feature.where})" if view.where and feature.where else view.where or feature.where
    return replace(feature, where=where)


def presence_feature(stored: ViewSpec, view: ViewSpec) -> FeatureSpec | None:
    """What tells when a view's newest event of an entity was; None where any event of the group is one."""
    if stored.where == view.where and stored.retention_ms == view.retention_ms:
        return None
    retention_ms = view.retention_ms
    window = Window(None) if retention_ms is None else Window(retention_ms, presence_hop_ms(retention_ms))
    bare = FeatureSpec("", PRESENCE, None, window, ValueType.TIMESTAMP)
    return stored_feature(stored, view, bare)


def _group_order(members: Sequence[ViewSpec]) -> tuple[str, str, str]:
    """By name, and then so that every process gives those of one name the same ones."""
    return _group_name(members[0]), members[0].undo, members[0].required


def _group_name(view: ViewSpec) -> str:
    """Source and join keys; no feature view can be asked for whose name has a colon."""
    return f"{view.source.name}:{'+'.join(key.name for key in view.join_keys)}"
