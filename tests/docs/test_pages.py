"""The examples of the docs are definitions without a mistake."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
project: docs
provider: local
registry: data/registry.db
online_store:
  type: sqlite
  path: data/online.db
entity_key_serialization_version: 3
"""


@pytest.mark.parametrize("page", ["conditions.md"])
def test_the_definitions_of_a_page_can_be_applied(page: str, tmp_path: Path) -> None:
    """As a reader would: its Python in a repo of its own, then plan."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "data").mkdir()
    (tmp_path / "feature_store.yaml").write_text(CONFIG)
    (tmp_path / "definitions.py").write_text("\n".join(blocks))

    command = [sys.executable, "-m", "featurestore", "plan", "--repo", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "2 feature views" in done.stdout or "card_risk" in done.stdout
