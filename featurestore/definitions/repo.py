"""Load a feature repo as `feast apply` would, and apply it. This file and `authoring` are where Feast is imported.

The repo's modules are imported, its Feast objects serialized as a registry would hold them, and then compiled exactly
like an applied registry: a plan sees what an apply would leave, and needs neither registry nor online store for it.
"""

from __future__ import annotations

import contextlib
import copy
import io
import linecache
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from featurestore.definitions.compile.repo import Compilation
from featurestore.definitions.config import CONFIG_FILE, ONLINE_STORE, check_config
from featurestore.definitions.fast_import import skip_typeguard
from featurestore.definitions.governance.about import REPO_TAG, check_about
from featurestore.definitions.problems import Place, ProblemList
from featurestore.definitions.registry import compile_registry
from featurestore.errors import DefinitionError, InvalidRequest
from featurestore.wire.feast.authors import authored_in
from featurestore.wire.feast.composing import history_of

with skip_typeguard():
    from feast import FeatureService, FeatureStore, FeatureView, Field
    from feast.base_feature_view import BaseFeatureView
    from feast.errors import FeastError
    from feast.feast_object import FeastObject
    from feast.feature_view_projection import FeatureViewProjection
    from feast.inference import update_feature_views_with_inferred_features_and_entities
    from feast.infra.provider import get_provider
    from feast.project import Project
    from feast.protos.feast.core.Registry_pb2 import Registry
    from feast.repo_config import FeastConfigError, RepoConfig, load_repo_config
    from feast.repo_contents import RepoContents
    from feast.repo_operations import (
        apply_total_with_repo_instance,
        extract_objects_for_apply_delete,
        get_repo_files,
        parse_repo,
    )
    from feast.types import String

RegisteredFeatureView = FeatureView
"""For those who hand one over, and have no Feast."""

AUTHOR_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    FeastConfigError,
    FeastError,
    ImportError,
    InvalidRequest,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What importing an author's module may raise because of what he wrote; anything else is no definition error."""


@dataclass(frozen=True, slots=True)
class LoadedRepo:
    """A feature repo's objects.

    Attributes:
        path: its directory.
        project: Feast project name.
        contents: the Feast objects.
        registry: the same, serialized as feast.core.Registry.
    """

    path: Path
    project: str
    contents: RepoContents
    registry: bytes

    def compile(self, registered: bytes | None = None) -> Compilation:
        """Specs, mistakes and notes, of its file too.

        Args:
            registered: the registry that it would be applied to, which knows the versions that services may pin.
        """
        problems = ProblemList()
        store = check_config(self.path / CONFIG_FILE, problems)
        _check_requests(self.contents, problems)
        check_about(authored_in(self.registry, self.project), problems)
        # Messages that follow each other are one.
        history = b"" if registered is None else history_of(registered, self.project)
        compiled = compile_registry(self.registry + history, project=self.project)
        notes = list(compiled.notes)
        if compiled.spec.views and store not in ("", ONLINE_STORE):
            notes.append(
                f"{CONFIG_FILE} names {store} as the online store, which holds no windowed features: the Feast SDK "
                f"answers None for them; write type: {ONLINE_STORE} under online_store"
            )
        return replace(compiled, problems=(*problems.found, *compiled.problems), notes=tuple(notes))


def load_repo(path: Path, project: str) -> LoadedRepo:
    """Import a repo's modules and collect its Feast objects.

    Args:
        path: directory of feature_store.yaml.
        project: Feast project name.

    Raises:
        DefinitionError: a module cannot be imported, or an object cannot be serialized.
    """
    path = path.resolve()
    # Feast registers the source text of functions, and reads it through a cache that outlives a changed file.
    linecache.checkcache()
    try:
        with _imports_of(path), _without_feast_warnings():
            contents = parse_repo(path)
        _infer_plain_views(contents, path)
        registry = serialize(contents, project)
    except AUTHOR_ERRORS as error:
        raise DefinitionError(
            f'the feature repo "{path}" cannot be loaded',
            problems=(f"{_origin(error, path)}{_reason(error)}",),
            hint="correct it and run `featurestore plan` again",
        ) from error
    return LoadedRepo(path, project, contents, registry)


