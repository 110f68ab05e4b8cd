"""Networks: pure functions of a flat parameter vector, or flax modules with one head or two."""

from fedjax_rl.networks.flat import Flat
from fedjax_rl.networks.heads import NETWORKS, OneHead, TwoHeads, TwoTowers, actor_critic
from fedjax_rl.networks.mlp import MLP
from fedjax_rl.networks.pictures import Classic, Impala, VisionTransformer

__all__ = [
    "MLP",
    "NETWORKS",
    "Classic",
    "Flat",
    "Impala",
    "OneHead",
    "TwoHeads",
    "TwoTowers",
    "VisionTransformer",
    "actor_critic",
]
