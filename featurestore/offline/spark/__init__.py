"""Training sets under Spark, by the same engine."""
