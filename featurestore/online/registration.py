"""What is stored for the registered views: generations of their own, and of the storage groups that they merge into.

    new store                  the group at once, with all its views
    a view is new or changed   a generation of its own fills and serves; nobody else is touched
    it serves, and some time   the group fills anew with it, beside the group that serves; promoted, it answers for all
    has gone by                its members, and their own generations retire
    a view leaves              the group goes on; its parts are gone with the next merge
    a view wants to be apart,  a generation of its own fills; the group answers until that one does
    or loses its companions
    a version is pinned        it is one more view, "card_activity@9f3a12bc"; what serves its definition already answers
                               for it, and is fed until that view serves

A merge is a generation like any other: filled from the log or bootstrapped, promoted when it has caught up, rolled back
to. No lookup ever reads a view half here, half there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from featurestore.core.spec import ViewSpec
from featurestore.definitions.compile.storage_groups import plan_storage, storage_group
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.serving_view import definition_of, served_definitions, serving_views, views_of
from featurestore.wire.codecs.view_json import base_name, definition_hash

MERGE_AFTER_MS = 3_600_000
"""How long a view is stored by itself before its group takes it in: changes of an hour are one merge."""

Known = Mapping[str, Sequence[Generation]]
"""All generations of a project, by the name of what is stored."""

_logger = logging.getLogger(__name__)


def register_views(
    catalog: GenerationCatalog, views: Iterable[ViewSpec], now_ms: int, *, merge_after_ms: int = MERGE_AFTER_MS
) -> frozenset[str]:
    """Make sure that every view has a generation of its definition, and that nothing else is fed or served.

    Args:
        catalog: of the store.
        views: all that are registered, versions that are pinned among them.
        now_ms: processing time.
        merge_after_ms: how long a view is stored by itself at least before its group takes it in.

    Returns:
        Names of what is to be fed: views that are stored by themselves, and storage groups.
    """
    views = list(views)
    known = catalog.all()
    apart, groups = _divide(known, views)
    alone = {view.name: view for view in apart}
    needed = set()
    for group in groups:
        needed.add(group.target.name)
        if group.begins_at_once or group.is_due(now_ms - merge_after_ms):
            catalog.register(group.target, fills_first=True)
        if not group.is_new:
            alone.update((view.name, view) for view in group.stored_alone)
    for view in alone.values():
        catalog.register(view, fills_first=True)
    needed |= alone.keys()
    known = catalog.all()
    merged = {view.name for group in groups for view in group.merged}
    serving = serving_views(known)
    needed |= {serving[name].generation.view.name for name in {one.name for one in views} & serving.keys() - merged}
    served = served_definitions(known)
    for view in views:
        holders = [one.generation.view.name for one in served.get(definition_of(view), ())]
        if holders and needed.isdisjoint(holders):
            # It is all that answers for a version, or for a view that was a version until now.
            needed.add(holders[0])
    for name, generations in known.items():
        if name not in needed and any(one.state is not GenerationState.RETIRED for one in generations):
            _logger.info("%s is not needed any more: it is retired", generations[-1].view.title)
            catalog.retire(name)
    return frozenset(needed & known.keys())


def due_merges(known: Known, views: Sequence[ViewSpec], now_ms: int, merge_after_ms: int = MERGE_AFTER_MS) -> list[str]:
    """Names of the storage groups that are to fill anew, with views that are stored by themselves until now."""
    _, groups = _divide(known, views)
    return [group.target.name for group in groups if group.is_due(now_ms - merge_after_ms)]


def fed_names(known: Known, views: Iterable[ViewSpec]) -> frozenset[str]:
    """Names of all that the store feeds of some views, whatever their definitions are by now."""
    names = {view.name for view in views}
    return frozenset(
        one.view.name
        for generations in known.values()
        for one in generations
        if one.state.is_fed and any(each.view.name in names for each in views_of(one))
    )


def lost_versions(known: Known, name: str, instead: Generation | None, views: Iterable[ViewSpec]) -> list[str]:
    """Pinned versions that are answered now, and would not be any more if what serves under a name did not.

    Args:
        known: all generations.
        name: of a view or storage group.
        instead: what would serve in its place.
        views: registered ones, versions that are pinned among them.
    """
    others = [one for one in known.get(name, ()) if one.state is not GenerationState.SERVING]
    before = served_definitions(known)
    after = served_definitions({**known, name: others}).keys() | {
        each.definition for each in (() if instead is None else views_of(instead))
    }
    versions = [view for view in views if view.name != base_name(view.name)]
    return [view.name for view in versions if definition_of(view) in before and definition_of(view) not in after]


def takes_a_place(known: Known, generation: Generation) -> bool:
    """Whether what is stored under another name holds, or held, a view that this generation is for."""
    names = {base_name(each.view.name) for each in views_of(generation)}
    return any(
        one.view.name != generation.view.name and any(base_name(each.view.name) in names for each in views_of(one))
        for generations in known.values()
        for one in generations
    )


def bootstrap_target(known: Known, views: Sequence[ViewSpec], name: str) -> ViewSpec | None:
    """What a bootstrap of a view or storage group is to compute; None where there is none of that name.

    A view whose group has it as it is registered is computed with the group; one that is new or changed by itself.
    """
    apart, groups = _divide(known, views)
    for group in groups:
        if name == group.target.name or name in {view.name for view in (*group.merged, *group.merging)}:
            return group.target
        apart += group.members
    return next((view for view in apart if view.name == name), None)


class _Group:
    """A storage group as it is to be, and what the store has of it.

    Args:
        name: of the group.
        members: its views as they are registered.
        known: all generations.

    Attributes:
        target: what is to be stored.
    """

    def __init__(self, name: str, members: Sequence[ViewSpec], known: Known) -> None:
        self.members = members
        self.target = storage_group(name, members)
        self._known = known
        self._alive = [one for one in known.get(name, ()) if one.state is not GenerationState.RETIRED]
        self._serving = next((one for one in self._alive if one.state is GenerationState.SERVING), None)

    @property
    def is_new(self) -> bool:
        """Whether the store has nothing of it, and nothing of its members."""
        return not self._alive and not any(
            one.state is not GenerationState.RETIRED for view in self.members for one in self._known.get(view.name, ())
        )

    @property
    def begins_at_once(self) -> bool:
        """Whether it is to be registered as it is to be, whoever waits.

        In a new store; where that serves already, and what fills is in vain; and where two of it fill, as the one that
        served was lost.
        """
        is_current = self._serving is not None and self._serving.definition_hash == definition_hash(self.target)
        return self.is_new or is_current or sum(one.state in _UNDER_WAY for one in self._alive) > 1

    @cached_property
    def merged(self) -> list[ViewSpec]:
        """Members that the group answers for, as they are registered."""
        return [] if self._serving is None else self._held_by([self._serving])

    @cached_property
    def merging(self) -> list[ViewSpec]:
        """Where nothing of the group serves, members that it is going to answer for."""
        return self._held_by(self._alive) if self._serving is None else []

    @property
    def stored_alone(self) -> list[ViewSpec]:
        """Members that are stored by themselves until the group fills anew."""
        return [view for view in self.members if view not in self.merged and view not in self.merging]

    def is_due(self, settled_before_ms: int) -> bool:
        """Whether it is to fill anew: not while it fills, nor before all that is stored by itself serves.

        Args:
            settled_before_ms: nothing of it has begun later than that.
        """
        wanted = definition_hash(self.target)
        if self.is_new or any(one.definition_hash == wanted or one.state in _UNDER_WAY for one in self._alive):
            return False
        current = [self._serving]
        for view in self.members:
            if view not in self.merged:
                wanted = definition_hash(view)
                own = [one for one in self._known.get(view.name, ()) if one.state is GenerationState.SERVING]
                if not any(one.definition_hash == wanted for one in own):
                    return False
                current += own
        return all(one.is_opened and one.opened_ms <= settled_before_ms for one in current if one is not None)

    def _held_by(self, generations: Iterable[Generation]) -> list[ViewSpec]:
        """Members of which some generation has the registered definition; a version may be in it as the view."""
        held = {(each.view.name, each.definition_hash) for one in generations for each in views_of(one)}
        names = {view.name: {view.name, base_name(view.name)} for view in self.members}
        return [
            view for view in self.members if any((name, definition_hash(view)) in held for name in names[view.name])
        ]


_UNDER_WAY = (GenerationState.FILLING, GenerationState.BOOTSTRAPPING)


def _divide(known: Known, views: Iterable[ViewSpec]) -> tuple[list[ViewSpec], list[_Group]]:
    """Views that want to be apart, and groups."""
    plan = plan_storage(views)
    return list(plan.apart), [_Group(name, members, known) for name, members in plan.groups.items()]
