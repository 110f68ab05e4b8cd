"""What of federated Q-learning may be one kernel on an accelerator."""

from __future__ import annotations

from fedjax_rl.algorithms import parameters
from fedjax_rl.algorithms.fedq_environment import shape_of
from fedjax_rl.algorithms.fedq_properties import FedQ

# Thresholds of next states that an agent's registers hold besides its table: an accelerator gives a
# thread 255, of which a table of `tables.LARGEST_UNROLLED` entries and a step take half.
LARGEST_THRESHOLDS = 128


def kernel_of(config: FedQ) -> str | None:
    """What of a round may be one kernel; everything else is the program of array operations.

    A kernel holds tables of few entries as scalars, and knows plain means alone. It calls no
    functions of the user, which may be anything, and has no derivative of its own.

    Args:
      config: resolved.

    Returns:
      "round", its local steps with the exchange; "steps", these alone; or None.
    """
    shape = shape_of(config.mdp)
    small = shape.unrolled and shape.size * (shape.num_states - 1) <= LARGEST_THRESHOLDS
    # Every pair at once, or a law, is an array; a clock has agents make steps at different times.
    stepwise = config.sampling in ("markovian", "iid") and config.clock is None
    if not small or not stepwise or parameters.schedules_of(config):
        return None
    if config.derivative in ("score", "relaxed"):
        return None
    # What of a table is sent, and what is made of it.
    everything = config.transmits().send is None
    plain = config.aggregation == "mean" and config.server_optimizer is None
    return "round" if everything and plain else "steps"
