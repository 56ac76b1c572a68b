"""Options of `featurestore serve` that cannot be meant."""

import pytest
from click.testing import CliRunner

from featurestore.cli.processes.serve import NamedLimit, command


@pytest.mark.parametrize("limit", ["fraud_detection", "=3", "fraud_detection=0", "fraud_detection=many", "a=-1"])
def test_a_limit_without_name_or_number_is_wrong_usage(limit: str) -> None:
    """It is refused before anything is started, with the form that it should have."""
    found = CliRunner().invoke(command, ["--service-limit", limit])

    assert 2 == found.exit_code
    assert "NAME=N" in found.output


def test_a_limit_names_a_feature_service_and_a_number() -> None:
    """The last sign of equality counts, whatever the service is called."""
    assert ("a=b", 3) == NamedLimit().convert("a=b=3", None, None)
