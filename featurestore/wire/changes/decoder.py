"""What decodes the records of a source: events, changes of a table's rows, or events that replace one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from featurestore.core.point_in_time.as_of_table import Tables
from featurestore.core.spec import REPLACE, SourceSpec
from featurestore.wire.changes.envelopes import ChangeDecoder
from featurestore.wire.changes.replacements import ReplacingDecoder
from featurestore.wire.changes.versions import Recall
from featurestore.wire.formats.columns import Schemas
from featurestore.wire.payloads import EventDecoder

Decoder: TypeAlias = EventDecoder | ChangeDecoder | ReplacingDecoder


def decoder_of(
    source: SourceSpec,
    columns: Iterable[str],
    schemas: Schemas | None = None,
    tables: Tables | None = None,
    recalls: Mapping[tuple[str, int], Recall] | None = None,
) -> Decoder:
    """What decodes the records of one topic of a source.

    Args:
        source: one of `SourceSpec.per_topic`.
        columns: names of the columns that views read.
        schemas: of the source's registry, where it has one.
        tables: that events are enriched from; `definitions.compile` refuses to enrich what changes.
        recalls: where events replace one another, how far each partition was read before.

    Raises:
        InvalidRequest: a column is not in the source's schema.
    """
    if source.changes == REPLACE:
        return ReplacingDecoder(source, columns, schemas, recalls)
    return ChangeDecoder(source, columns, schemas) if source.changes else EventDecoder(source, columns, schemas, tables)


def record_decoder_of(source: SourceSpec, columns: Iterable[str], schemas: Schemas | None = None) -> Decoder:
    """What decodes records each by itself, whatever came before them: what is in a record, and not what it replaces.

    Args:
        source: as of `decoder_of`.
        columns: of the records themselves.
        schemas: as of `decoder_of`.
    """
    is_replacing = source.changes == REPLACE
    return decoder_of(source.rows_at("", source.format) if is_replacing else source, columns, schemas)
