"""Write events into the online store, each exactly once.

    batches ─ skip what the checkpoints have seen ─ drop ids seen lately ────────┐
    heads that grew long, and their bodies ─ read ─ roll up ─────────────────────┴─ commit: one atomic step a lane

The writer appends blindly: it reads nothing before a commit but the heads that it is about to fold into their bodies,
which nobody else may touch while it holds the lanes. After any failure whose outcome is unknown it must be opened anew;
what was applied is in the checkpoints, so nothing is lost and nothing counts twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, TypeAlias

import numpy as np

from featurestore.clock import NS_PER_MS, Clock
from featurestore.core.events import Horizon, KeyedBatch
from featurestore.errors import InvariantBroken, StoreFull, StoreRolledBack, TileLost, WrongKindOfKey
from featurestore.online.generation import Generation, GenerationDamaged, GenerationState
from featurestore.online.store import LaneCommit, LaneOutcome, MadeCommit, OnlineStore, PendingCommit
from featurestore.online.write.compaction import Compaction, Compactor
from featurestore.online.write.erasure.book import erased_keys
from featurestore.online.write.lanes import HeldLane, decode_lane, have_gone_back, is_as_left, is_newer, refusal
from featurestore.online.write.new_rows import (
    HashArray,
    LaneRows,
    NewRows,
    UnseenRows,
    hash_entity_ids,
    horizons_of,
    ids_by_lane,
    new_rows,
    newest_by_lane,
    rows_by_lane,
)
from featurestore.online.write.report import WriteReport
from featurestore.online.write.seen_ids import HASH_BYTES, SeenIds
from featurestore.wire.codecs.head import head_codec
from featurestore.wire.erasures import ErasedKeys
from featurestore.wire.store_layout import (
    Checkpoint,
    decode_checkpoint,
    encode_checkpoint,
    smallest_positions,
    stored_horizons,
)

TOKEN_BYTES = 6
SET_ASIDE_MAX = 16
"""So many damaged entities are one by one; more are a damaged store."""

IDLE_COMMIT_EVERY_MS = 1_000
"""Lanes without events only move their offsets, or compare their checkpoint: a store that went back in time is noticed
while nothing arrives, too."""

NEVER_NS = -(1 << 62)
"""Before any reading of a clock."""

_NOTHING = LaneRows(())

_PreparedLane: TypeAlias = tuple[HeldLane, Checkpoint, LaneCommit]
"""A lane, what its checkpoint will be, and the commit that makes it so."""


@dataclass(frozen=True, slots=True)
class PreparedWrite:
    """What one writer is about to commit, and its report once that is done."""

    writer: ViewWriter
    commits: Sequence[_PreparedLane]
    report: WriteReport


def write_together(prepared: Iterable[PreparedWrite]) -> list[WriteReport]:
    """Commit what several writers of one store have prepared, or prepare just now.

    Each commit is sent as soon as it is prepared, so that the store applies it while the next one is prepared.

    Raises:
        StoreFull: lanes may have been applied or not; the same call again is right, and none of it counts twice.
        as `ViewWriter.write`; then all of the writers must be opened anew.
    """
    sent: list[tuple[PreparedWrite, PendingCommit]] = []
    failures: list[Exception] = []
    try:
        for one in prepared:
            commits = [commit for _, _, commit in one.commits]
            sent.append((one, one.writer.store.begin_commit(commits) if commits else MadeCommit([])))
    except Exception as error:  # noqa: BLE001  # raised below: what was sent must be waited for before
        failures.append(error)
    outcomes = []
    for one, pending in sent:
        try:
            outcomes.append(pending.outcomes())
        except WrongKindOfKey as error:
            failures.append(GenerationDamaged(one.writer.generation, error.message, detail=error.detail))
        except Exception as error:  # noqa: BLE001  # likewise
            failures.append(error)
    if failures:
        # What is full may be sent again; any other failure is for all to know.
        raise next((error for error in failures if not isinstance(error, StoreFull)), failures[0])
    for (one, _), of_lanes in zip(sent, outcomes, strict=True):
        one.writer.settle(one.commits, of_lanes)
    return [one.report for one, _ in sent]


class ViewWriter:
    """The only writer of some lanes of one view generation, of which `open_lanes` has made the checkpoints.

    Args:
        store: the online store.
        generation: what to write.
        lanes: lanes to own.
        clock: bounds roll-ups, so that an event dated ahead cannot age the tiles of its entity.
        read_from: where the caller reads on in each (topic, partition); lanes that are behind that have gone back.
        compaction_pause_ms: how long a few long heads wait for others before they are folded into their bodies.
    """

    def __init__(
        self,
        store: OnlineStore,
        generation: Generation,
        *,
        lanes: Sequence[int],
        clock: Clock,
        read_from: Mapping[tuple[str, int], int] | None = None,
        compaction_pause_ms: int = 0,
    ) -> None:
        self.generation = generation
        self.store = store
        self._clock = clock
        self._read_from = read_from or {}
        self._lane_numbers = tuple(lanes)
        self._lanes: dict[int, HeldLane] = {}
        self._tokens: set[str] = set()
        self._is_usable = False
        self._went_back = False
        self._followed: set[tuple[str, int]] = set()
        self._moving: Mapping[tuple[str, int], int] = {}
        self._moving_horizons: Mapping[tuple[str, int], Horizon] = {}
        source = generation.view.source
        deduplicates = source.event_id_column is not None and source.dedup_horizon_ms > 0
        self._seen_ids = SeenIds(source.dedup_horizon_ms) if deduplicates else None
        self._compactor = Compactor(store, generation, clock, pause_ms=compaction_pause_ms)
        self._idle_since_ns = NEVER_NS
        self._erased = ErasedKeys((), ())

    def open(self, *, goes_on: bool = False) -> None:
        """Take the lanes: whoever held them before fails at its next commit.

        A writer that opens again, after the store was away or went back in time, does not take lanes back from a
        successor that opened them meanwhile.

        Args:
            goes_on: nothing failed but that something was erased: the batches of the last commit come again.

        Raises:
            WriterFenced: this writer has held the lanes, and another one took them over since.
            GenerationDamaged: the checkpoint or the event ids of a lane are gone.
            OnlineStoreDown, CorruptData: see OnlineStore.
        """
        # What was held stays known until the opening is complete: one that fails midway must not make the next one
        # forget that the store went back in time, or that a successor came.
        held, token, lanes = self._lanes, secrets.token_hex(TOKEN_BYTES), dict[int, HeldLane]()
        for lane in held.values() if not goes_on else ():
            lane.passed(self._moving, self._moving_horizons)
        self._moving, self._moving_horizons = {}, {}
        self._is_usable = False
        highest_epoch = max((lane.checkpoint.epoch for lane in held.values()), default=0)
        keys = self.generation.keys
        found = self.store.read_groups([[keys.checkpoint(lane)] for lane in self._lane_numbers])
        waiting = {lane: data or b"" for lane, data in zip(self._lane_numbers, found, strict=True)}
        for number, stored in waiting.items():
            if not stored:
                # Not the beginning: what the lane holds would count a second time.
                raise GenerationDamaged(self.generation, f"the checkpoint of lane {number} is gone")
            if number in held and is_newer(
                decode_lane(self.generation, number, stored), held[number].checkpoint, self._tokens
            ):
                self._refuse(held[number], LaneOutcome(False, stored))
        self._tokens.add(token)
        while waiting:
            commits = []
            for number, stored in waiting.items():
                old = decode_lane(self.generation, number, stored)
                # After a roll-back the store's epoch can be lower than one this process has held already.
                new = replace(old, epoch=max(old.epoch, highest_epoch) + 1, writer=token)
                commits.append(LaneCommit(keys.checkpoint(number), stored, encode_checkpoint(new)))
            outcomes = self.store.commit(commits)
            taken = zip(tuple(waiting), commits, outcomes, strict=True)
            waiting = {}
            for number, commit, outcome in taken:
                if outcome.applied or outcome.found == commit.replacement:
                    lanes[number] = HeldLane(number, commit.replacement)
                    if (
                        goes_on
                        and number in held
                        and is_as_left(decode_checkpoint(commit.expected), held[number].checkpoint)
                    ):
                        lanes[number].passed(held[number].positions, held[number].horizons)
                else:
                    waiting[number] = outcome.found
        if self._seen_ids is not None:
            checkpoints = {number: lane.checkpoint for number, lane in lanes.items()}
            try:
                self._seen_ids.load(self.store, keys, checkpoints)
            except TileLost as error:
                raise GenerationDamaged(self.generation, error.message) from error
        # Only now: whoever erases something from here on makes the next commit fail.
        self._erased = erased_keys(self.store, self.generation)
        self._went_back = have_gone_back(lanes, held, self._read_from)
        self._compactor.clear()
        self._lanes = lanes
        self._followed = set()
        self._is_usable = True

    @property
    def has_gone_back(self) -> bool:
        """Whether the store was behind what had been committed, or planned, when the lanes were opened last."""
        return self._went_back

    def positions(self) -> dict[tuple[str, int], int]:
        """Where to resume: the smallest next offset over the lanes, for each (topic, partition).

        A partition that some lane has never seen is missing, which means its beginning.
        """
        return smallest_positions([lane.checkpoint.next_offsets() for lane in self._lanes.values()])

    def write(self, batches: Sequence[KeyedBatch]) -> WriteReport:
        """Append and commit; when it returns, the events are servable and will not be applied again.

        Args:
            batches: any number, of any partitions; those of one partition in order and without a gap.

        Raises:
            WriterFenced: another writer holds the lanes.
            LaneErased: somebody's data was erased meanwhile; open() again, and write the same batches.
            StoreRolledBack: the store is older than what was committed; open() and read again from positions().
            OnlineStoreDown: the outcome is unknown; open() again and re-read.
            InvariantBroken: the batches skip offsets, or the writer is not open.
        """
        (report,) = write_together([self.prepare(batches)])
        return report

    def close(self) -> None:
        """Commit the offsets that idle lanes still owe, so that a restart re-reads nothing."""
        if self._is_usable:
            self._idle_since_ns = NEVER_NS
            self.write([])
            self._is_usable = False

    def prepare(self, batches: Sequence[KeyedBatch]) -> PreparedWrite:
        """What `write` is to commit; `settle` comes next, or `open`.

        Raises:
            GenerationDamaged: entities that are to be compacted are not whole: many, or where nobody reads them yet.
        """
        if not self._is_usable:
            raise InvariantBroken(f"writer of {self.generation.view.title} is not open")
        self._is_usable = False  # until it is settled
        reached: dict[tuple[str, int], int] = {}
        unseen = [self._unseen(batch, reached) for batch in batches]
        rows = new_rows(unseen, [column.name for column in self.generation.compiled.event_columns])
        of_all = rows.count
        if (is_kept := self._erased.kept(rows.keys, rows.key_index, rows.event_time_ms)) is not None:
            rows = rows.take(is_kept)
        erased = of_all - rows.count
        hashes, duplicates = np.empty(0, dtype=np.uint64), 0
        if self._seen_ids is not None and rows.count:
            assert rows.event_ids is not None, "a source with a horizon declares an id column"
            hashes = hash_entity_ids(rows.event_ids, rows.keys, rows.key_index)
            is_new = self._seen_ids.admit(hashes)
            duplicates = int(len(is_new) - is_new.sum())
            if duplicates:
                rows, hashes = rows.take(is_new), hashes[is_new]
        compaction = self._compactor.compact()
        is_bearable = self.generation.state is GenerationState.SERVING
        if compaction.damaged and not (is_bearable and len(self._compactor.set_aside) <= SET_ASIDE_MAX):
            error = compaction.damaged[0]
            raise GenerationDamaged(self.generation, error.message, detail=error.detail)
        commits = self._lane_commits(unseen, rows, hashes, compaction)
        report = WriteReport(
            events_applied=rows.count,
            event_time_ms=rows.event_time_ms,
            duplicates_dropped=duplicates,
            erased_dropped=erased,
            replayed_skipped=sum(batch.skipped for batch in unseen),
            newest_event_time_ms=int(rows.event_time_ms.max()) if rows.count else 0,
            lanes_committed=len(commits),
            entities_compacted=compaction.count,
            damaged=tuple(error.message for error in compaction.damaged),
            bytes_written=sum(_size_of(commit) for _, _, commit in commits),
        )
        return PreparedWrite(self, commits, report)

    def settle(self, commits: Sequence[_PreparedLane], outcomes: Sequence[LaneOutcome]) -> None:
        """Take note of what the store applied.

        Raises:
            WriterFenced, StoreRolledBack: see `write`.
        """
        for (lane, _, commit), outcome in zip(commits, outcomes, strict=True):
            # A script sent again, after a connection broke, is answered with what this commit wrote the first time.
            if not outcome.applied and outcome.found != commit.replacement:
                self._refuse(lane, outcome)
        for held in self._lanes.values():
            held.passed(self._moving, self._moving_horizons)
        for (lane, checkpoint, commit), outcome in zip(commits, outcomes, strict=True):
            lane.committed(commit.replacement, checkpoint)
            self._compactor.schedule(lane.lane, [commit.entities[index] for index in outcome.long_heads])
            if commit.packed is not None:
                names = [commit.packed.names[index] for index in outcome.long_packs]
                self._compactor.schedule_packs(lane.lane, names)
        self._is_usable = True

    def _unseen(self, batch: KeyedBatch, reached: dict[tuple[str, int], int]) -> UnseenRows:
        """The rows of a batch that their lanes have not applied yet; `reached` is where this call's batches end."""
        partition = (batch.topic, batch.partition)
        is_first = partition not in reached
        begin = reached.get(partition, batch.from_offset)
        reached[partition] = batch.next_offset
        # A partition that a lane has never seen begins wherever its log begins; not so in a store that lost it.
        unknown = -1 if self._went_back else begin
        at = {number: lane.positions.get(partition, unknown) for number, lane in self._lanes.items()}
        seen = {number: max(position, begin) for number, position in at.items()}
        # The lanes move when the call commits, so they are behind every batch of a partition but its first.
        if begin < batch.from_offset or (is_first and min(at.values()) < begin):
            self._refuse_jump(batch)
        self._followed.add(partition)
        if max(seen.values()) <= batch.from_offset:
            return UnseenRows(batch, None, 0)
        next_offset = np.zeros(max(seen) + 1, dtype=np.int64)
        next_offset[list(seen)] = list(seen.values())
        rows = np.flatnonzero(batch.offsets >= next_offset[batch.key_lanes[batch.key_index]])
        return UnseenRows(batch, rows, len(batch.offsets) - len(rows))

    def _refuse_jump(self, batch: KeyedBatch) -> NoReturn:
        """Tell what the log, or the store, has lost since the plan from a reader that skips records."""
        fact = f"{batch.topic}[{batch.partition}] jumped to offset {batch.from_offset}"
        detail = f'feature view "{batch.view}" would lose the events before it'
        if self._went_back:
            raise StoreRolledBack(fact, detail=f"{detail}; the store came back older than it was.")
        if (batch.topic, batch.partition) not in self._followed:
            # Whoever reads it was planned before somebody else began it, and began it with what the log still had.
            raise StoreRolledBack(
                fact,
                detail=f"{detail}; another writer began the partition since this run was planned.",
                hint="the stream reads again from the store's own positions",
            )
        raise InvariantBroken(fact, detail=f"{detail}.")

    def _lane_commits(
        self, batches: Sequence[UnseenRows], rows: NewRows, hashes: HashArray, compaction: Compaction
    ) -> list[_PreparedLane]:
        """One commit for each lane that has something to say."""
        # Only what is settled has been passed: after an erasure the same batches are written again.
        moved = self._moving = self._moved_positions(batches)
        horizons = self._moving_horizons = horizons_of(batches)
        bucket, stale_before = self._seen_ids.remember(batches, hashes) if self._seen_ids else (0, 0)
        keys = self.generation.keys
        of_lane = rows_by_lane(head_codec(self.generation.compiled), rows, keys, self.generation.packs)
        ids = ids_by_lane(rows, hashes) if self._seen_ids is not None else {}
        watermarks = newest_by_lane(rows)
        now_ms = self._clock.now_ms()
        # Not by the wall clock, which may step back: lanes would neither compare nor commit until it has caught up.
        now_ns = self._clock.monotonic_ns()
        idle_is_due = now_ns - self._idle_since_ns >= IDLE_COMMIT_EVERY_MS * NS_PER_MS
        if idle_is_due:
            self._idle_since_ns = now_ns
        commits = []
        for lane in self._lanes.values():
            after = lane.after(moved)
            new = of_lane.get(lane.lane, _NOTHING)
            bodies = compaction.bodies.get(lane.lane, ())
            positions = tuple(sorted((*partition, offset) for partition, offset in after.items()))
            if not new.entities and not bodies and not idle_is_due:
                continue
            stale = [old for old, _ in lane.checkpoint.id_buckets if old < stale_before]
            fresh_ids = ids.get(lane.lane, b"")
            buckets = {old: count for old, count in lane.checkpoint.id_buckets if old >= stale_before}
            if fresh_ids:
                buckets[bucket] = buckets.get(bucket, 0) + len(fresh_ids) // HASH_BYTES
            checkpoint = replace(
                lane.checkpoint,
                watermark_ms=max(lane.checkpoint.watermark_ms, watermarks.get(lane.lane, 0)),
                positions=positions,
                id_buckets=tuple(sorted(buckets.items())),
                horizons=stored_horizons(lane.horizons_after(moved, horizons)),
            )
            commit = LaneCommit(
                checkpoint_key=keys.checkpoint(lane.lane),
                expected=lane.stored,
                replacement=encode_checkpoint(checkpoint),
                bodies=bodies,
                head_prefix=keys.head_prefix(lane.lane),
                body_prefix=keys.body_prefix(lane.lane),
                entities=new.entities,
                appends=new.appends,
                packed=new.packed,
                id_appends=((keys.id_bucket(lane.lane, bucket), fresh_ids),) if fresh_ids else (),
                deletions=[keys.id_bucket(lane.lane, old) for old in stale],
                expire_ms=self.generation.expire_ms(max(checkpoint.watermark_ms - now_ms, 0)),
                report_bytes_min=self._compactor.report_bytes_min,
            )
            commits.append((lane, checkpoint, commit))
        return commits

    def _refuse(self, lane: HeldLane, outcome: LaneOutcome) -> None:
        """Say who, or what, came in between."""
        raise refusal(self.generation, lane, decode_checkpoint(outcome.found), self._tokens)

    def _moved_positions(self, batches: Sequence[UnseenRows]) -> dict[tuple[str, int], int]:
        """Next offset of each partition after the batches."""
        moved: dict[tuple[str, int], int] = {}
        for unseen in batches:
            moved[unseen.batch.topic, unseen.batch.partition] = unseen.batch.next_offset
        return moved


def _size_of(commit: LaneCommit) -> int:
    """Bytes of the rows and bodies of a lane's commit."""
    appended = commit.appends if commit.packed is None else commit.packed.records
    return sum(map(len, appended)) + sum(len(body) for _, _, body in commit.bodies)
