"""Protobuf messages of Confluent's wire format: a magic byte, the id of the schema, which message of it, the message.

    descriptors, message indexes -> program -> loop(program, payloads) -> columns

A program is what a message type means for the columns that are read: what is wanted is stored, everything else is
stepped over. Sources: "Encoding", "Application note: field presence" and "ProtoJSON" of the Protobuf documentation;
"Formats, serializers and deserializers: wire format" of Confluent's.
"""
