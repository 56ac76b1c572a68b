"""A stream process as users run it, for tests to watch, stop and kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.dataflows.payments import PROJECT

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60.0


def environment_of_processes() -> dict[str, str]:
    """Ours, without what importing Feast has put there: a process would count in files of a megabyte each.

    On a disk that is full for a test, such a file is what it cannot write.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_MULTIPROC")}


class StreamProcess:
    """`python -m dataflows.log_to_tiles` with some options; its output is in a file."""

    def __init__(
        self,
        directory: Path,
        registry: Path,
        url: str,
        *options: str,
        program: Sequence[str] = ("-m", "dataflows.log_to_tiles"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log_path = directory / f"stream-{time.monotonic_ns()}.log"
        settings = {
            "FEATURESTORE_PROJECT": PROJECT,
            "FEATURESTORE_REGISTRY": str(registry),
            "FEATURESTORE_STORE_URL": url,
            "FEATURESTORE_PROGRESS_SECONDS": "0.5",
        }
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, *options],
                cwd=ROOT,
                env={**environment_of_processes(), **settings, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has printed."""
        return self.log_path.read_text()

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Its exit code; the process is killed when it takes too long."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"stream did not end within {timeout_s} s\n{self.output}") from None

    def wait_for(self, text: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until it has printed a text."""
        self.wait_until(lambda: text in self.output, f"it did not print {text!r}", timeout_s)

    def wait_until(self, is_so: Callable[[], bool], otherwise: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """Wait until something is so, while it runs."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.kill()
                raise AssertionError(f"the stream: {otherwise or 'what was waited for did not come'}\n{self.output}")
            time.sleep(0.02)

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
