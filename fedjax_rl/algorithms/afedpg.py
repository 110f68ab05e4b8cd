r"""AFedPG: policy gradients of agents of different speed, and the baselines beside it.

The server makes a step at every arrival. It hands agents a point ahead of its model theta,

    theta~_s = theta_s + ((1 - alpha_s) / alpha_s) (theta_s - theta_{s-1}),

together with alpha_s; when an agent arrives at step k with the gradient g there,

    d         <- (1 - alpha_s) d + alpha_s g                     (the first message: d = g)
    theta_k+1 = theta_k + eta_k d / ||d||.

Looking ahead makes up for the age of the gradients that are already in d: of a quadratic J, seen
without noise and delay, d is then the gradient at theta_k. The delay of an agent, delta steps,
leaves an error of about delta times the Hessian times a step, with or without; that is what
`delay_compensation` adds to the coefficient. Alpha travels with the message, because the two must
be the same for the terms to cancel.

With one agent this is the normalised policy gradient with implicit gradient transport
(N-PG-IGT); on a clock whose steps wait for everybody it is the synchronous federated method, with
step sizes for the mean of m gradients. Without looking ahead, momentum and normalisation what is
left is the asynchronous update of A3C without its critic, `a3c_pg`; the whole is `a3c`.

Where the agents' environments differ, fast agents count more: on a clock of constant times t_i
the objective is \sum_i J_i / t_i, up to a factor.

* Lan, Han, Hashemi, Aggarwal and Brinton, *Asynchronous Federated Reinforcement Learning with
  Policy Gradient Updates: Algorithm Design and Convergence Analysis*, arXiv 2404.08003.
* Fatkhullin, Barakat, Kireeva and He, *Stochastic Policy Gradient Methods: Improved Sample
  Complexity for Fisher-non-degenerate Policies*, arXiv 2302.01734: N-PG-IGT.
* Mnih et al., *Asynchronous Methods for Deep Reinforcement Learning*, arXiv 1602.01783: A3C.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, rounding
from fedjax_rl.algorithms.define import Learner, variant
from fedjax_rl.algorithms.local_gradient import learner_of, policy_gradient
from fedjax_rl.algorithms.local_gradient_properties import LocalGradient
from fedjax_rl.algorithms.oracle import Oracle, keys_at
from fedjax_rl.algorithms.oracle_state import OracleState
from fedjax_rl.federation.clock import CLOCK, Clock
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.server import MESSAGES, ServerStep
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.federation.uplinks import MessageSpec, norm_squared
from fedjax_rl.fields.record import engine, host, record, static, traced

# Directions shorter than this do not move the server.
SHORTEST = 1e-12

_ONE = fields.anything(
    "1, as an upload is a gradient", lambda value: fields.is_whole(value) and value == 1
)


@record
class AFedPG(LocalGradient):
    """Properties of AFedPG; see also `LocalGradient`.

    Attributes:
      learning_rate: eta, of a step of the server, above 0; normalised, it is the length of the
        step. By default 0.05, and 0.005 for steps with a network that are not normalised.
      local_steps: 1, an upload is one gradient.
      clock: how long agents take and whom the server waits for, see `federation.clock`; a step at
        every arrival by default.
      momentum: alpha, weight of the newest gradient, in (0, 1]; 1 is no momentum.
      lookahead: whether agents work ahead of the server's model.
      normalize_step: whether a step has the length eta whatever the gradient is.
      scale_with_arrivals: whether a step of m messages has the learning rate m eta, so that it does
        what m steps do, and their gradients the weight min(1, m alpha). If fewer than are waited
        for arrive, because agents fail or are silent, the rate is that of their number; the
        weight stays that of the points where the gradients were taken.
      delay_compensation: added to the coefficient (1 - alpha) / alpha, a guess of the delay such
        as N - 1, at least 0; it amplifies noise.
      momentum_decay: p, alpha_k = alpha (k0 / (k + k0))^p, at least 0.
      learning_rate_decay: q, eta_k = eta (k0 / (k + k0))^q, at least 0.
      decay_start: k0, steps of the server, above 0.
    """

    learning_rate: Any = traced(None, fields.POSITIVE.or_none())
    local_steps: int = static(1, _ONE, cli=False)
    clock: Clock | None = engine(Clock("asynchronous"), CLOCK.or_none())
    momentum: Any = traced(0.1, fields.number(0, 1, above=True))
    lookahead: bool = static(True, fields.switch())
    normalize_step: bool = static(True, fields.switch())
    scale_with_arrivals: bool = host(True, fields.switch())
    delay_compensation: Any = traced(0.0, fields.NOT_NEGATIVE)
    momentum_decay: Any = traced(0.0, fields.NOT_NEGATIVE)
    learning_rate_decay: Any = traced(0.0, fields.NOT_NEGATIVE)
    decay_start: Any = traced(50.0, fields.POSITIVE)

    def with_defaults(self):
        """With the learning rate that fits."""
        own = super().with_defaults()
        if own.learning_rate is not None:
            return own
        fine = own.is_table or own.normalize_step
        return dataclasses.replace(own, learning_rate=0.05 if fine else 0.005)

    def derived(self, num_agents: int) -> Params:
        """Besides the environments how many messages of a step count as one step each."""
        own, count = super().derived(num_agents), 1
        if self.scale_with_arrivals:
            everybody = self.clock is None
            count = num_agents if everybody else self.clock.rules.arrivals(num_agents)
        return Params(own.agent, {**own.federation, "messages": np.float64(count)}, {})


class Model(NamedTuple):
    """What a server knows.

    Attributes:
      parameters: [q], theta_k.
      previous: [q], theta_{k-1}.
      direction: [q], d.
      steps: uint32, k.
      observed: `Statistics` that it hands out, where they are shared; ().
    """

    parameters: jax.Array
    previous: jax.Array
    direction: jax.Array
    steps: jax.Array
    observed: Any = ()


class Agent(NamedTuple):
    """One agent.

    Attributes:
      gradient: [q], its last one.
      momentum: alpha that came with the point where it was taken.
      oracle: what it keeps for its estimates.
    """

    gradient: jax.Array
    momentum: jax.Array
    oracle: OracleState


def decayed(value, power, start, steps):
    """`value (start / (steps + start))^power`, scalars.

    Args:
      value: at step 0, scalar.
      power: p or q, scalar.
      start: k0, scalar.
      steps: k, uint32 scalar.

    Returns:
      Scalar, of the dtype of the value.
    """
    return value * (start / (steps.astype(value.dtype) + start)) ** power


def momentum_at(model: Model, params):
    """alpha_k of the messages of a step.

    Args:
      model: of the server.
      params: of its federation.

    Returns:
      Scalar in (0, 1].
    """
    count = params["messages"]
    value = jnp.minimum(1, count * params["momentum"])
    return decayed(value, params["momentum_decay"], params["decay_start"], model.steps)


def point_ahead(config: AFedPG, model: Model, params):
    """Where an agent is to take its gradient, [q], and alpha.

    Args:
      config: of the algorithm.
      model: of the server.
      params: of its federation.
    """
    momentum = momentum_at(model, params)
    if not config.lookahead:
        return model.parameters, momentum
    ahead = (1 - momentum) / momentum + params["delay_compensation"]
    return model.parameters + ahead * (model.parameters - model.previous), momentum


def server_of(config: AFedPG) -> ServerStep:
    """Momentum from gradients times alpha and the alphas, both means; a step along it."""

    def step(model, memory, total, params):
        gradient, momentum = total
        # The message is alpha g: divided by alpha, d begins as g, without decay.
        first = gradient / momentum
        direction = jnp.where(model.steps == 0, first, (1 - momentum) * model.direction + gradient)
        # Fewer may come than are waited for; one is one step where steps are not scaled.
        count = params["messages"]
        if MESSAGES in params:
            count = jnp.minimum(count, params[MESSAGES].astype(count.dtype))
        rate = decayed(
            count * params["learning_rate"],
            params["learning_rate_decay"],
            params["decay_start"],
            model.steps,
        )
        move = direction
        if config.normalize_step:
            length = rounding.root(norm_squared(direction))
            still = length < SHORTEST
            move = jnp.where(still, 0.0, direction / jnp.where(still, 1.0, length))
        moved = Model(
            model.parameters + rate * move,
            model.parameters,
            direction,
            model.steps + jnp.uint32(1),
        )
        return moved, memory

    return ServerStep(lambda model: (), step)


# Alpha belongs to the message, but is nothing to compress or to measure: a gradient that comes in
# with another alpha than it was taken for is none of the recursion.
SPEC = MessageSpec(
    numbers=lambda message: message[0],
    replaced=lambda message, gradient: (gradient, message[1]),
    rest=1,
    step=lambda params: params["learning_rate"],
    moving=lambda broadcast: broadcast[0],
)


def first_model(parameters) -> Model:
    """The model of a server that begins with parameters [q]."""
    # theta_{-1} = theta_0: ahead of a model that has not moved is where it is.
    return Model(parameters, parameters, jnp.zeros_like(parameters), jnp.uint32(0))


def _first_agent(parameters, kept: OracleState) -> Agent:
    nothing = jnp.zeros((), parameters.dtype)
    return Agent(jnp.zeros_like(parameters), nothing, kept)


@policy_gradient(AFedPG)
def afedpg(config: AFedPG) -> Learner:
    """AFedPG: asynchronous policy gradients from points ahead of the model.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(4), max_steps=20)
      >>> clock = frl.Clock("asynchronous", distribution="exponential")
      >>> frl.afedpg(task, clock=clock).unit
      'update'
    """
    oracle = Oracle(config)

    def work(population, params, state, differentiable):
        def start(model, params):
            return point_ahead(config, model, params)

        models = population.spread(state.server)
        points, momentum = per_agent(start, population, params, models)
        keys = keys_at(state.keys, state.time, jnp.uint32(0))
        before = state.agents.oracle
        gradients, kept = oracle.gradients(
            population, params, keys, points, before, config.episodes_per_step, differentiable
        )
        state = dataclasses.replace(state, agents=Agent(gradients, momentum, kept))
        return state, kept.statistics.steps - before.statistics.steps

    link = Exchange(
        # On the wire the gradient and alpha.
        message=lambda agent, broadcast, params: (
            # Multiplied before the mean: the alphas of several messages may differ.
            agent.momentum * agent.gradient,
            agent.momentum,
        ),
        spec=SPEC,
        server=server_of(config),
        # Its size is that of the point ahead and alpha.
        broadcast=lambda model: (model.parameters, model.parameters[0]),
        dedicated_server=True,
    )
    return learner_of(oracle, work, link, first_model=first_model, first_agent=_first_agent)


a3c_pg = variant(
    afedpg,
    "a3c_pg",
    """Asynchronous gradients of whole episodes as they come: AFedPG without what it adds.

    No momentum, no normalisation, nothing ahead, on tables, too. A3C itself, with a learned critic,
    rollouts of n steps and RMSProp, is `a3c`.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(4), max_steps=20)
      >>> frl.a3c_pg(task).config.lookahead
      False
    """,
    momentum=1.0,
    lookahead=False,
    normalize_step=False,
)
