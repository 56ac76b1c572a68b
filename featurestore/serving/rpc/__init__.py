"""gRPC around the handlers: two kinds of server, listening, metrics, reflection."""
