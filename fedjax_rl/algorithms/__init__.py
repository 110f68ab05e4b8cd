"""Published algorithms: a learner and its exchanges, one file each, by name."""

from collections.abc import Callable
from typing import NamedTuple

from fedjax_rl.algorithms.a3c import A3C, a3c
from fedjax_rl.algorithms.afedpg import AFedPG, a3c_pg, afedpg
from fedjax_rl.algorithms.averaging import PAvg, QAvg, pavg, qavg
from fedjax_rl.algorithms.davia import DAVIA, davia
from fedjax_rl.algorithms.dql import DQL, EBCDQL, dql, ebcdql
from fedjax_rl.algorithms.ef_td import EFTD, ef_td
from fedjax_rl.algorithms.es import ES, ESPC, es, espc
from fedjax_rl.algorithms.fast_fedpg import FastFedPG, fast_fedpg
from fedjax_rl.algorithms.feda2c import FedA2C, feda2c
from fedjax_rl.algorithms.fedapg import FedAPG, fedapg
from fedjax_rl.algorithms.feddqn import feddqn
from fedjax_rl.algorithms.feddqn_properties import FedDQN
from fedjax_rl.algorithms.fedpg import (
    FedPG,
    fedadam_pg,
    fedavgm_pg,
    fedpg,
    fedprox_pg,
    scaffold_pg,
)
from fedjax_rl.algorithms.fedppo import fedppo
from fedjax_rl.algorithms.fedppo_properties import FedPPO
from fedjax_rl.algorithms.fedq import fedq
from fedjax_rl.algorithms.fedq_properties import FedQ
from fedjax_rl.algorithms.fedtd import FedTD, fedtd
from fedjax_rl.algorithms.iw_es import IWES, iw_es
from fedjax_rl.algorithms.momentum_pg import FedHAPGM, FedSVRPGM, fedhapg_m, fedsvrpg_m
from fedjax_rl.algorithms.novelty import (
    AdaptiveNoveltySearch,
    NoveltySearch,
    ns_es,
    nsr_es,
    nsra_es,
)
from fedjax_rl.algorithms.reinforce import LAPG, Reinforce, lapg, reinforce


class Entry(NamedTuple):
    """An algorithm and where it runs.

    Attributes:
      make: from an environment and properties to an `Algorithm`.
      environments: the kinds that it accepts, as `envs.registry.kind` names them: "mdp" (a
        `TabularMDP`), "tabular" (a `Task` around one, or a family of them), "grid" (a `Task` with
        exact tables), "task" (a `Task` without).
    """

    make: Callable
    environments: tuple[str, ...]


# A new algorithm is one file and one line here.
_KNOWN = (
    fedq,
    fedtd,
    es,
    espc,
    iw_es,
    ns_es,
    nsr_es,
    nsra_es,
    dql,
    ebcdql,
    davia,
    ef_td,
    reinforce,
    lapg,
    fedpg,
    scaffold_pg,
    fedprox_pg,
    fedavgm_pg,
    fedadam_pg,
    fast_fedpg,
    fedsvrpg_m,
    fedhapg_m,
    afedpg,
    a3c_pg,
    a3c,
    fedppo,
    feda2c,
    feddqn,
    fedapg,
    qavg,
    pavg,
)
ALGORITHMS: dict[str, Entry] = {
    one.definition.name: Entry(one, one.definition.environments) for one in _KNOWN
}

__all__ = [
    "A3C",
    "ALGORITHMS",
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
    "Entry",
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
    "NoveltySearch",
    "PAvg",
    "QAvg",
    "Reinforce",
    "a3c",
    "a3c_pg",
    "afedpg",
    "davia",
    "dql",
    "ebcdql",
    "ef_td",
    "es",
    "espc",
    "fast_fedpg",
    "feda2c",
    "fedadam_pg",
    "fedapg",
    "fedavgm_pg",
    "feddqn",
    "fedhapg_m",
    "fedpg",
    "fedppo",
    "fedprox_pg",
    "fedq",
    "fedsvrpg_m",
    "fedtd",
    "iw_es",
    "lapg",
    "ns_es",
    "nsr_es",
    "nsra_es",
    "pavg",
    "qavg",
    "reinforce",
    "scaffold_pg",
]
