"""Everything that decides the result of a run, by name, so that saved state can say whose it is.

A fingerprint is `{name: [what it looks like, digest of its content]}`, plain values for a file.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.identity import digest, parts, shown

if TYPE_CHECKING:
    from fedjax_rl.federation.algorithm import Algorithm
    from fedjax_rl.sweeps.cells import Cell
    from fedjax_rl.sweeps.programs import Job
    from fedjax_rl.sweeps.run_arguments import Run

# What of JAX's configuration changes numbers.
_FLAGS = (
    "jax_threefry_partitionable",
    "jax_default_prng_impl",
    "jax_random_seed_offset",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
)
_COMPILER = re.compile(r"--xla\S*(?:fast_math|excess_precision|fast_min_max)\S*")
_DERIVED = (" at these numbers of agents", "split into jobs")
# Values of a list that a message shows.
_LISTED = 6


def fingerprint(
    algorithm: Algorithm,
    cells: Sequence[Cell],
    metrics: Sequence[str],
    run: Run,
    jobs: Sequence[Job],
) -> dict[str, list[str]]:
    """What decides the numbers of these jobs, except for how many records are made.

    Args:
      algorithm: with the properties that no cell changes.
      cells: in their order.
      metrics: names of what is kept.
      run: how they are run.
      jobs: how the cells are split.

    Returns:
      A list of two words for each name: what it looks like, and the digest of its content.

    Raises:
      ValueError: naming a property that cannot be told apart by its content.
    """
    out = {"algorithm": (algorithm.name, digest(algorithm.name, _equations(algorithm)))}
    for name in algorithm.properties:
        own = functools.reduce(getattr, name.split("."), algorithm.config)
        out |= _of_cells(name, [cell.properties.get(name, own) for cell in cells])
    out |= _of_cells("num_agents", [cell.num_agents for cell in cells])
    out |= _of_cells("seeds", [cell.seed for cell in cells])
    for name, value in {
        "first_record": jobs[0].recording.first,
        "record_every": jobs[0].recording.every,
        "metrics": list(metrics),
        # Where nobody chose them there may be records from before anybody could.
        **({} if run.agents is None else {"agents": list(run.agents)}),
        "platform": jax.default_backend(),
        "precision": str(jnp.result_type(float)),
        "stop": run.stop,
        # Where a rule is asked depends on it; otherwise it changes no number.
        "chunk": jobs[0].chunk if run.stop is not None else None,
        **{flag: getattr(jax.config, flag, None) for flag in _FLAGS},
        "XLA_FLAGS": " ".join(sorted(_COMPILER.findall(os.environ.get("XLA_FLAGS", "")))),
    }.items():
        out |= parts(name, value)
    # What a function of N came to, whatever it is made of.
    for side in ("agent", "federation"):
        for name in algorithm.properties:
            each = [_at(job, side, getattr(job.params, side).get(name)) for job in jobs]
            if any(value is not None for value in each):
                out[f"{name}{_DERIVED[0]}"] = shown(each[0]), digest(each)
    # Not over which devices: a run goes on over others.
    where = [[_at(job, "agent", x) for x in (job.seeds, job.members)] for job in jobs]
    sizes = f"{len(jobs)} of {', '.join(str(len(own[0])) for own in where[:_LISTED])} agents"
    out[_DERIVED[1]] = sizes, digest(where)
    return {name: list(leaf) for name, leaf in out.items()}


def _at(job: Job, side: str, value):
    """What a job has of agents or federations, in the order of the caller's."""
    return jax.tree.map(lambda x: np.asarray(x)[job.layout.places(side)], value)


def _equations(algorithm: Algorithm) -> str:
    """What an algorithm does, by content: ours by name, a user's own by its code.

    Comments and names of files do not count. What encloses something that cannot be compared, such
    as a lock, goes by the text of the module that it is written in.
    """
    try:
        return digest(algorithm.functions)
    except ValueError:
        config = sys.modules.get(type(algorithm.config).__module__)
        with contextlib.suppress(OSError, TypeError):
            return digest(inspect.getsource(config))
        return ""


def _of_cells(name: str, values: list) -> dict[str, tuple[str, str]]:
    """A value of every cell: taken apart if it is one for all, else as a list."""
    known: dict[int, tuple[str, dict]] = {}
    for value in values:
        # By object first: seeds share their values, and digests of tables are dear.
        if id(value) not in known:
            leaves = parts(name, value)
            known[id(value)] = digest(sorted(leaves.items())), leaves
    digests = [known[id(value)][0] for value in values]
    if len({*digests}) == 1:
        return known[id(values[0])][1]
    each = dict(zip(digests, values, strict=True))
    text = [shown(value) for value in each.values()]
    more = ", ..." if len(text) > _LISTED else ""
    return {name: (f"[{', '.join(text[:_LISTED])}{more}]", digest(digests))}


def differences(own: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """What differs between two fingerprints, in words.

    Args:
      own: of this run.
      there: of what was saved.

    Returns:
      A sentence for each name that differs; none where nothing does.
    """
    named: list[str] = []
    out = []
    for name in [*own, *(n for n in there if n not in own)]:
        mine, other = own.get(name), there.get(name)
        # A part of what has been named already says nothing more.
        if mine == other or any(name.startswith((f"{n}.", f"{n} ")) for n in named):
            continue
        named.append(name)
        here, other_one = (leaf[0] if leaf else "absent" for leaf in (mine, other))
        same = here == other_one
        out.append(f"{name} is another {here}" if same else f"{name} is {here}, there {other_one}")
    # Nobody has set what follows from everything else.
    return [line for line in out if not any(word in line for word in _DERIVED)] or out
