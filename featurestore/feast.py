"""The class paths of a feature_store.yaml.

    online_store:
      type: featurestore.feast.RealTimeOnlineStore
    offline_store:
      type: featurestore.feast.PointInTimeOfflineStore
    batch_engine:
      type: featurestore.feast.PlainViewEngine

A door: these names stay from release to release. Each class is imported when Feast asks for it, so that a process that
only looks features up does not wait for what reads history.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.offline.feast.offline_store import PointInTimeOfflineStore, PointInTimeOfflineStoreConfig
    from featurestore.online.feast.engine import PlainViewEngine, PlainViewEngineConfig
    from featurestore.online.feast.online_store import RealTimeOnlineStore, RealTimeOnlineStoreConfig

__all__ = [
    "PlainViewEngine",
    "PlainViewEngineConfig",
    "PointInTimeOfflineStore",
    "PointInTimeOfflineStoreConfig",
    "RealTimeOnlineStore",
    "RealTimeOnlineStoreConfig",
]

_HOMES = {
    "PlainViewEngine": "featurestore.online.feast.engine",
    "PlainViewEngineConfig": "featurestore.online.feast.engine",
    "PointInTimeOfflineStore": "featurestore.offline.feast.offline_store",
    "PointInTimeOfflineStoreConfig": "featurestore.offline.feast.offline_store",
    "RealTimeOnlineStore": "featurestore.online.feast.online_store",
    "RealTimeOnlineStoreConfig": "featurestore.online.feast.online_store",
}


def __getattr__(name: str) -> Any:
    """The class, from the adapter that it lives in."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
