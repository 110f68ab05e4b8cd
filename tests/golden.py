"""Numbers that do not move: the last record of a short run of every algorithm.

`python tests/golden.py` writes `golden.json` anew. That is right only where a change of numbers is
meant, and the change says which moved and why.
"""

import json
import pathlib

import conftest  # noqa: F401  the flags of the tests decide the last bits
import numpy as np
from smallest import smallest

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.federation.ledger import COLUMNS

PATH = pathlib.Path(__file__).with_name("golden.json")
RUN = {"num_agents": 3, "seeds": 5, "num_steps": 4, "record_every": 2, "workers": 1}


def run(name):
    """Everything that an algorithm records in a short run."""
    algorithm = smallest(name)
    return frl.sweep(algorithm, metrics=tuple(algorithm.metrics), **RUN)


def last(result):
    """What stands at the end of a run: metrics, and totals of the ledger."""
    end = result.isel(time=-1)
    totals = {name: int(end[name]) for name in COLUMNS}
    metrics = {
        name: np.asarray(end[name], np.float64).tolist()
        for name in end.data_vars
        if name not in (*COLUMNS, "diverged", "phase")
    }
    return {"metrics": metrics, "ledger": totals}


if __name__ == "__main__":
    PATH.write_text(json.dumps({n: last(run(n)) for n in ALGORITHMS}, indent=1) + "\n")
