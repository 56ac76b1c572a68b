"""What a policy may ask about cost: bytes of an entity, folded from history as `plan --cost` does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featurestore.cli.repo.cost.history import SourceHistories
from featurestore.cli.repo.cost.show import CostRequest, cost_of, names_of, storages
from featurestore.clock import Clock
from featurestore.core.spec import ViewSpec
from featurestore.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class CostFacts:
    """What an entity takes of the online store.

    Attributes:
        entity_bytes: by name of the view, the mean over sampled entities, of what the view is stored in: of a storage
            group all of it. A view that nobody can tell it of is missing.
        notes: why not.
    """

    entity_bytes: Mapping[str, float]
    notes: tuple[str, ...]


def cost_facts(views: Sequence[ViewSpec], histories: SourceHistories, project: str, clock: Clock) -> CostFacts:
    """Of everything that is stored.

    Raises:
        Unavailable: a history cannot be read now.
    """
    found, notes = dict[str, float](), list[str]()
    for one in storages(views):
        try:
            cost = cost_of(one, histories, CostRequest(project, {}, with_features=False), clock)
        except InvalidRequest as error:
            notes.append(f"what an entity of {one.name} takes is not known: {error.message}")
            continue
        if cost.entities:
            found |= dict.fromkeys(names_of(one), cost.entity_bytes.mean)
    return CostFacts(found, tuple(notes))
