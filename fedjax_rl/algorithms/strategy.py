"""What evolution strategies have in common: the agents' perturbations and the server's step.

Every agent perturbs the server's parameters and runs one episode; the server draws the
perturbations again from the shared seeds and moves along their weighted mean. What the weights are
made of is the business of `es`, `iw_es` and `novelty`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import episodic, held_out
from fedjax_rl.algorithms.assemble import first_keys
from fedjax_rl.algorithms.define import Federated, algorithm
from fedjax_rl.algorithms.records import HeldOut, Heterogeneity, Network, Optimizer
from fedjax_rl.envs.task import Discrete, Task
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.ledger import Wire
from fedjax_rl.federation.server import SHARE, ServerStep
from fedjax_rl.federation.state import Params
from fedjax_rl.fields.record import environment, nested, record, static, traced
from fedjax_rl.learners import evolution, policies
from fedjax_rl.learners.sight import check_vectors
from fedjax_rl.networks import MLP
from fedjax_rl.rollouts import episodes

DENOMINATORS = ("received", "n")
L2_MODES = ("coupled", "decoupled")

# Decorates `config -> Learner` with what is the same of all: a round is an episode of every agent.
evolution_strategy = functools.partial(
    algorithm,
    environments=("grid", "task"),
    unit="episode",
    headline="reward",
    sampled=lambda config: "episodes are drawn from what is learned",
    estimators=lambda config: () if config.unscored() else ("score",),
    scoreless=("task",),
)


@record
class Strategy(Federated):
    """Properties of everything whose server draws the agents' perturbations again.

    Attributes:
      task: of every agent.
      sigma: standard deviation of the perturbations, above 0.
      learning_rate: of the optimizer, at least 0.
      optimizer: of the server.
      l2: weight decay, at least 0.
      l2_mode: "coupled" (part of the gradient) or "decoupled" (beside the optimizer).
      denominator: the mean is over what was "received", or over all "n" agents, on a clock also
        over those who have not arrived.
      antithetic: whether agents 2i and 2i + 1 have opposite perturbations.
      network: of the policy.
      policy: discrete actions are drawn ("sample") or the best one ("argmax"); continuous
        actions are tanh of the outputs, or the outputs where actions are not bounded.
      return_offset: added to every return before anything is done with it, recorded as `reward`
        included; `return` is without it.
      held_out: environments besides the one of the agents, for a metric of their own; they take a
        level.
      loop: of the episodes, "compact", "while" or "scan".
      wire: the format of messages.
    """

    task: Task = environment(episodic.TASK)
    sigma: Any = traced(0.2, fields.POSITIVE._replace(scheduled=fields.POSITIVE))
    learning_rate: Any = traced(0.03, fields.NOT_NEGATIVE)
    optimizer: Optimizer = nested(Optimizer, name="adam")
    l2: Any = traced(0.05, fields.NOT_NEGATIVE)
    l2_mode: str = traced("coupled", fields.word(L2_MODES), by="word")
    denominator: str = traced("received", fields.word(DENOMINATORS), by="word")
    antithetic: bool = static(False, fields.switch())
    network: Network = nested(Network)
    policy: str = static("sample", fields.word(policies.CHOICES))
    return_offset: Any = traced(0.0, fields.FINITE)
    held_out: HeldOut = nested(HeldOut)
    loop: str = static("compact", episodic.LOOP)
    wire: Wire = nested(Wire)

    def check(self) -> None:
        """Refuses a task that cannot be, or is not for vectors; pairs of agents that never meet."""
        episodic.check_task(self.task)
        check_vectors("network.hidden", self.network.hidden, self.task)
        if self.derivative == "score" and (reason := self.unscored()):
            raise ValueError(reason)
        self.check_rounds("antithetic")
        self.held_out.check_of(self.task, Heterogeneity())

    @property
    def plays_alone(self) -> bool:
        """Whether a server runs episodes of its own parameters."""
        return False

    def unscored(self) -> str | None:
        """Why scores are refused, a whole sentence; None where they are there.

        They are of perturbed parameters, each drawn by itself, and, of the episodes of a server, of
        its actions.
        """
        sampled = self.policy == "sample" and isinstance(self.task.action, Discrete)
        if self.plays_alone and not sampled:
            return (
                f"policy is {self.policy!r} with derivative 'score' on {self.task.name}, where the "
                "server runs episodes of its own parameters; allowed: 'sample', of discrete actions"
            )
        if self.antithetic:
            return (
                "antithetic is True with derivative 'score', where every perturbation is drawn by "
                "itself; allowed: False"
            )
        if self.held_out.members:
            return (
                f"held_out.members is {self.held_out.members} with derivative 'score', which does "
                "not count what is drawn where no agent learns; allowed: 0"
            )
        return None

    def check_rounds(self, name: str) -> None:
        """Refuses a switch that asks for rounds where there are none.

        Raises:
          ValueError: it is on, on a clock.
        """
        if self.clock is not None and getattr(self, name):
            raise ValueError(
                f"{name} is True on a clock, where agents have no rounds in common; allowed: False"
            )

    def derived(self, num_agents: int) -> Params:
        """The environments held out; no antithetic perturbations of an odd number of agents."""
        if self.antithetic and num_agents % 2:
            raise ValueError(
                f"num_agents is {num_agents} with antithetic perturbations; allowed: even numbers"
            )
        return Params({}, self.held_out.derived(self.task, num_agents, Heterogeneity()), {})


def of_now(sent, context):
    """Who sent a sample in this round, bool [A] or None for all.

    Where an uplink goes on with old messages these count, too; but an old sample is one around
    other parameters, which not every server can make use of.

    Args:
      sent: bool [A] that count, or None for all.
      context: of the exchange, which knows who was heard.
    """
    heard = context.heard
    if sent is None or heard is None:
        return heard if sent is None else sent
    return sent & heard


def nothing_owed(numbers):
    """What was left out of a sample does not belong to the next one."""
    return jax.tree.map(jnp.zeros_like, numbers)


def network_of(config: Strategy) -> MLP:
    """The policy's network."""
    action, own = config.task.action, config.network
    outputs = action.num if isinstance(action, Discrete) else action.size
    return MLP((config.task.observation_size, *own.hidden, outputs), own.activation)


