"""The lanes of a generation, all of them at once: how they begin, and how far they have come.

Every lane has a checkpoint before the first record of any of them is committed. So a checkpoint that is missing while
another lane has positions, or after all were seen, is one that was lost: what its lane holds would count twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from featurestore.errors import CorruptData
from featurestore.online.generation import Generation, GenerationDamaged
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.store import LaneCommit, OnlineStore
from featurestore.wire.store_layout import Checkpoint, decode_checkpoint, encode_checkpoint


def open_lanes(store: OnlineStore, generation: Generation, lane_count: int, now_ms: int) -> list[Checkpoint]:
    """The checkpoint of each lane, made where the generation has not begun; whoever writes it calls this first.

    Args:
        store: the online store.
        generation: any that is fed.
        lane_count: lanes of the store.
        now_ms: processing time.

    Raises:
        GenerationDamaged: the checkpoint of a lane is lost or spoilt.
        OnlineStoreDown: the store does not answer.
    """
    catalog = GenerationCatalog(store, generation.project)
    stored = _read(store, generation, lane_count)
    if None in stored and not catalog.is_opened(generation):
        if not any(checkpoint.positions for checkpoint in _decoded(generation, stored)):
            begun = encode_checkpoint(Checkpoint())
            missing = [lane for lane, data in enumerate(stored) if data is None]
            store.commit([LaneCommit(generation.keys.checkpoint(lane), b"", begun) for lane in missing])
        # Also where another process has begun them, and written, since the first of them was read.
        stored = _read(store, generation, lane_count)
    if None in stored:
        raise GenerationDamaged(generation, f"the checkpoint of lane {stored.index(None)} is gone")
    checkpoints = _decoded(generation, stored)
    if not generation.is_opened:
        catalog.note_opened(generation, now_ms)
    return checkpoints


def _read(store: OnlineStore, generation: Generation, lane_count: int) -> list[bytes | None]:
    """Checkpoints of all lanes, as they are stored."""
    return list(store.read_groups([[generation.keys.checkpoint(lane)] for lane in range(lane_count)]))


def _decoded(generation: Generation, stored: Sequence[bytes | None]) -> list[Checkpoint]:
    """What they say; an empty one where there is none."""
    return [decode_lane(generation, lane, data) for lane, data in enumerate(stored)]


def decode_lane(generation: Generation, lane: int, data: bytes | None) -> Checkpoint:
    """The checkpoint of a lane; an empty one where nothing is stored.

    Raises:
        GenerationDamaged: its bytes are no checkpoint.
    """
    try:
        return decode_checkpoint(data)
    except CorruptData as error:
        key = generation.keys.checkpoint(lane).decode()
        raise GenerationDamaged(
            generation, f'the checkpoint of lane {lane} is spoilt (key "{key}")', detail=error.detail
        ) from error


class HeldLane:
    """What the writer knows of one lane: the bytes of its checkpoint, and what they say."""

    def __init__(self, lane: int, stored: bytes) -> None:
        self.lane = lane
        self.stored = stored
        self.checkpoint = decode_checkpoint(stored)
        self.positions = self.checkpoint.next_offsets()

    def committed(self, stored: bytes, checkpoint: Checkpoint) -> None:
        """The store took the replacement."""
        self.stored, self.checkpoint = stored, checkpoint


def is_newer(found: Checkpoint, mine: Checkpoint, my_tokens: Collection[str]) -> bool:
    """Whether another writer opened the lane after this one did."""
    return found.writer not in my_tokens and found.epoch >= mine.epoch