def apply_repo(repo: LoadedRepo, name: str | None = None, followers: Sequence[FeatureView] = ()) -> None:
    """Register a repo that compiles, by Feast's own apply; its chatter is kept back.

    Args:
        repo: the repo.
        name: where others have objects in the registry too, which repo this is: only its own are removed.
        followers: views of others, with what this repo's sources have become.

    Raises:
        DefinitionError: Feast refuses it.
    """
    if not repo.contents.projects:
        repo.contents.projects.append(Project(name=repo.project))
    try:
        with _working_directory(repo.path), _without_feast_warnings(), contextlib.redirect_stdout(io.StringIO()):
            store = FeatureStore(config=load_repo_config(repo.path, repo.path / CONFIG_FILE))
            if name is None:
                apply_total_with_repo_instance(
                    store, repo.project, store.registry, repo.contents, skip_source_validation=True
                )
            else:
                _apply_own(store, repo, name, followers)
    except (FeastConfigError, FeastError, ValueError) as error:
        raise DefinitionError(
            f'Feast does not accept the repo of project "{repo.project}"',
            problems=(f"{type(error).__name__}: {error}",),
        ) from error


def _apply_own(store: FeatureStore, repo: LoadedRepo, name: str, followers: Sequence[FeatureView]) -> None:
    """Write what is this repo's, and remove what was; views and services of others are left as they are."""
    extract: Callable[..., tuple[list[FeastObject], list[FeastObject], object, object]] = (
        extract_objects_for_apply_delete
    )
    objects, gone, _, _ = extract(repo.project, store.registry, repo.contents)

    def is_own(one: object) -> bool:
        tags: Mapping[str, str] = getattr(one, "tags", None) or {}
        return tags.get(REPO_TAG, "") == name

    is_shared = (BaseFeatureView, FeatureService)
    written = [one for one in objects if is_own(one) or not isinstance(one, is_shared)]
    store.apply([*written, *followers], objects_to_delete=[one for one in gone if is_own(one)], partial=False)


@contextlib.contextmanager
def _imports_of(path: Path) -> Iterator[None]:
    """Import modules of a repo without leaving traces: two repos may both have an "entities"."""
    names = {".".join(file.relative_to(path).with_suffix("").parts) for file in get_repo_files(path)}
    names |= {name.partition(".")[0] for name in names}
    hidden = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    with _working_directory(path):
        sys.path.insert(0, str(path))
        writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            yield
        finally:
            sys.dont_write_bytecode = writes_bytecode
            sys.path.remove(str(path))
            for name in [name for name, module in sys.modules.items() if _is_below(module, path)]:
                del sys.modules[name]
            sys.modules.update(hidden)


