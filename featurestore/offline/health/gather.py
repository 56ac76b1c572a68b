"""Where values come from: what was served, as the feature log has it, or history, a training set in Parquet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.core.events import Int64Array
from featurestore.core.spec import RepoSpec, ValueType
from featurestore.errors import CorruptData, FeatureStoreError, InvalidRequest
from featurestore.errors.near_names import suggest
from featurestore.offline.health.kept import Profile, merged, read_profile, write_profile
from featurestore.offline.health.sketches import HOUR_MS, FeatureKey, Sketches, merge, sketch
from featurestore.offline.parity.checking.batch import LoggedRows
from featurestore.offline.parity.feature_log import (
    AS_OF_MS,
    LOG_TIMESTAMP,
    LoggedFile,
    find_logged_files,
    statistics_path,
    status_column,
)
from featurestore.offline.parity.log_directory import LogDirectory
from featurestore.offline.training_set.label_times import moments_ms
from featurestore.wire.codecs.view_json import base_name

NOT_FOUND = 3
"""Status, by its number in proto/featurestore_api/v1."""

BATCH_ROWS = 1 << 16

_IDENTITY = "featurestore.log_file"


def served_profile(
    log: LogDirectory, *, service: str | None = None, since_ms: int | None = None, until_ms: int | None = None
) -> dict[FeatureKey, Sketches]:
    """What a service was answered, by hour; answers of shadows are none.

    Args:
        log: the feature log.
        service: only this one; None for all.
        since_ms: only hours that begin then or later.
        until_ms: only hours that begin before.

    Raises:
        CorruptData, Unavailable: the log cannot be read.
    """
    found = list[Profile]()
    for file in find_logged_files(log, service=service, since_ms=since_ms, until_ms=until_ms):
        if not file.layout.shadow_of:
            found.append(_profile_of_file(log, file))
    return within(merged(found), since_ms, until_ms)


def within(profile: Profile, since_ms: int | None, until_ms: int | None) -> dict[FeatureKey, Sketches]:
    """Only the hours that begin in [since_ms, until_ms), and features that have any."""
    low, high = -(1 << 62) if since_ms is None else since_ms // HOUR_MS * HOUR_MS, until_ms or 1 << 62
    cut = {key: one.within(low, high) for key, one in profile.items()}
    return {key: one for key, one in cut.items() if len(one.rows)}


def logged_profile(logged: Iterable[LoggedRows]) -> dict[FeatureKey, Sketches]:
    """Of files of the log, or messages, that are read as they are."""
    return merged(_profile_of_rows(rows) for rows in logged if not rows.layout.shadow_of)


def features_of(repo: RepoSpec, name: str) -> dict[tuple[str, str], ValueType]:
    """(view, feature) -> type, of what a feature service or a view answers.

    Raises:
        InvalidRequest: nothing is called so.
    """
    service = repo.service(name)
    if service is not None:
        named = [(one.view, one.feature) for one in service.features]
        types = {view: {one.name: one.type for one in repo.columns_of(view) or ()} for view, _ in named}
        return {(base_name(view), feature): types[view][feature] for view, feature in named}
    columns = repo.columns_of(name)
    if columns is None:
        known = [service.name for service in repo.services]
        known += [view.name for views in (repo.views, repo.plain_views, repo.on_demand_views) for view in views]
        raise InvalidRequest(f'"{name}" is no feature service and no view', hint=suggest(name, known))
    return {(name, one.name): one.type for one in columns}


def file_profile(
    path: Path, features: Mapping[tuple[str, str], ValueType], timestamp_column: str | None
) -> dict[FeatureKey, Sketches]:
    """The values of a training set, all together; of columns "view__feature" or "feature".

    Args:
        path: Parquet.
        features: which ones, with their types.
        timestamp_column: with the time of each row, of which the age of a moment is taken.

    Raises:
        InvalidRequest: the file cannot be read, lacks all of the features, or has them in other types; or a feature is
            a moment, and nobody says when the rows were.
    """
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InvalidRequest(f'"{path}" is no Parquet that can be read', detail=str(error)) from error
    columns = {
        FeatureKey(view, feature, kind): name
        for (view, feature), kind in features.items()
        for name in _column_of(file.schema_arrow.names, view, feature)
    }
    if not columns:
        raise InvalidRequest(f'"{path}" has none of the features', hint="name the service that it was made for")
    if timestamp_column is None and (moment := next((one for one in columns if one.type is ValueType.TIMESTAMP), None)):
        raise InvalidRequest(
            f'"{moment.view}:{moment.feature}" is a moment, of which the age at the row\'s time is taken',
            hint="name the column with the rows' times by --timestamp-column",
        )
    if timestamp_column is not None and timestamp_column not in file.schema_arrow.names:
        raise InvalidRequest(f'"{path}" has no column "{timestamp_column}"', hint="name another --timestamp-column")
    found: dict[FeatureKey, list[Sketches]] = {key: [] for key in columns}
    wanted = [*columns.values(), *([timestamp_column] if timestamp_column else [])]
    for batch in file.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(wanted))):
        times_ms = _times(batch, timestamp_column)
        for key, name in columns.items():
            found[key].append(sketch(key, batch.column(name), times_ms).whole())
    return {key: merge(several).whole() for key, several in found.items() if several}


def _column_of(names: Sequence[str], view: str, feature: str) -> list[str]:
    """The column with a feature's values; none, or one."""
    return [name for name in (f"{view}__{feature}", feature) if name in names][:1]


def _times(batch: pa.RecordBatch, timestamp_column: str | None) -> Int64Array:
    """(N,) times of the rows; a training set without them is all of one hour."""
    if timestamp_column is None:
        return np.zeros(batch.num_rows, dtype=np.int64)
    times_ms, is_time = moments_ms(batch.column(timestamp_column), timestamp_column)
    if not is_time.all():
        raise InvalidRequest(f'column "{timestamp_column}" has rows without a time')
    return times_ms


def _profile_of_file(log: LogDirectory, file: LoggedFile) -> Profile:
    """Of a file of the log: what is kept of it, or what it holds, which is kept then."""
    path, identity = statistics_path(file.path), log.identity(file.path)
    try:
        kept = read_profile(log, path)
    except CorruptData:
        kept = None  # what can be computed anew is
    if kept is not None and kept[1].get(_IDENTITY) == identity:
        return kept[0]
    profile = _profile_of_rows(file)
    # Whoever may only read the log computes it again.
    with contextlib.suppress(FeatureStoreError, OSError):
        write_profile(log, path, profile, {_IDENTITY: identity})
    return profile


def _profile_of_rows(rows: LoggedRows) -> Profile:
    """Of answers, by the hour in which they were given; a version of a view is the view."""
    features = rows.layout.features
    table = rows.read([name for one in features for name in (one.column, status_column(one))] + [AS_OF_MS])
    logged_ms = np.asarray(table.column(LOG_TIMESTAMP).cast(pa.int64()).to_numpy()) // 1_000
    as_of_ms = np.asarray(table.column(AS_OF_MS).to_numpy())
    if not table.num_rows:
        return {}

    def sketches() -> Iterator[tuple[FeatureKey, Sketches]]:
        for one in features:
            key = FeatureKey(base_name(one.view), one.name, one.type)
            statuses = np.asarray(table.column(status_column(one)).to_numpy())
            values = table.column(one.column).combine_chunks()
            yield key, sketch(key, values, logged_ms, as_of_ms=as_of_ms, not_found=statuses == NOT_FOUND)

    return merged({key: one} for key, one in sketches())
