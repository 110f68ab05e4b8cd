"""Outcomes of runs with their derivatives, as pure functions of properties and seeds."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import backend
from fedjax_rl.federation import derivatives
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.names import brief
from fedjax_rl.sweeps.properties import replaced
from fedjax_rl.sweeps.simulate import Lengths, recorded
from fedjax_rl.sweeps.stepping import first_of, stepper


class Derivative(NamedTuple):
    """What `differentiate` returns; arrays of the precision of the run.

    Example:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0)
      >>> found = frl.differentiate(algorithm, num_agents=2, num_steps=5, seeds=range(4))
      >>> found.each["learning_rate"].shape, bool(found.derivatives["learning_rate"] < 0)
      ((4,), True)

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


class Question(NamedTuple):
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


class _Rounds(NamedTuple):
    """What `recorded` drives."""

    round: Callable


def records(algorithm: Algorithm, question: Question, values: dict, seed, look: str | Callable):
    """What there is of the metrics at every record of one seed, and the draws that tell in it.

    Args:
      algorithm: that is run.
      question: that is asked.
      values: of properties.
      seed: of the federation.
      look: name of a metric, or a function of all.

    Returns:
      What `look` makes of the metrics, a pytree with leaves [T, ...]; of a name the mean over the
      agents, [T], or, where each has its own, [T, N]. And zeros, [T] or [T, N] likewise, with the
      score of what was drawn before each record, and of what was drawn to measure it.
    """
    num_agents, cut = question.num_agents, question.cut
    counted = derivatives.counted(replaced(algorithm, values).at(num_agents))
    steps = stepper(counted, num_agents)
    first = first_of(counted, steps, seed)
    params, state = first.params, first.state
    if cut:
        # Held fixed: nothing of these rounds is kept for the way back.
        held = jax.lax.stop_gradient((params, state))
        state, _ = recorded(steps, *held, Lengths(1, cut), lambda params, state: ())
    drawn, to_measure = steps.functions.drawn, steps.functions.drawn_to_measure
    scored = drawn is not None or to_measure is not None
    own = steps.functions.own.get(look) if scored and isinstance(look, str) else None
    of_round = own is not None and own.drawn == "round"
    look = functools.partial(_mean_of, look) if isinstance(look, str) else look

    def before(state):
        return jnp.zeros(num_agents) if drawn is None else drawn(state)

    def now(params, state):
        if to_measure is None:
            return jnp.zeros(num_agents)
        return to_measure(steps.population, params, state)

    def round_(params, carry):
        return steps.round(params, carry[0]), before(carry[0]) if of_round else ()

    def measure(params, carry):
        state, earlier = carry
        metrics, until = steps.measure(params, state), before(state)
        if own is None:
            return look(metrics), jnp.sum(until), jnp.sum(now(params, state))
        each = metrics[own.values]
        if of_round:
            # What others drew in the last round comes after what this agent's is measured of.
            last = (until - earlier)[:num_agents]
            return each, jnp.sum(earlier) + last, jnp.zeros_like(last)
        return each, jnp.full(num_agents, jnp.sum(until)), now(params, state)

    start = state, before(state) if of_round else ()
    return recorded(_Rounds(round_), params, start, question.lengths, measure)[1]


def _mean_of(name: str, metrics: dict) -> jax.Array:
    """A metric as a scalar."""
    return jnp.mean(metrics[name])


def _run(algorithm: Algorithm, question: Question, values: dict, seed):
    """One seed: the summands of the outcome [M], and as many 0s with the score of the draws."""
    outcome, average = question.outcome, question.average
    if not callable(outcome):
        measured, before, now = records(algorithm, question, values, seed, outcome)
        return tuple(x[-average:].reshape(-1) for x in (measured, before + now))
    metrics, before, now = records(algorithm, question, values, seed, lambda metrics: metrics)
    measured = outcome(metrics)
    number = isinstance(measured, jax.Array) and jnp.issubdtype(measured.dtype, jnp.floating)
    if not number or measured.ndim:
        shown = f"an array {list(measured.shape)}" if number else brief(measured)
        raise ValueError(
            f"outcome gives {shown}; allowed: a function of the metrics of a run to one number"
        )
    return measured[None], before[-1:] + jnp.sum(now)


def answer_of(algorithm: Algorithm, question: Question, count: int) -> Callable:
    """`(values, seeds) -> Derivative`, pure.

    Args:
      algorithm: that is run.
      question: that is asked.
      count: of the seeds the first so many are there; what comes after them only fills devices.
    """

    def run(values, seed):
        return _run(algorithm, question, values, seed)

    def others(outcomes):
        """What is subtracted of every summand: its mean over the other seeds, [seeds, M]."""
        if not question.baseline or count == 1:
            return jnp.zeros_like(outcomes)
        # Of a seed that does not count it is some number, as all of it is.
        return (jnp.sum(outcomes[:count], axis=0, keepdims=True) - outcomes) / (count - 1)

    def reverse(values, seeds):
        # A copy for every seed, so that each has a derivative of its own.
        copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(seeds), *x.shape)), values)
        (outcomes, drawn), back = jax.vjp(lambda v: jax.vmap(run)(v, seeds), copies)
        share = 1 / outcomes.shape[1]
        weight = (share * (outcomes - others(outcomes))).astype(drawn.dtype)
        return outcomes, back((jnp.full_like(outcomes, share), weight))[0]

    def forward(values, seeds):
        def both(values, seed):
            found = run(values, seed)
            return found, found[0]

        tangents = jax.vmap(jax.jacfwd(both, has_aux=True), (None, 0))
        (of_outcome, of_drawn), outcomes = tangents(values, seeds)
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
        outcomes, each, found = jax.tree.map(lambda x: x[:count], (outcomes, each, found))
        outcomes = jnp.mean(outcomes, axis=1)
        return Derivative(
            jnp.mean(outcomes),
            _error(outcomes),
            *(jax.tree.map(of, each) for of in (_mean, _error)),
            {"outcome": outcomes, **each},
            *(None if found is None else jax.tree.map(of, found) for of in (_mean, _error)),
        )

    # On the way back products are traced that are none of the algorithm's functions.
    return backend.exact(answer)


def _mean(each) -> jax.Array:
    """Over the seeds, [seeds, ...]."""
    return jnp.mean(each, axis=0)


def _error(each) -> jax.Array:
    """Standard error of the mean over the seeds, [seeds, ...]; nan of one."""
    count = each.shape[0]
    if count == 1:
        return jnp.full_like(each[0], jnp.nan)
    return jnp.sqrt(jnp.var(each, axis=0) / (count - 1))
