"""A simulator that goes on looking for silent wrong answers: the real code, in a world that is played.

    seed ─> schedule of steps ─> a store, a log and clocks that fail as they are told ─> every answer against the oracle

The stream itself is given: `tests/simulation/stream.py` drives the one of `dataflows`. What may come from it is in
decision 0012.
"""

from featurestore.testing.simulation.audit.required import never_met
from featurestore.testing.simulation.process import StartStream, StreamParts, StreamProcess
from featurestore.testing.simulation.schedule import Schedule, Step, as_text, draw_schedule, from_text, shrink
from featurestore.testing.simulation.search import Finding, Outcome, find, run_schedule, schedule_of
from featurestore.testing.simulation.stand_ins.client import StoreClient
from featurestore.testing.simulation.stand_ins.log import LogConnection, SimulatedLog
from featurestore.testing.simulation.stand_ins.store import SimulatedStore

__all__ = [
    "Finding",
    "LogConnection",
    "Outcome",
    "Schedule",
    "SimulatedLog",
    "SimulatedStore",
    "StartStream",
    "Step",
    "StoreClient",
    "StreamParts",
    "StreamProcess",
    "as_text",
    "draw_schedule",
    "find",
    "from_text",
    "never_met",
    "run_schedule",
    "schedule_of",
    "shrink",
]
