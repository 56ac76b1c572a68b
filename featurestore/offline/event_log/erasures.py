"""The records of what was erased, beside an event log's table, and what they say of rows.

    LOG/_erasures/card_id.<digest>.json      see `wire.erasures`; no engine looks into a directory of this name

A record comes first, then another value of a property of the table, and then the rows are deleted. A writer's commit is
refused when a property was changed since it opened the table; so either its rows are there to be deleted, or it leaves
them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from featurestore.core.events import BoolArray
from featurestore.offline.disk import complete_file, make_directory
from featurestore.offline.event_log.address import TablePlace
from featurestore.offline.event_log.failures import table_errors
from featurestore.wire.entity_key import encode_value
from featurestore.wire.erasures import NOTHING_ERASED_MS, ErasedKeys, Erasure, decode_erasure, encode_erasure

DIRECTORY = "_erasures"

_MODE = 0o666
"""As the umask has it: there is no key in it."""


def read_erasures(place: TablePlace) -> list[Erasure]:
    """Every record of a log, by name.

    Raises:
        CorruptData: one does not decode.
        Unavailable: the file system does not answer.
    """
    with table_errors(place):
        found = place.files.get_file_info(pafs.FileSelector(DIRECTORY, allow_not_found=True))
        paths = sorted(info.path for info in found if info.base_name.endswith(".json"))
        records = []
        for path in paths:
            with place.files.open_input_stream(path) as stream:
                records.append(decode_erasure(stream.read()))
    return records


def keep_erasure(place: TablePlace, erasure: Erasure) -> None:
    """Write a record, durably, unless there is one that reaches as far.

    Raises:
        Unavailable: the file system does not answer.
    """
    if any(one.name == erasure.name and one.before_ms >= erasure.before_ms for one in read_erasures(place)):
        return
    path, data = f"{DIRECTORY}/{erasure.name}.json", encode_erasure(erasure)
    with table_errors(place):
        if place.directory is None:
            with place.files.open_output_stream(path) as stream:
                stream.write(data)
            return
        target = place.directory / path
        make_directory(target.parent, 0o777)
        with complete_file(target, _MODE) as unfinished:
            unfinished.write_bytes(data)


def unerased(rows: pa.Table, erasures: Sequence[Erasure]) -> pa.Table:
    """Rows of a log without those that were erased."""
    is_kept = _are_kept(rows, erasures)
    return rows if is_kept.all() else rows.filter(pa.array(is_kept))


def erased(rows: pa.Table, erasures: Sequence[Erasure]) -> pa.Table:
    """Those rows of a log that were."""
    return rows.filter(pa.array(~_are_kept(rows, erasures)))


def _are_kept(rows: pa.Table, erasures: Sequence[Erasure]) -> BoolArray:
    """(N,) which rows are not erased by any of their columns."""
    is_kept: BoolArray = np.ones(rows.num_rows, dtype=np.bool_)
    for name in dict.fromkeys(one.join_key for one in erasures if one.join_key in rows.column_names):
        is_kept &= _kept(rows, name, ErasedKeys(erasures, [name]))
    return is_kept


def _kept(rows: pa.Table, name: str, erased: ErasedKeys) -> BoolArray:
    """(N,) which rows are not erased by one of their columns; a null names nobody."""
    values = pa.chunked_array(rows.column(name)).combine_chunks().dictionary_encode()
    before = [
        NOTHING_ERASED_MS,
        *(erased.before_ms(encode_value(one)) for one in _values(values.dictionary.to_pylist())),
    ]
    index = values.indices.fill_null(-1).to_numpy(zero_copy_only=False) + 1
    is_kept: BoolArray = rows.column("event_time_ms").to_numpy() >= np.array(before, dtype=np.int64)[index]
    return is_kept


def _values(values: Iterable[object]) -> Iterable[str | int]:
    """Join-key values."""
    for value in values:
        assert isinstance(value, str | int), "join keys are STRING or INT64"
        yield value
