"""The page docs/add-your-own-feature.md, typed in by a test, so that it cannot rot.

```python, first line "# path"    is written to that file
```python                         is run
```bash                           is typed into one shell, like a reader's; what keeps running gets its own terminal
```text                           are lines that the block before it must have printed, "..." for anything
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "add-your-own-feature.md"
PORT_ON_PAGE = "6566"
KEEP_RUNNING = ("featurestore stream", "featurestore serve")
TIMEOUT_S = 60.0

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FRAMES = re.compile(r"[┃│━─┏┓┗┛┡┩╇┳┻└┘┴┬]")


@dataclass
class Reader:
    """Somebody at a desk who types in what the page says."""

    directory: Path
    environment: dict[str, str]
    shell: subprocess.Popen[str] = field(init=False)
    terminals: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Open the first terminal."""
        self.shell = subprocess.Popen(
            ["bash"],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, commands: str) -> str:
        """Type commands into the shell; returns what they print, and fails when one of them fails."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f'failed=0; trap failed=1 ERR\n{commands}\necho "|done $failed"\n')
        self.shell.stdin.flush()
        printed = ""
        while not (end := re.search(r"\|done (\d+)\n$", printed)):
            line = self.shell.stdout.readline()
            assert line, f"the shell ended\n{printed}"
            printed += line
        assert end.group(1) == "0", f"{commands}\n{printed}"
        return printed

    def run_python(self, code: str) -> str:
        """Run a program; returns what it prints."""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=self.directory,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def keep_running(self, command: str) -> None:
        """Run a command in a terminal of its own; Ctrl-C to the one that runs there already."""
        if command in self.terminals:
            self.interrupt(command)
        with (self.directory / "terminals.log").open("ab") as log:
            self.terminals[command] = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.directory, env=self.environment, stdout=log, stderr=log
            )

    def interrupt(self, command: str) -> None:
        """Ctrl-C; the command must end in good order."""
        process = self.terminals.pop(command)
        process.send_signal(signal.SIGINT)

        assert process.wait(TIMEOUT_S) == 0

    def leave(self) -> None:
        """Close all terminals."""
        for terminal in self.terminals.values():
            terminal.kill()
            terminal.wait()
        self.shell.kill()
        self.shell.communicate()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader with a fresh copy of the example repo, and nothing else running."""
    shutil.copytree(ROOT / "feature_repo", tmp_path / "feature_repo", ignore=shutil.ignore_patterns("data"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEATURESTORE_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(ROOT)
    reader = Reader(tmp_path, environment)
    yield reader
    reader.leave()
    subprocess.run(["featurestore", "store", "stop"], cwd=tmp_path, env=environment, check=True, capture_output=True)


@pytest.mark.slow
def test_the_page_works_as_written(reader: Reader, port: int) -> None:
    """Typed in from top to bottom, every command succeeds and prints what the page says."""
    blocks = _FENCE.findall(PAGE.read_text(encoding="utf-8").replace(PORT_ON_PAGE, str(port)))
    following = [*blocks[1:], ("", "")]
    for (language, content), (next_language, expected) in zip(blocks, following, strict=True):
        wanted = expected.splitlines() if next_language == "text" else []
        if language == "bash" and content.startswith(KEEP_RUNNING):
            reader.keep_running(content.strip())
        elif language == "bash":
            _until_it_says(wanted, partial(reader.type, content), again=_is_a_question(content))
        elif language == "python" and content.startswith("# feature_repo/"):
            path, _, program = content.removeprefix("# ").partition("\n")
            (reader.directory / path).write_text(program)
        elif language == "python":
            _until_it_says(wanted, partial(reader.run_python, content), again=True)
    for command in list(reader.terminals):
        reader.interrupt(command)

    assert {language for language, _ in blocks} == {"bash", "python", "text"}
    assert reader.type("featurestore store status || true").startswith("no embedded store runs")


def _is_a_question(commands: str) -> bool:
    """Whether typing the same again does no harm; parts that were started a moment ago may need one."""
    return commands.startswith(("featurestore lookup", "featurestore status"))


def _until_it_says(wanted: list[str], action: Callable[[], str], *, again: bool) -> None:
    """Do something until it prints the wanted lines; once, if it must not be repeated."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            printed = action()
            missing = [line for line in wanted if not _matches(line, printed)]
            assert missing == [], printed
        except AssertionError:
            if not again or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def _matches(line: str, printed: str) -> bool:
    """Whether some printed line begins as the wanted one, whatever the spaces and frames."""
    pattern = re.escape(_plain(line)).replace(r"\.\.\.", ".*")
    return any(re.match(pattern, _plain(each)) for each in printed.splitlines())


def _plain(line: str) -> str:
    return " ".join(_FRAMES.sub(" ", line).split())
