"""Build training sets on a Spark cluster, by the same code as `featurestore.training`.

    from featurestore.spark import SparkEventLog, spark_training_set

A door: what stands in `__all__` keeps its name and its meaning from release to release.
"""

from featurestore.offline.spark.engine import spark_training_set
from featurestore.offline.spark.events import SparkEventLog, SparkFiles, SparkHistory

__all__ = ["SparkEventLog", "SparkFiles", "SparkHistory", "spark_training_set"]
