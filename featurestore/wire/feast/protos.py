"""Feast's wire messages without importing Feast.

`feast.binpb` is a FileDescriptorSet compiled from proto/feast (python proto/compile_feast.py). It is loaded into a
private descriptor pool: Feast registers the same message names in the process-wide pool when it is imported, and two
definitions of one name in one pool are an error. The price is that a message of this pool is not a message of Feast's
own module; bytes pass between the two, objects do not.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

DESCRIPTOR_SET_FILE = "feast.binpb"


@cache
def message_class(full_name: str) -> type[Message]:
    """The class of a message, such as "feast.core.Registry".

    Raises:
        KeyError: proto/feast does not declare it.
    """
    message_type = message_factory.GetMessageClass(descriptor_pool().FindMessageTypeByName(full_name))
    assert issubclass(message_type, Message)
    return message_type


@cache
def descriptor_pool() -> DescriptorPool:
    """The private pool with every file of proto/feast and the well-known types they use."""
    pool = DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString((resources.files(__package__) / DESCRIPTOR_SET_FILE).read_bytes())
    for file in files.file:
        pool.Add(file)
    return pool
