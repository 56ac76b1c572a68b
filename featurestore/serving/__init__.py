"""The lookup server and its clients: gRPC over the online store."""
