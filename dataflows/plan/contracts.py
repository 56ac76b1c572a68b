"""How records keep the contracts of their sources, as the stream reads them: checked once a record, counted by name.

Where a definition has changed, the stage that reads by the registered one checks: the live one if it does, else the one
that catches up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from prometheus_client import Counter

from featurestore.core.spec import Expectation, RepoSpec, SourceSpec, ViewSpec
from featurestore.definitions.compile.versions import stored_views
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.contracts import ContractCheck, Failures

CHECKED = Counter("featurestore_contract_records_checked", "Records held against their source's contract.", ["source"])
FAILED = Counter(
    "featurestore_contract_records_failed", "Records that do not meet an expectation.", ["source", "expectation"]
)


class Contracts:
    """The registered contracts.

    Args:
        repo: the registered definitions.
    """

    def __init__(self, repo: RepoSpec) -> None:
        self._sources = {view.source.name: view.source for view in stored_views(repo)}
        self._sources.update({view.source.name: view.source for view in repo.views})
        by_source: dict[str, list[Expectation]] = {}
        for one in repo.expectations:
            by_source.setdefault(one.source, []).append(one)
        for hours in repo.usual_hours:
            by_source.setdefault(hours.source, [])
        self._checks = {name: ContractCheck(self._sources[name], found) for name, found in by_source.items()}

    def source_of(self, view: ViewSpec) -> SourceSpec:
        """The source of what is stored, as it is registered now if that means the same.

        A generation keeps the definition that it was begun with. What is no part of that, such as the address of its
        schema registry or a column that no view reads, is as it was then.
        """
        current = self._sources.get(view.source.name, view.source)
        if current == view.source:
            return current
        return current if _means_the_same(view, current) else view.source

    def check_of(self, source: SourceSpec) -> ContractCheck | None:
        """What records are held against that are read by a source; None where that is nothing, or an older source."""
        return self._checks.get(source.name) if self._sources.get(source.name) == source else None

    def checked_by(self, views: Iterable[ViewSpec]) -> frozenset[str]:
        """Names of the sources whose contract can be checked where some views are fed."""
        sources = [self.source_of(view) for view in views]
        return frozenset(source.name for source in sources if self.check_of(source) is not None)


UNUSUAL = Counter(
    "featurestore_contract_unusual_hours", "Hours of a partition that were not as usual.", ["source", "measure"]
)


def count(source: str, records: int, failures: Sequence[Failures]) -> None:
    """Count what was found of some records that were checked."""
    CHECKED.labels(source).inc(records)
    for one in failures:
        FAILED.labels(source, one.expectation.name).inc(len(one.rows))


def _means_the_same(view: ViewSpec, source: SourceSpec) -> bool:
    """Whether a view means the same with another source."""
    return definition_hash(replace(view, source=source)) == definition_hash(view)
