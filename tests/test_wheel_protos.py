"""The .proto files as others get them: in the wheel, and as stubs beside the installed packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from featurestore.serving._generated import lookup_pb2

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "proto"
LOOKUP = "featurestore_api/v1/lookup.proto"
SHIPPED = [LOOKUP, "feast/serving/ServingService.proto", "feast/types/Value.proto"]

WHEEL_IS_MADE_OF = ["pyproject.toml", "README.md", "featurestore", "dataflows"]
"""A copy of these, so that nothing is left behind in the working copy, and nothing is taken from an earlier build."""

STUBS = "from featurestore_api.v1 import lookup_pb2, lookup_pb2_grpc\n"
OURS = "import featurestore.client\n"
FEASTS = "from feast.protos.feast.serving import ServingService_pb2\n"
CHECK = """
from featurestore.serving._generated import lookup_pb2 as ours
request = lookup_pb2.LookupRequest(feature_service="known_shop")
request.entities.add(join_key="merchant_id", integers=[-42])
assert ours.LookupRequest.FromString(request.SerializeToString()).entities[0].integers[0] == -42
print(featurestore.__file__, lookup_pb2.__file__)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the wheel installs."""
    source, wheels, installed = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "installed"))
    for name in WHEEL_IS_MADE_OF:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(wheels), str(source)], check=True, capture_output=True)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    return installed


def test_the_wheel_has_the_protos_that_the_server_speaks(installed: Path) -> None:
    """Ours and Feast's serving contract, byte by byte, where importlib.resources finds them; and nothing else."""
    code = "from importlib.resources import files; print(files('featurestore') / 'protos')"
    protos = Path(_run(code, installed).strip())

    assert protos == installed / "featurestore" / "protos"
    assert sorted(SHIPPED) == sorted(str(path.relative_to(protos)) for path in protos.rglob("*") if path.is_file())
    assert [(SOURCES / name).read_bytes() for name in SHIPPED] == [(protos / name).read_bytes() for name in SHIPPED]


def test_what_ships_is_complete_and_has_names_for_every_language(installed: Path, tmp_path: Path) -> None:
    """Protoc needs no other file but its own, and code generated for Go and Java has a package."""
    files = {file.name: file for file in _compiled(installed / "featurestore" / "protos", SHIPPED, tmp_path).file}

    assert set(SHIPPED) <= set(files)
    assert files[LOOKUP].package == "featurestore.v1"
    assert files[LOOKUP].options.java_package == "featurestore.api.v1"
    assert files[LOOKUP].options.go_package == "featurestore_api/v1;featurestorev1"


def test_the_generated_module_is_compiled_from_the_proto_file(tmp_path: Path) -> None:
    """Whoever edits the file must run proto/compile_lookup.py."""
    (compiled,) = _compiled(SOURCES, [LOOKUP], tmp_path).file
    for message in compiled.message_type:
        for each in (message, *message.nested_type):
            for field in each.field:
                field.ClearField("json_name")  # protoc keeps it out of modules

    assert descriptor_pb2.FileDescriptorProto.FromString(lookup_pb2.DESCRIPTOR.serialized_pb) == compiled


@pytest.mark.slow
@pytest.mark.parametrize("edition", ["of_this_release", "of_another_release"])
def test_stubs_live_beside_the_installed_package_and_feast(installed: Path, tmp_path: Path, edition: str) -> None:
    """One process imports all three, in any order, with the stubs first on the path, whatever release they are of."""
    protos = tmp_path / "protos"
    shutil.copytree(installed / "featurestore" / "protos", protos)
    if edition == "of_another_release":
        file = protos / LOOKUP
        fields = file.read_text(encoding="utf-8").replace(
            "  bool include_metadata = 4;\n", "  bool include_metadata = 4;\n  string tenant = 999;\n"
        )
        assert "tenant" in fields
        file.write_text(fields, encoding="utf-8")
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    outputs = [f"--{kind}={stubs}" for kind in ("python_out", "pyi_out", "grpc_python_out")]

    assert protoc.main(["protoc", f"--proto_path={protos}", *outputs, LOOKUP]) == 0
    for imports in (STUBS + OURS + FEASTS, FEASTS + OURS + STUBS):
        package, module = _run(imports + CHECK, stubs, installed).split()
        assert Path(package).is_relative_to(installed)
        assert Path(module).is_relative_to(stubs)
    # An editable install is found after everything on the path: a directory `featurestore` would hide it.
    package, module = _run(STUBS + OURS + CHECK, stubs).split()
    assert Path(package).is_relative_to(ROOT)
    assert Path(module).is_relative_to(stubs)


def _compiled(protos: Path, names: list[str], scratch: Path) -> descriptor_pb2.FileDescriptorSet:
    """What protoc makes of some files below a directory."""
    output = scratch / "protos.binpb"
    well_known = Path(protoc.__file__).parent / "_proto"
    options = [f"--proto_path={protos}", f"--proto_path={well_known}", f"--descriptor_set_out={output}"]
    assert protoc.main(["protoc", *options, *names]) == 0
    return descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())


def _run(code: str, *path: Path) -> str:
    """What a program prints that finds modules in these directories first."""
    program = f"import sys; sys.path[:1] = {[str(each) for each in path]}\n{code}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], check=False, capture_output=True, text=True, cwd=path[0]
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
