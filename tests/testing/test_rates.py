"""The example's exchange rates: its file is what the simulator says."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from featurestore.testing.simulator import Population, PopulationSize, Scenario, Simulation
from featurestore.testing.simulator.rates import euros_of, write_rate_table
from featurestore.testing.simulator.tables import transaction_table

ROOT = Path(__file__).resolve().parents[2]


def test_the_examples_rates_are_those_that_amounts_are_recounted_by(tmp_path: Path) -> None:
    """Equal rows; and each amount is divided by the newest version of its currency that is no later than it."""
    write_rate_table(tmp_path / "rates.parquet")
    rates = pq.read_table(tmp_path / "rates.parquet")
    population = Population(PopulationSize(cards=300, merchants=100), seed=3)
    begin_ms = 1_767_225_600_000 - 2 * 3_600_000  # around the turn of a year, where rates change
    rows = np.concatenate(
        list(
            Simulation(Scenario(begin_ms, begin_ms + 4 * 3_600_000, seed=3, size=population.size), population).batches()
        )
    )
    versions: dict[str, list[tuple[int, float]]] = {}
    for rate in rates.to_pylist():
        since_ms = round(rate["valid_from"].timestamp() * 1_000)
        versions.setdefault(rate["currency"], []).append((since_ms, rate["minor_units_per_euro"]))
    expected = []
    for currency, time_ms, amount in zip(
        transaction_table(population, rows)["currency"].to_pylist(), rows["event_time_ms"], rows["amount"], strict=True
    ):
        expected.append(amount / max(one for one in versions[currency] if one[0] <= time_ms)[1])

    assert rates.equals(pq.read_table(ROOT / "feature_repo" / "rates.parquet"))
    assert {1, -1} <= set(np.sign(rows["event_time_ms"] - 1_767_225_600_000).tolist())
    np.testing.assert_allclose(euros_of(population, rows), expected, rtol=1e-12)
