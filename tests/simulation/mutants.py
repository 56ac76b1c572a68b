"""The product with one of its guards taken out: what the simulator must find, or it is worth nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from dataflows.log_to_tiles import routing
from dataflows.plan import readable, tile_store
from featurestore.core.events import BoolArray, KeyedBatch
from featurestore.core.spec import FeatureSpec, ViewSpec
from featurestore.definitions.compile import storage_groups
from featurestore.errors import CorruptTile
from featurestore.online import registration
from featurestore.online.answer import selection
from featurestore.online.generation import Generation
from featurestore.online.store import LaneCommit, LaneOutcome, OnlineStore
from featurestore.online.write import bootstrap, compaction, pack_folding, seen_ids, writer
from featurestore.online.write.new_rows import HashArray, UnseenRows
from featurestore.online.write.pack_folding import FoldedPacks
from featurestore.online.write.seen_ids import HorizonClock, IdHorizon, SeenIds
from featurestore.online.write.writer import ViewWriter
from featurestore.testing.simulation.stand_ins.store import SimulatedStore
from featurestore.wire.codecs import body, pack, pack_members
from featurestore.wire.codecs.head import HeadCodec
from featurestore.wire.codecs.pack_members import Packs
from featurestore.wire.store_layout import Checkpoint, decode_checkpoint, encode_checkpoint

Mutant = Callable[[], AbstractContextManager[object]]


def _commits_without_comparing() -> AbstractContextManager[object]:
    original = SimulatedStore._commit_lane

    def commit_lane(self: SimulatedStore, lane: LaneCommit) -> LaneOutcome:
        found = self._get(lane.checkpoint_key) or b""
        replacement = found if lane.replacement == lane.expected else lane.replacement
        return original(self, replace(lane, expected=found, replacement=replacement))

    return patch.object(SimulatedStore, "_commit_lane", commit_lane)


def _ids_are_not_loaded() -> AbstractContextManager[object]:
    original = SeenIds.load

    def load(self: SeenIds, *arguments: Any) -> None:
        original(self, *arguments)
        self._horizon = IdHorizon()

    return patch.object(SeenIds, "load", load)


def _horizon_clock_runs() -> AbstractContextManager[object]:
    def advance(self: HorizonClock, newest_ms: Mapping[tuple[str, int], int], rows: int) -> int:
        self.bucket += 1
        return self.bucket

    return patch.object(HorizonClock, "advance", advance)


def _ids_within_a_commit_are_not_compared() -> AbstractContextManager[object]:
    def admit(self: IdHorizon, hashes: HashArray) -> Any:
        known = np.zeros(len(hashes), dtype=np.bool_)
        for bucket in self._buckets.values():
            known |= bucket.contains(hashes)
        return ~known

    return patch.object(IdHorizon, "admit", admit)


def _replayed_offsets_are_applied() -> AbstractContextManager[object]:
    original = ViewWriter._unseen

    def unseen(self: ViewWriter, batch: KeyedBatch, reached: dict[tuple[str, int], int]) -> UnseenRows:
        original(self, batch, reached)
        return UnseenRows(batch, None, 0)

    return patch.object(ViewWriter, "_unseen", unseen)


def _halves_need_not_know_of_each_other() -> AbstractContextManager[object]:
    return patch.object(body, "check_whole", lambda is_beside_head, has_head, is_beside_body: None)


def _a_lost_half_is_nothing() -> AbstractContextManager[object]:
    original = body.check_whole

    def check_whole(is_beside_head: bool | None, *, has_head: bool, is_beside_body: bool) -> None:
        if is_beside_head is not None and has_head:
            original(is_beside_head, has_head=has_head, is_beside_body=is_beside_body)

    return patch.object(body, "check_whole", check_whole)


def _idle_lanes_are_not_compared() -> AbstractContextManager[object]:
    return patch.object(writer, "IDLE_COMMIT_EVERY_MS", 1 << 60)


def _missing_checkpoints_are_the_beginning() -> AbstractContextManager[object]:
    def begin(store: OnlineStore, generation: Generation, lane_count: int, now_ms: int) -> list[Checkpoint]:
        begun = encode_checkpoint(Checkpoint())
        keys = [generation.keys.checkpoint(lane) for lane in range(lane_count)]
        store.commit([LaneCommit(key, b"", begun) for key in keys])
        return [decode_checkpoint(data) for data in store.read_groups([[key] for key in keys])]

    return patch.object(tile_store, "open_lanes", begin)


def _ids_are_not_counted() -> AbstractContextManager[object]:
    return patch.object(seen_ids, "_require_all", lambda lane, bucket, count, found: None)


def _writers_do_not_know_the_plan() -> AbstractContextManager[object]:
    def make(*arguments: Any, read_from: object, **more: Any) -> ViewWriter:
        return ViewWriter(*arguments, **more)

    return patch.object(tile_store, "ViewWriter", make)


def _removed_records_are_not_missed() -> AbstractContextManager[object]:
    return patch.object(readable, "_removed", lambda log, generation, lanes: None)


@contextmanager
def _checks_of_heads_are_not_compared() -> Iterator[None]:
    original = HeadCodec.count_rows

    def count_rows(self: HeadCodec, head: bytes) -> tuple[int, bool]:
        try:
            return original(self, head)
        except CorruptTile:
            if len(head) % self.row_bytes_min:
                raise
            # Whether it began beside a body is told by its first row, if that is whole.
            try:
                is_beside_body = original(self, head[: self.row_bytes_min])[1]
            except CorruptTile:
                is_beside_body = False
            return len(head) // self.row_bytes_min, is_beside_body

    with patch.object(HeadCodec, "count_rows", count_rows):
        yield


def _checksums_of_bodies_are_not_compared() -> AbstractContextManager[object]:
    return patch.object(body, "xxhash", SimpleNamespace(xxh3_64_intdigest=lambda content: 0))


def _a_store_that_went_back_is_written_on() -> AbstractContextManager[object]:
    original = ViewWriter.open

    def open_lanes(self: ViewWriter) -> None:
        original(self)
        self._went_back = False

    return patch.object(ViewWriter, "open", open_lanes)


def _topics_are_always_the_same() -> AbstractContextManager[object]:
    return patch.object(readable, "made_anew", lambda kept, found, read: [])


def _letters_are_not_written() -> AbstractContextManager[object]:
    return patch.object(routing, "write_letters", lambda dead_letters, letters, shared: None)


def _keys_expire_early() -> AbstractContextManager[object]:
    return patch.object(Generation, "expire_ms", lambda self, ahead_ms: 0 if self.view.retention_ms is None else 60_000)


def _recent_ids_are_not_handed_on() -> AbstractContextManager[object]:
    def no_hashes(ids: Sequence[bytes], keys: Sequence[bytes], key_index: object) -> HashArray:
        return np.empty(0, dtype=np.uint64)

    return patch.object(bootstrap, "hash_entity_ids", no_hashes)


def _presence_is_the_groups() -> AbstractContextManager[object]:
    return patch.object(selection, "presence_feature", lambda stored, view: None)


@contextmanager
def _conditions_of_members_are_not_applied() -> Iterator[None]:
    def bare(stored: ViewSpec, view: ViewSpec, feature: FeatureSpec) -> FeatureSpec:
        return replace(feature, name="")

    with patch.object(selection, "stored_feature", bare), patch.object(storage_groups, "stored_feature", bare):
        yield


def _groups_take_what_one_member_takes() -> AbstractContextManager[object]:
    original = storage_groups.storage_group

    def storage_group(name: str, views: Sequence[ViewSpec]) -> ViewSpec:
        return replace(original(name, views), where=next(view.where for view in views if view.where))

    return patch.object(registration, "storage_group", storage_group)


def _packs_have_no_checksum() -> AbstractContextManager[object]:
    return patch.object(pack, "xxhash", SimpleNamespace(xxh3_64_intdigest=lambda content: 0))


def _who_left_a_pack_is_appended_to_it() -> AbstractContextManager[object]:
    original = SimulatedStore._commit_lane

    def commit_lane(self: SimulatedStore, lane: LaneCommit) -> LaneOutcome:
        return original(self, replace(lane, entities=[key + b"?" for key in lane.entities]))

    return patch.object(SimulatedStore, "_commit_lane", commit_lane)


def _who_leaves_a_pack_is_not_written() -> AbstractContextManager[object]:
    original = pack_folding.fold_packs

    def fold_packs(generation: Generation, packs: Packs, now_ms: int) -> FoldedPacks:
        return replace(original(generation, packs, now_ms), leavers=())

    return patch.object(compaction, "fold_packs", fold_packs)


def _quiet_entities_of_packs_are_dropped() -> AbstractContextManager[object]:
    original = pack_folding._alive

    def alive(generation: Generation, *more: Any) -> BoolArray:
        return original(SimpleNamespace(expire_ms=lambda ahead_ms: 60_000), *more)  # type: ignore[arg-type]  # of one

    return patch.object(pack_folding, "_alive", alive)


def _a_lost_half_of_a_pack_is_nothing() -> AbstractContextManager[object]:
    return patch.object(pack_members, "check_whole", lambda is_beside_head, has_head, is_beside_body: None)


PACK_MUTANTS: Mapping[str, Mutant] = {
    "checksums of packs are not compared": _packs_have_no_checksum,
    "who left a pack is appended to it": _who_left_a_pack_is_appended_to_it,
    "who leaves a pack is not written": _who_leaves_a_pack_is_not_written,
    "quiet entities of packs are dropped": _quiet_entities_of_packs_are_dropped,
    "a lost half of a pack is folded away": _a_lost_half_of_a_pack_is_nothing,
}
"""Of packs."""

GROUP_MUTANTS: Mapping[str, Mutant] = {
    "an entity of the storage group is one of every member": _presence_is_the_groups,
    "conditions of members are not applied": _conditions_of_members_are_not_applied,
    "a storage group takes what one of its members takes": _groups_take_what_one_member_takes,
}
"""Of storage groups."""

MUTANTS: Mapping[str, Mutant] = {
    "a commit does not compare the checkpoint": _commits_without_comparing,
    "a writer that opens does not load the event ids": _ids_are_not_loaded,
    "ids of one commit are not compared with each other": _ids_within_a_commit_are_not_compared,
    "the clock of the horizon runs with every commit": _horizon_clock_runs,
    "offsets that were applied are applied again": _replayed_offsets_are_applied,
    "body and head need not know of each other": _halves_need_not_know_of_each_other,
    "a lost half is taken for nothing": _a_lost_half_is_nothing,
    "checks of head rows are not compared": _checks_of_heads_are_not_compared,
    "checksums of bodies are not compared": _checksums_of_bodies_are_not_compared,
    "lanes without events are not compared": _idle_lanes_are_not_compared,
    "a checkpoint that is missing is the beginning": _missing_checkpoints_are_the_beginning,
    "event ids are not counted": _ids_are_not_counted,
    "a writer does not know how far the plan was": _writers_do_not_know_the_plan,
    "a plan does not ask for what comes next": _removed_records_are_not_missed,
    "a writer does not see that the store went back": _a_store_that_went_back_is_written_on,
    "topics are taken for the same": _topics_are_always_the_same,
    "dead letters are not written": _letters_are_not_written,
    "keys expire early": _keys_expire_early,
    "a bootstrap hands on no event ids": _recent_ids_are_not_handed_on,
}
"""What is taken out, and how."""
