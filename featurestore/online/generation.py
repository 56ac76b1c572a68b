"""A generation: one version of a view's definition in the online store, with keys of its own; and its record."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from featurestore.core.spec import ViewSpec
from featurestore.core.view import CompiledView
from featurestore.errors import CorruptData, StoreRolledBack
from featurestore.wire.store_layout import GenerationKeys

IN_PACKS = " in packs"
"""Behind the state of a generation that has packs: releases that know none do not know that state either, and refuse
the view. By any other sign they would find nothing of its small entities, and say so to readers."""


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
        packs: how many packs a lane has, for entities of few events; 0 in generations of before there were any.
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
    packs: int = 0

    @property
    def is_opened(self) -> bool:
        """Whether every lane has had a checkpoint."""
        return self.opened_ms > 0

    @cached_property
    def keys(self) -> GenerationKeys:
        """Its key names."""
        return GenerationKeys(self.project, self.view.name, self.number, self.definition_hash, self.packs)

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


class _Record(msgspec.Struct, frozen=True):
    """A generation as stored."""

    number: int
    definition_hash: str
    state: str
    view: ViewSpec
    is_bootstrapped: bool = False
    replaces: int | None = None
    opened_ms: int = 0
    damaged: tuple[str, ...] = ()
    packs: int = 0


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(tuple[_Record, ...])


def encode_generations(generations: Sequence[Generation]) -> bytes:
    """A view's generations."""
    return _encoder.encode(
        tuple(
            _Record(
                one.number,
                one.definition_hash,
                one.state + IN_PACKS if one.packs else one.state,
                one.view,
                one.is_bootstrapped,
                one.replaces,
                one.opened_ms,
                one.damaged,
                one.packs,
            )
            for one in generations
        )
    )


def decode_generations(project: str, view_name: str, data: bytes) -> tuple[Generation, ...]:
    """The generations that `encode_generations` wrote.

    Raises:
        CorruptData: the bytes are none, or a newer release's.
    """
    try:
        return tuple(
            Generation(
                project,
                record.view,
                record.number,
                record.definition_hash,
                GenerationState(record.state.removesuffix(IN_PACKS)),
                record.is_bootstrapped,
                record.replaces,
                record.opened_ms,
                record.damaged,
                record.packs,
            )
            for record in _decoder.decode(data)
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptData(f'generations of feature view "{view_name}" do not decode', detail=str(error)) from error
