r"""The derivative of an outcome with respect to how a federation is run, over several seeds.

Of one run with outcome f and properties x, of which also what is drawn depends on x,

    d/dx E[f] = E[df/dx + (f - b) d log p/dx],

log p summed over all that its agents have drawn until the outcome was measured, b any number that
does not depend on these draws: here the mean outcome of the other seeds. The second term is there
where the property `derivative` is "score"; an algorithm that draws nothing from what is learned
needs none. An outcome that is a mean over several records pairs each with the draws before it.

* Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
  Learning* (1992): the second term, and b.
* Foerster et al., *DiCE*, arXiv 1802.05098; Farquhar, Whiteson and Foerster, *Loaded DiCE*, arXiv
  1909.10549: products whose derivatives of any order are these, and b in the second one.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, memory
from fedjax_rl.federation import derivatives
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.fields.record import Property
from fedjax_rl.fields.values import real_array
from fedjax_rl.identity import content
from fedjax_rl.names import brief, check_known
from fedjax_rl.sweeps import arguments
from fedjax_rl.sweeps.simulate import Lengths, lengths_of, recorded
from fedjax_rl.sweeps.stepping import first_of, stepper

MODES = ("reverse", "forward")
# Whose derivative can be had at all: numbers that the program is handed.
_NUMBERS = ("agent", "federation", "shared", "host", "engine")


class Derivative(NamedTuple):
    """What `differentiate` returns; arrays of the precision of the run.

    Attributes:
      value: mean outcome over the seeds, scalar.
      error: its standard error; nan of a single seed.
      derivatives: name -> mean derivative, of the shape of the property.
      errors: name -> its standard error, likewise.
      each: "outcome" -> [seeds], name -> [seeds, ...]: of every seed by itself.
      second: name -> name -> mean second derivative, of the shapes of both; None unless asked for.
      second_errors: likewise.
    """

    value: jax.Array
    error: jax.Array
    derivatives: dict
    errors: dict
    each: dict
    second: dict | None = None
    second_errors: dict | None = None


class _Question(NamedTuple):
    """What is asked for, apart from the values of the properties.

    Attributes:
      outcome: name of a metric, or a function of all.
      names: of the properties.
      num_agents: N.
      cut: rounds before the derivative begins.
      lengths: of the run after these.
      average: last records that count.
      mode: of `MODES`.
      second: whether second derivatives are asked for.
      baseline: whether the mean outcome of other seeds is subtracted.
    """

    outcome: Any
    names: tuple[str, ...]
    num_agents: int
    cut: int
    lengths: Lengths
    average: int
    mode: str
    second: bool
    baseline: bool


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
      devices: over which the seeds are spread.
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
    values = _values(algorithm, by)
    lengths, cut = _lengths(algorithm, num_steps, record_every, truncation)
    average = arguments.count("average", average, high=lengths.records)
    if callable(outcome) and average > 1:
        raise ValueError(f"average is {average} with a function; allowed: 1, as it averages itself")
    question = _Question(
        outcome, tuple(values), num_agents, cut, lengths, average, mode, second, baseline
    )
    seeds = np.atleast_1d(np.asarray(arguments.seeds(seeds), np.uint32))
    if len(seeds) % arguments.count("devices", devices, high=jax.device_count()):
        raise ValueError(
            f"devices is {devices} with {len(seeds)} seeds; allowed: a divisor of their number"
        )
    _warn(algorithm)
    program = _answer(algorithm, question)
    own = [each.value for each in algorithm.config.properties()]
    # Of an environment, which is no pytree, its parameters.
    if not fields.is_concrete((values, own, [getattr(x, "params", None) for x in own])):
        return program(values, jnp.asarray(seeds))
    found = _compiled(algorithm, question, program, values, seeds, devices)
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


def _values(algorithm: Algorithm, by) -> dict[str, jax.Array]:
    """The properties that are differentiated by, with their values; a ValueError where none can."""
    names = (by,) if isinstance(by, str) else tuple(by)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"by is {by!r}; allowed: names of properties, each once")
    return {name: _value(algorithm, name) for name in names}


def _value(algorithm: Algorithm, name: str):
    head, _, inner = name.partition(".")
    own = {each.name: each for each in algorithm.config.properties()}
    place = getattr(algorithm.config, head, None) if isinstance(head, str) else None
    if name not in own and inner and dataclasses.is_dataclass(place) and hasattr(place, inner):
        # Of an environment, which is not a record of properties.
        return jnp.asarray(getattr(place, inner), float)
    check_known(name, tuple(own), f"property of {algorithm.name}")
    refused = _refused(own[name])
    if refused is not None:
        allowed = [n for n, each in own.items() if _refused(each) is None]
        raise ValueError(
            f"by is {name!r}, which {refused}: there is no derivative; allowed here: "
            f"{', '.join(allowed)}"
        )
    return jnp.asarray(own[name].value, float)


def _refused(each: Property) -> str | None:
    """Why nothing can be differentiated by a property; None where it can."""
    value = each.value
    if isinstance(value, int | np.integer) and each.by in ("engine", "static"):
        return f"is {value}, which counts or switches"
    if isinstance(value, fields.Schedule):
        return "is a schedule, a function (differentiate simulate by what it closes over)"
    if each.by not in _NUMBERS:
        return "shapes the program or decides by comparing"
    if value is None:
        return "is None"
    if not isinstance(value, jax.Array) and real_array(value) is None:
        return f"is {brief(value)}, no number"
    return None


def _with(algorithm: Algorithm, values: Mapping) -> Algorithm:
    """The algorithm with these values of properties, and of fields of environments."""
    own = set(algorithm.properties)
    changes = {n: x for n, x in values.items() if n in own}
    for name in values.keys() - own:
        head, _, inner = name.partition(".")
        place = changes.get(head, getattr(algorithm.config, head))
        changes[head] = dataclasses.replace(place, **{inner: values[name]})
    return algorithm.replace(**changes)


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


def _records(algorithm: Algorithm, question: _Question, values: dict, seed, look: Callable):
    """What `look` makes of the metrics at every record of one seed, and the draws before it.

    Returns:
      A pytree with leaves [T, ...], and zeros [T] with the score.
    """
    num_agents, cut = question.num_agents, question.cut
    own = derivatives.counted(_with(algorithm, values).at(num_agents))
    steps = stepper(own, num_agents)
    first = first_of(own, steps, seed)
    params, state = first.params, first.state
    if cut:
        # Held fixed: nothing of these rounds is kept for the way back.
        held = jax.lax.stop_gradient((params, state))
        state, _ = recorded(steps, *held, Lengths(1, cut), lambda params, state: ())
    drawn = steps.functions.drawn

    def measure(params, state):
        counted = jnp.zeros(()) if drawn is None else jnp.sum(drawn(state))
        return look(steps.measure(params, state)), counted

    return recorded(steps, params, state, question.lengths, measure)[1]


def _run(algorithm: Algorithm, question: _Question, values: dict, seed):
    """One seed: the outcome's summands [average], and as many 0s with the score of the draws."""
    outcome, average = question.outcome, question.average
    if not callable(outcome):
        of_outcome = lambda metrics: jnp.mean(metrics[outcome])
        measured, counted = _records(algorithm, question, values, seed, of_outcome)
        return measured[-average:], counted[-average:]
    metrics, counted = _records(algorithm, question, values, seed, lambda metrics: metrics)
    measured = jnp.asarray(outcome(metrics))
    if measured.ndim:
        raise ValueError(
            f"outcome gives an array {list(measured.shape)}; allowed: a function of the metrics of "
            "a run to one number"
        )
    return measured[None], counted[-1:]


