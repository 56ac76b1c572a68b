"""The two middle steps of the flow: payloads to columns, columns to keyed batches for the writers.

Both write their dead letters, and wait until those are durable, before they pass a batch on. So a commit that moves
past a refused record can only happen after its letter exists: at least once, each with its position to tell repeats
by. Nothing else in the flow has to know about dead letters.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from dataflows.dead_letters.writer import DeadLetterWriter, write_letters
from dataflows.logs.sources import Shared, SourceItem, SourceLog
from dataflows.plan.contract_figures import ContractFigures
from dataflows.plan.contracts import Contracts, count
from dataflows.plan.recalls import Memory
from dataflows.plan.stream_plan import Stage
from dataflows.retry import patiently
from dataflows.run_outcome import PartitionEnd
from featurestore.core.events import KeyedBatch
from featurestore.core.point_in_time.as_of_table import Tables
from featurestore.core.spec import SourceSpec, ViewSpec
from featurestore.online.generation import Generation
from featurestore.wire.changes.decoder import Decoder, decoder_of
from featurestore.wire.changes.versions import DOUBTFUL, LOST
from featurestore.wire.contracts import ContractCheck, letters_of
from featurestore.wire.entity_routing import (
    PartitionWatermark,
    columns_read,
    key_events,
    refused_rows,
    split_by_writer,
    with_computed,
)
from featurestore.wire.payloads import DeadLetter, DeadLetterReason, DecodedBatch, RawBatch

_BY_THE_CLOCK = frozenset({DeadLetterReason.TOO_FAR_IN_FUTURE})
"""Reasons of a decoder that depend on when it looks."""


@dataclass(frozen=True, slots=True)
class DecodedRead:
    """A read, decoded by the schema that some views share."""

    raw: RawBatch
    views: tuple[ViewSpec, ...]
    decoded: DecodedBatch


@dataclass(frozen=True, slots=True)
class WriterBatch:
    """What one writer gets of one read: a KeyedBatch for each view. Crosses processes as a few arrays."""

    batches: tuple[KeyedBatch, ...]


@dataclass(frozen=True, slots=True)
class _Reader:
    """How a topic is read for some views.

    Attributes:
        decoder: of the topic.
        views: that are fed.
        check: what the records are held against; None where that is nothing, or done elsewhere.
    """

    decoder: Decoder
    views: tuple[ViewSpec, ...]
    check: ContractCheck | None


DecodedItem: TypeAlias = DecodedRead | PartitionEnd
RoutedItem: TypeAlias = tuple[str, WriterBatch | PartitionEnd]


def writer_keys(writer_count: int) -> list[str]:
    """Names of the writers, in writer order and in the order in which Bytewax sorts them."""
    return [f"{writer:04d}" for writer in range(writer_count)]


class DecodeStep:
    """RawBatch -> DecodedRead.

    Args:
        stage: whose generations are fed.
        log: knows the schemas of payloads.
        dead_letters: where refused records go.
        topics_lettered_elsewhere: topics of which another stage writes the letters of undecodable records.
        contracts: of the sources.
        checked: names of the sources whose contract this stage checks.
        figures: take note of how they are kept.
        tables: that events are enriched from.
        shared: what all steps of this process share.
    """

    def __init__(
        self,
        stage: Stage,
        log: SourceLog,
        dead_letters: DeadLetterWriter,
        shared: Shared,
        *,
        topics_lettered_elsewhere: Collection[str] = (),
        contracts: Contracts,
        checked: Collection[str] = (),
        figures: ContractFigures | None = None,
        tables: Tables | None = None,
    ) -> None:
        self._shared = shared
        self._dead_letters = dead_letters
        self._figures = figures
        self._topics_lettered_elsewhere = topics_lettered_elsewhere
        self._readers: dict[str, list[_Reader]] = {}
        unchecked = set(checked)
        for (source, _), generations in _by_source(stage, contracts).items():
            views = tuple(one.view for one in generations)
            check = contracts.check_of(source) if source.name in unchecked else None
            if check is not None:
                unchecked.remove(source.name)
            names = [name for view in views for name in columns_read(view)]
            names += () if check is None else check.columns
            for one in source.per_topic:
                recalls = stage.recalls.of_generation(generations[0])
                decoder = decoder_of(one, names, log.schemas(one), tables, recalls)
                self._readers.setdefault(one.topic, []).append(_Reader(decoder, views, check))

    def __call__(self, item: SourceItem) -> list[DecodedItem]:
        """One DecodedRead for each schema that the read's topic is read with: one, while a schema is changed two."""
        if isinstance(item, PartitionEnd):
            return [item]
        if self._shared.conductor.drops_batches:
            return []
        try:
            clock = self._shared.clock
            now_ms, began_ns = clock.now_ms(), clock.monotonic_ns()
            reads: list[DecodedItem] = []
            letters: dict[int, DeadLetter] = {}
            broken: list[DeadLetter] = []
            for reader in self._readers[item.topic]:
                decode = partial(reader.decoder.decode, item, now_ms=now_ms)
                decoded = patiently(self._shared, decode, place=item.topic)
                letters.update((letter.offset, letter) for letter in decoded.dead_letters)
                if reader.check is not None:
                    decoded = replace(decoded, events=reader.check.flagged(decoded.events))
                    broken += self._checked(reader.check, item, decoded)
                reads.append(DecodedRead(item, reader.views, decoded))
            if item.topic in self._topics_lettered_elsewhere:
                # Of what the record alone decides. The clock may say something else here than it said there.
                own = {offset: one for offset, one in letters.items() if one.reason in _BY_THE_CLOCK}
                letters = own | {offset: one for offset, one in letters.items() if one.detail in (LOST, DOUBTFUL)}
            for one in broken:
                letters.setdefault(one.offset, one)
            if letters:
                write_letters(self._dead_letters, [letters[offset] for offset in sorted(letters)], self._shared)
            self._shared.progress.passed("decode", clock.monotonic_ns() - began_ns)
            return reads
        except Exception as error:  # noqa: BLE001  # process edge: whatever it is, the flow must end in order
            self._shared.conductor.fail(error)
            return []

    def _checked(self, check: ContractCheck, raw: RawBatch, flagged: DecodedBatch) -> list[DeadLetter]:
        """Take note of what breaks a contract; the letters of what no view may count."""
        figures, failures = self._figures, check.failures(flagged.events)
        count(check.source, len(flagged.events.offsets), failures)
        if figures is not None:
            patiently(self._shared, lambda: figures.note(check.source, flagged.events, failures), place=raw.topic)
        return letters_of(failures, flagged.events, raw) if failures else []