def direction(population, values, noise, received, params: Params) -> Aggregate:
    """The mean of the perturbations [A, q] weighted by values [A]; received [F] of them count.

    Args:
      population: who belongs to whom.
      values: [A], weights of the perturbations.
      noise: [A, q], the perturbations in units of sigma.
      received: [F], how many messages count.
      params: of the federations.

    Returns:
      [F, q], the gradient times sigma, absent where nothing was received.
    """
    total = population.sum(values[:, None] * noise)
    every = params.federation["denominator"] == DENOMINATORS.index("n")
    size = jnp.asarray(population.sizes, values.dtype)
    if SHARE in params.federation:
        # On a clock those who are waited for are a part of all agents.
        size = jnp.round(size / params.federation[SHARE].astype(size.dtype))
    # Adam hardly feels which; with "sgd" and "momentum" it is a factor of the rate.
    number = jnp.where(every, size, received)
    # Absent where nobody was heard: the coupled decay alone would, through Adam, move every
    # parameter by a full learning rate towards 0.
    return Aggregate(total / jnp.maximum(number, 1)[:, None], received > 0)


def ascent(optimizer: Optimizer) -> ServerStep:
    """A step uphill of parameters [q], from `direction`."""

    def step(theta, memory, total, params):
        coupled = params["l2_mode"] == L2_MODES.index("coupled")
        gradient = total / params["sigma"]
        # Beside the gradient of raw returns, hundreds in size, this decay hardly tells.
        gradient = gradient - jnp.where(coupled, params["l2"], 0.0) * theta
        momentum = params["optimizer.momentum"]
        uphill, memory = optimizer.direction(gradient, memory, theta, momentum)
        decay = jnp.where(coupled, 0.0, params["l2"]) * theta
        return theta + params["learning_rate"] * (uphill - decay), memory

    return ServerStep(optimizer.init, step)


def perturbations(config: Strategy, network: MLP, population, state):
    """The perturbation of every agent in this round, [A, q].

    Args:
      config: of the strategy.
      network: of its policy.
      population: who belongs to whom.
      state: of now; its keys and its time make the perturbations.

    Returns:
      Standard normal [A, q].
    """
    keys = state.keys
    if config.antithetic:
        # Both of a pair draw with the key of the first, and differ in sign.
        places = population.places
        data = population.others(jax.random.key_data(keys), places - places % 2)
        keys = jax.random.wrap_key_data(data, impl=streams.IMPLEMENTATION)
    keys = streams.keys_of(keys, streams.Episodic.NOISE, state.time)
    counters = jnp.arange(network.num_parameters, dtype=jnp.uint32)

    def draw(key):
        words = jax.vmap(lambda n: streams.threefry(key, n))(counters)
        return streams.normal(words, jnp.result_type(float))

    # Half the time of jax.random.normal on a CPU.
    noise = jax.vmap(draw)(jax.random.key_data(keys))
    if config.antithetic:
        noise = noise * jnp.where(places % 2, -1.0, 1.0)[:, None]
    return noise


