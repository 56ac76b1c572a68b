"""A table that somebody else keeps, at one version: columns, rows, and what is known without reading them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from featurestore.errors import Unavailable

POSITION_COLUMNS = ("topic", "partition", "offset")
"""Columns of a table of a topic's records that say where each of them is in the stream."""

DELTA_LOG = "_delta_log"
"""Directory that makes another one a Delta table."""

CATALOG_SCHEME = "iceberg://"
METADATA_DIRECTORY, METADATA_SUFFIX, VERSION_HINT = "metadata", ".metadata.json", "version-hint.text"
"""What an Iceberg table's address has, or its directory."""

BATCHES_AHEAD = 2
"""Batches that are read while others are worked on; Arrow's default of sixteen would hold gigabytes."""

_US_PER_MS = 1_000


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """Values of one column that a scan wants, both ends included, as the column's integers."""

    column: str
    first: int
    last: int


class ForeignTable(ABC):
    """One version of a table. Its rows come in the order of its files' paths.

    Attributes:
        uri: its address, for people.
        table_id: which another table at the same place does not have.
        version: with it, the same rows can be read again.
        schema: its columns.
    """

    kind: str
    uri: str
    table_id: str
    version: int
    schema: pa.Schema

    @abstractmethod
    def to_batches(self, *, columns: Sequence[str], span: TimeSpan | None = None) -> Iterator[pa.RecordBatch]:
        """The rows' columns in that order; with a span, at least the rows within it.

        Raises:
            Unavailable: a file is gone, damaged or cannot be reached.
        """

    @abstractmethod
    def count_rows(self) -> int:
        """About how many rows there are, cheaply."""

    @abstractmethod
    def for_engine(self) -> pads.Dataset | pa.Table:
        """All rows as something that another engine can read more than once."""

    def to_table(self, *, columns: Sequence[str]) -> pa.Table:
        """All rows' columns, in memory."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        return pa.Table.from_batches(self.to_batches(columns=columns), schema)

    @property
    def what(self) -> str:
        """Names it in messages."""
        return f'{self.kind} table "{self.uri}"'

    @property
    def positions(self) -> tuple[str, ...]:
        """Those of POSITION_COLUMNS that it has, in that order; none unless each row has a partition and an offset."""
        names = self.schema.names
        if not all(
            name in names and pa.types.is_integer(self.schema.field(name).type) for name in ("partition", "offset")
        ):
            return ()
        return tuple(name for name in POSITION_COLUMNS if name in names)

    def span_of(self, column: str, from_ms: int, to_ms: int, *, are_integers_ms: bool) -> TimeSpan | None:
        """Event times [from_ms, to_ms) as a column's values; None where they cannot be told by them.

        Args:
            column: with the event times.
            from_ms: first one wanted.
            to_ms: first one not wanted any more.
            are_integers_ms: integers are known to be milliseconds.
        """
        kind = self.schema.field(column).type
        if pa.types.is_timestamp(kind) and kind.unit == "us":
            # A millisecond more: writers may cut the smallest and largest value of a file to whole milliseconds.
            return TimeSpan(column, (from_ms - 1) * _US_PER_MS, (to_ms + 1) * _US_PER_MS)
        if pa.types.is_int64(kind) and are_integers_ms:
            return TimeSpan(column, from_ms, to_ms - 1)
        return None


def stream(
    dataset: pads.Dataset, columns: Sequence[str], condition: pc.Expression | None = None
) -> Iterator[pa.RecordBatch]:
    """A dataset's rows in order, a few batches in memory at a time."""
    # Buffering ahead, as Arrow does unless told otherwise, keeps the bytes of a whole file in memory.
    is_parquet = isinstance(getattr(dataset, "format", None), pads.ParquetFileFormat)
    options = pads.ParquetFragmentScanOptions(pre_buffer=False) if is_parquet else None
    yield from dataset.to_batches(
        columns=list(columns),
        filter=condition,
        batch_readahead=BATCHES_AHEAD,
        fragment_readahead=1,
        fragment_scan_options=options,
    )


@contextmanager
def reading(table: ForeignTable) -> Iterator[None]:
    """Map what Arrow says of files that are damaged, gone or out of reach."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        is_gone = isinstance(error, FileNotFoundError)
        raise Unavailable(
            f"{table.what} has lost a file of version {table.version}" if is_gone else f"{table.what} cannot be read",
            detail=str(error),
            hint="begin anew with its newest version; who keeps it must not delete what is younger than a run takes"
            if is_gone
            else "",
        ) from error
