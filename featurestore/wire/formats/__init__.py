"""Formats of payloads, beside one another behind one protocol: bytes of N records to the columns that are read.

`columns` has the protocol and what the formats share, `json_objects` and `avro` are formats. Which one a source has is
for `wire.payloads`, which knows none of their inner lives.
"""
