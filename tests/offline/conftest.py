"""What all tests of the event log share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _disk_that_does_not_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests end processes, not machines; what a process has written, the kernel keeps. Syncing takes minutes."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
