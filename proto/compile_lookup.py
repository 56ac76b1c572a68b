"""Compile proto/featurestore_api/v1/lookup.proto into featurestore/serving/_generated, and ship it with the package.

Run `python proto/compile_lookup.py` after editing it (needs grpcio-tools). protoc derives a module's place from the
.proto's path. That path is made for users, whose module must not be called as this package is; ours is moved to where
servers keep it, which is easy since the file imports nothing.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT.parent / "featurestore"
SOURCE = "featurestore_api/v1/lookup.proto"
OUTPUT = PACKAGE / "serving" / "_generated"
SHIPPED = PACKAGE / "protos"

REPLACEMENTS = {
    # Users may have stubs of their own, made from another release of the file. One pool cannot hold two definitions of
    # a message, so ours get a pool to themselves and leave the process-wide one to the user.
    "_descriptor_pool.Default()": "_descriptor_pool.DescriptorPool()",
    "'featurestore_api.v1.lookup_pb2'": "'featurestore.serving._generated.lookup_pb2'",
}
"""What protoc cannot be told; each is once in its output."""


def main() -> int:
    """Compile the file; returns protoc's exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [f"--proto_path={ROOT}", f"--python_out={scratch}", f"--pyi_out={scratch}", SOURCE]
        code = int(protoc.main(["protoc", *arguments]))
        if code == 0:
            generated = (Path(scratch) / SOURCE).with_name("lookup_pb2.py")
            (OUTPUT / generated.name).write_text(_in_its_place(generated.read_text()))
            shutil.copyfile(generated.with_suffix(".pyi"), OUTPUT / "lookup_pb2.pyi")
            (SHIPPED / SOURCE).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / SOURCE, SHIPPED / SOURCE)
        return code


def _in_its_place(module: str) -> str:
    """The generated module as it must be where it will stand."""
    for of_protoc, ours in REPLACEMENTS.items():
        assert module.count(of_protoc) == 1, f"protoc no longer writes {of_protoc}"
        module = module.replace(of_protoc, ours)
    return module


if __name__ == "__main__":
    sys.exit(main())
