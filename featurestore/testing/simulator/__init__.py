"""Simulated card transactions of several markets, with fraud and its labels: seeded, vectorised, deterministic."""

from featurestore.testing.simulator.payload import PayloadEncoder
from featurestore.testing.simulator.population import Population, PopulationSize
from featurestore.testing.simulator.simulation import Scenario, Simulation
from featurestore.testing.simulator.sinks import KafkaSink, LogDirectorySink, ParquetSink, TransactionSink, open_sink
from featurestore.testing.simulator.tables import LabelsWriter, write_merchant_table

__all__ = [
    "KafkaSink",
    "LabelsWriter",
    "LogDirectorySink",
    "ParquetSink",
    "PayloadEncoder",
    "Population",
    "PopulationSize",
    "Scenario",
    "Simulation",
    "TransactionSink",
    "open_sink",
    "write_merchant_table",
]
