r"""The derivative of an outcome with respect to how a federation is run, over several seeds.

Of one run with outcome f and properties x, of which also what is drawn depends on x,

    d/dx E[f] = E[df/dx + (f - b) d log p/dx],

log p summed over all that its agents have drawn until the outcome was measured, b any number that
does not depend on these draws: here the mean outcome of the other seeds. The second term is there
where the property `derivative` is "score"; an algorithm that draws nothing from what is learned
needs none. An outcome that is a mean over several records pairs each with the draws before it; one
that is a mean over agents by themselves (`Functions.own`), each agent's with its own last draws and
with what all had drawn before: the others' last draws do not tell in it, and their scores would be
noise, N times as much of N agents.

* Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
  Learning* (1992): the second term, and b.
* Foerster et al., *DiCE*, arXiv 1802.05098; Farquhar, Whiteson and Foerster, *Loaded DiCE*, arXiv
  1909.10549: products whose derivatives of any order are these, and b in the second one.
"""

from __future__ import annotations

import collections
import threading
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, memory
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.identity import content
from fedjax_rl.names import check_known
from fedjax_rl.sweeps import arguments
from fedjax_rl.sweeps.outcomes import Derivative, Question, answer_of, records
from fedjax_rl.sweeps.properties import values_of
from fedjax_rl.sweeps.simulate import Lengths, lengths_of

MODES = ("reverse", "forward")


def differentiate(
    algorithm: Algorithm,
    outcome: str | Callable | None = None,
    by="learning_rate",
    *,
    num_agents: int,
    num_steps: int,
    seeds=range(16),
    record_every: int | None = None,
    average: int = 1,
    mode: str = "reverse",
    truncation: int | None = None,
    second: bool = False,
    baseline: bool = True,
    devices: int = 1,
    check_finite: bool = True,
) -> Derivative:
    """An outcome of a federation, and its derivative with respect to properties, over seeds.

    All seeds run in one program, compiled once for whatever values the properties have. Where
    draws depend on what is learned the property `derivative` of the algorithm says how they count:
    refused (None), left out ("pathwise", biased), estimated ("score") or relaxed ("relaxed").
    Reverse mode keeps the state after every round, and makes each again on the way back: memory
    grows with the number of rounds plus that of the steps of one round. Forward mode needs memory
    for one state, and a run for each number that is differentiated by. Inside of a program that is
    traced, where properties may be tracers, it is part of that program, and nothing is checked.

    Example:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), beta=4.0, derivative="score")
      >>> found = frl.differentiate(
      ...     algorithm, "error_server", ["learning_rate", "beta"], num_agents=2, num_steps=20
      ... )
      >>> bool(found.derivatives["learning_rate"] < -3 * found.errors["learning_rate"])
      True

    Args:
      algorithm: with the values at which the derivative is taken.
      outcome: the name of a metric, of agents the mean over them; or `metrics -> scalar` of one
        run, where metrics are [T] of federations and [T, N] of agents. The headline by default.
      by: names of traced properties, one or several, such as "learning_rate", "optimizer.momentum"
        or, of the rewards of an MDP, "mdp.reward".
      num_agents: N.
      num_steps: T, as of `simulate`.
      seeds: different ones, one run each.
      record_every: units of time between records, as of `simulate`; only at records is measured.
      average: the outcome is the mean of a metric over its last so many records.
      mode: "reverse", or "forward" where few numbers are differentiated by.
      truncation: rounds at the end through which is differentiated; what came before is held fixed,
        which biases the derivative. Metrics are then of these rounds alone. All by default.
      second: whether to estimate second derivatives, too.
      baseline: whether "score" subtracts the mean outcome of the other seeds, which takes nothing
        from the mean and much from the variance.
      devices: over which the seeds are spread, at most; as evenly as can be, whatever their number.
      check_finite: whether a derivative that is not finite is an error.

    Returns:
      A `Derivative`.

    Raises:
      ValueError: a metric or property that is not there or has no derivative, one that the
        algorithm refuses, lengths that do not fit, or a run too long for the memory there is.
      FloatingPointError: a derivative that is not finite, with its seed, round and property.
    """
    arguments.check_algorithm(algorithm)
    num_agents = arguments.num_agents(num_agents)
    for name, value in {
        "second": second,
        "baseline": baseline,
        "check_finite": check_finite,
    }.items():
        fields.check(name, value, fields.switch())
    fields.check("mode", mode, fields.word(MODES))
    algorithm = algorithm.at(num_agents)
    outcome = algorithm.headline if outcome is None else outcome
    if not callable(outcome):
        check_known(outcome, tuple(algorithm.metrics), f"metric of {algorithm.name}")
    values = values_of(algorithm, by)
    lengths, cut = _lengths(algorithm, num_steps, record_every, truncation)
    average = arguments.count("average", average, high=lengths.records)
    if callable(outcome) and average > 1:
        raise ValueError(f"average is {average} with a function; allowed: 1, as it averages itself")
    question = Question(
        outcome, tuple(values), num_agents, cut, lengths, average, mode, second, baseline
    )
    seeds = np.atleast_1d(np.asarray(arguments.seeds(seeds), np.uint32))
    devices = arguments.count("devices", devices, high=jax.local_device_count())
    _warn(algorithm)
    own = [each.value for each in algorithm.config.properties()]
    # Of an environment, which is no pytree, its parameters.
    if not fields.is_concrete((values, own, [getattr(x, "params", None) for x in own])):
        return answer_of(algorithm, question, len(seeds))(values, jnp.asarray(seeds))
    found = _compiled(algorithm, question, values, seeds, devices)
    if check_finite:
        _check_finite(algorithm, question, values, seeds, found)
    for name, each in found.derivatives.items():
        if not np.any(np.asarray(found.each[name])) and np.size(each):
            warnings.warn(
                f"the derivative by {name} is exactly 0 for every seed: on its way from {name} to "
                "the outcome everything is drawn, counted or compared",
                stacklevel=2,
            )
    return found


