"""A Delta table that somebody else keeps: the files of one version, and nothing that was removed from it.

Files are read by Arrow. What would make that wrong (rows that only a deletion vector takes out, columns that have other
names in the files) is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, DeltaProtocolError

from featurestore.errors import InvalidRequest, Unavailable
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.failures import told
from featurestore.offline.event_log.table import FILE_FEATURES, open_version
from featurestore.offline.foreign_tables.table import ForeignTable, TimeSpan, reading, stream

_READER_VERSION_MAX = 3
_READER_FEATURES = FILE_FEATURES | {"deletionVectors", "columnMapping"}
"""Features of a table with which its files can be its rows; of these two it is looked at whether they are used."""

_MAPPING_PROPERTY = "delta.columnMapping.mode"


@dataclass(frozen=True, slots=True)
class DeltaFile:
    """One data file.

    Attributes:
        path: within the table.
        rows: how many; None where the table does not say.
        partition: values of the columns that the file itself does not hold, by name.
    """

    path: str
    rows: int | None
    partition: dict[str, object]


class DeltaRows(ForeignTable):
    """One version of a Delta table.

    Args:
        uri: its directory, or a URI (see event_log/address.py).
        version: of the table; None: its newest.

    Raises:
        InvalidRequest: it has no such version, or something that is not read here; the message has the remedy.
        Unavailable: it cannot be reached.
    """

    kind = "Delta"

    def __init__(self, uri: str, version: int | None = None) -> None:
        self._place = place_of(uri)
        self.uri = self._place.uri
        with self._delta_errors():
            delta = open_version(self._place, version, self.what)
            self.version = delta.version()
            self.table_id = str(delta.metadata().id)
            self.schema = pa.schema(delta.schema())
            self.partition_columns = tuple(delta.metadata().partition_columns)
            _check_readable(delta, self.what)
            actions = pa.table(delta.get_add_actions(flatten=True))
        self._actions = actions.take(pc.sort_indices(actions["path"]))

    @cached_property
    def files(self) -> tuple[DeltaFile, ...]:
        """Its data files, by path."""
        partitions = {name: self._actions[f"partition.{name}"].to_pylist() for name in self.partition_columns}
        paths, rows = self._actions["path"].to_pylist(), self._actions["num_records"].to_pylist()
        return tuple(
            DeltaFile(unquote(path), count, {name: values[number] for name, values in partitions.items()})
            for number, (path, count) in enumerate(zip(paths, rows, strict=True))
        )

    def to_batches(self, *, columns: Sequence[str], span: TimeSpan | None = None) -> Iterator[pa.RecordBatch]:
        """See `ForeignTable`."""
        condition, dataset = None, self._dataset(self._files_within(span))
        if span is not None:
            kind = self.schema.field(span.column).type
            first, last = (pa.scalar(value, pa.int64()).cast(kind) for value in (span.first, span.last))
            condition = (pc.field(span.column) >= first) & (pc.field(span.column) <= last)
        with reading(self):
            yield from stream(dataset, columns, condition)

    def count_rows(self) -> int:
        """Exact."""
        if all(file.rows is not None for file in self.files):
            return sum(file.rows or 0 for file in self.files)
        with reading(self):
            return int(self._dataset(self.files).count_rows())

    def for_engine(self) -> pads.Dataset:
        """See `ForeignTable`."""
        return self._dataset(self.files)

    def _dataset(self, files: Sequence[DeltaFile]) -> pads.FileSystemDataset:
        """The rows of some files."""
        kind = pads.ParquetFileFormat()
        fragments = [
            kind.make_fragment(file.path, self._place.files, partition_expression=self._partition_of(file))
            for file in files
        ]
        return pads.FileSystemDataset(fragments, self.schema, kind, self._place.files)

    def _partition_of(self, file: DeltaFile) -> pc.Expression | None:
        """What all rows of a file have in common, from which Arrow fills the columns that it does not hold."""
        found: pc.Expression | None = None
        for name, value in file.partition.items():
            field = pc.field(name)
            one = field.is_null() if value is None else field == pa.scalar(value, self.schema.field(name).type)
            found = one if found is None else found & one
        return found

    def _files_within(self, span: TimeSpan | None) -> list[DeltaFile]:
        """The files that can have rows within a span, by the smallest and largest values that the table knows."""
        names = () if span is None else (f"min.{span.column}", f"max.{span.column}")
        if span is None or not all(name in self._actions.column_names for name in names):
            return list(self.files)
        least, most = (self._actions[name].cast(pa.int64()) for name in names)
        may_have = pc.and_kleene(pc.less_equal(least, span.last), pc.greater_equal(most, span.first))
        return [self.files[number] for number in np.flatnonzero(pc.fill_null(may_have, True).to_numpy()).tolist()]

    @contextmanager
    def _delta_errors(self) -> Iterator[None]:
        """Map what delta-rs raises."""
        try:
            yield
        except DeltaProtocolError as error:
            raise InvalidRequest(f"{self.what} cannot be used by this release", detail=told(error)) from error
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise Unavailable(
                f"{self.what} cannot be read", detail=told(error), hint="check address, credentials and the table"
            ) from error


def _check_readable(delta: DeltaTable, what: str) -> None:
    """Its files alone must tell its rows.

    Raises:
        InvalidRequest: they do not.
    """
    protocol = delta.protocol()
    features = frozenset(protocol.reader_features or ())
    unknown = sorted(features - _READER_FEATURES)
    if unknown or protocol.min_reader_version > _READER_VERSION_MAX:
        raise InvalidRequest(
            f"{what} uses {', '.join(unknown) or f'reader version {protocol.min_reader_version}'}",
            detail="Its files alone do not tell its rows.",
            hint="switch it off for the table, or give the rows as Parquet files",
        )
    # Tables of reader version 2 have column mapping without naming it as a feature.
    if delta.metadata().configuration.get(_MAPPING_PROPERTY, "none") != "none":
        raise InvalidRequest(
            f"{what} uses column mapping",
            detail="Its files have other names for its columns.",
            hint="copy it into a table without delta.columnMapping.mode, or give the rows as Parquet files",
        )
    if "deletionVectors" in features and any(batch.num_rows for batch in delta.deletion_vectors()):
        raise InvalidRequest(
            f"{what} uses deletion vectors",
            detail="Its files still have rows that were deleted from it.",
            hint="run `REORG TABLE ... APPLY (PURGE)` on it, and set delta.enableDeletionVectors = false",
        )
