"""Let Feast materialize a whole repo: plain views by its local engine, windowed views not at all.

    batch_engine:
      type: featurestore.feast.PlainViewEngine

`materialize` and `materialize_incremental` without view names take every online view. Windowed views are filled by
their stream; Feast's engine would read their history, aggregate it its own way, and be refused by the online store.
With this engine they are passed over, so that the nightly job needs no list of names.

    Feast's engine   table ──all rows──> pandas ──filter──> pandas ──newest of each key──> Arrow ──> online store
    this one         table ──newest of each key, by the offline store──> Arrow ─────────────────────> online store

Data frames make floats of integers beside nulls, and their sort does not keep rows of one time in order. Where
something of the author's is computed on the way (a transformation, a filter, aggregations, other views as sources), all
is done as Feast does it.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

from featurestore.definitions.fast_import import skip_typeguard

with skip_typeguard():
    from feast import FeatureView
    from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
    from feast.infra.compute_engines.dag.context import ColumnInfo, ExecutionContext
    from feast.infra.compute_engines.dag.node import DAGNode
    from feast.infra.compute_engines.local.arrow_table_value import ArrowTableValue
    from feast.infra.compute_engines.local.compute import LocalComputeEngine
    from feast.infra.compute_engines.local.feature_builder import LocalFeatureBuilder
    from feast.infra.compute_engines.local.job import LocalMaterializationJob
    from feast.infra.compute_engines.local.local_node import LocalNode
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.repo_config import FeastConfigBaseModel

    from featurestore.online.feast.views import is_windowed

_log = logging.getLogger(__name__)


class PlainViewEngineConfig(FeastConfigBaseModel):
    """The `batch_engine` section of feature_store.yaml.

    Attributes:
        type: names this engine.
        backend: as of Feast's local engine: "pandas", "polars", or None to choose by the data.
    """

    type: Literal["featurestore.feast.PlainViewEngine"] = "featurestore.feast.PlainViewEngine"
    backend: str | None = None


class PlainViewEngine(LocalComputeEngine):
    """Feast's local engine for plain views."""

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **options: Any
    ) -> LocalMaterializationJob:
        """Materialize one view, unless its stream does."""
        view = task.feature_view
        if is_windowed(view):
            _log.info('feature view "%s" is filled by its stream, not materialized', view.name)
        elif not _is_a_table(view) or not task.only_latest:
            return super()._materialize_one(registry, task, **options)
        else:
            context = self.get_execution_context(registry, task)
            _TableBuilder(registry, task, self._get_backend(context)).build().execute(context)
        return LocalMaterializationJob(
            job_id=f"{view.name}-{task.start_time}-{task.end_time}", status=MaterializationJobStatus.SUCCEEDED
        )


def _is_a_table(view: FeatureView) -> bool:
    """Whether the rows of a view's table are its values, with nothing to compute."""
    computed = ("feature_transformation", "filter", "aggregations", "source_views")
    return view.batch_source is not None and not any(getattr(view, name, None) for name in computed)


class _TableBuilder(LocalFeatureBuilder):
    """A plan of two steps, three with validation: read, validate, write."""

    def _build(self, view: FeatureView, input_nodes: list[DAGNode] | None) -> DAGNode:
        """The steps up to the writing one."""
        assert isinstance(self.task, MaterializationTask), "history is not this engine's"
        newest = _NewestRows(view, self.get_column_info(view), self.task)
        if not view.enable_validation:
            return newest
        validated: DAGNode = self.build_validation_node(view, newest)  # type: ignore[no-untyped-call]  # Feast's
        return validated


class _NewestRows(LocalNode):
    """The newest row of each key, under the names that the columns have in the view."""

    def __init__(self, view: FeatureView, columns: ColumnInfo, task: MaterializationTask) -> None:
        super().__init__("newest rows")
        self._view = view
        self._columns = columns
        self._task = task

    def execute(self, context: ExecutionContext) -> ArrowTableValue:
        """Read them."""
        source = self._view.batch_source
        assert source is not None, "a view without a table is computed"
        job = context.offline_store.pull_latest_from_table_or_query(
            config=context.repo_config,
            data_source=source,
            join_key_columns=self._columns.join_keys,
            feature_name_columns=self._columns.feature_cols,
            timestamp_field=self._columns.ts_col,
            created_timestamp_column=self._columns.created_ts_col,
            start_date=self._task.start_time,
            end_date=self._task.end_time,
        )
        table = job.to_arrow()
        names = [source.field_mapping.get(name, name) for name in table.column_names]
        return ArrowTableValue(table.rename_columns(names))
