"""Sketches as Parquet: a row for each feature and hour, some hundred bytes to some kilobytes.

    view  feature  type  hour_ms  rows  missing  not_found  ints  floats  blobs

Beside a file of the feature log lie its own, `statistics/service=.../part-...parquet`, made when they are first asked
for; a file that was written anew, because something was erased, gets new ones. A baseline is one such file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.core.events import BlobRow
from featurestore.core.spec import ValueType
from featurestore.errors import CorruptData
from featurestore.offline.health.sketches import HOUR_MS, FeatureKey, Sketches, layout_of, merge
from featurestore.offline.parity.log_directory import LogDirectory

Profile = Mapping[FeatureKey, Sketches]
"""What is known of the values of some features."""

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("view", "feature", "type")),
        *((name, pa.int64()) for name in ("hour_ms", "hours", "rows", "missing", "not_found")),
        ("ints", pa.list_(pa.int64())),
        ("floats", pa.list_(pa.float64())),
        ("blobs", pa.list_(pa.binary())),
    ]
)

FORMAT = "1"
"""Of the file and of the sketches in it; files of another format are made anew."""

_FORMAT_KEY = b"featurestore.statistics"


def merged(profiles: Iterable[Profile]) -> dict[FeatureKey, Sketches]:
    """All that is known of every feature, together."""
    found = dict[FeatureKey, list[Sketches]]()
    for profile in profiles:
        for key, sketches in profile.items():
            if len(sketches.rows):
                found.setdefault(key, []).append(sketches)
    return {key: merge(several) for key, several in found.items()}


def write_profile(directory: LogDirectory, path: str, profile: Profile, about: Mapping[str, str]) -> None:
    """Make a file, or put another one in the place of it.

    Args:
        directory: where.
        path: of the file within.
        profile: what it holds.
        about: texts that are kept with it.

    Raises:
        OSError, Unavailable: it cannot be written; what is there under its name stays.
    """
    metadata = {_FORMAT_KEY.decode(): FORMAT, **about}
    table = encode_profile(profile).replace_schema_metadata(metadata)
    with directory.new_file(path) as stream, pq.ParquetWriter(stream, table.schema, compression="zstd") as writer:
        writer.write_table(table)


def read_profile(directory: LogDirectory, path: str) -> tuple[dict[FeatureKey, Sketches], dict[str, str]] | None:
    """What `write_profile` made, and what was kept with it; None where there is no file, or one of another format.

    Raises:
        CorruptData: it is no such file.
        Unavailable: the file system does not answer.
    """
    if not directory.identity(path):
        return None
    try:
        with directory.open(path) as source:
            table = pq.ParquetFile(source).read()
        about = {name.decode(): text.decode() for name, text in (table.schema.metadata or {}).items()}
        if about.get(_FORMAT_KEY.decode()) != FORMAT:
            return None
        return decode_profile(table.cast(SCHEMA)), about
    except (OSError, ValueError, KeyError) as error:
        raise CorruptData(f'"{path}" holds no statistics', detail=str(error)) from error


def digest_of(profile: Profile) -> str:
    """16 hex digits, equal for equal sketches."""
    digest = hashlib.blake2b(digest_size=8)
    for row in encode_profile(profile).to_pylist():
        digest.update(repr(row).encode())
    return digest.hexdigest()


def encode_profile(profile: Profile) -> pa.Table:
    """A row for each feature and hour, in the order of their names."""
    rows = []
    for key, one in sorted(profile.items(), key=lambda item: (item[0].view, item[0].feature, item[0].type)):
        table = one.table
        blobs = [table.blobs.row(field).values() for field in range(len(table.layout.blob_fields))]
        for at in range(table.count):
            begin_ms, end_ms = int(table.start_ms[at]), int(table.end_ms[at])
            counts = [int(of[at]) for of in (one.rows, one.missing, one.not_found)]
            values = (table.ints[:, at].tolist(), table.floats[:, at].tolist(), [of[at] for of in blobs])
            hours = (end_ms - begin_ms) // HOUR_MS
            rows.append((key.view, key.feature, str(key.type), begin_ms, hours, *counts, *values))
    columns = [[row[place] for row in rows] for place in range(len(SCHEMA))]
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def decode_profile(table: pa.Table) -> dict[FeatureKey, Sketches]:
    """What `encode_profile` made.

    Raises:
        ValueError, KeyError: it did not make that.
    """
    by_key = dict[FeatureKey, list[dict[str, object]]]()
    for row in table.to_pylist():
        by_key.setdefault(FeatureKey(row["view"], row["feature"], ValueType(row["type"])), []).append(row)
    return {key: _decoded(key, rows) for key, rows in by_key.items()}


def _decoded(key: FeatureKey, rows: list[dict[str, object]]) -> Sketches:
    """The hours of one feature."""
    layout = layout_of(key.kind)
    columns = {name: [row[name] for row in rows] for name in SCHEMA.names}
    start_ms, hours, counted, missing, not_found = (
        np.array(columns[name], dtype=np.int64) for name in ("hour_ms", "hours", "rows", "missing", "not_found")
    )
    ints = np.array(columns["ints"], dtype=np.int64).reshape(len(rows), len(layout.int_fields)).T
    floats = np.array(columns["floats"], dtype=np.float64).reshape(len(rows), len(layout.float_fields)).T
    of_fields = zip(*columns["blobs"], strict=True)
    blobs = {field: BlobRow.of(list(values)) for field, values in enumerate(of_fields)}
    if len(blobs) != len(layout.blob_fields):
        raise ValueError(f"{key.view}:{key.feature} has {len(blobs)} states")
    table = layout.empty()
    return Sketches(
        key.kind,
        counted,
        missing,
        not_found,
        type(table)(
            layout,
            start_ms,
            start_ms + hours * HOUR_MS,
            np.ascontiguousarray(ints),
            np.ascontiguousarray(floats),
            layout.blobs_of(blobs, len(rows)),
        ),
    )
