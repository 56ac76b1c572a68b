"""Whole packs as tiles: what compaction and bootstrap read and write; `pack` has the bytes, `body` reads one member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.events import Int64Array
from featurestore.core.tiles.tiles import TileTable, concatenate
from featurestore.core.view import CompiledView
from featurestore.errors import CorruptTile, InvariantBroken
from featurestore.wire.codecs.body import check_whole, decode_body, encode_body, entity_codec
from featurestore.wire.codecs.head import head_codec
from featurestore.wire.codecs.pack import MEMBERS_MAX, TILES_MAX, read_directory, read_records, write_body


@dataclass(frozen=True, slots=True)
class Pack:
    """What the store holds of some entities.

    Attributes:
        keys: E distinct entity keys, those of the body first.
        tiles: T tiles of single events, of the body.
        owners: (T,) index into `keys` of each.
        rows: R head rows.
        row_owners: (R,) likewise.
    """

    keys: Sequence[bytes]
    tiles: TileTable
    owners: Int64Array
    rows: bytes
    row_owners: Int64Array


_NOTHING = np.empty(0, dtype=np.int64)


def decode_pack(view: CompiledView, body: bytes | None, head: bytes | None) -> Pack:
    """All members of a pack.

    Raises:
        TileLost: body or head is missing that the other one knows of.
        CorruptTile: the bytes are not as they were written.
        UnknownTileVersion: the body was written by another release.
    """
    directory = read_directory(body) if body else None
    records = read_records(head, head_codec(view)) if head else None
    check_whole(
        None if directory is None else directory.is_beside_head,
        has_head=records is not None,
        is_beside_body=records is not None and records.is_beside_body,
    )
    numbers, tiles, owners, rows, row_owners = dict[bytes, int](), view.layout.empty(), _NOTHING, b"", _NOTHING
    if directory is not None:
        numbers = {key: number for number, key in enumerate(directory.keys)}
        tiles, owners = decode_body(view.layout, directory.tiles, is_checked=True), directory.owners
        if tiles.count != len(owners):
            raise CorruptTile("a pack does not have the tiles that it names the members of")
    if records is not None:
        of_records = [numbers.setdefault(key, len(numbers)) for key in records.keys]
        rows, row_owners = records.rows, np.repeat(np.array(of_records, dtype=np.int64), records.row_counts)
    return Pack(list(numbers), tiles, owners, rows, row_owners)


def tiles_of(view: CompiledView, packs: Sequence[Pack]) -> tuple[TileTable, Int64Array]:
    """The tiles of P >= 1 packs, bodies and rows, and whose each is: all their keys counted through."""
    firsts = np.cumsum([0, *(len(pack.keys) for pack in packs[:-1])]).tolist()
    lifted = entity_codec(view).lift(b"".join(pack.rows for pack in packs))
    owners = [pack.owners + first for pack, first in zip(packs, firsts, strict=True)]
    owners += [pack.row_owners + first for pack, first in zip(packs, firsts, strict=True)]
    return concatenate([*(pack.tiles for pack in packs), lifted]), np.concatenate(owners)


def encode_pack(keys: Sequence[bytes], tiles: TileTable, owners: Int64Array) -> bytes:
    """The body of a pack, each of whose members has tiles; empty where there is none.

    Args:
        keys: at most MEMBERS_MAX entity keys.
        tiles: T tiles of single events, at most TILES_MAX, ascending by start and normalized.
        owners: (T,) index into `keys` of each.

    Raises:
        InvariantBroken: there are more.
    """
    if not keys:
        return b""
    if len(keys) > MEMBERS_MAX or tiles.count > TILES_MAX:
        raise InvariantBroken(f"a pack has {len(keys)} members and {tiles.count} tiles")
    return write_body(keys, owners, encode_body(tiles))
