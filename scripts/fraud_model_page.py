"""Write docs/fraud-model.md and its pictures: run the cells of fraud_model_story.py, and set them as a page.

    python scripts/fraud_model_page.py             writes the page; a test runs it elsewhere and compares
    python scripts/fraud_model_page.py --docs DIR --work DIR

    # %% [markdown]            text; {name} and {name:.2f} are filled in from what the cells before it have made
    # %%                       Python, all in one process; what it prints follows it on the page
    # %% language="bash"       commands; what they print follows, what they complain about does not

Every cell runs in one directory that holds a copy of feature_repo, on a port that is free, and nothing is left running.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from featurestore.testing.servers import free_port

ROOT = Path(__file__).resolve().parents[1]
STORY = Path(__file__).with_name("fraud_model_story.py")
PAGE_NAME = "fraud-model.md"
IMAGES = "images"

PORT_ON_PAGE = "6566"
"""The page names the usual port; it runs on a free one."""

COMMAND_TIMEOUT_S = 300.0

_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_HEADER = re.compile(r"^# %%(?P<options>.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the story.

    Attributes:
        kind: "markdown", "bash" or "python".
        text: what is in it, without comment signs where the kind is not Python.
        line: of the story, from 1, on which the text begins.
    """

    kind: str
    text: str
    line: int


def main() -> int:
    """Run the story and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where page and pictures go")
    parser.add_argument("--work", type=Path, help="empty directory to run in, which is kept; default: a temporary one")
    options = parser.parse_args()
    docs = options.docs.resolve()
    with contextlib.ExitStack() as running:
        work = options.work or running.enter_context(tempfile.TemporaryDirectory(prefix="fraud-model-"))
        directory = Path(work).resolve()
        page = Story(directory).page()
        (docs / IMAGES).mkdir(parents=True, exist_ok=True)
        for picture in sorted((directory / IMAGES).glob("*.svg")):
            shutil.copy(picture, docs / IMAGES)
    (docs / PAGE_NAME).write_text(page, encoding="utf-8")
    return 0


class Story:
    """Runs the cells.

    Args:
        directory: where; made when missing.
    """

    def __init__(self, directory: Path) -> None:
        ignored = shutil.ignore_patterns("data", "__pycache__")
        shutil.copytree(ROOT / "feature_repo", directory / "feature_repo", ignore=ignored)
        for name in ("data", "feature_repo/data", IMAGES):
            (directory / name).mkdir()
        self._directory = directory
        self._port = str(free_port())
        self._names: dict[str, object] = {"__name__": "story"}
        self._sessions: list[int] = []

    def page(self) -> str:
        """Run all cells and return them as Markdown."""
        _prepare_process()
        try:
            with contextlib.chdir(self._directory):
                return "\n".join(self._rendered(cell) for cell in cells(STORY.read_text(encoding="utf-8")))
        finally:
            self._stop_everything()

    def _rendered(self, cell: Cell) -> str:
        """Run one cell; what it is on the page."""
        if cell.kind == "markdown":
            return cell.text.format_map(self._names)
        if cell.kind == "bash":
            return _fenced("bash", cell.text) + _printed(self._type(cell.text))
        return _fenced("python", cell.text) + _printed(self._run(cell))

    def _run(self, cell: Cell) -> str:
        """Run Python; what it prints."""
        printed = io.StringIO()
        # Moved down to its place in the file, so that a traceback points there.
        code = compile("\n" * (cell.line - 1) + cell.text.replace(PORT_ON_PAGE, self._port), STORY, "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, self._names)
        return printed.getvalue()

    def _type(self, commands: str) -> str:
        """Run commands; what they print.

        Raises:
            CalledProcessError: one of them failed.
        """
        with subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands.replace(PORT_ON_PAGE, self._port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as shell:
            self._sessions.append(shell.pid)
            printed, complaints = shell.communicate(timeout=COMMAND_TIMEOUT_S)
        if shell.returncode != 0:
            sys.stderr.write(printed + complaints)
            raise subprocess.CalledProcessError(shell.returncode, commands)
        return printed

    def _stop_everything(self) -> None:
        """End what the commands left running in the background, if a cell failed before the one that stops it."""
        for session in self._sessions:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session, signal.SIGTERM)
        subprocess.run(["featurestore", "store", "stop"], cwd=self._directory, stdout=subprocess.DEVNULL, check=True)


def cells(story: str) -> list[Cell]:
    """The cells of a file in percent format; what is above the first one is the file's own."""
    headers = list(_HEADER.finditer(story))
    ends = [header.start() for header in headers[1:]] + [len(story)]
    found = []
    for header, end in zip(headers, ends, strict=True):
        options = header["options"].strip()
        kinds = {"[markdown]": "markdown", 'language="bash"': "bash", "": "python"}
        kind, text = kinds[options], story[header.end() + 1 : end].strip("\n")
        if kind in ("markdown", "bash"):
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        begin = header.end() + 1 + len(story[header.end() + 1 :]) - len(story[header.end() + 1 :].lstrip("\n"))
        found.append(Cell(kind, text + "\n", story.count("\n", 0, begin) + 1))
    return found


def _prepare_process() -> None:
    """Make this process, and those that it starts, a reader's at a fresh desk."""
    for name in [name for name in os.environ if name.startswith(("FEATURESTORE_", "BYTEWAX_"))]:
        del os.environ[name]
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = str(ROOT)
    sys.path.insert(0, str(ROOT))  # for the story's pictures
    os.environ["MPLBACKEND"] = "Agg"
    # Trees are fitted by threads that spin while they wait: beside other work many times slower than one thread.
    os.environ["OMP_NUM_THREADS"] = "1"


def _fenced(language: str, text: str) -> str:
    """A block of code."""
    lines = text.strip("\n")
    return f"```{language}\n{lines}\n```\n"


def _printed(text: str) -> str:
    """What a cell printed, as a block; nothing when it printed nothing."""
    plain = _COLORS.sub("", text)
    return "\n" + _fenced("text", "\n".join(line.rstrip() for line in plain.splitlines())) if plain.strip() else ""


if __name__ == "__main__":
    sys.exit(main())
