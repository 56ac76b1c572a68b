"""A Protobuf schema as a registry has it, text and references, to descriptors, by the reference compiler.

Nothing but that compiler knows all of the language, and grpcio-tools has it for every platform. It reads files, so
that it gets a directory of its own for as long as it runs; it is run as another process, as it says what is wrong to
its standard error, and as importing it changes how this one imports.

What a client registers need not be a text: Python's registers a serialized descriptor in base64, which is as good.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from featurestore.errors import InternalError, InvalidRequest, Unavailable

COMPILE_SECONDS_MAX = 60
"""A schema of a thousand messages takes one."""

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")

_WARNING = re.compile(r"[WI]\d{4} |WARNING: ")

_OF_CONFLUENT = {
    "confluent/meta.proto": """
        syntax = "proto3";
        package confluent;
        import "google/protobuf/descriptor.proto";
        message Meta {
            string doc = 1; map<string, string> params = 2; repeated string tags = 3; repeated Rule rules = 4;
        }
        message Rule { string name = 1; string doc = 2; string expr = 3; string sql = 4; }
        extend google.protobuf.FileOptions { Meta file_meta = 1088; }
        extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
        extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
        extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
        extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }
    """,
    "confluent/type/decimal.proto": """
        syntax = "proto3";
        package confluent.type;
        message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }
    """,
}
"""Files that Confluent's registry lets schemas import without a reference."""


def descriptors(text: str, references: Mapping[str, str]) -> FileDescriptorSet:
    """The descriptors of a schema, those of what it imports before, its own last.

    Args:
        text: the schema; a .proto text, or a serialized FileDescriptorProto in base64.
        references: what it imports, and what that imports, by the names of the imports; texts as that of the schema.
            Google's well-known types need not be among them.

    Raises:
        InvalidRequest: the text is no schema.
        Unavailable: the compiler did not end.
        InternalError: there is no compiler.
    """
    own = "schema.proto"
    while own in references:
        own = f"_{own}"
    texts: dict[str, str] = {}
    known: dict[str, FileDescriptorProto] = {}
    for name, each in {**_OF_CONFLUENT, **references, own: text}.items():
        if (serialized := _serialized(each)) is None:
            texts[name] = each
        else:
            known[name] = serialized
            known[name].name = serialized.name if name == own else name
    if own in texts:
        return _compiled(own, texts, known)
    imported = {name for file in known.values() for name in file.dependency} & texts.keys()
    if imported:
        texts[own] = "\n".join(['syntax = "proto3";', *(f'import "{name}";' for name in sorted(imported))])
        by_text = _compiled(own, texts, {name: file for name, file in known.items() if name != own})
        known = {**{file.name: file for file in by_text.file[:-1]}, **known}
    return FileDescriptorSet(file=[*(file for name, file in known.items() if name != own), known[own]])


def _serialized(text: str) -> FileDescriptorProto | None:
    """A descriptor in base64; None of what is none. Every text of a schema has a brace, a quote or a semicolon."""
    if not _BASE64.fullmatch(text):
        return None
    try:
        return FileDescriptorProto.FromString(base64.b64decode(text))
    except (binascii.Error, DecodeError):
        return None


def _compiled(own: str, texts: Mapping[str, str], known: Mapping[str, FileDescriptorProto]) -> FileDescriptorSet:
    """The descriptors of a text and of what it imports: texts, and descriptors."""
    if importlib.util.find_spec("grpc_tools") is None:
        # Not the schema's fault: nobody must take its records for unreadable.
        raise InternalError(
            "package grpcio-tools, which compiles Protobuf schemas, is not installed",
            hint="pip install 'featurestore[protobuf]'",
        )
    with tempfile.TemporaryDirectory(prefix="schema-") as directory:
        for name, text in texts.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
                raise InvalidRequest(f'a Protobuf schema imports "{name}", which is no name of a file')
            file = Path(directory, "texts", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        Path(directory, "known").write_bytes(FileDescriptorSet(file=known.values()).SerializeToString())
        given = [f"--proto_path={directory}/texts", *([f"--descriptor_set_in={directory}/known"] if known else [])]
        command = [*(sys.executable, "-P", "-m", "grpc_tools.protoc", "--include_imports"), *given]
        try:
            done = subprocess.run(
                [*command, f"--descriptor_set_out={directory}/out", own],
                capture_output=True,
                text=True,
                timeout=COMPILE_SECONDS_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"the compiler of Protobuf schemas took more than {COMPILE_SECONDS_MAX} s") from error
        if done.returncode:
            told = done.stderr.replace(f"{directory}/texts/", "").splitlines()
            errors = [line for line in told if not _WARNING.match(line)] or ["the compiler says nothing"]
            raise InvalidRequest(f"a Protobuf schema does not compile: {errors[0]}", detail="\n".join(errors[1:]))
        return FileDescriptorSet.FromString(Path(directory, "out").read_bytes())
