"""A generation: one version of a view's definition in the online store, with keys of its own."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cached_property

from featurestore.core.spec import ViewSpec
from featurestore.core.view import CompiledView
from featurestore.errors import StoreRolledBack
from featurestore.wire.store_layout import GenerationKeys


class GenerationState(enum.StrEnum):
    """Where a generation is in its life."""

    BOOTSTRAPPING = "bootstrapping"
    FILLING = "filling"
    SERVING = "serving"
    ROLLED_BACK = "rolled_back"
    RETIRED = "retired"

    @property
    def is_fed(self) -> bool:
        """Whether the stream writes it."""
        return self in (GenerationState.FILLING, GenerationState.SERVING)


@dataclass(frozen=True)
class Generation:
    """One definition of a view in the store.

    Attributes:
        project: Feast project.
        view: the definition.
        number: 1 for the view's first.
        definition_hash: see `wire.codecs.view_json.definition_hash`.
        state: where it is in its life.
        is_bootstrapped: its history was computed from the event log.
        replaces: number of the generation that served before it, to which a rollback returns; None before it serves.
        opened_ms: when every lane was first seen to have a checkpoint, in milliseconds since 1970; 0 before. Since then
            it reads whatever is written, and a checkpoint that is missing has been lost.
        damaged: what is wrong with entities that were set aside: some of them.
    """

    project: str
    view: ViewSpec
    number: int
    definition_hash: str
    state: GenerationState = field(default=GenerationState.SERVING, compare=False)
    is_bootstrapped: bool = field(default=False, compare=False)
    replaces: int | None = field(default=None, compare=False)
    opened_ms: int = field(default=0, compare=False)
    damaged: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_opened(self) -> bool:
        """Whether every lane has had a checkpoint."""
        return self.opened_ms > 0

    @cached_property
    def keys(self) -> GenerationKeys:
        """Its key names."""
        return GenerationKeys(self.project, self.view.name, self.number, self.definition_hash)

    @cached_property
    def compiled(self) -> CompiledView:
        """Its view, ready to compute."""
        return CompiledView(self.view)

    def expire_ms(self, ahead_ms: int) -> int:
        """How long heads and bodies live: one retention after the write, or after a newest event dated ahead.

        Args:
            ahead_ms: how far the newest event is ahead of the clock, 0 when it is not.

        Returns:
            Milliseconds; 0 for ever.
        """
        if self.view.retention_ms is None:
            return 0
        return self.view.retention_ms + self.view.lookback_ms + self.compiled.roll_up.retention_hop_ms + ahead_ms


class GenerationDamaged(StoreRolledBack):
    """The store has lost or spoilt something of a generation: it must be computed anew.

    Args:
        generation: which one.
        what: what is wrong, with its lane or key.
        detail: a sentence more.
    """

    def __init__(self, generation: Generation, what: str, *, detail: str = "") -> None:
        super().__init__(
            f"{generation.view.title} generation {generation.number} is damaged: {what}",
            detail=detail,
            hint="see that the store does not evict, and that nobody deletes keys; another generation is filled",
        )
        self.generation = generation
