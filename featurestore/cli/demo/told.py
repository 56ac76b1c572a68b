"""Cards of which others are told while the payments come: a service published into the demo's log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

SERVICE = "card_watch"
TOPIC = "suspicious-cards"
WHERE = "card_declines_1h >= 2"


def publish_arguments(log_dir: Path) -> list[str]:
    """`featurestore publish`, with what to tell of whom."""
    return ["publish", SERVICE, "--to", TOPIC, "--where", WHERE, "--only-changes", "--log-dir", str(log_dir)]


def told_text(log_dir: Path) -> str:
    """Who was told, in a line of less than 66 characters."""
    path = log_dir / TOPIC / "0.jsonl"
    messages: list[dict[str, Any]] = []
    if path.exists():
        messages = [
            msgspec.json.decode(line) for line in path.read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"
        ]
    vectors = [one["value"] for one in messages if one["value"] is not None]
    if not vectors:
        return "no card met its condition meanwhile"
    newest = vectors[-1]
    card, declines = newest["card_id"].removeprefix("card-"), newest["features"]["card_declines_1h"]
    cards = len({one["card_id"] for one in vectors})
    return f"{cards} suspicious cards told, such as {card}: {declines} declines in an hour"
