"""Request-time features of logged rows, computed anew: they are what SQL makes of other logged values.

    logged      cards__mean_30d   10.0     __request__amount   12.5     checks__ratio   1.25
    of these    12.5 / 10.0 = 1.25         the logged value: right for what was read, which has an outcome of its own
    recomputed  cards__mean_30d   10.0     1.25                         the logged value: equal

A comparison of floats may come out the other way where the last bit of a mean does. So the logged values are what
decides whether a feature was computed rightly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featurestore.core.events import Int64Array
from featurestore.core.lowering.request_time import compiled_feature
from featurestore.core.spec import Column, RepoSpec
from featurestore.offline.parity.feature_log import LoggedFeature, LoggedView, LogLayout, request_column, status_column
from featurestore.offline.parity.report import ValueOutcome
from featurestore.offline.parity.values import differing
from featurestore.offline.training_set.plan import OnDemandOutput
from featurestore.wire.codecs.view_json import on_demand_hash

NOT_READY = 4
"""Status, by its number in proto/featurestore_api/v1."""


@dataclass(frozen=True, slots=True)
class Computed:
    """N values of a request-time feature.

    Attributes:
        outcomes: (N,) of ValueOutcome.
        of_logged: from the logged values that it reads.
        recomputed: from the recomputed ones.
    """

    outcomes: Int64Array
    of_logged: pa.ChunkedArray
    recomputed: pa.ChunkedArray


class OnDemandRows:
    """Logged rows of one layout.

    Args:
        repo: the definitions, as registered now.
        layout: of the rows.
        table: N rows.
    """

    def __init__(self, repo: RepoSpec, layout: LogLayout, table: pa.Table) -> None:
        self._repo, self._layout, self._table = repo, layout, table
        self._request = pa.table({column.name: table.column(request_column(column)) for column in layout.request})
        self._logged = {(one.view, one.name): one for one in layout.features}

    def knows(self, feature: LoggedFeature) -> bool:
        """Whether it is a request-time feature of SQL, as registered now, and all that it reads is in the log."""
        output = self._output(feature)
        return output is not None and all(
            self._logged.get((read.view, read.name)) == read for read in self._reads(feature)
        )

    def compute(
        self,
        view: LoggedView,
        feature: LoggedFeature,
        recomputed: Mapping[str, pa.ChunkedArray],
        outcomes: Mapping[LoggedFeature, Int64Array],
    ) -> Computed:
        """What came of a feature.

        Args:
            view: of the feature, in the log.
            feature: one that is known.
            recomputed: columns of the features that were recomputed; the logged values stand in for others.
            outcomes: of all that it reads.
        """
        logged = self._table.column(feature.column)
        of_logged = self.answer(feature, {})
        again = self.answer(feature, recomputed)
        registered = self._repo.on_demand_view(feature.view)
        assert registered is not None, "it is known"
        is_same = view.definition_hash == on_demand_hash(registered)
        found = np.full(len(logged), ValueOutcome.EQUAL, dtype=np.int64)
        for read in self._reads(feature):
            # What was not compared, or differs, says the same of what is computed from it.
            found = np.maximum(found, outcomes[read])
        found[(found < ValueOutcome.NOT_READY) & ~differing(logged, again)] = ValueOutcome.EQUAL
        wrong = ValueOutcome.UNEXPLAINED if is_same else ValueOutcome.DEFINITION_CHANGED
        found[differing(logged, of_logged)] = wrong
        statuses = np.asarray(self._table.column(status_column(feature)).to_numpy())
        found[statuses == NOT_READY] = ValueOutcome.NOT_READY
        return Computed(found, of_logged, again)

    def answer(self, feature: LoggedFeature, columns: Mapping[str, pa.ChunkedArray]) -> pa.ChunkedArray:
        """(N,) a feature from some columns of what it reads, by their names in the log, else from what was logged."""
        output = self._output(feature)
        assert output is not None, "it is known"
        read = {read.column: columns.get(read.column, self._table.column(read.column)) for read in self._reads(feature)}
        return output.answer(read, self._request if self._request.num_columns else self._table)

    def _output(self, feature: LoggedFeature) -> OnDemandOutput | None:
        """How to compute a feature; None where SQL does not."""
        view = self._repo.on_demand_view(feature.view)
        spec = None if view is None else next((one for one in view.features if one.name == feature.name), None)
        if view is None or spec is None or not spec.expression or spec.type is not feature.type:
            return None
        compiled = compiled_feature(view, spec)
        inputs = {one.name: one for one in view.inputs}
        read = {name: LoggedFeature(one.view, one.feature, one.type) for name, one in inputs.items()}
        request = tuple(column for column in view.request_columns if column.name in compiled.request)
        if not set(request) <= set(self._layout.request):
            return None
        reads = {name: Column(read[name].column, read[name].type) for name in compiled.inputs}
        return OnDemandOutput(Column(feature.column, feature.type), compiled.expression, reads, request)

    def _reads(self, feature: LoggedFeature) -> list[LoggedFeature]:
        """The features that one is computed from, as registered now."""
        view = self._repo.on_demand_view(feature.view)
        assert view is not None, "it is known"
        spec = next(one for one in view.features if one.name == feature.name)
        inputs = {one.name: one for one in view.inputs}
        read = [inputs[name] for name in compiled_feature(view, spec).inputs]
        return [LoggedFeature(one.view, one.feature, one.type) for one in read]
