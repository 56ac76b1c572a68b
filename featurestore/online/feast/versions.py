"""Versions of Feast's views, such as "card_activity@v2:card_count_1d", beside our generations.

Feast numbers what was applied, and mints a number for every apply of a stream view; a generation is one definition that
the stream computes. So a version is answered by whatever serves its definition, whatever its number: the view itself,
or what is kept because a feature service pins the version. What fills has not caught up, and what retired is fed no
more: neither would be exact, and the version is then not found. A plain view keeps one row for each entity, which is of
no version.
"""

from __future__ import annotations

from feast import FeatureStore, FeatureView
from feast.repo_config import RepoConfig

from featurestore.definitions.registry import compile_registry
from featurestore.errors import InvalidRequest
from featurestore.online.feast.views import is_windowed
from featurestore.online.read.serving_generations import ServedViews
from featurestore.online.serving_view import ServingView
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.feast.composing import registry_of_view

DEFINITIONS_MAX = 1_024
"""Hashes of versions kept; a version never changes, but projects may have many."""


def version_of(table: FeatureView) -> int | None:
    """The version that a request asks for; None for whatever is registered."""
    return getattr(table.projection, "version_tag", None)


def check_has_no_versions(table: FeatureView) -> None:
    """Refuse a version of a plain view.

    Raises:
        InvalidRequest: one is asked for, or written.
    """
    version = version_of(table)
    if version is not None and not is_windowed(table):
        raise InvalidRequest(
            f'feature view "{table.name}" is a plain one, of which no versions are kept',
            detail="Its rows hold what was written last, by the names of the features.",
            hint=f'ask for "{table.name}" without "@v{version}"',
        )


class VersionedDefinitions:
    """Which definitions the versions of windowed views have."""

    def __init__(self) -> None:
        self._hashes: dict[tuple[str, str, int], str] = {}

    def answering(self, config: RepoConfig, table: FeatureView, served: ServedViews) -> ServingView | None:
        """What answers a windowed view: what serves now, or what serves the definition of the version asked for."""
        version = version_of(table)
        if version is None:
            return served.views.get(table.name)
        key = (config.project, table.name, version)
        if key not in self._hashes:
            if len(self._hashes) >= DEFINITIONS_MAX:
                self._hashes.clear()
            self._hashes[key] = _hash_of(config, table)
        return served.definitions.get((table.name, self._hashes[key]))


def _hash_of(config: RepoConfig, table: FeatureView) -> str:
    """Hash of a windowed view's definition; "" where it has mistakes, or is not computed."""
    registry = FeatureStore(repo_path=str(config.repo_path or "."), config=config).registry
    entities = [registry.get_entity(name, config.project, allow_cache=True).to_proto() for name in table.entities]
    content = registry_of_view(
        config.project,
        table.to_proto().SerializeToString(),
        [entity.SerializeToString() for entity in entities],
        is_stream=True,
    )
    spec = compile_registry(content, project=config.project).spec.view(table.name)
    return "" if spec is None else definition_hash(spec)
