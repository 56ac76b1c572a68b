"""Somebody at a desk who reads docs/clients.md and types in what it says.

```go, xml or java, first line "// path"   is written to that file
```python                                  is run
```bash                                    is typed into a shell; `featurestore serve` keeps running
```text                                    are lines that the block before it must have printed, "..." for anything
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from featurestore.online.probe import free_port

PAGE = Path(__file__).resolve().parents[2] / "docs" / "clients.md"
PORT_ON_PAGE, TLS_PORT_ON_PAGE, HTTP_PORT_ON_PAGE = "6566", "6567", "8080"
TIMEOUT_S = 300.0
"""Downloading and compiling gRPC takes one minute on an idle machine, the first time."""

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"^(?://|<!--) ((?:go|java|feast)/\S+)")
_COLOR = re.compile(r"\x1b\[[\d;]*m")


@dataclass
class Desk:
    """Somebody at a desk who types in what the page says.

    Attributes:
        directory: where he works.
        environment: of everything he starts.
        port: of the server that runs already.
        tls_port: of the one that the page starts.
        http_port: of another one that it starts, which speaks HTTP as well.
        registry: that both serve.
    """

    directory: Path
    environment: dict[str, str]
    running: ExitStack
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)

    @property
    def registry(self) -> Path:
        """What both servers serve."""
        return self.directory / "feature_repo" / "data" / "registry.db"

    def follow(self, title: str) -> None:
        """Type a section of the page; every block must succeed and print what the page says."""
        blocks = self.blocks(title)
        for (language, content), (next_language, expected) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
            path = _PATH.match(content)
            if path is not None:
                self.write(path[1], content)
            elif language == "bash" and content.startswith("featurestore serve"):
                self.serve(content.strip())
            elif language in {"bash", "python"}:
                printed = self.type(content) if language == "bash" else self.python(content)
                wanted = expected.splitlines() if next_language == "text" else []
                assert [line for line in wanted if not is_printed(line, printed)] == [], printed

    def blocks(self, title: str) -> list[tuple[str, str]]:
        """Language and content of a section's blocks."""
        page = PAGE.read_text(encoding="utf-8")
        page = page.replace(PORT_ON_PAGE, str(self.port)).replace(TLS_PORT_ON_PAGE, str(self.tls_port))
        page = page.replace(HTTP_PORT_ON_PAGE, str(self.http_port))
        (section,) = [part for part in re.split(r"^## ", page, flags=re.MULTILINE) if part.startswith(f"{title}\n")]
        return _FENCE.findall(section)

    def write(self, path: str, content: str) -> None:
        """Keep a block as a file."""
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")

    def type(self, commands: str) -> str:
        """Type commands into a shell; what they print."""
        return self.run(["bash", "-e", "-o", "pipefail", "-c", commands])

    def python(self, code: str) -> str:
        """Run a program; what it prints."""
        return self.run([sys.executable, "-W", "ignore", "-c", code])

    def run(self, command: Sequence[str], *, given: str = "") -> str:
        """Run a command that succeeds, with something to read; what it prints."""
        done = self.outcome(command, given=given)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def outcome(
        self, command: Sequence[str], *, given: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run any command."""
        return subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment | environment,
            check=False,
            input=given,
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT_S,
        )

    def start(self, command: Sequence[str], read: Path) -> subprocess.Popen[str]:
        """Start a command that reads a file; whoever starts it reads what it prints."""
        with read.open("rb") as given:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=self.environment,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
        self.running.callback(process.communicate)
        self.running.callback(process.kill)
        return process

    def serve(self, command: str) -> None:
        """Start a server in a terminal of its own; returns when it is ready."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.running.callback(process.communicate)
        self.running.callback(process.kill)
        assert process.stdout is not None
        assert "serving project" in process.stdout.readline(), command


def is_printed(line: str, printed: str) -> bool:
    """Whether a line is among the printed ones, whatever its color, its spaces and a comma at the end."""
    printed = _COLOR.sub("", printed)
    pattern = re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*")
    return any(re.fullmatch(f"{pattern},?", " ".join(each.split())) for each in printed.splitlines())
