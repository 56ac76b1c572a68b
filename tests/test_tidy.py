"""Taste as a test: what a review said twice is a rule here. The house style in one line each, with the remedy.

Who may import whom is import-linter's (pyproject.toml), formatting and docstrings are ruff's; here is the rest.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from featurestore.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
PRODUCT = ("featurestore", "dataflows", "feature_repo")
CODE = (*PRODUCT, "tests", "benchmarks", "proto", "scripts")

NAMED_IN = (ROOT / "pyproject.toml", ROOT / "feature_repo" / "feature_store.yaml")
"""Files that name modules without being Python."""

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 460
ROOMS_MAX = 12
"""A folder is a picture that fits in the eye."""

NOT_ROOMS = {"features", "on_demand", "client", "training", "spark", "feast", "__init__", "__main__"}
"""Doors of the package, and what makes a folder a package or a program."""

POSITIONAL_PARAMETERS_MAX = 7

VAGUE_FILES = {"utils", "util", "helpers", "helper", "common", "misc", "stuff", "base_utils"}
"""A file is named after what it is about."""

BANNED_NAMES = {
    "ts": "event_time_ms",
    "dt": "event_time_ms",
    "event_ts": "event_time_ms",
    "event_timestamp_ms": "event_time_ms",
    "ingest_ts": "processed_at_ms",
    "max_ts": "watermark_ms",
    "asof": "as_of_ms",
    "as_of_time": "as_of_ms",
    "staleness": "freshness_ms",
    "staleness_ms": "freshness_ms",
    "staleness_seconds": "freshness_ms",
    "pane": "tile",
    "panes": "tiles",
    "agg": "aggregation or accumulator",
    "aggs": "aggregations or accumulators",
    "partial_agg": "accumulator",
    "cfg": "settings",
    "conf": "settings",
    "mgr": "a name that says what it does",
    "tmp": "a name that says what it holds",
}
"""One word per thing: never the left one, the right one instead."""

QUANTITY = re.compile(r"(^|_)(timeout|interval|latency|duration|delay|elapsed|retention|lookback|horizon)$", re.I)
"""A number of time units must say which: timeout_ms, delay_s."""

UNFINISHED = re.compile(r"\b(FIXME|TODO|XXX|HACK|WIP)\b")
SUPPRESSION = re.compile(r"#\s*type:\s*ignore(?!\[[a-z-]+(,\s*[a-z-]+)*\]  # \S)")
MACHINE_PATH = re.compile(r"/(?:work|root|home)/[a-z.]")

PLAIN_SUFFIXES = {".py", ".toml", ".yml", ".yaml", ".md", ".txt", ".proto", ".sh"}
PLAIN_NAMES = {"Makefile", "Dockerfile", "run"}
NOT_SHIPPED = {".venv", ".git", ".cache", "data"}
"""Directories of a working copy that are nobody else's."""


def _files(*rooms: str) -> list[Path]:
    found = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    return [path for path in found if "_generated" not in path.parts and "data" not in path.parts]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _given_names(path: Path) -> Iterator[tuple[str, int, ast.expr | None]]:
    """Names that the file gives to variables, parameters and fields: name, line, annotation."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.arg):
            yield node.arg, node.lineno, node.annotation
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.lineno, node.annotation
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno, None


def test_functions_fit_on_a_screen() -> None:
    """A longer one is two."""
    long = [
        f"{_place(path, node.lineno)} {node.name}: {lines} lines"
        for path in _files(*CODE)
        for node in _functions(path)
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]

    assert long == []


def test_files_are_about_one_thing() -> None:
    """A longer one is two."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in _files(*CODE)}

    assert [f"{_place(path, 1)}: {n} lines" for path, n in lengths.items() if n > FILE_LINES_MAX] == []


def test_a_folder_shows_at_most_a_dozen_rooms() -> None:
    """More of them want a folder of their own."""
    folders = {path.parent for path in _files("featurestore", "dataflows")}
    folders |= {parent for folder in folders for parent in folder.parents if ROOT in parent.parents}
    crowded = {
        str(folder.relative_to(ROOT)): len(rooms)
        for folder in sorted(folders)
        if len(rooms := {one.stem for one in folder.iterdir() if _is_room(one)} - NOT_ROOMS) > ROOMS_MAX
    }

    assert crowded == {}


def test_no_file_repeats_the_name_of_its_folder_as_a_prefix() -> None:
    """The folder says it."""
    wrong = [
        str(path.relative_to(ROOT))
        for path in _files("featurestore", "dataflows")
        if path.stem.startswith(f"{path.parent.name}_")
    ]

    assert wrong == []


def test_functions_do_not_take_a_crowd() -> None:
    """More than that are named at the call, or are an object.

    Exempt are commands, to which click passes every option, and compiled loops, which know nothing but arrays.
    """
    crowded = [
        f"{_place(path, node.lineno)} {node.name}: {count} positional parameters"
        for path in _files(*PRODUCT)
        for node in _functions(path)
        if (count := _positional_count(node)) > POSITIONAL_PARAMETERS_MAX
        and not _is_decorated(node, "command", "compiled", "inlined", "borrowing")
    ]

    assert crowded == []


