"""Avro records of Confluent's wire format: a magic byte, the id of the writer's schema, the record.

    schema text -> program -> loop(program, payloads) -> columns

A program is what a schema means for the columns that are read: what is wanted is stored, everything else is stepped
over. Source: the Apache Avro specification 1.12, "Binary encoding" and "Logical types".
"""
