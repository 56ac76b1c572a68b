"""Build training sets, read the history that they come from, and what became of their features since.

    from featurestore.training import EventLogHistory, build_training_set, read_registry
    from featurestore.training import last_drift, statistics_of

A door: what stands in `__all__` keeps its name and its meaning from release to release. The same on a Spark cluster is
`featurestore.spark`.
"""

from featurestore.core.spec import RepoSpec
from featurestore.definitions.governance.access.calls import reads_history
from featurestore.definitions.registry import read_registry
from featurestore.offline.event_log.reader import EventLog
from featurestore.offline.health.readers import last_drift, statistics_of
from featurestore.offline.labels import LabelCounts, LabelRows, labelled
from featurestore.offline.parity.check import check_parity
from featurestore.offline.parity.checking.batch import ParityOptions
from featurestore.offline.training_set import build
from featurestore.offline.training_set.build import TrainingSetProgress, write_training_set
from featurestore.offline.training_set.histories import EventLogHistory, FileHistory, History
from featurestore.offline.training_set.plain_join import PlainHistory

build_training_set = reads_history(build.build_training_set)
"""Where the registry has permissions, for whoever may READ_OFFLINE what he asks for; see docs/access.md."""

__all__ = [
    "EventLog",
    "EventLogHistory",
    "FileHistory",
    "History",
    "LabelCounts",
    "LabelRows",
    "ParityOptions",
    "PlainHistory",
    "RepoSpec",
    "TrainingSetProgress",
    "build_training_set",
    "check_parity",
    "labelled",
    "last_drift",
    "read_registry",
    "statistics_of",
    "write_training_set",
]
