"""What stands in for Redis, Kafka, the event log and the disk, and fails as it is told."""
