"""Compile proto/feast/**/*.proto into featurestore/wire/feast/feast.binpb, and ship what the server speaks.

Run `python proto/compile_feast.py` after editing one of them (needs grpcio-tools). The output is one
FileDescriptorSet, well-known types included, without source positions, so it changes only when a message does.
"""

from __future__ import annotations

import shutil
import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT.parent / "featurestore"
OUTPUT = PACKAGE / "wire" / "feast" / "feast.binpb"

SHIPPED = ("feast/serving/ServingService.proto", "feast/types/Value.proto")
"""Files of the serving contract; those of the registry are of no use to a client."""


def main() -> int:
    """Compile every file below proto/feast; returns protoc's exit code."""
    for name in SHIPPED:
        copy = PACKAGE / "protos" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy)
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "feast").rglob("*.proto"))
    well_known = str(resources.files("grpc_tools") / "_proto")
    return int(
        protoc.main(
            [
                "protoc",
                f"--proto_path={ROOT}",
                f"--proto_path={well_known}",
                "--include_imports",
                f"--descriptor_set_out={OUTPUT}",
                *sources,
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
