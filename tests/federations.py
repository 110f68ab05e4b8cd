"""One federation for a test, through the engine's programs, which are compiled once."""

import numpy as np

from fedjax_rl.saving.checkpoints import Machine
from fedjax_rl.sweeps.cells import Cell, Federation
from fedjax_rl.sweeps.jobs import jobs_of
from fedjax_rl.sweeps.run import execute
from fedjax_rl.sweeps.run_arguments import Run

# Records between two returns to the host: one number for all, so that they share programs.
CHUNK = 4


def largest(x, k, dtype=np.float64):
    """The k largest of some numbers, others zero; of those equal but for rounding the earlier."""
    left, out = list(range(len(x))), np.zeros_like(x)
    size = np.abs(x)
    least = np.sort(size)[::-1][k - 1]
    near = 84 * np.finfo(dtype).eps * least
    left.sort(key=lambda i: (size[i] <= least + near, size[i] < least - near, i))
    out[left[:k]] = x[left[:k]]
    return out


def end_of(algorithm, num_agents, num_steps, *, every=None, seed=0):
    """All metrics, [t] or [t, N], and the state at the end."""
    run = Run.taken({"num_steps": num_steps, "record_every": every or num_steps, "chunk": CHUNK})
    one = Federation(Cell(num_agents, seed, {}), algorithm)
    (job,), _ = jobs_of([one], tuple(algorithm.metrics), run, Machine(1, None))
    out = execute(job)
    sides = {name: side for name, (side, _) in algorithm.metrics.items()}
    metrics = {n: np.asarray(x) for n, x in out.metrics.items()}
    return {n: x[:, 0] if sides[n] == "federation" else x for n, x in metrics.items()}, out.state
