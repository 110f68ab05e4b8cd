"""Published algorithms: a learner and its exchanges, one file each, by name."""

from fedjax_rl.algorithms.es import ES, ESPC, es, espc
from fedjax_rl.algorithms.fedq import FedQ, fedq

# A new algorithm is one file and one line here.
ALGORITHMS = {"fedq": fedq, "es": es, "espc": espc}

__all__ = ["ALGORITHMS", "ES", "ESPC", "FedQ", "es", "espc", "fedq"]
