"""Descriptors of a schema: its files linked, and the message in them that indexes name."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from featurestore.wire.formats.columns import UnusableSchema

_WELL_KNOWN = re.compile(r"google/protobuf/(\w+)\.proto")


class Schema:
    """The message types of one schema.

    Args:
        files: the schema's own file last; what it imports anywhere before. Google's well-known types may be missing.

    Raises:
        UnusableSchema: the files are no schema.
    """

    def __init__(self, files: FileDescriptorSet) -> None:
        if not files.file:
            raise UnusableSchema("a Protobuf schema has no file")
        self._file = files.file[-1]
        self._pool = DescriptorPool()
        _add(self._pool, self._file.name, {file.name: file for file in files.file}, set())

    def named(self, full_name: str) -> Descriptor | str:
        """The message type of a full name, or why there is none."""
        try:
            return self._pool.FindMessageTypeByName(full_name)
        except KeyError:
            return f'the schema has no message "{full_name}"'

    def message(self, indexes: Sequence[int]) -> Descriptor | str:
        """The message type that a payload names, or why there is none.

        Args:
            indexes: which of the file's messages, which of that one's, and so on.
        """
        inside, name = self._file.message_type, self._file.package
        for depth, index in enumerate(indexes):
            found = _at(inside, index, is_nested=depth > 0)
            if isinstance(found, str):
                return found
            inside, name = found.nested_type, f"{name}.{found.name}".lstrip(".")
        return self._pool.FindMessageTypeByName(name)


def _at(messages: Sequence[DescriptorProto], index: int, *, is_nested: bool) -> DescriptorProto | str:
    """A message by its index among its neighbours; what is wrong if it is none.

    The entries of a map are messages beside the nested ones in a descriptor, and none in a text. Java's serializer
    counts in the text, those of Python and Go in the descriptor; so what the two would read differently is refused.
    """
    in_text = [message for message in messages if not (is_nested and message.options.map_entry)]
    found = [each[index] for each in (in_text, messages) if index < len(each)]
    named = [message for message in found if not message.options.map_entry]
    if not named:
        return "which has no message of the index that it names"
    if len({message.name for message in named}) > 1:
        return "in which its message is nested behind a map, and serializers count those differently"
    return named[0]


def _add(pool: Any, name: str, files: dict[str, FileDescriptorProto], added: set[str]) -> None:
    """Add a file, behind those that it imports."""
    if name in added:
        return
    added.add(name)
    file = files.get(name) or _well_known(name)
    for imported in file.dependency:
        _add(pool, imported, files, added)
    try:
        pool.Add(file)
    except TypeError as error:
        raise UnusableSchema(f'a Protobuf schema\'s file "{name}" is not valid', detail=str(error)) from error


def _well_known(name: str) -> FileDescriptorProto:
    """A file that comes with Protobuf."""
    if match := _WELL_KNOWN.fullmatch(name):
        try:
            module = importlib.import_module(f"google.protobuf.{match[1]}_pb2")
        except ImportError:
            pass
        else:
            return FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    raise UnusableSchema(
        f'a Protobuf schema imports "{name}", which it does not bring along',
        hint="register the file as a reference of the schema",
    )