def _lengths(algorithm, num_steps, record_every, truncation) -> tuple[Lengths, int]:
    """How long the run is that is differentiated, and how many rounds come before it."""
    lengths = lengths_of(algorithm, num_steps, record_every)
    if truncation is None:
        return lengths, 0
    rounds = lengths.records * lengths.rounds
    truncation = arguments.count("truncation", truncation, high=rounds)
    if truncation % lengths.rounds:
        raise ValueError(
            f"truncation is {truncation}; allowed: multiples of the {lengths.rounds} rounds "
            "between two records"
        )
    return Lengths(truncation // lengths.rounds, lengths.rounds), rounds - truncation


def _warn(algorithm: Algorithm) -> None:
    """Names a bias that was accepted."""
    config = algorithm.config
    reason = algorithm.sampled(config)
    if reason is None or config.derivative not in ("pathwise", "relaxed"):
        return
    what = {
        "pathwise": "leaves out how the draws change",
        "relaxed": "is that of relaxed draws",
    }[config.derivative]
    warnings.warn(
        f"derivative is {config.derivative!r} for {algorithm.name}, where {reason}: what follows "
        f"{what}, and is biased",
        stacklevel=3,
    )


# Compiled programs by what they are of, as loops ask for the next value again and again.
_PROGRAMS: collections.OrderedDict = collections.OrderedDict()
_MOST_PROGRAMS = 16
_LOCK = threading.Lock()


def _compiled(algorithm, question: Question, values, seeds, devices: int) -> Derivative:
    """What the program finds, compiled once for all values."""
    count, share = len(seeds), -(-len(seeds) // devices)
    # Of all ways to give no device more than its share, that of the fewest devices. The last one
    # makes its last seed again where there are too few, which counts nowhere.
    devices = -(-count // share)
    mesh = jax.sharding.Mesh(np.asarray(jax.local_devices()[:devices]), ("seeds",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("seeds"))
    seeds = jax.device_put(np.pad(seeds, (0, share * devices - count), mode="edge"), spread)
    # What is differentiated by is handed to a program; all other values are part of it.
    others = [each for each in algorithm.config.properties() if each.name not in question.names]
    rest = [(each.name, each.value) for each in others]
    shapes = {name: (x.shape, str(x.dtype)) for name, x in values.items()}
    key = content(algorithm.name, algorithm.home, rest, question, shapes, count, devices)
    with _LOCK:
        made = _PROGRAMS.get(key)
        if made is not None:
            _PROGRAMS.move_to_end(key)
    if made is None:
        program = answer_of(algorithm, question, count)
        made = jax.jit(program).lower(values, seeds).compile()
        _check_memory(algorithm, question, made, values, seeds, count)
        with _LOCK:
            _PROGRAMS[key] = made
            while len(_PROGRAMS) > _MOST_PROGRAMS:
                _PROGRAMS.popitem(last=False)
    return made(values, seeds)


def _check_memory(algorithm, question: Question, made, values, seeds, count: int) -> None:
    """Refuses what would not fit, before it runs."""
    there = memory.available(devices=1)
    needed = _bytes(made)
    if there is None or needed <= there:
        return
    rounds = question.lengths.records * question.lengths.rounds
    ways = f"truncation of about {max(1, int(rounds * there / needed))} rounds"
    if question.mode == "reverse":
        other = answer_of(algorithm, question._replace(mode="forward"), count)
        forward = _bytes(jax.jit(other).lower(values, seeds).compile())
        ways += f", mode 'forward', which needs {memory.words(forward)}"
    raise ValueError(
        f"num_steps makes {rounds} rounds, whose derivatives over {count} seeds need "
        f"{memory.words(needed)}, and there are {memory.words(there)}; allowed: fewer seeds, {ways}"
    )


def _bytes(made) -> int:
    """What a compiled program needs besides its arguments."""
    analysis = made.memory_analysis()
    return 0 if analysis is None else analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def _check_finite(algorithm, question: Question, values, seeds, found: Derivative) -> None:
    """Refuses a derivative that is not finite, and says where it came from."""
    for name in question.names:
        each = np.asarray(found.each[name])
        lost = ~np.isfinite(each.reshape(len(seeds), -1)).all(axis=1)
        if not lost.any():
            continue
        seed = int(seeds[int(np.argmax(lost))])
        where = _first_lost(algorithm, question, values, name, np.uint32(seed))
        raise FloatingPointError(
            f"the derivative by {name} is not finite for {int(lost.sum())} of {len(seeds)} seeds, "
            f"of seed {seed} {where}"
        )


def _first_lost(algorithm, question: Question, values, name: str, seed) -> str:
    """From which round on the derivative of one seed is not finite, by forward mode."""

    def along(value):
        own = {**values, name: value}
        return records(algorithm, question, own, seed, lambda metrics: metrics)[0]

    found = jax.tree.leaves(jax.jit(jax.jacfwd(along))(values[name]))
    count = question.lengths.records
    finite = [np.isfinite(np.asarray(x).reshape(count, -1)).all(axis=1) for x in found]
    lost = ~np.all(finite, axis=0)
    if not lost.any():
        return "though that of every metric is: it is lost in the outcome or on the way back"
    turn = question.cut + (int(np.argmax(lost)) + 1) * question.lengths.rounds
    return f"from round {turn} on"
