"""Read what a request needs in one round trip: heads, bodies, checkpoints and plain values together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from featurestore.core.spec import PlainViewSpec
from featurestore.online.generation import Generation
from featurestore.online.store import OnlineStore
from featurestore.wire.codecs.pack import member_of
from featurestore.wire.entity_key import lane_of, pack_of
from featurestore.wire.store_layout import plain_key


class EntityRead(NamedTuple):
    """An entity key of a stream view."""

    generation: Generation
    key: bytes


class EntityBytes(NamedTuple):
    """What the store holds of it, read in one atomic step; None where nothing is.

    Attributes:
        body: rolled-up tiles; or, of an entity without keys of its own, what there is of its pack.
        head: recent events.
        checkpoint: checkpoint of its lane, when it was asked for.
    """

    body: bytes | None
    head: bytes | None
    checkpoint: bytes | None


class PlainRead(NamedTuple):
    """An entity key of a plain view."""

    project: str
    view: PlainViewSpec
    key: bytes


class PlainBytes(NamedTuple):
    """What the store holds of it; None where nothing is."""

    value: bytes | None


class Reader:
    """Reads entities of one project.

    Args:
        store: the online store.
        lane_count: the store's number of lanes (`GenerationCatalog.lane_count`).
    """

    def __init__(self, store: OnlineStore, lane_count: int) -> None:
        self._store = store
        self._lane_count = lane_count

    def read(
        self,
        wanted: Sequence[EntityRead | PlainRead],
        *,
        with_checkpoint: bool = False,
    ) -> list[EntityBytes | PlainBytes]:
        """All of `wanted`, in its order, in one round trip (one for each node of a cluster).

        Raises:
            OnlineStoreDown: the store does not answer.
        """
        values = self._store.read_groups(self.groups(wanted, with_checkpoint=with_checkpoint))
        return self.found(wanted, values, with_checkpoint=with_checkpoint)

    def in_same_lanes(
        self, more: Sequence[EntityRead | PlainRead], wanted: Iterable[EntityRead | PlainRead]
    ) -> list[EntityRead | PlainRead]:
        """Those of some more reads that are in the lanes of `wanted`: where these are asked, so are they."""
        lanes = {lane_of(read.key, self._lane_count) for read in wanted}
        return [read for read in more if lane_of(read.key, self._lane_count) in lanes]

    def groups(self, wanted: Sequence[EntityRead | PlainRead], *, with_checkpoint: bool) -> list[tuple[bytes, ...]]:
        """The keys of all of `wanted`, for `OnlineStore.read_groups`."""
        return [self._keys(read, with_checkpoint) for read in wanted]

    def found(
        self, wanted: Sequence[EntityRead | PlainRead], values: Iterable[bytes | None], *, with_checkpoint: bool
    ) -> list[EntityBytes | PlainBytes]:
        """What the values under those keys stand for."""
        each = iter(values)
        return [
            PlainBytes(next(each))
            if isinstance(read, PlainRead)
            else _entity(read, each, with_checkpoint=with_checkpoint)
            for read in wanted
        ]

    def _keys(self, read: EntityRead | PlainRead, with_checkpoint: bool) -> tuple[bytes, ...]:
        """The keys of one read."""
        lane = lane_of(read.key, self._lane_count)
        if isinstance(read, PlainRead):
            return (plain_key(read.project, lane, read.view.name, read.key),)
        names: tuple[bytes, ...]
        keys, packs = read.generation.keys, read.generation.packs
        names = (keys.body_prefix(lane) + read.key, keys.head_prefix(lane) + read.key)
        if packs:
            name = b"%d" % pack_of(read.key, packs)
            names = (*names, keys.pack_body_prefix(lane) + name, keys.pack_head_prefix(lane) + name)
        return (*names, keys.checkpoint(lane)) if with_checkpoint else names


def _entity(read: EntityRead, values: Iterator[bytes | None], *, with_checkpoint: bool) -> EntityBytes:
    """What the next values stand for: an entity is in its pack, or has keys of its own."""
    body, head = next(values), next(values)
    if read.generation.packs:
        pack_body, pack_head = next(values), next(values)
        if body is None and head is None and (pack_body is not None or pack_head is not None):
            body = member_of(read.key, pack_body, pack_head)
    return EntityBytes(body, head, next(values) if with_checkpoint else None)
