"""The programs of a federation for devices that are not here: lowered, neither compiled nor run."""

from __future__ import annotations

from collections.abc import Sequence

from jax import export

from fedjax_rl import backend
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.names import check_known
from fedjax_rl.saving.checkpoints import Machine
from fedjax_rl.sweeps.arguments import LIMIT
from fedjax_rl.sweeps.cells import Cell, Federation
from fedjax_rl.sweeps.jobs import jobs_of
from fedjax_rl.sweeps.programs import Job, programs_of
from fedjax_rl.sweeps.run_arguments import Run

# What JAX lowers for, and the kind of device that the package makes its programs for.
PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "tpu": "tpu"}
# Kernels of Triton may not be kept for another version of XLA, which nobody does.
_FINE = [export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")]


def job_of(algorithm: Algorithm, num_agents: int, metrics: Sequence[str] | None = None) -> Job:
    """One federation by itself, as a sweep of it alone would run it.

    Args:
      algorithm: with its functions of N evaluated.
      num_agents: N.
      metrics: names; those of federations by default.

    Returns:
      The `Job`, of a run as long as can be, so that no period is longer.
    """
    if metrics is None:
        metrics = [name for name, (side, _) in algorithm.metrics.items() if side == "federation"]
    run = Run.taken({"num_steps": LIMIT, "record_every": LIMIT, "chunk": 1})
    one = Federation(Cell(num_agents, 0, {}), algorithm)
    (job,), _ = jobs_of([one], tuple(metrics), run, Machine(1, None))
    return job


def lowered(
    algorithm: Algorithm, *platforms: str, num_agents: int = 2, metrics: Sequence[str] | None = None
) -> dict[str, export.Exported]:
    """The programs of one federation for platforms, whether or not one is here.

    Example:
      >>> import fedjax_rl as frl
      >>> from fedjax_rl.sweeps.lowering import lowered
      >>> programs = lowered(frl.fedq(frl.envs.paper_mdp()), "tpu")
      >>> sorted(programs), programs["chunk"].platforms
      (['begin', 'chunk'], ('tpu',))

    Args:
      algorithm: with its functions of N evaluated.
      *platforms: of `PLATFORMS`; several make programs that are traced once, for the kind of the
        last one.
      num_agents: N.
      metrics: as of `job_of`.

    Returns:
      As `programs_of` names them; `mlir_module()` of each is what the compiler would get.

    Raises:
      ValueError: no platform, or an unknown one.
      NotImplementedError: an operation that the platform does not have.
    """
    if not platforms:
        raise ValueError(f"platforms is (); allowed: one or more of {', '.join(PLATFORMS)}")
    for platform in platforms:
        check_known(platform, PLATFORMS, "platform")
    with backend.made_for(PLATFORMS[platforms[-1]]):
        programs, _ = programs_of(job_of(algorithm, num_agents, metrics))
        return {
            name: export.export(one.function, platforms=platforms, disabled_checks=_FINE)(
                *one.arguments
            )
            for name, one in programs.items()
        }
