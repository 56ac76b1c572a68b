"""The streams: Kafka (or an embedded log) to tiles, run by Bytewax."""