class KeyStep:
    """DecodedRead -> one WriterBatch for each writer.

    Args:
        dead_letters: where refused records go.
        shared: what all steps of this process share.
        lane_count: lanes of the store.
        writer_count: writers that share the lanes.
    """

    def __init__(self, dead_letters: DeadLetterWriter, shared: Shared, *, lane_count: int, writer_count: int) -> None:
        self._dead_letters = dead_letters
        self._shared = shared
        self._lane_count = lane_count
        self._writer_keys = writer_keys(writer_count)
        self._watermarks: dict[tuple[SourceSpec, str, int], PartitionWatermark] = {}

    def __call__(self, item: DecodedItem) -> list[RoutedItem]:
        """Every writer gets every read, with no rows if need be, so that all checkpoints keep up."""
        if isinstance(item, PartitionEnd):
            return [(key, item) for key in self._writer_keys]
        if self._shared.conductor.drops_batches:
            return []
        try:
            return self._route(item)
        except Exception as error:  # noqa: BLE001  # process edge: whatever it is, the flow must end in order
            self._shared.conductor.fail(error)
            return []

    def _route(self, item: DecodedRead) -> list[RoutedItem]:
        """Key the rows of each view, and deal them out."""
        events, raw, clock = item.decoded.events, item.raw, self._shared.clock
        routed_ns = clock.monotonic_ns()
        partition = (item.views[0].source, events.topic, events.partition)
        watermark_ms = self._watermarks.setdefault(partition, PartitionWatermark()).advance(events.event_time_ms)
        letters: list[DeadLetter] = []
        shares: list[list[KeyedBatch]] = [[] for _ in self._writer_keys]
        for view in item.views:
            began_ns = clock.worked_ns()
            events = with_computed(events, [view])
            refused = refused_rows(events, view, watermark_ms)
            for refusal in refused:
                offset = int(events.offsets[refusal.row])
                payload = raw.payloads[int(raw.offsets.searchsorted(offset))]
                letters.append(
                    DeadLetter(
                        refusal.reason, refusal.detail, raw.topic, raw.partition, offset, payload, view=view.name
                    )
                )
            keyed = key_events(events, view, self._lane_count, refused)
            for share, part in zip(shares, split_by_writer(keyed, len(shares)), strict=True):
                share.append(part)
            self._shared.progress.worked(view.name, "key", clock.worked_ns() - began_ns)
        if letters:
            letters.sort(key=lambda letter: letter.offset)
            write_letters(self._dead_letters, letters, self._shared)
        self._shared.progress.passed("key", clock.monotonic_ns() - routed_ns)
        return [(key, WriterBatch(tuple(share))) for key, share in zip(self._writer_keys, shares, strict=True)]


def _by_source(stage: Stage, contracts: Contracts) -> dict[tuple[SourceSpec, Memory], list[Generation]]:
    """The stage's generations by the schema they are read with, and by what they may remember together."""
    grouped: dict[tuple[SourceSpec, Memory], list[Generation]] = {}
    for generation in stage.generations:
        key = contracts.source_of(generation.view), stage.recalls.memory_of(generation)
        grouped.setdefault(key, []).append(generation)
    return grouped
