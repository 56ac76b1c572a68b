"""`label_source`: what a model shall learn of each event, and when that is known, as a FileSource of Feast.

frauds = label_source(
name="frauds", path="data/frauds.parquet", join_keys=["transaction_id", "card_id"], labels=["is_fraud"],
timestamp_field="event_time", known_at="reported_at", matures_after="60d",
)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from feast import FileSource

from featurestore.definitions.authoring.parts import several
from featurestore.definitions.compile.source.labels import (
    LABEL_KEYS_TAG,
    LABELS_TAG,
    MATURES_AFTER_TAG,
    ON_CONFLICT_TAG,
)


def label_source(
    *,
    name: str,
    path: str,
    join_keys: str | Sequence[str],
    labels: str | Sequence[str],
    timestamp_field: str,
    known_at: str,
    matures_after: str,
    on_conflict: Literal["last", "any_positive", "refuse"] = "last",
    tags: Mapping[str, str] | None = None,
    description: str = "",
    owner: str = "",
) -> FileSource:
    """Labels for training sets: a row each time that something became known of an event.

    Mistakes are reported by `plan`.

    Args:
        name: of the source.
        path: Parquet file or directory; a relative one starts from the repo.
        join_keys: columns that name the event: the join keys of the features, and an id if there is one.
        labels: columns with what is to be learned. A null is nothing known; once mature, false or 0.
        timestamp_field: column with the time of the event that the label is about.
        known_at: column that says when the row became known, such as the day of a chargeback.
        matures_after: how long after the event labels may still arrive; before, a row without fraud means nothing.
        on_conflict: which of several labels of one event counts: the "last" that became known, "any_positive" (the
            largest), or none: "refuse".
        tags: kept beside those that are set here, such as `about(tier=1)`.
        description: as in Feast.
        owner: as in Feast.
    """
    said = {LABELS_TAG: ", ".join(several(labels)), LABEL_KEYS_TAG: ", ".join(several(join_keys))}
    said |= {MATURES_AFTER_TAG: matures_after, ON_CONFLICT_TAG: on_conflict}
    return FileSource(
        name=name,
        path=path,
        timestamp_field=timestamp_field,
        created_timestamp_column=known_at,
        tags={**(tags or {}), **said},
        description=description,
        owner=owner,
    )