def _answer(algorithm: Algorithm, question: _Question) -> Callable:
    """`(values, seeds) -> Derivative`, pure."""

    def run(values, seed):
        return _run(algorithm, question, values, seed)

    def others(outcomes):
        """What is subtracted of every summand: its mean over the other seeds, [seeds, average]."""
        count = outcomes.shape[0]
        if not question.baseline or count == 1:
            return jnp.zeros_like(outcomes)
        return (jnp.sum(outcomes, axis=0, keepdims=True) - outcomes) / (count - 1)

    def reverse(values, seeds):
        # A copy for every seed, so that each has a derivative of its own.
        copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(seeds), *x.shape)), values)
        (outcomes, drawn), back = jax.vjp(lambda v: jax.vmap(run)(v, seeds), copies)
        share = 1 / question.average
        weight = (share * (outcomes - others(outcomes))).astype(drawn.dtype)
        return outcomes, back((jnp.full_like(outcomes, share), weight))[0]

    def forward(values, seeds):
        tangents = jax.vmap(jax.jacfwd(run), (None, 0))
        outcomes, _ = jax.vmap(run, (None, 0))(values, seeds)
        of_outcome, of_drawn = tangents(values, seeds)
        weight = outcomes - others(outcomes)

        def joined(own, score):
            scaled = score * weight.reshape(*weight.shape, *(1,) * (score.ndim - 2))
            return jnp.mean(own + scaled, axis=1)

        return outcomes, jax.tree.map(joined, of_outcome, of_drawn)

    def curvature(values, seeds, outcomes):
        def surrogate(values, seed, less):
            own, drawn = run(values, seed)
            # Values stay: the exponential of 0 is 1, and what is added is 0.
            return jnp.mean(own * jnp.exp(drawn) + less * (1 - jnp.exp(drawn)))

        less = jax.lax.stop_gradient(others(outcomes))
        return jax.vmap(jax.hessian(surrogate), (None, 0, 0))(values, seeds, less)

    def answer(values, seeds) -> Derivative:
        outcomes, each = (reverse if question.mode == "reverse" else forward)(values, seeds)
        found = curvature(values, seeds, outcomes) if question.second else None
        outcomes = jnp.mean(outcomes, axis=1)
        return Derivative(
            jnp.mean(outcomes),
            _error(outcomes),
            *(jax.tree.map(of, each) for of in (_mean, _error)),
            {"outcome": outcomes, **each},
            *(None if found is None else jax.tree.map(of, found) for of in (_mean, _error)),
        )

    return answer


