"""A Feast offline store that stands for another system: it reads what only it knows how to, by its own names."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig


class OtherOfflineStoreConfig(FeastConfigBaseModel):
    """Its section of feature_store.yaml."""

    type: Literal["tests.offline.feast.other_system.OtherOfflineStore"] = (
        "tests.offline.feast.other_system.OtherOfflineStore"
    )


class OtherOfflineStore(OfflineStore):
    """Reads columns and rows of a span, and nothing else."""

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows of a span, both ends included, as Feast has it."""
        assert isinstance(config.offline_store, OtherOfflineStoreConfig)
        names = [*join_key_columns, *feature_name_columns, timestamp_field]
        names += [created_timestamp_column] if created_timestamp_column else []
        wanted = pc.scalar(value=True)
        if start_date is not None:
            wanted &= pc.field(timestamp_field) >= start_date
        if end_date is not None:
            wanted &= pc.field(timestamp_field) <= end_date
        assert config.repo_path is not None
        rows = pads.dataset(str(config.repo_path / data_source.path), format="parquet")
        return _Rows(rows.to_table(columns=names, filter=wanted))


class _Rows(RetrievalJob):
    """A table that is there."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @property
    def full_feature_names(self) -> bool:
        return False

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return []

    def _to_arrow_internal(self, timeout: Any = None) -> pa.Table:
        return self._table

    def _to_df_internal(self, timeout: Any = None) -> pd.DataFrame:
        return self._table.to_pandas()
