"""A page of the docs, typed in by a test, so that it cannot rot.

```python, first line "# path.py" is written to that file
```python                         is run
```bash                           is typed into one shell, like a reader's; what keeps running gets its own terminal,
                                  opened where that shell is
```bash, featurestore store stop  as well, after Ctrl-C in the terminals of what keeps running
```text                           are lines that the block before it must have printed, "..." for anything
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from featurestore.online.embedded import EmbeddedStore

ROOT = Path(__file__).resolve().parents[2]
KEEP_RUNNING = ("featurestore stream", "featurestore serve", "featurestore ui")
ENDS_ALL = "featurestore store stop"
QUESTIONS = ("featurestore lookup", "featurestore status")
"""Typing these again does no harm; parts that were started a moment ago may need it."""

TIMEOUT_S = 60.0
"""For an answer to become the right one, for a program of the page, and for what is interrupted to end."""

COMMAND_TIMEOUT_S = 600.0
"""For commands in the shell; the longest installs half a gigabyte."""

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"# ([\w./-]+\.py)\n")
_FRAMES = re.compile(r"[┃│━─┏┓┗┛┡┩╇┳┻└┘┴┬]")


@dataclass
class Reader:
    """Somebody at a desk who types in what the page says.

    Attributes:
        directory: where the first terminal is opened.
        environment: of that terminal.
    """

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
            start_new_session=True,
        )

    def type(self, commands: str) -> str:
        """Type commands into the shell; returns what they print, and fails when one of them fails."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f'failed=0; trap failed=1 ERR\n{commands}\necho "|done $failed"\n')
        self.shell.stdin.flush()
        patience = threading.Timer(COMMAND_TIMEOUT_S, self._kill_shell)
        patience.start()
        try:
            printed = ""
            while not (end := re.search(r"\|done (\d+)\n$", printed)):
                line = self.shell.stdout.readline()
                assert line, f"the shell ended\n{printed}"
                printed += line
        finally:
            patience.cancel()
        assert end.group(1) == "0", f"{commands}\n{printed}"
        return printed

    def run_python(self, code: str) -> str:
        """Run a program where the shell is; returns what it prints."""
        directory, environment = self._surroundings()
        done = subprocess.run(
            ["python", "-W", "ignore", "-c", code],
            cwd=directory,
            env=environment,
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
        directory, environment = self._surroundings()
        with (self.directory / "terminals.log").open("ab") as log:
            self.terminals[command] = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=directory, env=environment, stdout=log, stderr=log
            )

    def interrupt(self, command: str) -> None:
        """Ctrl-C; the command must end in good order."""
        process = self.terminals.pop(command)
        process.send_signal(signal.SIGINT)

        assert process.wait(TIMEOUT_S) == 0, (self.directory / "terminals.log").read_text()

    def interrupt_all(self) -> None:
        """Ctrl-C in every terminal."""
        for command in list(self.terminals):
            self.interrupt(command)

    def leave(self) -> None:
        """Close all terminals."""
        for terminal in self.terminals.values():
            terminal.kill()
            terminal.wait()
        self._kill_shell()
        self.shell.communicate()

    def _surroundings(self) -> tuple[Path, dict[str, str]]:
        """Where the shell is, and its environment with the PATH that it has by now."""
        directory, path, _ = self.type('pwd; echo "$PATH"').splitlines()
        return Path(directory), {**self.environment, "PATH": path}

    def _kill_shell(self) -> None:
        """With whatever it runs; what has become a daemon is not among it."""
        if self.shell.poll() is None:
            os.killpg(self.shell.pid, signal.SIGKILL)


def clean_environment() -> dict[str, str]:
    """Variables of somebody who has set nothing, with this checkout and its programs."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("FEATURESTORE_", "BYTEWAX_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"
    return {**found, "PATH": path, "PYTHONPATH": str(ROOT)}


@contextmanager
def reader_in(directory: Path) -> Iterator[Reader]:
    """A reader beside a fresh copy of the example repo, with nothing else running; what the page leaves is stopped."""
    repo = directory / "feature_repo"
    shutil.copytree(ROOT / "feature_repo", repo, ignore=shutil.ignore_patterns("data"))
    reader = Reader(directory, clean_environment())
    try:
        yield reader
    finally:
        reader.leave()
        EmbeddedStore(repo / "data" / "store").stop()


def type_in(page: str, reader: Reader) -> set[str]:
    """Type a page in from top to bottom; returns the languages of its blocks.

    Args:
        page: its text, with ports and addresses that are free here.
        reader: who types.

    Raises:
        AssertionError: a command fails, or does not print what the page says.
    """
    blocks = _FENCE.findall(page)
    following = [*blocks[1:], ("", "")]
    for (language, content), (next_language, expected) in zip(blocks, following, strict=True):
        wanted = expected.splitlines() if next_language == "text" else []
        if language == "bash" and content.startswith(KEEP_RUNNING):
            reader.keep_running(content.strip())
        elif language == "bash":
            if content.startswith(ENDS_ALL):
                reader.interrupt_all()
            _until_it_says(wanted, partial(reader.type, content), again=content.startswith(QUESTIONS))
        elif language == "python" and (path := _PATH.match(content)):
            (reader.directory / path.group(1)).write_text(content[path.end() :])
        elif language == "python":
            _until_it_says(wanted, partial(reader.run_python, content), again=True)
    return {language for language, _ in blocks}


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
