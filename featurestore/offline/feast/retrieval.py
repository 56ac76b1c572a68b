"""The retrieval job that `get_historical_features` gives: computes when asked, in blocks, and writes what is asked.

    label rows ──answer_blocks──> blocks ──Feast's on-demand views──> to_df, to_arrow, persist, to_remote_storage

Nothing is computed before a method is called, and each call computes anew; the event logs' ends are those of the job's
first call, so all its answers are of the same events.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import SavedDatasetStorage, ValidationReference

from featurestore.clock import Clock, SystemClock
from featurestore.errors import DeadlineSpent, InvalidRequest, Unavailable
from featurestore.offline.feast.answers import HistoryRequest, answer_blocks
from featurestore.offline.feast.pull import Seconds, TableJob, data_frame
from featurestore.offline.feast.saved import write_training_set_files
from featurestore.offline.feast.tables import file_system_of
from featurestore.offline.training_set.build import TrainingSetProgress

_NS_PER_SECOND = 1_000_000_000


class HistoryRetrievalJob(RetrievalJob):
    """Answers of one `get_historical_features` call.

    Args:
        request: what is asked.
        metadata: what a saved dataset remembers.
        on_demand: on-demand views, computed by Feast from the answers.
        full_feature_names: features are called "view__feature".
        staging_location: where `to_remote_storage` writes; None refuses it.
        clock: measures timeouts.
    """

    def __init__(
        self,
        request: HistoryRequest,
        metadata: RetrievalMetadata,
        on_demand: Sequence[OnDemandFeatureView],
        *,
        full_feature_names: bool,
        staging_location: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._request = request
        self._metadata = metadata
        self._on_demand = list(on_demand)
        self._full_feature_names = full_feature_names
        self._staging_location = staging_location
        self._clock = clock or SystemClock()

    @property
    def full_feature_names(self) -> bool:
        """Whether features are called "view__feature"."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """What Feast computes from the answers."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        """Features, columns of the entities, and first and last label time."""
        return self._metadata

    def to_df(
        self, validation_reference: ValidationReference | None = None, timeout: Seconds | None = None
    ) -> pd.DataFrame:
        """The entities' rows, order, columns and index, and the features behind them (see `data_frame`).

        Args:
            validation_reference: Feast's check of the result; raises what Feast raises.
            timeout: seconds after which the work is given up.

        Raises:
            DeadlineSpent: it took longer.
            InvalidRequest, Unavailable: as `featurestore.offline.training_set.build.build_training_set`.
        """
        frame = data_frame(self.to_arrow(validation_reference, timeout))
        index = self._request.rows.index
        if index is not None:
            frame.index = index
        return frame

    def to_tensor(
        self, kind: str = "torch", default_value: Any = float("nan"), timeout: Seconds | None = None
    ) -> dict[str, Any]:
        """As in Feast: a tensor has no nulls, so that integers beside them take the default, or become floats.

        Raises:
            InvalidRequest: an integer is no float.
        """
        table = self.to_arrow(timeout=timeout)
        for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
            if pa.types.is_integer(column.type) and column.null_count:
                try:
                    is_whole = isinstance(default_value, int)
                    filled = column.fill_null(default_value) if is_whole else column.cast(pa.float64())
                except pa.ArrowInvalid as error:
                    raise InvalidRequest(
                        f'"{name}" has integers beside nulls that are no floats',
                        detail=str(error),
                        hint="give an integer as default_value",
                    ) from error
                table = table.set_column(place, name, filled)
        return TableJob(lambda: table).to_tensor(kind, default_value)

    def to_arrow_batches(self, timeout: Seconds | None = None) -> Iterator[pa.RecordBatch]:
        """As `to_arrow`, a block at a time."""
        for block in self._transformed(timeout):
            yield from block.to_batches()

    def to_sql(self) -> str:
        """Refused: windows are not computed by SQL."""
        raise NotImplementedError("a training set is not computed by SQL; use to_df, to_arrow, or persist")

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: Seconds | None = None
    ) -> None:
        """Write the answer as Parquet: one file if the path ends in .parquet, else a directory.

        Args:
            storage: a path, relative to the repo, or URI.
            allow_overwrite: replace what is there.
            timeout: seconds after which the work is given up.

        Raises:
            SavedDatasetLocationAlreadyExists: something is there, and `allow_overwrite` is not given.
            InvalidRequest: another kind of storage.
            DeadlineSpent, Unavailable: as `to_df`.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            raise InvalidRequest(
                f"training sets are not written to {type(storage).__name__}",
                hint="persist to SavedDatasetFileStorage, and load that file",
            )
        address = self._request.tables.address_of(storage.file_options.uri)
        filesystem, path = file_system_of(address, storage.file_options.s3_endpoint_override)
        if not allow_overwrite and filesystem.get_file_info(path).type != pafs.FileType.NotFound:
            raise SavedDatasetLocationAlreadyExists(location=address)
        try:
            write_training_set_files(self._transformed(timeout), filesystem, path)
        except OSError as error:
            raise Unavailable(f'"{address}" cannot be written', detail=str(error)) from error

    def supports_remote_storage_export(self) -> bool:
        """Whether `staging_location` is configured."""
        return self._staging_location is not None

    def to_remote_storage(self) -> list[str]:
        """Write the answer as Parquet files below the staging location; returns their addresses.

        Raises:
            InvalidRequest: none is configured.
            Unavailable: it cannot be written.
        """
        if self._staging_location is None:
            raise InvalidRequest(
                "there is no place to export a training set to",
                hint="set `staging_location: s3://...` below `offline_store` of feature_store.yaml",
            )
        address = self._request.tables.address_of(self._staging_location)
        address = f"{address.rstrip('/')}/{uuid.uuid4()}"
        filesystem, path = file_system_of(address, "")
        try:
            names = write_training_set_files(self._transformed(None), filesystem, path)
        except OSError as error:
            raise Unavailable(f'"{address}" cannot be written', detail=str(error)) from error
        return [f"{address}/{name}" for name in names]

    def _to_arrow_internal(self, timeout: Seconds | None = None) -> pa.Table:
        """Without on-demand views, which Feast adds."""
        return pa.concat_tables(self._blocks(timeout))

    def _to_df_internal(self, timeout: Seconds | None = None) -> pd.DataFrame:
        """Without on-demand views, which Feast adds."""
        return data_frame(self._to_arrow_internal(timeout))

    def _blocks(self, timeout: Seconds | None) -> Iterator[pa.Table]:
        """Label rows with windowed and plain features."""
        deadline_ns = None if timeout is None else self._clock.monotonic_ns() + timeout * _NS_PER_SECOND
        return answer_blocks(self._request, partial(self._check_deadline, deadline_ns))

    def _check_deadline(self, deadline_ns: int | None, _: TrainingSetProgress) -> None:
        """Gives the work up; called from time to time."""
        if deadline_ns is not None and self._clock.monotonic_ns() >= deadline_ns:
            raise DeadlineSpent("the training set was not ready in time", hint="give a longer timeout, or fewer rows")

    def _transformed(self, timeout: Seconds | None) -> Iterator[pa.Table]:
        """Blocks with on-demand features; those come as one, because their types are known from all values only."""
        if self._on_demand:
            yield self.to_arrow(timeout=timeout)
        else:
            yield from self._blocks(timeout)
