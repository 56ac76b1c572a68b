"""Functions of the Python door that read history: whoever calls one needs the rights that the command takes."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import yaml

from featurestore.core.spec import RepoSpec
from featurestore.core.spec.access import FEATURE_SERVICE, READ_OFFLINE, AccessSpec
from featurestore.definitions.governance.access.auth_section import AuthSection, auth_section
from featurestore.definitions.governance.access.require import ProcessUser, Wanted
from featurestore.errors import InvalidRequest

REPO_FILE, REPO_VARIABLE = "feature_store.yaml", "FEATURESTORE_REPO"

_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")


def reads_history(build: Callable[_Given, _Answer]) -> Callable[_Given, _Answer]:
    """The same function, for those who may read offline what they ask for.

    Args:
        build: has the parameters `repo`, `features` and `repo_path` of `build_training_set`.

    Returns:
        It also raises PermissionDenied, Unauthenticated and what else `ProcessUser.require` raises. Who calls is found
        as a command finds it, with the `auth` of the feature_store.yaml in `repo_path`, else in FEATURESTORE_REPO, else
        in the current directory.
    """
    signature = inspect.signature(build)

    @functools.wraps(build)
    def permitted(*given: _Given.args, **named: _Given.kwargs) -> _Answer:
        found = signature.bind(*given, **named).arguments
        repo: RepoSpec = found["repo"]
        if repo.access.permissions:
            directory = found.get("repo_path") or Path(os.environ.get(REPO_VARIABLE, "."))
            ProcessUser(_auth_in(directory)).require(repo.access, wanted_offline(repo.access, found["features"]))
        return build(*given, **named)

    return permitted


def wanted_offline(access: AccessSpec, features: str | Sequence[str]) -> list[Wanted]:
    """What a training set takes.

    Args:
        access: of the registry.
        features: name of a feature service, or "view:feature" texts.
    """
    if isinstance(features, str):
        return [Wanted(READ_OFFLINE, access.find(FEATURE_SERVICE, features))]
    views = dict.fromkeys(text.partition(":")[0] for text in features)
    return [Wanted(READ_OFFLINE, access.view(view)) for view in views]


def _auth_in(directory: Path) -> AuthSection:
    """What a repo's file says; nothing where there is none."""
    path = directory / REPO_FILE
    if not path.is_file():
        return AuthSection()
    try:
        content = yaml.safe_load(os.path.expandvars(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRequest(f'"{path}" cannot be read', detail=str(error)) from error
    return auth_section(content, directory.resolve()) if isinstance(content, Mapping) else AuthSection()
