"""Functions of the Python door that read history: they take the rights that the command takes, and leave its traces."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import yaml

from featurestore.core.spec.access import FEATURE_SERVICE, READ_OFFLINE, AccessSpec
from featurestore.definitions.governance.access.auth_section import auth_section
from featurestore.definitions.governance.access.require import ProcessUser, Wanted
from featurestore.definitions.governance.audit.acting import Action
from featurestore.definitions.governance.audit.directory import audit_directory
from featurestore.definitions.governance.audit.evidence import rows_evidence
from featurestore.errors import InvalidRequest, PermissionDenied, Unauthenticated

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
        bound = signature.bind(*given, **named)
        bound.apply_defaults()
        found, directory = bound.arguments, bound.arguments["repo_path"] or Path(os.environ.get(REPO_VARIABLE, "."))
        access: AccessSpec = found["repo"].access
        wants, content = wanted_offline(access, found["features"]), _file_in(directory)
        asking = ProcessUser(auth_section(content, directory.resolve()))
        log = audit_directory(content, directory)
        on = asked_offline(found["features"])
        try:
            user = asking.require(access, wants)
        except (PermissionDenied, Unauthenticated) as error:
            Action(log, asking.find_or_none(), build.__name__, on).refuse(error)
            raise
        if log is None:
            return build(*given, **named)
        features = found["features"]
        details = {"features": [features] if isinstance(features, str) else list(features)}
        rows = rows_evidence(found.get("entities"), found["timestamp_column"], found["at_ms"])
        with Action(log, user or asking.find_or_none(), build.__name__, on, {**details, **rows}):
            return build(*given, **named)

    return permitted


def asked_offline(features: str | Sequence[str]) -> str:
    """What a training set is made of, for people."""
    if isinstance(features, str):
        return f'feature service "{features}"'
    return ", ".join(f'feature "{feature}"' for feature in features)


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


def _file_in(directory: Path) -> Mapping[str, object]:
    """What a repo's file says; nothing where there is none."""
    path = directory / REPO_FILE
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(os.path.expandvars(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRequest(f'"{path}" cannot be read', detail=str(error)) from error
    return content if isinstance(content, Mapping) else {}
