"""Envelopes of Avro, by the schemas of a registry; rows are fields of the same record, read where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from featurestore.core.events import BlobRow, ColumnValues
from featurestore.core.spec import SourceSpec, ValueType
from featurestore.wire.formats.avro.reader import AvroReader
from featurestore.wire.formats.columns import Schemas, WantedColumn
from featurestore.wire.formats.debezium.envelope import AFTER, BEFORE, POSITION_FIELDS, Collected, Envelopes


class AvroEnvelopes:
    """Reads one envelope a payload.

    Args:
        source: of changes. Its row id is in every row, so a row without it is none.
        schemas: of the registry.
    """

    def __init__(self, source: SourceSpec, schemas: Schemas) -> None:
        row_id = source.column(source.row_id_column or "")
        assert row_id is not None, "a source of changes has the id of a row"
        field = dict(source.renamed).get(row_id.name, row_id.name)
        wanted = [WantedColumn("op", ValueType.STRING, "op")]
        wanted += [WantedColumn(name, kind, f"source.{name}") for name, kind in POSITION_FIELDS.items()]
        wanted += [WantedColumn(side, row_id.type, f"{side}.{field}") for side in (BEFORE, AFTER)]
        self._reader = AvroReader(wanted, schemas)

    def read(self, payloads: Sequence[bytes]) -> Envelopes:
        """See EnvelopeReader; a payload without a value is a tombstone, and says nothing."""
        collected = Collected(len(payloads))
        there = [number for number, payload in enumerate(payloads) if payload]
        read = self._reader.read([payloads[number] for number in there])
        for row, detail in read.refused.items():
            collected.refuse(there[row], detail)
        columns = {name: _values(column) for name, column in read.columns.items()}
        befores, afters = columns[BEFORE], columns[AFTER]
        for at, row in enumerate(read.rows.tolist()):
            if row in read.refused:
                continue
            op = columns["op"][at]
            assert op is None or isinstance(op, str), "it is read as a text"
            has_before, has_after = befores[at] is not None, afters[at] is not None
            collected.take(there[row], op, partial(_value, columns, at), has_before=has_before, has_after=has_after)
        return collected.envelopes(payloads, payloads)


def _value(columns: Mapping[str, Sequence[object]], at: int, name: str) -> object:
    """A row's value of a column."""
    return columns[name][at]


def _values(column: ColumnValues) -> list[object]:
    """The values of a column, texts as str; None for null."""
    values: list[object]
    if isinstance(column.values, BlobRow) or column.values.dtype == np.object_:
        values = [text.decode(errors="backslashreplace") for text in BlobRow.of(column.values).values()]
    else:
        values = column.values.tolist()
    if column.valid is None:
        return values
    return [value if is_there else None for value, is_there in zip(values, column.valid.tolist(), strict=True)]
