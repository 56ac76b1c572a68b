"""Compile proto/featurestore/v1/lookup.proto into featurestore/serving/_generated.

Run `python proto/compile_lookup.py` after editing it (needs grpcio-tools). protoc derives the module's place from the
.proto's path, which would be featurestore/v1; the one file imports nothing, so it is moved to where servers keep it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
SOURCE = "featurestore/v1/lookup.proto"
OUTPUT = ROOT.parent / "featurestore" / "serving" / "_generated"


def main() -> int:
    """Compile the file; returns protoc's exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [f"--proto_path={ROOT}", f"--python_out={scratch}", f"--pyi_out={scratch}", SOURCE]
        code = int(protoc.main(["protoc", *arguments]))
        if code == 0:
            for name in ("lookup_pb2.py", "lookup_pb2.pyi"):
                shutil.copyfile(Path(scratch) / "featurestore" / "v1" / name, OUTPUT / name)
        return code


if __name__ == "__main__":
    sys.exit(main())
