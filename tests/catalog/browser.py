"""A real browser, driven by its own driver's protocol (https://www.w3.org/TR/webdriver2/), which is JSON over HTTP.

Chromium and chromedriver come from the system. A client library would be a dependency for a dozen calls.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featurestore.online.probe import free_port

PROGRAMS = ("chromedriver", "chromium")

ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004", "ArrowDown": "\ue015", "ArrowUp": "\ue013"}
KEYS |= {"ArrowRight": "\ue014", "Backspace": "\ue003"}

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
PATIENCE_S = 5.0


def browser_missing() -> str | None:
    """What is not installed; None where all is."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


class Browser:
    """One window.

    Args:
        driver: where the driver listens.
        profile: an empty directory for the browser's own files.
    """

    def __init__(self, driver: str, profile: Path) -> None:
        self._driver = driver
        options = {"args": [*ARGUMENTS, f"--user-data-dir={profile}"], "binary": shutil.which("chromium")}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = f"/session/{self._ask('/session', {'capabilities': {'alwaysMatch': wanted}})['sessionId']}"

    def close(self) -> None:
        """End the browser."""
        self._ask(self._session, None, verb="DELETE")

    def open(self, address: str) -> None:
        """Go to a page; returns when it is loaded."""
        self._ask(f"{self._session}/url", {"url": address})

    def run(self, script: str, *arguments: object) -> Any:
        """What a script returns on the page."""
        return self._ask(f"{self._session}/execute/sync", {"script": script, "args": arguments})

    def until(self, condition: str) -> Any:
        """Wait until an expression is true on the page; its value."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := self.run(f"return {condition}")):
            assert time.monotonic() < deadline, f"never: {condition}"
            time.sleep(0.02)
        return found

    def press(self, *keys: str) -> None:
        """Press keys one after another, where the focus is; names of KEYS, else what is typed."""
        presses: list[Mapping[str, str]] = []
        for key in keys:
            for one in [KEYS[key]] if key in KEYS else key:
                presses += [{"type": "keyDown", "value": one}, {"type": "keyUp", "value": one}]
        self._ask(f"{self._session}/actions", {"actions": [{"type": "key", "id": "keys", "actions": presses}]})

    def click(self, selector: str) -> None:
        """Click what a person would: it must be visible, and nothing may cover it."""
        found = self._ask(f"{self._session}/element", {"using": "css selector", "value": selector})
        self._ask(f"{self._session}/element/{found[_ELEMENT]}/click", {})

    def resize(self, width: int, height: int, *, scheme: str = "light") -> None:
        """A screen of that many pixels, and whether its owner likes it "light" or "dark"."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._develop("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._develop("Emulation.setEmulatedMedia", {"features": features})

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self._ask(f"{self._session}/screenshot", None, verb="GET"))

    def complaints(self) -> Sequence[str]:
        """What the browser has logged since it was asked last: errors, and what the page may not do."""
        entries = self._ask(f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def _develop(self, command: str, parameters: Mapping[str, object]) -> None:
        self._ask(f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _ask(self, path: str, content: object, verb: str = "POST") -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self._driver + path, data, {"content-type": "application/json"}, method=verb)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"].splitlines()[0]) from None


@contextmanager
def browser_in(profile: Path) -> Iterator[Browser]:
    """A browser for a while."""
    port = free_port()
    log = profile.with_suffix(".log").open("wb")
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=log, stderr=log)
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}")
        browser = Browser(f"http://127.0.0.1:{port}", profile)
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait(10)
        log.close()


def _wait_until_ready(driver: str) -> None:
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"{driver}/status", timeout=5) as answer:
                if json.load(answer)["value"]["ready"]:
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("chromedriver does not listen")
