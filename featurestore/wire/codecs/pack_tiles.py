"""Whole packs as tiles: what compaction and bootstrap read and write; `pack` has the bytes, `body` reads one member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.core.events import Int64Array
from featurestore.core.tiles.tiles import TileTable, concatenate
from featurestore.core.view import CompiledView
from featurestore.errors import CorruptTile, InvariantBroken
from featurestore.wire.codecs.body import check_whole, decode_body, encode_body
from featurestore.wire.codecs.head import head_codec
from featurestore.wire.codecs.pack import MEMBERS_MAX, TILES_MAX, read_directory, read_records, write_body


@dataclass(frozen=True, slots=True)
class Pack:
    """Some entities and their events.

    Attributes:
        keys: distinct entity keys.
        tiles: T tiles of single events, in any order.
        owners: (T,) index into `keys` of each.
    """

    keys: Sequence[bytes]
    tiles: TileTable
    owners: Int64Array


def decode_pack(view: CompiledView, body: bytes | None, head: bytes | None) -> Pack:
    """All members of a pack, those of its body first.

    Raises:
        TileLost: body or head is missing that the other one knows of.
        CorruptTile: the bytes are not as they were written.
        UnknownTileVersion: the body was written by another release.
    """
    codec, tables, owners = head_codec(view), [view.layout.empty()], [np.empty(0, dtype=np.int64)]
    directory = read_directory(body) if body else None
    records = read_records(head, codec) if head else None
    check_whole(
        None if directory is None else directory.is_beside_head,
        has_head=records is not None,
        is_beside_body=records is not None and records.is_beside_body,
    )
    numbers: dict[bytes, int] = {}
    if directory is not None:
        numbers = {key: number for number, key in enumerate(directory.keys)}
        table = decode_body(view.layout, directory.tiles, is_checked=True)
        if table.count != len(directory.owners):
            raise CorruptTile("a pack does not have the tiles that it names the members of")
        tables.append(table)
        owners.append(directory.owners)
    if records is not None:
        of_record = [numbers.setdefault(key, len(numbers)) for key in records.keys]
        tables.append(view.layout.lift(codec.decode(records.rows)))
        owners.append(np.repeat(np.array(of_record, dtype=np.int64), records.row_counts))
    return Pack(list(numbers), concatenate(tables), np.concatenate(owners))


def encode_pack(pack: Pack) -> bytes:
    """The body of a pack, each of whose members has tiles; empty where there is none.

    Args:
        pack: at most MEMBERS_MAX keys and TILES_MAX tiles, which are ascending by start and normalized.

    Raises:
        InvariantBroken: it has more.
    """
    if not pack.keys:
        return b""
    if len(pack.keys) > MEMBERS_MAX or pack.tiles.count > TILES_MAX:
        raise InvariantBroken(f"a pack has {len(pack.keys)} members and {pack.tiles.count} tiles")
    return write_body(pack.keys, pack.owners, encode_body(pack.tiles))
