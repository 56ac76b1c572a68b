"""Schemas of payloads that a registry has: the compiler of Protobuf texts, and what a schema would break."""
