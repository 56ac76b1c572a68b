"""From the bytes of an entity to its merged windows in one compiled call: what most lookups are answered by.

    body, head   copied side by side, read, lifted, late events sorted in     the loops of wire.codecs
    a payment    lifted and put before what is not before it                  likewise
    bounds       of the windows, sessions narrowed                            of core.tiles
    gathered     each family of parts merges its ranges                       of core.aggregations

These are the loops behind `Selection.decode`, `Selection.reach` and `Lowering.gather`, compiled into one. What it does
not know it leaves to those: parts that Python merges, bodies of the release before, a read time so far back that a tile
might be cut, many late events, and whatever is wrong with the bytes, which they can name.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import numpy as np
import xxhash

from featurestore.core.aggregations.ordered.first_last import EdgeRanges
from featurestore.core.tiles.ranges import Gathered, RangeMerge
from featurestore.core.view import CompiledView
from featurestore.online.answer.entity_loop.kernel import EMPTY, REACHED, gather_entity
from featurestore.online.answer.entity_loop.program import FAMILIES, make_program
from featurestore.online.answer.entity_loop.sources import NUMBERS
from featurestore.online.answer.selection import Selection
from featurestore.wire.codecs.bodies.frame import CHECKSUM_BYTES
from featurestore.wire.codecs.body import EntityCodec, EventLifting
from featurestore.wire.codecs.pack import MEMBER_MAGIC, body_of_member

NOTHING: Final = -(1 << 63)
"""Instead of the newest event's time: nothing that is stored is within its retention."""
UNKNOWN: Final = NOTHING + 1
"""Instead of it: ask the loops one by one."""

_WORK_WORDS = 1 << 14
_WORK_WORDS_KEPT = 1 << 18
"""2 MiB a thread; what takes more, an entity of very many tiles, gets its own room each time."""


class _Room(threading.local):
    """What a thread's calls write into."""

    def __init__(self) -> None:
        self.work = np.empty(_WORK_WORDS, dtype=np.int64)
        self.found = np.empty(16, dtype=np.int64)


_room = _Room()


class EntityLoop:
    """Gathers the windows of one part of a service.

    Args:
        codec: reads the part's entities.
        compiled: the view that is asked; its layout is that of the codec's tables.
        merges: of that view's asks, each of a family that the loop knows.
        merges_in_flight: the same of windows that are there twice.
        events: how payments in flight are lifted.
    """

    def __init__(
        self,
        codec: EntityCodec,
        compiled: CompiledView,
        merges: Sequence[RangeMerge],
        merges_in_flight: Sequence[RangeMerge],
        events: EventLifting,
    ) -> None:
        self._edges = compiled.edges
        edges = next((merge for merge in merges if isinstance(merge, EdgeRanges)), None)
        texts = [] if edges is None else edges.texts
        self._texts = [(1 + 2 * index, slot) for index, _, slot in texts]
        self._found_size = 1 + 2 * (0 if edges is None else len(edges.picks))
        self._program = make_program(codec, compiled, merges)
        self._program_in_flight = make_program(codec, compiled, merges_in_flight, events)

    @staticmethod
    def of(
        selection: Selection, merges: Sequence[RangeMerge], merges_in_flight: Sequence[RangeMerge], events: EventLifting
    ) -> EntityLoop | None:
        """The loop of a selection, ready to run; None where there is a part that it does not know."""
        compiled = selection.compiled
        if compiled.layout.lifts_itself or not all(isinstance(merge, FAMILIES) for merge in merges):
            return None
        return EntityLoop(selection.codec, compiled, merges, merges_in_flight, events)

    def gather(
        self, body: bytes | None, head: bytes | None, as_of_ms: int, out: Gathered, row: int, event: bytes = b""
    ) -> int:
        """Merge an entity's windows into one row.

        Args:
            body: the stored body, or the member of a pack; None where there is none.
            head: the stored head, likewise.
            as_of_ms: read time.
            out: receives what is merged.
            row: which row of it.
            event: a payment in flight at the read time, as a row that its lifting knows; empty for none.

        Returns:
            Event time of the newest stored event in reach; NOTHING, and nothing but a payment is written, where there
            is none; UNKNOWN where the loops that stand behind this one have to be asked.
        """
        if not self._edges.are_on_grid(as_of_ms) or (body and not _is_whole(body)):
            return UNKNOWN
        shift_ms, work, found = self._edges.shift_ms(as_of_ms), _room.work, _room.found
        if len(found) < self._found_size:
            found = _room.found = np.empty(self._found_size, dtype=np.int64)
        program = self._program_in_flight if event else self._program
        arguments = (body or b"", head or b"", event, as_of_ms, shift_ms, program)
        code: int = gather_entity(*arguments, work, out.ints, out.floats, row, found)
        while code > 0:
            work = np.empty(code, dtype=np.int64)
            if code <= _WORK_WORDS_KEPT:
                _room.work = work
            code = gather_entity(*arguments, work, out.ints, out.floats, row, found)
        if code != REACHED and not (code == EMPTY and event):
            return NOTHING if code == EMPTY else UNKNOWN
        if self._texts:
            text = work[NUMBERS:].view(np.uint8)
            for at, slot in self._texts:
                out.objects[slot, row] = text[found[at] : found[at + 1]].tobytes()
        return int(found[0]) if code == REACHED else NOTHING


def _is_whole(body: bytes) -> bool:
    """Whether a body, or that of a pack, matches its checksum."""
    whole = memoryview(body)
    if body[0] == MEMBER_MAGIC:
        whole = body_of_member(whole)
        if not whole:
            return True
    checksum = int.from_bytes(whole[-CHECKSUM_BYTES:], "little")
    return xxhash.xxh3_64_intdigest(whole[1:-CHECKSUM_BYTES]) == checksum
