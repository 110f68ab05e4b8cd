"""fedjax_rl: federated reinforcement learning as one array program."""

from fedjax_rl import analysis, envs, federation, plotting
from fedjax_rl.algorithms import FedQ, fedq
from fedjax_rl.results import load, save
from fedjax_rl.run import Trajectory, simulate
from fedjax_rl.sweep import Cell, run_cells, sweep

__all__ = [
    "Cell",
    "FedQ",
    "Trajectory",
    "analysis",
    "envs",
    "federation",
    "fedq",
    "load",
    "plotting",
    "run_cells",
    "save",
    "simulate",
    "sweep",
]
