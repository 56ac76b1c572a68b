"""Faults of the product that the simulator has found, and that are still there: what schedules go around until then.

Each is a way to a wrong answer, or to a stream that stands still. `tests/simulation/test_known_faults.py` lets the
simulator run into every one of them: when one is repaired that test fails, and its line here is to be deleted.
"""

from __future__ import annotations

IDS_BEGUN_ANEW = "a lane's event ids are lost, and its writer appends the next ones under the same key"
LANES_AFTER_PLAN = "the store loses something between a process's plan and the opening of its writers"
CLOCK_STEPS_BACK = "the wall clock steps back, and what fills anew refuses events that are ahead of it now"
TOPIC_READ_IN_PART = "a topic is made anew of which some lanes have committed a position, and others not yet"
TRUNCATED_BESIDE_NEW = "the log loses records that one generation still needs, and another one begins the partition"
RECORD_AND_CHECKPOINT = "a checkpoint is lost, and the record of the generations goes back to before it was seen open"
BOOTSTRAP_OF_OLD_TOPIC = "a generation is bootstrapped, and its topic made anew before a stream has taken it"
NUMBER_GIVEN_AGAIN = "the record of the generations is lost, and a bootstrap takes what an older one of its number left"

KNOWN_FAULTS = frozenset(
    {
        IDS_BEGUN_ANEW,
        LANES_AFTER_PLAN,
        CLOCK_STEPS_BACK,
        TOPIC_READ_IN_PART,
        TRUNCATED_BESIDE_NEW,
        RECORD_AND_CHECKPOINT,
        BOOTSTRAP_OF_OLD_TOPIC,
        NUMBER_GIVEN_AGAIN,
    }
)
"""All of them."""
