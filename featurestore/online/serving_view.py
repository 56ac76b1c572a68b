"""What answers for each view: a generation of its own, or the storage group that it is a member of.

card_activity@3            serving                          -> card_activity is read there
transactions:card_id@7     serving, members card_activity,
                           card_declines                    -> card_declines is read there
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featurestore.core.spec import ViewSpec
from featurestore.definitions.compile.storage_groups import member_views
from featurestore.online.generation import Generation, GenerationState


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
