"""Where records come from: Kafka or a directory of files, as Bytewax sources."""
