"""Check feature_store.yaml: what Feast passes over in silence is a store that answers nothing, or not the one meant.

Feast allows unknown keys, and fills what it does not find with stores of its own. A misspelled `online_store` becomes
an SQLite file that nobody writes: its SDK answers None for everything, while our server, which reads the store itself,
answers. Every key must be one that Feast or the section's class knows, every class must exist.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from featurestore.definitions.fast_import import skip_typeguard
from featurestore.definitions.problems import Place, ProblemList, suggest

with skip_typeguard():
    from feast import repo_config as feast
    from feast.errors import FeastError

CONFIG_FILE = "feature_store.yaml"

OWN_KEYS = ("audit", "oidc_keys", "policies", "quotas", "repo")
"""Keys of the file that are ours; Feast passes over them."""

ONLINE_STORE = "featurestore.feast.RealTimeOnlineStore"
OFFLINE_STORE = "featurestore.feast.PointInTimeOfflineStore"
BATCH_ENGINE = "featurestore.feast.PlainViewEngine"

_SECTIONS: Mapping[str, tuple[Callable[[str], type[BaseModel]], Collection[str]]] = {
    "online_store": (feast.get_online_config_from_type, (ONLINE_STORE, *feast.ONLINE_STORE_CLASS_FOR_TYPE)),
    "offline_store": (feast.get_offline_config_from_type, (OFFLINE_STORE, *feast.OFFLINE_STORE_CLASS_FOR_TYPE)),
    "batch_engine": (feast.get_batch_engine_config_from_type, (BATCH_ENGINE, *feast.BATCH_ENGINE_CLASS_FOR_TYPE)),
}
"""Section -> how Feast finds the class of its settings by "type", and the types that there are."""


def check_config(path: Path, problems: ProblemList) -> str:
    """Note every mistake of a repo's file.

    Args:
        path: of the file.
        problems: where they go.

    Returns:
        The type of the online store, "" where the file has a mistake.
    """
    place = Place("file", path.name)
    found_before = len(problems.found)
    content = yaml.safe_load(os.path.expandvars(path.read_text(encoding="utf-8")))
    if not isinstance(content, Mapping):
        problems.add(place, "it is not a mapping of settings", "write `project: ...`, `registry: ...`")
        return ""
    _check_keys(content, {*_fields_of(feast.RepoConfig), *OWN_KEYS}, "Feast", place, problems)
    for name, (class_of, known) in _SECTIONS.items():
        if content.get(name) is not None:
            _check_section(name, content[name], class_of, known, place, problems)
    if isinstance(content.get("registry"), Mapping):
        _check_registry(content["registry"], place, problems)
    if len(problems.found) > found_before:
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            feast.load_repo_config(path.parent, path)
    except (feast.FeastConfigError, FeastError, ValidationError, ValueError) as error:
        problems.add(place, f"Feast does not accept it: {' '.join(str(error).split())}", "correct it")
        return ""
    section = content.get("online_store")
    named = section.get("type") if isinstance(section, Mapping) else section
    return str(named or ("sqlite" if "online_store" not in content or isinstance(section, Mapping) else "none"))


def _check_registry(section: Mapping[str, object], place: Place, problems: ProblemList) -> None:
    """Feast takes any key of it, and a registry without its path for one in the default place."""
    type_name = str(section.get("registry_type", "file"))
    if type_name not in feast.REGISTRY_CLASS_FOR_TYPE:
        fact = f'registry is of type "{type_name}", which is not there'
        problems.add(place, fact, suggest(type_name, feast.REGISTRY_CLASS_FOR_TYPE))
        return
    known = _fields_of(feast.get_registry_config_from_type(type_name))
    _check_keys(section, known, "Feast", place, problems, within="registry")


def _check_section(
    name: str,
    section: object,
    class_of: Callable[[str], type[BaseModel]],
    known: Collection[str],
    place: Place,
    problems: ProblemList,
) -> None:
    """One of the sections that say a class by their type, or are nothing but the type."""
    settings = dict(section) if isinstance(section, Mapping) else {"type": section}
    type_name = settings.get("type", known)
    if type_name is known or str(type_name).lower() in ("none", "null"):
        return  # Feast's default, or none at all
    try:
        settings_class = class_of(str(type_name))
    except (FeastError, AssertionError, ValueError) as error:
        reason = "" if isinstance(error, AssertionError | ValueError) else f" ({' '.join(str(error).split())})"
        fact = f'{name} is of type "{type_name}", which is not there{reason}'
        problems.add(place, fact, suggest(str(type_name), [one for one in known if "feast.infra" not in one]))
        return
    if settings_class.model_config.get("extra") != "allow":
        _check_keys(settings, _fields_of(settings_class), f'"{type_name}"', place, problems, within=name)
    try:
        settings_class(**settings)
    except ValidationError as error:
        for one in error.errors():
            if one["type"] != "extra_forbidden":
                key = ".".join(map(str, one["loc"]))
                problems.add(place, f'"{key}" of {name} is {one["input"]!r}: {one["msg"]}', "correct it")


def _check_keys(
    content: Mapping[Any, object],
    known: Iterable[str],
    whose: str,
    place: Place,
    problems: ProblemList,
    within: str = "",
) -> None:
    """Keys that nobody reads."""
    known = sorted(known)
    for key in content:
        if key not in known:
            where = f"its {within} has" if within else "it has"
            problems.add(place, f'{where} the key "{key}", which {whose} does not know', suggest(str(key), known))


def _fields_of(settings_class: type[BaseModel]) -> set[str]:
    """Keys that a class of settings takes."""
    fields = settings_class.model_fields
    return {*fields, *(field.alias for field in fields.values() if field.alias)}
