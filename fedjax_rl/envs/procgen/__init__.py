"""BigFish and CoinRun of Procgen as array programs: levels from seeds, rules, pictures.

The games are those of Cobbe, Hesse, Hilton and Schulman, "Leveraging Procedural Generation to
Benchmark Reinforcement Learning", arXiv 1912.01588, benchmark version 0.10.7, written again from
their rules; `validate` holds them against what the original does. The pictures are drawn by
formulas of our own.
"""

from fedjax_rl.envs.procgen.bigfish import BigFishDynamics, BigFishParams, BigFishState
from fedjax_rl.envs.procgen.coinrun import CoinRunDynamics, CoinRunParams, CoinRunState
from fedjax_rl.envs.procgen.drawing import Drawing
from fedjax_rl.envs.procgen.env import ProcgenEnv
from fedjax_rl.envs.procgen.play import POLICIES, play
from fedjax_rl.envs.procgen.tasks import (
    normalised_score,
    procgen_env,
    procgen_params,
    procgen_task,
)
from fedjax_rl.envs.procgen.validate import validate

__all__ = [
    "POLICIES",
    "BigFishDynamics",
    "BigFishParams",
    "BigFishState",
    "CoinRunDynamics",
    "CoinRunParams",
    "CoinRunState",
    "Drawing",
    "ProcgenEnv",
    "normalised_score",
    "play",
    "procgen_env",
    "procgen_params",
    "procgen_task",
    "validate",
]
