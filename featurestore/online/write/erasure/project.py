"""Erase somebody from the whole online store of a project: all generations of all views, and plain views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from featurestore.clock import NS_PER_MS, Clock
from featurestore.core.spec import PlainViewSpec
from featurestore.errors import Unavailable
from featurestore.online.generation import Generation
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.store import OnlineStore
from featurestore.online.write.erasure.book import ErasureBook, join_key_names
from featurestore.online.write.erasure.eraser import GenerationEraser, NewerEvents, ReachOfValue
from featurestore.wire.codecs.plain_row import decode_values
from featurestore.wire.entity_key import lane_of, split_key
from featurestore.wire.erasures import NOTHING_ERASED_MS, ErasedKeys, Erasure
from featurestore.wire.store_layout import is_of_project, plain_key, plain_pattern

ROUNDS = 20
"""Of an erasure that reaches further each time, as events of the entity go on coming in between."""


@dataclass(frozen=True, slots=True)
class ErasedView:
    """What was erased, or found, of one generation, or of a plain view.

    Attributes:
        view: its name.
        generation: number; 0 of a plain view.
        entities: how many had something.
        uncut: how many are left as they are, as a tile of theirs spans the moment.
    """

    view: str
    generation: int
    entities: int
    uncut: int = 0


@dataclass(frozen=True, slots=True)
class StoreErasure:
    """What was done in the store.

    Attributes:
        record: that writers read from now on.
        views: each generation that has the join key, and each plain view.
    """

    record: Erasure
    views: tuple[ErasedView, ...]


class StoreEraser:
    """Erases a value of a join key from a project's online store.

    Args:
        store: the online store.
        project: Feast project.
        plain_views: those that are registered.
        join_key: name of the join key.
        value: canonical bytes.
        clock: says what has happened.
        say: told what is being done.
    """

    def __init__(
        self,
        store: OnlineStore,
        project: str,
        plain_views: Sequence[PlainViewSpec],
        join_key: str,
        value: bytes,
        clock: Clock,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._store = store
        self._project = project
        self._plain_views = plain_views
        self._join_key = join_key
        self._value = value
        self._clock = clock
        self._say = say
        self._book = ErasureBook(store, project)
        self._lane_count = GenerationCatalog(store, project).lane_count()

    def erase(self) -> StoreErasure:
        """Delete all that happened until now; done again, it deletes what happened since.

        Events that come in while it runs make it reach further, so that what it deletes is all older than the record
        says, and what is not is all there.

        Raises:
            Unavailable: they come too fast; run it again.
            CorruptTile, OnlineStoreDown: see `GenerationEraser.erase`.
        """
        before_ms, counts = NOTHING_ERASED_MS, dict[tuple[str, int], int]()
        took_ms = 0
        for _ in range(ROUNDS):
            began_ns = self._clock.monotonic_ns()
            # Behind the present by what a round takes: so its events of meanwhile are erased with it.
            wanted_ms = max(before_ms, self._clock.now_ms() + 1 + 2 * took_ms)
            # The record first: whoever begins a generation from now on reads it.
            record = self._book.add(self._join_key, self._value, before_ms=wanted_ms, now_ms=self._clock.now_ms())
            try:
                for one in self._round(record.before_ms, keeps_newer=False):
                    place = (one.view, one.generation)
                    counts[place] = counts.get(place, 0) + one.entities
            except NewerEvents as newer:
                before_ms = newer.newest_ms + 1
                took_ms = (self._clock.monotonic_ns() - began_ns) // NS_PER_MS
                continue
            views = tuple(ErasedView(name, number, erased) for (name, number), erased in sorted(counts.items()))
            return StoreErasure(record, views)
        raise Unavailable(
            f'events of this "{self._join_key}" come in faster than they are erased',
            hint="stop whoever sends them, and run the same command again",
        )

    def erase_before(self, before_ms: int) -> StoreErasure:
        """Delete what happened before a moment, or before that of an earlier erasure which reaches further.

        Args:
            before_ms: not ahead of the clock.

        Raises:
            CorruptTile, OnlineStoreDown: see `GenerationEraser.erase`.
        """
        record = self._book.add(self._join_key, self._value, before_ms=before_ms, now_ms=self._clock.now_ms())
        return StoreErasure(record, tuple(sorted(self._round(record.before_ms, keeps_newer=True), key=_place)))

    def remaining(self, before_ms: int) -> list[ErasedView]:
        """Where entities of the value have anything of before a moment."""
        found = []
        for generation in self._generations():
            count = len(self._eraser(generation, before_ms).entities())
            found.append(ErasedView(generation.view.name, generation.number, count))
        found += [ErasedView(view.name, 0, len(self._plain_keys(view))) for view in self._plain()]
        return [one for one in found if one.entities]

    def _round(self, before_ms: int, *, keeps_newer: bool) -> Iterator[ErasedView]:
        """All generations, and all plain views."""
        for generation in self._generations():
            name, number = generation.view.name, generation.number
            self._say(f"{name}@{number}")
            eraser = self._eraser(generation, before_ms, keeps_newer=keeps_newer)
            erased = eraser.erase()
            yield ErasedView(name, number, erased, eraser.uncut)
            GenerationCatalog(self._store, self._project).forget_damaged(generation, eraser.fingerprints)
        for view in self._plain():
            self._say(view.name)
            keys = self._plain_keys(view)
            if keeps_newer:
                keys = _older(self._store, dict.fromkeys(keys, before_ms))
            yield ErasedView(view.name, 0, self._store.delete(keys))

    def _generations(self) -> list[Generation]:
        """All that have the join key, whatever state they are in."""
        known = GenerationCatalog(self._store, self._project).all()
        return [one for _, ones in sorted(known.items()) for one in ones if self._join_key in join_key_names(one)]

    def _plain(self) -> list[PlainViewSpec]:
        return [view for view in self._plain_views if self._join_key in [key.name for key in view.join_keys]]

    def _plain_keys(self, view: PlainViewSpec) -> list[bytes]:
        """Keys of a plain view that are the value's."""
        names = [key.name for key in view.join_keys]
        if len(names) == 1:
            key = plain_key(self._project, lane_of(self._value, self._lane_count), view.name, self._value)
            return [key] if self._store.read_groups([[key]])[0] is not None else []
        part = names.index(self._join_key)
        entities = _entities(self._store, self._project, view)
        return [key for key, entity in entities if split_key(entity, len(names))[part] == self._value]

    def _eraser(self, generation: Generation, before_ms: int, *, keeps_newer: bool = False) -> GenerationEraser:
        said = _Counting(self._say, f"{generation.view.name}@{generation.number}")
        return GenerationEraser(
            self._store,
            generation,
            self._lane_count,
            ReachOfValue(generation, self._join_key, self._value, before_ms),
            self._clock,
            said.add,
            keeps_newer=keeps_newer,
        )


