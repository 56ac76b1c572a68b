"""The lanes of a generation, all of them at once: how they begin, and how far they have come.

Every lane has a checkpoint before the first record of any of them is committed. So a checkpoint that is missing while
another lane has positions, or after all were seen, is one that was lost: what its lane holds would count twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from featurestore.core.events import Horizon
from featurestore.errors import CorruptData, FeatureStoreError, StoreRolledBack, WriterFenced, WriterStopped
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


class LaneErased(WriterStopped):
    """Somebody's data was erased from a lane that this writer holds: it opens again, and writes the same batches.

    Args:
        generation: whose lane.
        lane: which.
    """

    def __init__(self, generation: Generation, lane: int) -> None:
        super().__init__(f"an entity was erased from lane {lane} of {generation.view.title} meanwhile")


class HeldLane:
    """What the writer knows of one lane: the bytes of its checkpoint, and what they say."""

    def __init__(self, lane: int, stored: bytes) -> None:
        self.lane = lane
        self.stored = stored
        self.checkpoint = decode_checkpoint(stored)
        self.positions = self.checkpoint.next_offsets()
        self.horizons = self.checkpoint.horizon_of()

    def after(self, moved: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        """Its positions once it has passed some batches."""
        return self.positions | {at: max(offset, self.positions.get(at, offset)) for at, offset in moved.items()}

    def horizons_after(
        self, moved: Mapping[tuple[str, int], int], horizons: Mapping[tuple[str, int], Horizon]
    ) -> dict[tuple[str, int], Horizon]:
        """Where its horizons stand then: at the positions that it has then."""
        return self.horizons | {
            at: horizon for at, horizon in horizons.items() if moved[at] >= self.positions.get(at, moved[at])
        }

    def passed(
        self, moved: Mapping[tuple[str, int], int], horizons: Mapping[tuple[str, int], Horizon] = MappingProxyType({})
    ) -> None:
        """It has: also where it has not committed that yet, as it had nothing else to commit."""
        self.horizons = self.horizons_after(moved, horizons)
        self.positions = self.after(moved)

    def committed(self, stored: bytes, checkpoint: Checkpoint) -> None:
        """The store took the replacement."""
        self.stored, self.checkpoint = stored, checkpoint


def have_gone_back(
    lanes: Mapping[int, HeldLane], held: Mapping[int, HeldLane], read_from: Mapping[tuple[str, int], int]
) -> bool:
    """Whether some lanes that were opened are behind where they were.

    Args:
        lanes: as they are opened.
        held: as the same writer had them before.
        read_from: where its caller reads on.
    """
    return any(
        lane.positions.get(partition, -1) < offset for lane in lanes.values() for partition, offset in read_from.items()
    ) or any(
        lane.positions.get(partition, -1) < offset
        for number, lane in lanes.items()
        if number in held
        # Also what idle lanes had passed without having committed it yet: their part must be read again.
        for partition, offset in held[number].positions.items()
    )


def is_newer(found: Checkpoint, mine: Checkpoint, my_tokens: Collection[str]) -> bool:
    """Whether another writer opened the lane after this one did."""
    return found.writer not in my_tokens and found.epoch >= mine.epoch


def is_as_left(found: Checkpoint, mine: Checkpoint) -> bool:
    """Whether nothing came in between but erasures, or nothing at all."""
    return replace(found, erasures=mine.erasures) == mine


def is_erased(found: Checkpoint, mine: Checkpoint) -> bool:
    """Whether an erasure came in between, and nothing else."""
    return found.erasures > mine.erasures and is_as_left(found, mine)


def refusal(generation: Generation, lane: HeldLane, found: Checkpoint, my_tokens: Collection[str]) -> FeatureStoreError:
    """Why a lane's checkpoint is not the expected one: an erasure, a successor, or a store that went back in time."""
    mine = lane.checkpoint
    if is_erased(found, mine):
        return LaneErased(generation, lane.lane)
    place = f"lane {lane.lane} of {generation.view.title}"
    if is_newer(found, mine, my_tokens):
        return WriterFenced(
            f"another writer took over {place}",
            detail=f"It holds epoch {found.epoch} ({found.writer}), this one had {mine.epoch} ({mine.writer}).",
            hint="run one stream process for each set of lanes; this one has stopped without losing anything",
        )
    return StoreRolledBack(
        f"the online store went back in time at {place}",
        detail=f"It holds epoch {found.epoch} and offsets {found.positions}; "
        f"committed were epoch {mine.epoch} and {mine.positions}.",
        hint="the stream resumes from the store's own checkpoint by itself",
    )
