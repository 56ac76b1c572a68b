"""An Iceberg table that somebody else keeps: the files of one snapshot, through pyiceberg.

    .../metadata/00003-....metadata.json     a metadata file
    s3://bucket/payments                     a table's directory: its version-hint.text, else its newest metadata file
    iceberg://CATALOG/namespace.table        a catalog that pyiceberg is configured with

Renamed columns, deleted rows (position deletes, deletion vectors) and partition values are pyiceberg's to read.
Memory: the wanted columns of one data file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.fs as pafs
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError, RESTError, ValidationError
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, GreaterThanOrEqual, LessThanOrEqual
from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow
from pyiceberg.table import DataScan, FileScanTask, StaticTable, Table

from featurestore.errors import FeatureStoreError, InvalidRequest, Unavailable, redacted
from featurestore.offline.event_log.address import TablePlace, below, place_of
from featurestore.offline.foreign_tables.table import (
    CATALOG_SCHEME,
    METADATA_DIRECTORY,
    METADATA_SUFFIX,
    VERSION_HINT,
    ForeignTable,
    TimeSpan,
    reading,
)

_NUMBER = re.compile(r"v?(\d+)(?:-.*)?")
_S3_PROPERTIES = {
    "AWS_REGION": "s3.region",
    "AWS_ENDPOINT_URL": "s3.endpoint",
    "AWS_ACCESS_KEY_ID": "s3.access-key-id",
    "AWS_SECRET_ACCESS_KEY": "s3.secret-access-key",
}
_SMALLER = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}


class IcebergRows(ForeignTable):
    """One snapshot of an Iceberg table.

    Args:
        uri: a metadata file, a table's directory or a catalog's table.
        version: id of the snapshot; None: the current one.

    Raises:
        InvalidRequest: there is no such table or snapshot, or it has something that is not read here.
        Unavailable: it cannot be reached.
    """

    kind = "Iceberg"

    def __init__(self, uri: str, version: int | None = None) -> None:
        self.uri = redacted(uri)
        with self._iceberg_errors():
            self._table = _catalog_table(uri) if uri.startswith(CATALOG_SCHEME) else _static_table(uri)
            snapshot = self._table.current_snapshot() if version is None else self._table.snapshot_by_id(version)
            if snapshot is None and version is not None:
                raise InvalidRequest(
                    f"{self.what} has no snapshot {version} any more", hint="begin anew with its current one"
                )
            self._snapshot_id = None if snapshot is None else snapshot.snapshot_id
            self.version = self._snapshot_id or 0
            self.table_id = str(self._table.metadata.table_uuid)
            stored = schema_to_pyarrow(self._scan(("*",), None).projection(), include_field_ids=False)
            self.schema = pa.schema([(one.name, _SMALLER.get(one.type, one.type)) for one in stored])
            self._rows = sum(task.file.record_count for task in self._scan(("*",), None).plan_files())

    def to_batches(self, *, columns: Sequence[str], span: TimeSpan | None = None) -> Iterator[pa.RecordBatch]:
        """See `ForeignTable`."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        with self._iceberg_errors(), reading(self):
            scan = self._scan(tuple(columns), span)
            tasks: list[FileScanTask] = sorted(scan.plan_files(), key=lambda task: task.file.file_path)
            rows = ArrowScan(scan.table_metadata, scan.io, scan.projection(), scan.row_filter)
            # One file at a time: a scan of all of them reads ahead as far as there are files.
            for task in tasks:
                for batch in rows.to_record_batches([task]):
                    yield batch.select(list(columns)).cast(schema)

    def count_rows(self) -> int:
        """Rows of the data files; those that are deleted are among them."""
        return self._rows

    def for_engine(self) -> pa.Table:
        """See `ForeignTable`."""
        return self.to_table(columns=self.schema.names)

    def _scan(self, columns: tuple[str, ...], span: TimeSpan | None) -> DataScan:
        wanted: BooleanExpression = AlwaysTrue()
        if span is not None:
            first = GreaterThanOrEqual(span.column, span.first)  # type: ignore[call-arg, arg-type]  # pydantic's own
            last = LessThanOrEqual(span.column, span.last)  # type: ignore[call-arg, arg-type]  # pydantic's own
            wanted = And(first, last)
        return self._table.scan(row_filter=wanted, selected_fields=columns, snapshot_id=self._snapshot_id)

    @contextmanager
    def _iceberg_errors(self) -> Iterator[None]:
        """Map what pyiceberg raises."""
        try:
            yield
        except FeatureStoreError:
            raise
        except (NoSuchTableError, NoSuchNamespaceError) as error:
            raise InvalidRequest(f"there is no {self.what}", detail=str(error)) from error
        except (RESTError, OSError) as error:
            raise Unavailable(
                f"{self.what} does not answer", detail=str(error), hint="check address and credentials"
            ) from error
        except (ValueError, NotImplementedError, ValidationError) as error:
            has_equality_deletes = "equality deletes" in str(error)
            raise InvalidRequest(
                f"{self.what} has equality deletes" if has_equality_deletes else f"{self.what} cannot be read",
                detail="Its data files still have rows that were deleted from it."
                if has_equality_deletes
                else str(error),
                hint="merge them into the data files: CALL system.rewrite_data_files(..., options => map("
                "'delete-file-threshold', '1'))"
                if has_equality_deletes
                else "",
            ) from error


def _catalog_table(uri: str) -> Table:
    """A table of one of pyiceberg's catalogs."""
    catalog, _, name = uri.removeprefix(CATALOG_SCHEME).partition("/")
    if not catalog or "." not in name:
        raise InvalidRequest(f'"{uri}" names no table of a catalog', hint="iceberg://CATALOG/namespace.table")
    return load_catalog(catalog).load_table(name)


def _static_table(uri: str) -> StaticTable:
    """A table by its metadata file, which is looked for where only the directory is given."""
    place = place_of(uri)
    address = place.address if place.address.endswith(METADATA_SUFFIX) else _newest_metadata(uri, place)
    given = {_S3_PROPERTIES[name]: value for name, value in place.options.items() if name in _S3_PROPERTIES}
    return StaticTable.from_metadata(address, given)


def _newest_metadata(uri: str, place: TablePlace) -> str:
    """Address of the metadata file of a table's directory."""
    found = place.files.get_file_info(pafs.FileSelector(METADATA_DIRECTORY))
    names = sorted(info.base_name for info in found if info.base_name.endswith(METADATA_SUFFIX))
    if any(info.base_name == VERSION_HINT for info in found):
        with place.files.open_input_stream(f"{METADATA_DIRECTORY}/{VERSION_HINT}") as stream:
            hint = stream.read().decode().strip()
        name = hint if hint.endswith(METADATA_SUFFIX) else f"{'v' * hint.isdecimal()}{hint}{METADATA_SUFFIX}"
    else:
        numbers = {name: int(match[1]) for name in names if (match := _NUMBER.fullmatch(name.partition(".")[0]))}
        newest = [name for name, number in numbers.items() if number == max(numbers.values())]
        if len(newest) != 1:
            raise InvalidRequest(
                f'the newest metadata file of Iceberg table "{redacted(uri)}" is not clear',
                detail=f"It could be {' or '.join(newest)}." if newest else "",
                hint="name a metadata file, or the table in its catalog: iceberg://CATALOG/namespace.table",
            )
        name = newest[0]
    return below(place.address, f"{METADATA_DIRECTORY}/{name}")