def behaviour_of(config: Strategy, network: MLP) -> Callable:
    """`(parameters, observation, word) -> action`, for `rollouts.episodes.run_episodes`.

    Args:
      config: of the strategy.
      network: of its policy.
    """
    discrete = isinstance(config.task.action, Discrete)

    def act(parameters, observation, word):
        outputs = network.apply(parameters, observation)
        if not discrete:
            kind = policies.squashed if config.task.action.bounded else policies.linear
            return kind(outputs)
        if config.policy == "argmax":
            return policies.greedy(outputs)
        return policies.categorical(outputs, word)

    return act


def log_probability_of(network: MLP) -> Callable:
    """`(parameters, observation, action) -> scalar`, likewise, of discrete actions that are drawn.

    Args:
      network: of the policy.
    """

    def logs(parameters, observation, action):
        return policies.log_probability(network.apply(parameters, observation), action)

    return logs


def run_episodes(
    config: Strategy, network: MLP, keys, parameters, kind, **options
) -> episodes.Episode:
    """One episode of every policy with parameters [A, q]; options of `run_episodes`.

    Args:
      config: of the strategy.
      network: of its policy.
      keys: a pair of [A].
      parameters: [A, q].
      kind: of the loop.
      **options: of `rollouts.episodes.run_episodes`.
    """
    act = behaviour_of(config, network)
    if not network.unrolled:
        return episodes.run_episodes(config.task, act, keys, parameters, kind=kind, **options)

    def on_scalars(function):
        def apply(parameters, *seen):
            return function(tuple(parameters[n] for n in range(network.num_parameters)), *seen)

        return apply

    if "log_probability" in options:
        options["log_probability"] = on_scalars(options["log_probability"])
    # One parameter of all agents after the other: each is a vector in the inner loop.
    return episodes.run_episodes(
        config.task, on_scalars(act), keys, parameters.T, axis=1, kind=kind, **options
    )


def run_perturbed(
    config: Strategy,
    network: MLP,
    population,
    params: Params,
    state,
    centre,
    kind,
    *,
    besides: bool = False,
    **options,
) -> tuple[jax.Array, episodes.Episode, episodes.Episode | None]:
    """One episode of every agent with its own perturbation of the parameters centre [F, q].

    Args:
      config: of the strategy.
      network: of its policy.
      population: who belongs to whom.
      params: its properties.
      state: of now.
      centre: [F, q].
      kind: of the loop.
      besides: whether the centres run an episode, too, with the keys of their first members.
      **options: of `run_episodes`.

    Returns:
      The perturbations [A, q] in units of sigma, the episodes of the agents, and those of the
      centres, [F], or None.
    """
    noise = perturbations(config, network, population, state)
    sigma = population.spread(params.federation["sigma"])
    if config.derivative == "score":
        perturbed, noise = evolution.held(noise, population.spread(centre), sigma[:, None])
    else:
        perturbed = population.spread(centre) + sigma[:, None] * noise
    keys = episodic.episode_keys(state)
    if not besides:
        return noise, run_episodes(config, network, keys, perturbed, kind, **options), None
    # In one loop, as every loop has a copy of the environment's step.
    keys = tuple(jnp.concatenate([key, first_keys(population, key)]) for key in keys)
    every = jnp.concatenate([perturbed, centre])
    if config.derivative == "score":
        options["log_probability"] = log_probability_of(network)
    made = run_episodes(config, network, keys, every, kind, **options)
    size = population.num_agents
    agents = jax.tree.map(lambda x: x[:size], made)
    return noise, agents, jax.tree.map(lambda x: x[size:], made)


def unseen(config: Strategy, network: MLP, population, params: Params, state, parameters) -> dict:
    """The metric of `held_out` of the servers' parameters [F, q]; none unless it is asked for.

    Args:
      config: of the strategy.
      network: of its policy.
      population: who belongs to whom.
      params: its properties, with the environments that are held out.
      state: of now.
      parameters: [F, q].
    """
    if not config.held_out.members:
        return {}
    count = config.held_out.episodes

    def run(keys, parameters, environments):
        def each(x):
            return jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), x)

        places = jnp.tile(jnp.arange(count, dtype=jnp.uint32), len(keys))
        pair = tuple(
            jax.vmap(jax.random.fold_in)(each(own), places) for own in episodic.pair_of(keys)
        )
        # A copy for every episode, as "compact" moves an episode with all that it reads.
        own = each(environments)
        made = run_episodes(config, network, pair, each(parameters), config.loop, environment=own)
        return jnp.mean(made.undiscounted.reshape(-1, count), axis=1)

    stream = streams.Episodic.HELD_OUT
    return held_out.by_episodes(run, population, params, state, parameters, stream)
