"""Build training sets on a Spark cluster, by the same code as `featurestore.training`.

    from featurestore.spark import SparkEventLog, spark_training_set

A door: what stands in `__all__` keeps its name and its meaning from release to release.
"""

from featurestore.definitions.governance.access.calls import reads_history
from featurestore.offline.spark import engine
from featurestore.offline.spark.events import SparkEventLog, SparkFiles, SparkHistory

spark_training_set = reads_history(engine.spark_training_set)
"""Where the registry has permissions, for whoever may READ_OFFLINE what he asks for; see docs/access.md."""

__all__ = ["SparkEventLog", "SparkFiles", "SparkHistory", "spark_training_set"]