def _mean(each) -> jax.Array:
    """Over the seeds, [seeds, ...]."""
    return jnp.mean(each, axis=0)


def _error(each) -> jax.Array:
    """Standard error of the mean over the seeds, [seeds, ...]; nan of one."""
    count = each.shape[0]
    if count == 1:
        return jnp.full_like(each[0], jnp.nan)
    return jnp.sqrt(jnp.var(each, axis=0) / (count - 1))


# Compiled programs by what they are of, as loops ask for the next value again and again.
_PROGRAMS: collections.OrderedDict = collections.OrderedDict()
_MOST_PROGRAMS = 16
_LOCK = threading.Lock()


def _compiled(algorithm, question: _Question, program, values, seeds, devices: int) -> Derivative:
    """What the program finds, compiled once for all values."""
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:devices]), ("seeds",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("seeds"))
    seeds = jax.device_put(seeds, spread)
    rest = [(each.name, each.value) for each in _rest(algorithm, question.names)]
    shapes = {name: (x.shape, str(x.dtype)) for name, x in values.items()}
    key = content(algorithm.name, algorithm.home, rest, question, shapes, len(seeds), devices)
    with _LOCK:
        if key in _PROGRAMS:
            _PROGRAMS.move_to_end(key)
    if key not in _PROGRAMS:
        made = jax.jit(program).lower(values, seeds).compile()
        _check_memory(algorithm, question, made, values, seeds)
        with _LOCK:
            _PROGRAMS[key] = made
            while len(_PROGRAMS) > _MOST_PROGRAMS:
                _PROGRAMS.popitem(last=False)
    return _PROGRAMS[key](values, seeds)


def _rest(algorithm: Algorithm, names) -> list[Property]:
    """The properties whose values are part of a program: all that are not differentiated by."""
    return [each for each in algorithm.config.properties() if each.name not in names]


def _check_memory(algorithm, question: _Question, made, values, seeds) -> None:
    """Refuses what would not fit, before it runs."""
    there = memory.available(devices=1)
    needed = _bytes(made)
    if there is None or needed <= there:
        return
    rounds = question.lengths.records * question.lengths.rounds
    ways = f"truncation of about {max(1, int(rounds * there / needed))} rounds"
    if question.mode == "reverse":
        other = _answer(algorithm, question._replace(mode="forward"))
        forward = _bytes(jax.jit(other).lower(values, seeds).compile())
        ways += f", mode 'forward', which needs {memory.words(forward)}"
    raise ValueError(
        f"num_steps makes {rounds} rounds, whose derivatives over {len(seeds)} seeds need "
        f"{memory.words(needed)}, and there are {memory.words(there)}; allowed: fewer seeds, {ways}"
    )


def _bytes(made) -> int:
    """What a compiled program needs besides its arguments."""
    analysis = made.memory_analysis()
    return 0 if analysis is None else analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def _check_finite(algorithm, question: _Question, values, seeds, found: Derivative) -> None:
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


def _first_lost(algorithm, question: _Question, values, name: str, seed) -> str:
    """From which round on the derivative of one seed is not finite, by forward mode."""

    def along(value):
        own = {**values, name: value}
        return _records(algorithm, question, own, seed, lambda metrics: metrics)[0]

    found = jax.tree.leaves(jax.jit(jax.jacfwd(along))(values[name]))
    records = question.lengths.records
    finite = [np.isfinite(np.asarray(x).reshape(records, -1)).all(axis=1) for x in found]
    lost = ~np.all(finite, axis=0)
    if not lost.any():
        return "though that of every metric is: it is lost in the outcome or on the way back"
    turn = question.cut + (int(np.argmax(lost)) + 1) * question.lengths.rounds
    return f"from round {turn} on"
