"""What each feature adds to what is stored: the same entities, folded once more without it.

What others need as well is stored anyway, so a feature that shares all its parts and windows adds nothing. What two
features share, and nobody else, is in neither's figure. A window with a fine hop makes more tiles, of all fields, and a
field is one more in all tiles. So the figures do not add up to the whole.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from featurestore.cli.repo.cost.sample import HASHES
from featurestore.cli.repo.cost.storage import FeatureCost, entity_bytes, fold, generation_of
from featurestore.core.spec import FeatureSpec, ViewSpec
from featurestore.core.view import CompiledView
from featurestore.definitions.compile.storage_groups import member_views, presence_feature, stored_feature
from featurestore.offline.bootstrap_events import LogPart
from featurestore.wire.entity_key import lanes_of

ALL_FEATURES = "*"
"""Stands for all features of a view that is stored with others."""

ENTITIES_MAX = 250
"""Entities that are folded again for every feature; the same ones with it and without it."""


def feature_costs(stored: ViewSpec, project: str, part: LogPart, now_ms: int) -> tuple[FeatureCost, ...]:
    """What each windowed feature adds to an entity, on average, and each view of a group; most first.

    Args:
        stored: a view, or what a storage group stores.
        project: Feast project.
        part: events of some entities.
        now_ms: the clock.
    """
    part = _some(part, ENTITIES_MAX)
    bare = replace(stored, derived=(), members=())
    whole = _mean_bytes(bare, project, part, now_ms)
    known = {_what_is_kept(bare): whole}

    def saved(view: ViewSpec, left_out: Collection[FeatureSpec]) -> float:
        """What an entity takes less without some features of a view."""
        rest = _without(stored, view, left_out)
        if not rest:
            return whole
        smaller = replace(bare, features=rest)
        kept = _what_is_kept(smaller)
        if kept not in known:
            known[kept] = _mean_bytes(smaller, project, part, now_ms)
        return whole - known[kept]

    found = []
    for view in member_views(stored):
        if stored.members:
            found.append(FeatureCost(view.name, ALL_FEATURES, saved(view, view.features)))
        found += [FeatureCost(view.name, feature.name, saved(view, [feature])) for feature in view.features]
    return tuple(sorted(found, key=lambda one: (-one.entity_bytes, one.view, one.feature)))


def _without(stored: ViewSpec, view: ViewSpec, left_out: Collection[FeatureSpec]) -> tuple[FeatureSpec, ...]:
    """What must be stored yet without some features of one view; under the names that it is stored by."""
    if not stored.members:
        return tuple(one for one in stored.features if one not in left_out)
    wanted = set()
    for member in member_views(stored):
        left = [one for one in member.features if member.name != view.name or one not in left_out]
        wanted |= {stored_feature(stored, member, one) for one in left}
        presence = presence_feature(stored, member)
        # Whether a view has anything of the entity is asked for as long as it has a feature.
        wanted |= {presence} if left and presence is not None else set()
    return tuple(one for one in stored.features if replace(one, name="") in wanted)


def _what_is_kept(view: ViewSpec) -> tuple[object, ...]:
    """What decides about an entity's bytes: columns of heads, fields of tiles, and when they widen."""
    compiled = CompiledView(view)
    return (
        tuple(placed.part.key for placed in compiled.layout.parts),
        frozenset(feature.window for feature in view.features),
        compiled.event_columns,
        compiled.layout.reads_event_ids,
    )


def _mean_bytes(view: ViewSpec, project: str, part: LogPart, now_ms: int) -> float:
    """Of an entity."""
    generation = generation_of(view, project)
    return float(np.mean(entity_bytes(generation, fold(generation, part, now_ms)).total))


def _some(part: LogPart, entities: int) -> LogPart:
    """Those of a sample whose keys have the smallest hashes: busy ones come first in it."""
    if len(part.keys) <= entities:
        return part
    chosen = np.argsort(lanes_of(part.keys, HASHES), kind="stable")[:entities]
    number = np.full(len(part.keys), -1, dtype=np.int64)
    number[chosen] = np.arange(entities)
    events = part.events.take(np.flatnonzero(number[part.events.entity] >= 0))
    keys = [part.keys[index] for index in chosen.tolist()]
    return LogPart(keys, replace(events, entity=number[events.entity]), None, None)
