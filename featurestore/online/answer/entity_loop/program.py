"""What the one compiled call has to know of a part of a service, in one array of numbers.

[ where each section begins | fields | rows | ... | picks of each family ]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from featurestore.core.aggregations.numbers.moments import MomentRanges
from featurestore.core.aggregations.ordered.decay import DecayedRanges
from featurestore.core.aggregations.ordered.first_last import EdgeRanges
from featurestore.core.compiled import spliced
from featurestore.core.events import Int64Array
from featurestore.core.tiles.parts import Array
from featurestore.core.tiles.ranges import BlockRanges, RangeMerge
from featurestore.core.view import CompiledView
from featurestore.wire.codecs.body import EntityCodec, EventLifting

FAMILIES: Final = (BlockRanges, MomentRanges, DecayedRanges, EdgeRanges)
"""Parts that the call can merge."""

(
    FIELDS,
    ROWS,
    IDENTITIES,
    WIDTHS,
    OF_VIEW,
    HEAD_SHAPE,
    HEAD_STEPS,
    EVENT_SHAPE,
    EVENT_STEPS,
    ENDS_AT_READ,
    INT_IDENTITIES,
    FLOAT_IDENTITIES,
    GRID,
    SESSIONS,
    INT_PICKS,
    FLOAT_PICKS,
    MOMENTS,
    DECAYED,
    EDGES,
    _SECTIONS,
) = range(20)
"""Sections of a program, which begins with where each of them does."""

_NOTHING = np.empty(0, dtype=np.int64)


def make_program(
    codec: EntityCodec, compiled: CompiledView, merges: Sequence[RangeMerge], events: EventLifting | None = None
) -> Int64Array:
    """A program.

    Args:
        codec: reads the part's entities.
        compiled: the view that is asked; its layout is that of the codec's tables.
        merges: of that view's asks, each of a family that the call knows.
        events: of payments in flight, for entities with one; then the merges are of windows that are there twice.
    """
    body, head, lifting = codec.facts()
    layout, sessions = compiled.layout, compiled.sessions
    of_view = (
        len(layout.int_fields),
        len(layout.float_fields),
        len(layout.blob_fields),
        compiled.spec.lookback_ms,
        sessions.first,
        sessions.last,
    )
    # Pieces of different classes, which have picks of different kinds.
    families: dict[type, Any] = {type(merge): merge for merge in merges}
    sections: list[Any] = [_NOTHING] * _SECTIONS
    sections[FIELDS], sections[ROWS], sections[IDENTITIES], sections[WIDTHS] = body
    sections[OF_VIEW] = np.array(of_view, dtype=np.int64)
    sections[HEAD_SHAPE], sections[HEAD_STEPS] = head, lifting.program
    sections[EVENT_SHAPE] = np.zeros_like(head)
    if events is not None:
        sections[EVENT_SHAPE], sections[EVENT_STEPS] = events.shape, events.lifting.program
    sections[ENDS_AT_READ] = compiled.ends_at_read
    sections[INT_IDENTITIES] = lifting.int_identities
    sections[FLOAT_IDENTITIES] = lifting.float_identities.view(np.int64)
    sections[GRID], sections[SESSIONS] = compiled.edges.grid_ms, sessions.picks
    if BlockRanges in families:
        blocks = families[BlockRanges]
        sections[INT_PICKS], sections[FLOAT_PICKS] = blocks.int_picks, blocks.float_picks
    for section, family in ((MOMENTS, MomentRanges), (DECAYED, DecayedRanges), (EDGES, EdgeRanges)):
        if family in families:
            sections[section] = families[family].picks
    flat = [section.ravel() for section in sections]
    ends = np.cumsum([_SECTIONS + 1, *map(len, flat)])
    return np.concatenate((ends.astype(np.int64), *flat))


@spliced
def section(program: Array, index: int) -> Any:
    """One section of a program."""
    return program[program[index] : program[index + 1]]


@spliced
def table(program: Array, index: int, columns: int) -> Any:
    """One section as rows of so many columns."""
    found = section(program, index)
    return found.reshape((len(found) // columns, columns))
