"""Rows as Feast brings them, made ready to be written: in the order in which they hold, without those about nobody."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import pandas as pd
from feast import FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto

from featurestore.online.feast.views import key_of
from featurestore.online.write.plain_writer import PlainValues
from featurestore.wire.codecs.plain_row import stored_value

WriteRow = tuple[EntityKeyProto, dict[str, ValueProto], datetime, datetime | None]
"""A row as Feast writes it: key, values, event time, creation time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_log = logging.getLogger(__name__)


def plain_values(table: FeatureView, rows: Iterable[WriteRow], order: Sequence[str]) -> list[PlainValues]:
    """Rows for the store, ascending by time.

    Event times are kept as milliseconds; within one call the finer ones, and creation times, still decide. A row
    without a join key or without a time is skipped, as history skips it, and a warning counts them.

    Args:
        table: a plain view.
        rows: any number.
        order: its join keys, in the order that forms an entity key.
    """
    lacking: Counter[str] = Counter()
    kept = []
    for row in rows:
        key, _, when, _ = row
        nulls = [name for name, value in zip(key.join_keys, key.entity_values, strict=True) if _is_null(value)]
        if nulls:
            lacking.update(f'join key "{name}"' for name in nulls)
        elif pd.isna(when):
            source = table.batch_source
            lacking[f'"{source.timestamp_field if source else "event time"}"'] += 1
        else:
            kept.append(row)
    for what, count in lacking.items():
        verb = "row without %s is" if count == 1 else "rows without %s are"
        _log.warning(f'feature view "%s": %d {verb} skipped', table.name, count, what)
    kept.sort(key=lambda row: (_aware(row[2]), _EPOCH if row[3] is None or pd.isna(row[3]) else _aware(row[3])))
    return [
        PlainValues(
            key_of(key, order), _event_time_ms(when), {name: stored_value(each) for name, each in values.items()}
        )
        for key, values, when, _ in kept
    ]


def _is_null(value: ValueProto) -> bool:
    return value.WhichOneof("val") in (None, "null_val")


def _aware(moment: datetime) -> datetime:
    """Feast's convention: a time without a zone is UTC."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _event_time_ms(moment: datetime) -> int:
    """Milliseconds since the epoch, rounded down."""
    return int((_aware(moment) - _EPOCH) // _MILLISECOND)