def erase_again(
    store: OnlineStore,
    project: str,
    plain_views: Sequence[PlainViewSpec],
    clock: Clock,
    say: Callable[[str], None] = lambda line: None,
) -> list[ErasedView]:
    """Delete all that the records say is erased, whoever brought it back: as after a restore from a copy.

    Nobody's value is known, so all keys are gone through.

    Args:
        store: the online store, whose records are complete.
        project: Feast project.
        plain_views: those that are registered.
        clock: to wait, and for expiry.
        say: told what is being done.

    Raises:
        CorruptTile, OnlineStoreDown: see `GenerationEraser.erase`.
    """
    catalog, records, done = GenerationCatalog(store, project), ErasureBook(store, project).all(), list[ErasedView]()
    for generation in [one for _, ones in sorted(catalog.all().items()) for one in ones]:
        if erased := ErasedKeys(records, join_key_names(generation)):
            name, number = generation.view.name, generation.number
            told = _Counting(say, f"{name}@{number}").add
            eraser = GenerationEraser(store, generation, catalog.lane_count(), erased, clock, told, keeps_newer=True)
            done.append(ErasedView(name, number, eraser.erase(), eraser.uncut))
            catalog.forget_damaged(generation, eraser.fingerprints)
    for view in plain_views:
        if erased := ErasedKeys(records, [key.name for key in view.join_keys]):
            before = {key: erased.before_ms(entity) for key, entity in _entities(store, project, view)}
            found = {key: before_ms for key, before_ms in before.items() if before_ms > NOTHING_ERASED_MS}
            done.append(ErasedView(view.name, 0, store.delete(_older(store, found))))
    return done


def _entities(store: OnlineStore, project: str, view: PlainViewSpec) -> Iterator[tuple[bytes, bytes]]:
    """All keys of a plain view, and whose they are."""
    prefix = f"{view.name}/p/".encode()
    for key in store.scan(plain_pattern(project, view.name)):
        _, _, rest = key.partition(b"}")
        if is_of_project(project, key) and rest.startswith(prefix):
            yield key, rest.removeprefix(prefix)


def _older(store: OnlineStore, before_ms: Mapping[bytes, int]) -> list[bytes]:
    """Keys of plain views whose values are older than a moment of theirs."""
    rows = zip(before_ms, store.read_groups([[key] for key in before_ms]), strict=True)
    return [key for key, stored in rows if stored and decode_values(stored).event_time_ms < before_ms[key]]


def _place(one: ErasedView) -> tuple[str, int]:
    """View and generation."""
    return one.view, one.generation


class _Counting:
    """Says now and then how many keys were gone through."""

    def __init__(self, say: Callable[[str], None], name: str) -> None:
        self._say, self._name = say, name
        self._keys = 0

    def add(self, keys: int) -> None:
        """So many more."""
        self._keys += keys
        if self._keys % 1_000_000 == 0:
            self._say(f"{self._name}: {self._keys:,} keys gone through")