def test_files_have_names() -> None:
    """No drawer for everything else."""
    assert [str(path.relative_to(ROOT)) for path in _files(*CODE) if path.stem in VAGUE_FILES] == []


def test_one_word_per_thing() -> None:
    """The field's word; see BANNED_NAMES for what to say instead."""
    wrong = [
        f"{_place(path, line)} {name}: say {BANNED_NAMES[name]}"
        for path in _files(*CODE)
        for name, line, _ in _given_names(path)
        if name in BANNED_NAMES
    ]

    assert wrong == []


def test_quantities_of_time_name_their_unit() -> None:
    """timeout_ms, not timeout; texts such as "15m" and timedelta objects carry their unit themselves."""
    wrong = [
        f"{_place(path, line)} {name}"
        for path in _files(*PRODUCT)
        for name, line, annotation in _given_names(path)
        if QUANTITY.search(name) and annotation is not None and _is_number(annotation)
    ]

    assert wrong == []


def test_nothing_is_left_unfinished() -> None:
    """No markers of work to come back to."""
    found = [
        _place(path, number)
        for path in _files(*CODE)
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]

    assert found == []


def test_a_silenced_type_error_says_which_and_why() -> None:
    """`# type: ignore[code]  # why`."""
    found = [
        _place(path, number)
        for path in _files(*CODE)
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if SUPPRESSION.search(line)
    ]

    assert found == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    """Paths of one computer do not belong into the project."""
    shipped = []
    for directory, subdirectories, names in os.walk(ROOT):
        subdirectories[:] = set(subdirectories) - NOT_SHIPPED
        shipped += [
            Path(directory, name) for name in names if name in PLAIN_NAMES or Path(name).suffix in PLAIN_SUFFIXES
        ]

    assert len(shipped) > len(_files(*CODE))
    assert [
        str(path.relative_to(ROOT))
        for path in sorted(shipped)
        if path != Path(__file__) and MACHINE_PATH.search(path.read_text(encoding="utf-8", errors="replace"))
    ] == []


def test_lists_of_public_names_are_for_doors() -> None:
    """A module's names are public unless they begin with an underscore; only a door to other modules needs a list."""
    wrong = [
        _place(path, node.lineno)
        for path in _files(*CODE)
        if path.name != "__init__.py"
        for node in _tree(path).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if not set(ast.literal_eval(node.value)) & _imported_names(path)
    ]

    assert wrong == []


def test_every_module_is_used() -> None:
    """A module that nothing imports, and that is no entry point, is forgotten code."""
    mentions = {path: _mentioned_modules(path) for path in [*_files(*CODE), *NAMED_IN]}
    entry_points = {target.partition(":")[0] for target, _ in COMMANDS.values()}
    orphans = []
    for path in _files("featurestore", "dataflows"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.name in {"__init__.py", "__main__.py"} or module in entry_points:
            continue
        if not any(module in found for other, found in mentions.items() if other != path):
            orphans.append(module)

    assert orphans == []


def test_every_test_states_its_promise() -> None:
    """A test's name is a sentence of several words, and its docstring the promise."""
    wrong = [
        f"{_place(path, node.lineno)} {node.name}"
        for path in _files("tests")
        for node in _functions(path)
        if node.name.startswith("test_") and (not ast.get_docstring(node) or node.name.count("_") < 3)
    ]

    assert wrong == []


def _mentioned_modules(path: Path) -> set[str]:
    """Modules of ours that a file names: in full, as the beginning of a longer name, or imported from its package."""
    text = path.read_text(encoding="utf-8")
    names = re.findall(r"\b(?:featurestore|dataflows)(?:\.\w+)+", text)
    names += [
        f"{package}.{name}"
        for package, listed in re.findall(r"from ([\w.]+) import ([^\n]*)", text)
        for name in re.findall(r"\w+", listed)
    ]
    parts = [name.split(".") for name in names]
    return {".".join(each[:length]) for each in parts for length in range(2, len(each) + 1)}


def _is_room(path: Path) -> bool:
    """A module or a package of Python."""
    if path.is_dir():
        return path.name != "_generated" and any(path.rglob("*.py"))
    return path.suffix == ".py"


def _imported_names(path: Path) -> set[str]:
    """Names that a module imports, those for type checkers alone included."""
    imports = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def _positional_count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    return len([name for name in names if name not in {"self", "cls"}])


def _is_decorated(node: ast.FunctionDef | ast.AsyncFunctionDef, *names: str) -> bool:
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    return any(name in decorator for decorator in decorators for name in names)


def _is_number(annotation: ast.expr) -> bool:
    return bool(re.fullmatch(r"(int|float)( \| (int|float|None))*", ast.unparse(annotation)))
