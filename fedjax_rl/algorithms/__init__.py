"""Published algorithms, one file each."""

from fedjax_rl.algorithms.fedq import FedQ, fedq

ALGORITHMS = {"fedq": fedq}

__all__ = ["ALGORITHMS", "FedQ", "fedq"]
