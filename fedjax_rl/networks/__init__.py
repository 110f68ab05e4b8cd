"""Networks: pure functions of a flat parameter vector, one set of parameters per agent."""

from fedjax_rl.networks.mlp import MLP

__all__ = ["MLP"]
