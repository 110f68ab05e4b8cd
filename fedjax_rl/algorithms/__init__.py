"""Published algorithms: a learner and its exchanges, one file each, by name."""

from collections.abc import Callable
from typing import NamedTuple

from fedjax_rl.algorithms.afedpg import AFedPG, a3c_pg, afedpg
from fedjax_rl.algorithms.averaging import PAvg, QAvg, pavg, qavg
from fedjax_rl.algorithms.davia import DAVIA, davia
from fedjax_rl.algorithms.dql import DQL, EBCDQL, dql, ebcdql
from fedjax_rl.algorithms.ef_td import EFTD, ef_td
from fedjax_rl.algorithms.es import ES, ESPC, es, espc
from fedjax_rl.algorithms.fast_fedpg import FastFedPG, fast_fedpg
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


EVERYWHERE = ("tabular", "mdp", "grid", "task")

# A new algorithm is one file and one line here.
ALGORITHMS: dict[str, Entry] = {
    "fedq": Entry(fedq, ("mdp",)),
    "fedtd": Entry(fedtd, ("mdp",)),
    "es": Entry(es, ("grid", "task")),
    "espc": Entry(espc, ("grid", "task")),
    "iw-es": Entry(iw_es, ("grid", "task")),
    "ns-es": Entry(ns_es, ("grid", "task")),
    "nsr-es": Entry(nsr_es, ("grid", "task")),
    "nsra-es": Entry(nsra_es, ("grid", "task")),
    "dql": Entry(dql, ("grid",)),
    "ebcdql": Entry(ebcdql, ("grid",)),
    "davia": Entry(davia, ("grid",)),
    "ef-td": Entry(ef_td, ("grid",)),
    "reinforce": Entry(reinforce, ("grid", "task")),
    "lapg": Entry(lapg, ("grid", "task")),
    "fedpg": Entry(fedpg, EVERYWHERE),
    "scaffold-pg": Entry(scaffold_pg, EVERYWHERE),
    "fedprox-pg": Entry(fedprox_pg, EVERYWHERE),
    "fedavgm-pg": Entry(fedavgm_pg, EVERYWHERE),
    "fedadam-pg": Entry(fedadam_pg, EVERYWHERE),
    "fast-fedpg": Entry(fast_fedpg, EVERYWHERE),
    "fedsvrpg-m": Entry(fedsvrpg_m, EVERYWHERE),
    "fedhapg-m": Entry(fedhapg_m, EVERYWHERE),
    "afedpg": Entry(afedpg, EVERYWHERE),
    "a3c-pg": Entry(a3c_pg, EVERYWHERE),
    "fedppo": Entry(fedppo, EVERYWHERE),
    "qavg": Entry(qavg, ("tabular", "mdp")),
    "pavg": Entry(pavg, ("tabular", "mdp")),
}

__all__ = [
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
    "a3c_pg",
    "afedpg",
    "davia",
    "dql",
    "ebcdql",
    "ef_td",
    "es",
    "espc",
    "fast_fedpg",
    "fedadam_pg",
    "fedavgm_pg",
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
