"""What answers for each view: a generation of its own, or the storage group that it is a member of.

card_activity@3            serving                          -> card_activity is read there
transactions:card_id@7     serving, members card_activity,
                           card_declines                    -> card_declines is read there

A version that is pinned is answered by whatever serves its very definition: a generation of its own, a group with it
as a member, or the view itself, as long as that is of this definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featurestore.core.spec import PinnedView, ViewSpec
from featurestore.definitions.compile.storage_groups import member_views
from featurestore.online.generation import Generation, GenerationState
from featurestore.wire.codecs.view_json import base_name, definition_hash

Definition = tuple[str, str]
"""Name of a view, without a version, and the hash of what it is or was."""


@dataclass(frozen=True, slots=True)
class ServingView:
    """A view as it is answered.

    Attributes:
        view: the definition that answers; the registry may have moved on.
        definition_hash: of that definition.
        generation: what is read.
    """

    view: ViewSpec
    definition_hash: str
    generation: Generation

    @property
    def definition(self) -> Definition:
        """What it is, whichever name it is stored under."""
        return base_name(self.view.name), self.definition_hash

    @property
    def is_apart(self) -> bool:
        """Whether the generation is the view's own."""
        return not self.generation.view.members


def views_of(generation: Generation) -> list[ServingView]:
    """The views that a generation answers for, whatever its state."""
    stored = generation.view
    hashes = [member.definition_hash for member in stored.members] or [generation.definition_hash]
    return [ServingView(*one, generation) for one in zip(member_views(stored), hashes, strict=True)]


def serving_views(known: Mapping[str, Sequence[Generation]]) -> dict[str, ServingView]:
    """The view that answers, by its name.

    A view's own generation comes first: it is there because the group has another definition of the view, or none. Of
    several groups it is the one that began last, as a view that moves between groups is in the older one no longer.

    Args:
        known: all generations of a project, by the name of what is stored.
    """
    serving = [one for generations in known.values() for one in generations if one.state is GenerationState.SERVING]
    serving.sort(key=lambda one: (not one.view.members, one.opened_ms))
    return {each.view.name: each for one in serving for each in views_of(one)}


def served_definitions(known: Mapping[str, Sequence[Generation]]) -> dict[Definition, tuple[ServingView, ...]]:
    """Everything that answers for each definition; where there are several, the first is as good as any.

    Args:
        known: all generations of a project, by the name of what is stored.
    """
    found: dict[Definition, list[ServingView]] = {}
    for generations in known.values():
        for one in generations:
            for each in views_of(one) if one.state is GenerationState.SERVING else ():
                found.setdefault(each.definition, []).append(each)
    return {definition: tuple(sorted(each, key=_whole_first)) for definition, each in found.items()}


def definition_of(view: ViewSpec) -> Definition:
    """A view's, or a version's."""
    return base_name(view.name), definition_hash(view)


def pinned_views(definitions: Mapping[Definition, ServingView], pinned: Sequence[PinnedView]) -> dict[str, ServingView]:
    """What answers for each pinned version, by the version's name; those that nothing answers for are left out.

    Args:
        definitions: what is served.
        pinned: the versions.
    """
    found = {one.view.name: definitions.get(definition_of(one.view)) for one in pinned}
    return {name: one for name, one in found.items() if one is not None}


def _whole_first(one: ServingView) -> tuple[bool, str, int]:
    """Those without damaged entities first, then in any fixed order."""
    return bool(one.generation.damaged), one.generation.view.name, one.generation.number
