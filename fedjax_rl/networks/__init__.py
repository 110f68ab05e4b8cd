"""Networks: pure functions of a flat parameter vector, or flax modules with two heads."""

from fedjax_rl.networks.heads import NETWORKS, TwoHeads, TwoTowers, actor_critic
from fedjax_rl.networks.mlp import MLP
from fedjax_rl.networks.pictures import Impala, VisionTransformer

__all__ = [
    "MLP",
    "NETWORKS",
    "Impala",
    "TwoHeads",
    "TwoTowers",
    "VisionTransformer",
    "actor_critic",
]
