"""fedjax_rl: federated reinforcement learning as one array program."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedjax_rl import analysis, envs, federation, plotting
    from fedjax_rl.algorithms import (
        A3C,
        DAVIA,
        DQL,
        EBCDQL,
        EFTD,
        ES,
        ESPC,
        IWES,
        LAPG,
        AdaptiveNoveltySearch,
        AFedPG,
        FastFedPG,
        FedA2C,
        FedAPG,
        FedDQN,
        FedHAPGM,
        FedPG,
        FedPPO,
        FedQ,
        FedSVRPGM,
        FedTD,
        NoveltySearch,
        PAvg,
        QAvg,
        Reinforce,
        a3c,
        a3c_pg,
        afedpg,
        davia,
        define,
        dql,
        ebcdql,
        ef_td,
        es,
        espc,
        fast_fedpg,
        feda2c,
        fedadam_pg,
        fedapg,
        fedavgm_pg,
        feddqn,
        fedhapg_m,
        fedpg,
        fedppo,
        fedprox_pg,
        fedq,
        fedsvrpg_m,
        fedtd,
        iw_es,
        lapg,
        ns_es,
        nsr_es,
        nsra_es,
        pavg,
        qavg,
        reinforce,
        scaffold_pg,
    )
    from fedjax_rl.algorithms.local_gradient_properties import Critic
    from fedjax_rl.algorithms.observed import Observations
    from fedjax_rl.algorithms.records import (
        GradientOptimizer,
        HeldOut,
        Heterogeneity,
        Network,
        Optimizer,
    )
    from fedjax_rl.federation import uplinks
    from fedjax_rl.federation.clock import Clock, timetable
    from fedjax_rl.federation.ledger import Wire
    from fedjax_rl.fields import by_agents, on_plateau, schedule
    from fedjax_rl.plotting.summary import summary
    from fedjax_rl.presets import tuned
    from fedjax_rl.saving.results import load, save
    from fedjax_rl.sweeps.axes import each
    from fedjax_rl.sweeps.cells import Cell
    from fedjax_rl.sweeps.differentiate import Derivative, differentiate
    from fedjax_rl.sweeps.properties import differentiable
    from fedjax_rl.sweeps.simulate import Trajectory, simulate
    from fedjax_rl.sweeps.stepping import init, round
    from fedjax_rl.sweeps.sweep import extend, run_cells, sweep

__all__ = [
    "A3C",
    "DAVIA",
    "DQL",
    "EBCDQL",
    "EFTD",
    "ES",
    "ESPC",
    "IWES",
    "LAPG",
    "AFedPG",
    "AdaptiveNoveltySearch",
    "Cell",
    "Clock",
    "Critic",
    "Derivative",
    "FastFedPG",
    "FedA2C",
    "FedAPG",
    "FedDQN",
    "FedHAPGM",
    "FedPG",
    "FedPPO",
    "FedQ",
    "FedSVRPGM",
    "FedTD",
    "GradientOptimizer",
    "HeldOut",
    "Heterogeneity",
    "Network",
    "NoveltySearch",
    "Observations",
    "Optimizer",
    "PAvg",
    "QAvg",
    "Reinforce",
    "Trajectory",
    "Wire",
    "a3c",
    "a3c_pg",
    "afedpg",
    "analysis",
    "by_agents",
    "davia",
    "define",
    "differentiable",
    "differentiate",
    "dql",
    "each",
    "ebcdql",
    "ef_td",
    "envs",
    "es",
    "espc",
    "extend",
    "fast_fedpg",
    "feda2c",
    "fedadam_pg",
    "fedapg",
    "fedavgm_pg",
    "feddqn",
    "federation",
    "fedhapg_m",
    "fedpg",
    "fedppo",
    "fedprox_pg",
    "fedq",
    "fedsvrpg_m",
    "fedtd",
    "init",
    "iw_es",
    "lapg",
    "load",
    "ns_es",
    "nsr_es",
    "nsra_es",
    "on_plateau",
    "pavg",
    "plotting",
    "qavg",
    "reinforce",
    "round",
    "run_cells",
    "save",
    "scaffold_pg",
    "schedule",
    "simulate",
    "summary",
    "sweep",
    "timetable",
    "tuned",
    "uplinks",
]

# Found on first use: the command line has to answer `--help` before jax is imported, and to set
# jax's environment before it starts. What has no other home is an algorithm.
_HOMES = {
    "Cell": "sweeps.cells",
    "Clock": "federation.clock",
    "Critic": "algorithms.local_gradient_properties",
    "Derivative": "sweeps.differentiate",
    "HeldOut": "algorithms.records",
    "Heterogeneity": "algorithms.records",
    "GradientOptimizer": "algorithms.records",
    "Network": "algorithms.records",
    "Observations": "algorithms.observed",
    "Optimizer": "algorithms.records",
    "Trajectory": "sweeps.simulate",
    "Wire": "federation.ledger",
    "by_agents": "fields",
    "differentiable": "sweeps.properties",
    "differentiate": "sweeps.differentiate",
    "each": "sweeps.axes",
    "extend": "sweeps.sweep",
    "init": "sweeps.stepping",
    "load": "saving.results",
    "on_plateau": "fields",
    "round": "sweeps.stepping",
    "run_cells": "sweeps.sweep",
    "save": "saving.results",
    "schedule": "fields",
    "simulate": "sweeps.simulate",
    "summary": "plotting.summary",
    "sweep": "sweeps.sweep",
    "timetable": "federation.clock",
    "tuned": "presets",
}
_MODULES = {
    "analysis": "analysis",
    "define": "algorithms.define",
    "envs": "envs",
    "federation": "federation",
    "plotting": "plotting",
    "uplinks": "federation.uplinks",
}


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'fedjax_rl' has no attribute {name!r}")
    if name in _MODULES:
        return importlib.import_module(f"fedjax_rl.{_MODULES[name]}")
    home = importlib.import_module(f"fedjax_rl.{_HOMES.get(name, 'algorithms')}")
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
