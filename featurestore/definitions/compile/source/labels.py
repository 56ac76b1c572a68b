"""Compile a source of labels: a FileSource whose tags say which columns are labels, and when they can be trusted.

The event's time and the moment at which a row became known have fields of Feast's own: `timestamp_field` and
`created_timestamp_column`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from featurestore.core.spec import LabelSourceSpec, OnConflict, TableSpec
from featurestore.definitions import limits
from featurestore.definitions.compile.source.stream import duration_tag
from featurestore.definitions.problems import Place, ProblemList
from featurestore.wire.feast.labels import LABEL_COLUMNS_TAG

LABELS_TAG = LABEL_COLUMNS_TAG
"""Tag of a source of labels: its columns with what is to be learned, by commas; a source with it has labels."""

LABEL_KEYS_TAG = "label_join_keys"
"""Tag of a source of labels: columns that name the event, by commas."""

MATURES_AFTER_TAG = "label_matures_after"
"""Tag of a source of labels: how long after its event a label may still change, such as "60d"."""

ON_CONFLICT_TAG = "label_on_conflict"
"""Tag of a source of labels: what counts where several are known of one event."""

IS_MATURE = "label_is_mature"
"""Column that marks rows."""


def compile_labels(tags: Mapping[str, str], table: TableSpec, problems: ProblemList) -> LabelSourceSpec | None:
    """The labels of a source; None where it has a mistake.

    Args:
        tags: of the source.
        table: where it is.
        problems: gets the mistakes.
    """
    place, before = Place("source", table.source), len(problems.found)
    labels, keys = (_names(tags.get(tag, "")) for tag in (LABELS_TAG, LABEL_KEYS_TAG))
    if not labels:
        problems.add(place, f'tag "{LABELS_TAG}" names no column', 'write label_source(labels=["is_fraud"])')
    if not keys:
        problems.add(
            place,
            "it has no join keys, so nobody knows what a label is about",
            'write label_source(join_keys=["card_id"])',
        )
    if not table.timestamp_column:
        problems.add(place, "it does not say when its events happened", "write label_source(timestamp_field=...)")
    if not table.created_column:
        fact = "it does not say when a label became known, so a training set could have labels of its future"
        problems.add(place, fact, "write label_source(known_at=...)")
    _check_columns((*keys, *labels, table.timestamp_column, table.created_column), place, problems)
    if table.kind != "file" or table.format != "parquet" or table.renamed:
        fact = f"it is of kind {table.kind} {table.format}".rstrip() + (
            " with a field_mapping" if table.renamed else ""
        )
        problems.add(
            place, fact, "write label_source(path=...) of Parquet files that have the columns under their names"
        )
    if MATURES_AFTER_TAG not in tags:
        fact = "it does not say after which time no more labels are expected"
        problems.add(place, fact, 'write label_source(matures_after="60d")')
    matures = duration_tag(tags, MATURES_AFTER_TAG, place, problems, default=0, maximum=limits.LABELS_MATURE_MS_MAX)
    rule = tags.get(ON_CONFLICT_TAG, OnConflict.LAST)
    if rule not in list(OnConflict):
        problems.add(place, f'tag "{ON_CONFLICT_TAG}" is "{rule}"', f"write {', '.join(OnConflict)}")
    if len(problems.found) > before:
        return None
    return LabelSourceSpec(table.source, keys, labels, matures, OnConflict(rule), table)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _check_columns(columns: tuple[str, ...], place: Place, problems: ProblemList) -> None:
    """Each column has one meaning."""
    for column, count in Counter(name for name in columns if name).items():
        if count > 1:
            fact = f'column "{column}" is named {count} times: as join key, label, event time or known_at'
            problems.add(place, fact, "name it once")
    if IS_MATURE in columns:
        problems.add(place, f'column "{IS_MATURE}" is what marks rows in a training set', "rename it")
