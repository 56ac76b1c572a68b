"""Let Feast materialize a whole repo: plain views by its local engine, windowed views not at all.

    batch_engine:
      type: featurestore.feast.PlainViewEngine

`materialize` and `materialize_incremental` without view names take every online view. Windowed views are filled by
their stream; Feast's engine would read their history, aggregate it its own way, and be refused by the online store.
With this engine they are passed over, so that the nightly job needs no list of names.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

from featurestore.definitions.fast_import import skip_typeguard

with skip_typeguard():
    from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
    from feast.infra.compute_engines.local.compute import LocalComputeEngine
    from feast.infra.compute_engines.local.job import LocalMaterializationJob
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
        if not is_windowed(view):
            return super()._materialize_one(registry, task, **options)
        _log.info('feature view "%s" is filled by its stream, not materialized', view.name)
        return LocalMaterializationJob(
            job_id=f"{view.name}-{task.start_time}-{task.end_time}", status=MaterializationJobStatus.SUCCEEDED
        )