def _is_below(module: object, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and path in Path(file).parents and "site-packages" not in file


@contextlib.contextmanager
def _working_directory(path: Path) -> Iterator[None]:
    """Feast names a repo's modules relative to the working directory."""
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _without_feast_warnings() -> Iterator[None]:
    """Feast warns of every stream view, and of the history file of a stream that need not exist."""
    logger = logging.getLogger("feast.infra.offline_stores.file_source")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    finally:
        logger.setLevel(level)


def _origin(error: BaseException, path: Path) -> str:
    """Such as "sources.py:12: ", the last line of the repo that led to the error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}: "
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if path in Path(frame.filename).parents]
    return f"{Path(frames[-1].filename).relative_to(path)}:{frames[-1].lineno}: " if frames else ""


def _reason(error: BaseException) -> str:
    """What an author's module failed of; `authoring` says it in words of its own."""
    if isinstance(error, InvalidRequest):
        return f"{error.message}; {error.hint}" if error.hint else error.message
    return f"{type(error).__name__}: {error}"


def _infer_plain_views(contents: RepoContents, path: Path) -> None:
    """Plain views without a schema take it from their source, as an apply would do; most repos have none."""
    bare = [view for view in contents.feature_views if not view.features]
    if not bare:
        return
    config: RepoConfig = load_repo_config(path, path / CONFIG_FILE)
    update_feature_views_with_inferred_features_and_entities(get_provider(config), bare, contents.entities, config)
    views = {view.name: view for view in contents.feature_views}
    for service in contents.feature_services:
        if any(projection.name in {view.name for view in bare} for projection in service.feature_view_projections):
            service.infer_features(fvs_to_update={**views, **_stream_views(contents)})


def _check_requests(contents: RepoContents, problems: ProblemList) -> None:
    """A field of a request beside a join key of its name: the Feast SDK takes the value for the one, not for both."""
    keys = {entity.name: entity.join_key for entity in contents.entities}
    views = {view.name: view for view in (*contents.feature_views, *contents.stream_feature_views)}
    for on_demand in contents.on_demand_feature_views:
        beside = set(on_demand.source_feature_view_projections)
        for service in contents.feature_services:
            names = {projection.name for projection in service.feature_view_projections}
            beside |= names if on_demand.name in names else set()
        clashes = {
            keys.get(entity, entity): name for name in sorted(beside & views.keys()) for entity in views[name].entities
        }
        for field in sorted(clashes.keys() & on_demand.get_request_data_schema().keys()):
            fact = f'field "{field}" of its request is the join key of feature view "{clashes[field]}" too'
            remedy = "rename the field: the Feast SDK takes the value for the request alone, and looks nothing up"
            problems.add(Place("on-demand feature view", on_demand.name), fact, remedy)


def _stream_views(contents: RepoContents) -> dict[str, FeatureView]:
    return {view.name: view for view in contents.stream_feature_views}


def serialize(contents: RepoContents, project: str, others: Mapping[str, FeatureView] | None = None) -> bytes:
    """The objects as the registry file would hold them.

    Args:
        contents: they.
        project: Feast project.
        others: views of other repos, which services may name.
    """
    registry = Registry()
    declared = [each for each in contents.projects if each.name == project]
    registry.projects.extend(each.to_proto() for each in declared or [Project(name=project)])
    for source in contents.data_sources:
        registry.data_sources.append(source.to_proto())
        registry.data_sources[-1].project = project
    services = [_with_named_views(each, contents, others or {}) for each in contents.feature_services]
    for objects, target in (
        (contents.entities, registry.entities),
        (contents.feature_views, registry.feature_views),
        (contents.stream_feature_views, registry.stream_feature_views),
        (contents.on_demand_feature_views, registry.on_demand_feature_views),
        (contents.label_views, registry.label_views),
        (contents.permissions, registry.permissions),
        (services, registry.feature_services),
    ):
        for each in objects:
            message = each.to_proto()
            message.spec.project = project
            target.append(message)
    return bytes(registry.SerializeToString(deterministic=True))


def _with_named_views(
    service: FeatureService, contents: RepoContents, others: Mapping[str, FeatureView]
) -> FeatureService:
    """A copy with the views that it names by text, "view[@version][:feature]", resolved within the repo.

    Feast resolves them when it applies; a view that the repo does not have stays without features, for the compiler to
    report. So does a version: the compiler takes all that it had, as the view may have other features by now.
    """
    views = {**others, **{view.name: view for view in (*contents.feature_views, *contents.stream_feature_views)}}
    resolved = copy.copy(service)
    resolved.feature_view_projections = list(service.feature_view_projections)
    resolved._pending_feature_refs = []
    for reference in service._pending_feature_refs:
        view_reference, _, feature = reference.partition(":")
        name, _, version = view_reference.partition("@v")
        fields = views[name].features if name in views and not version else []
        if name in views and not version:
            projection = copy.copy(views[name].projection)
            projection.features = [field for field in fields if field.name == feature or not feature]
            resolved.feature_view_projections.append(projection)
            continue
        if version and feature:
            fields = [Field(name=feature, dtype=String)]  # of whatever type it had
        resolved.feature_view_projections.append(
            FeatureViewProjection(
                name=name,
                name_alias=None,
                desired_features=[],
                features=[field for field in fields if field.name == feature or not feature],
                version_tag=int(version) if version.isdigit() else None,
            )
        )
    return resolved
