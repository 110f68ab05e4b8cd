"""Evolution strategies with scalar messages, and with probabilistic communication.

Every agent perturbs the learner's parameters, runs one episode and sends its return; the learner
draws the perturbations again from the shared seeds and moves along their weighted mean.

* Salimans, Ho, Chen, Sidor and Sutskever, *Evolution Strategies as a Scalable Alternative to
  Reinforcement Learning*, arXiv 1703.03864: ES.
* Gunn, *Communication Efficient Distributed Reinforcement Learning* (2023), sections 2.4.4 and 4:
  ES on raw returns, and ESPC, which is ES on the uplink `probabilistic`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.episodic import Experience
from fedjax_rl.algorithms.properties import codes
from fedjax_rl.algorithms.strategy import (
    Strategy,
    all_alike,
    ascent,
    centred_ranks,
    direction,
    network_of,
    nothing_owed,
    run_episodes,
    run_perturbed,
    static_strategy,
    traced,
)
from fedjax_rl.envs.task import Task
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.clock import Clock
from fedjax_rl.federation.exchange import Exchange, first_state
from fedjax_rl.federation.rounds import rounds
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.federation.uplinks import MessageSpec, norm_squared
from fedjax_rl.fields import declared, is_number
from fedjax_rl.learners import rounding

SHAPINGS = ("raw", "center", "zscore", "rank")
BASELINES = ("none", "own_window")
UTILITIES = ("signed", "absolute", "return", "norm")
WEIGHTS = ("return", "equal")
# Words that are traced as numbers, beside those of a strategy.
_TRACED_WORDS = ("shaping", "baseline", "weights")

MODEL_METRIC = {"reward_of_model": ("federation", "return of an episode of the unperturbed policy")}

# Returns an agent averages for a baseline of its own.
BASELINE_WINDOW = 5


@dataclasses.dataclass(frozen=True)
class ES(Strategy):
    """Properties of evolution strategies; see also `Strategy`.

    Attributes:
      shaping: what is done to the returns that were received: "raw", "center" (minus their mean),
        "zscore" or "rank" (centred ranks, ties averaged).
      baseline: "none", or "own_window": an agent subtracts the mean of its last 5 returns, the
        present one excluded, and sends the difference; there is no message in episode 0.
      weights: "return", or "equal": whatever was received counts 1 (a control experiment).
      evaluate: whether to run an episode of the unperturbed policy, too (`reward_of_model`).
      clock: how long agents take and whom the server waits for, see `federation.clock`; by
        default everybody takes as long.
    """

    shaping: str = declared("raw", fields.word(SHAPINGS))
    baseline: str = declared("none", fields.word(BASELINES))
    weights: str = declared("return", fields.word(WEIGHTS))
    evaluate: bool = declared(False, fields.switch())
    clock: Clock | None = declared(None, episodic.CLOCK)


@dataclasses.dataclass(frozen=True)
class ESPC(ES):
    """Properties of evolution strategies with probabilistic communication; see also `ES`.

    With as many senders as agents it is ES. A `shaping` acts on what was received; centring there,
    after the selection, takes away most of what the selection gained, a baseline before it does
    not.

    Attributes:
      target_senders: m, messages wanted per episode, a whole number from 0 to the number of
        agents; by default half of them, at least one.
      window: k, samples an agent compares with, at least 1.
      utility: of a sample with return F and perturbation e: "signed" (F |e|), "absolute" (|F|
        |e|), "return" (F) or "norm" (|e|). By default "signed", and "absolute" with a baseline.
      utility_model: where a utility stands in the window: "gaussian" or "empirical".
    """

    target_senders: Any = declared(None, fields.whole(0, follows=True, traced=True).or_none())
    window: Any = declared(5, fields.whole(1, traced=True))
    utility: str | None = declared(None, fields.word(UTILITIES).or_none())
    utility_model: Any = declared("gaussian", uplinks.UTILITY_MODEL)
    uplink: uplinks.Uplink | None = declared(
        None, fields.nothing("espc is es with the uplink probabilistic"), cli=False
    )


def es(task: Task, **values) -> Algorithm:
    """Evolution strategies; see `ES` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return _build("es", ES, es, task, values, metrics=metrics_of(values))


def espc(task: Task, **values) -> Algorithm:
    """ES with probabilistic communication; see `ESPC` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return _build("espc", ESPC, espc, task, values, metrics=metrics_of(values))


def metrics_of(values: dict, own: dict | None = None) -> dict:
    """The metrics of an algorithm with such properties, and of its own."""
    evaluate = values.get("evaluate")
    asked = MODEL_METRIC if isinstance(evaluate, bool | np.bool_) and evaluate else {}
    return {**episodic.METRICS, **(own or {}), **asked}


def check(config: ES) -> None:
    """Raises ValueError for properties that do not fit together."""
    for name in ("antithetic", "evaluate"):
        if config.clock is not None and getattr(config, name):
            raise ValueError(
                f"{name} is True on a clock, where agents have no rounds in common; allowed: False"
            )


def uplink_of(config: ES, num_agents: int | None = None) -> uplinks.Uplink:
    """Who sends."""
    if not isinstance(config, ESPC):
        return episodic.uplink_of(config)
    target = config.target_senders
    if num_agents is not None and is_number(target) and (target or 0) > num_agents:
        raise ValueError(
            f"target_senders is {target} with num_agents {num_agents}; allowed: a whole number "
            "from 0 to num_agents"
        )
    if target is None:
        # Of a single agent, which would be silent for ever, everything.
        target = 0 if num_agents is None else max(1, num_agents // 2)
    return uplinks.probabilistic(target, config.window, None, config.utility_model)


def utility_of(config: ES) -> str:
    """What makes a sample worth sending."""
    chosen = getattr(config, "utility", None)
    return chosen or ("signed" if config.baseline == "none" else "absolute")


def parameters(config: ES, num_agents: int) -> Params:
    """What is traced, for one federation."""
    federation = traced(config, num_agents) | codes(config, _TRACED_WORDS)
    federation["utility"] = np.int32(UTILITIES.index(utility_of(config)))
    # A message is one number, the return.
    federation |= episodic.uplink_parameters(uplink_of(config, num_agents), num_agents, 1)
    return Params({}, federation, {})


def static(config: ES):
    """Equal for configurations that one compilation serves."""
    return (*static_strategy(config), uplink_of(config).static, config.evaluate)


class Agent(NamedTuple):
    """One agent.

    Attributes:
      experience: of its last episode.
      noise: [q], its perturbation in units of sigma.
      past: [5], its last returns, a ring.
      count: int32, episodes behind it.
    """

    experience: Experience
    noise: jax.Array
    past: jax.Array
    count: jax.Array


class Sample(NamedTuple):
    """A message; on the wire only the value.

    Attributes:
      value: return, or its difference to the agent's baseline.
      noise: [q], drawn again by the learner.
      utility: what the uplink goes by.
      valid: whether there is anything to send.
    """

    value: jax.Array
    noise: jax.Array
    utility: jax.Array
    valid: jax.Array


class Model(NamedTuple):
    """The learner's model.

    Attributes:
      parameters: [q].
      value: return of the unperturbed policy in this round; 0 where not asked for.
    """

    parameters: jax.Array
    value: jax.Array


def message(agent: Agent, model: Model, params) -> Sample:
    """The sample of an agent's last episode."""
    seen = jnp.minimum(agent.count - 1, BASELINE_WINDOW)
    # The ring holds the present return already, at the place of episode count - 1.
    places = jnp.arange(BASELINE_WINDOW + 1, dtype=jnp.int32)
    now = (agent.count - 1) % (BASELINE_WINDOW + 1)
    earlier = (places != now) & (places < agent.count)
    total = jnp.sum(jnp.where(earlier, agent.past, jnp.zeros_like(agent.past)))
    baseline = total / jnp.maximum(seen, 1).astype(total.dtype)
    own = params["baseline"] == BASELINES.index("own_window")
    value = agent.experience.value
    # Equal returns differ from their mean by a rounding, and Adam would make a step of that.
    window = jnp.append(agent.past, agent.experience.value)
    there = jnp.append(earlier, jnp.asarray(True))
    same = rounding.alike_where(window, there)[0]
    difference = jnp.where(same, jnp.zeros_like(value), value - baseline)
    value = jnp.where(own, difference, value)
    norm = jnp.sqrt(norm_squared(agent.noise))
    kinds = [value * norm, jnp.abs(value) * norm, value, norm]
    utility = jnp.select([params["utility"] == n for n in range(len(kinds))], kinds)
    valid = agent.experience.fine & (~own | (seen > 0))
    return Sample(value, agent.noise, utility, valid)


SPEC = MessageSpec(
    numbers=lambda sample: sample.value,
    replaced=lambda sample, value: sample._replace(value=value),
    items=lambda sample: (jnp.abs(sample.value)[None], sample.valid[None]),
    utility=lambda sample: sample.utility,
    size=lambda sample: jnp.uint32(1),
    owed=nothing_owed,
)


def shaped(population, values, counts, params: Params):
    """Returns as the weights of their perturbations.

    Args:
      population: who belongs to whom.
      values: [A], returns.
      counts: bool [A], which of them were received.
      params: with "shaping" and "weights" of each federation.

    Returns:
      [A], zero where nothing was received, and the number received [F].
    """
    received = population.sum(counts.astype(values.dtype))
    size = population.spread(jnp.maximum(received, 1))
    values = jnp.where(counts, values, jnp.zeros_like(values))
    centred = values - population.spread(population.sum(values)) / size
    differ = counts & ~all_alike(population, values, counts)
    centred = jnp.where(differ, centred, jnp.zeros_like(values))
    variance = population.spread(population.sum(centred**2)) / size
    deviation = jnp.sqrt(variance)
    scored = jnp.where(deviation > 0, centred / jnp.where(deviation > 0, deviation, 1), 0.0)
    ranks = centred_ranks(population, values, counts)
    shaping = population.spread(params.federation["shaping"])
    kinds = [values, centred, scored, ranks]
    out = jnp.select([shaping == n for n in range(len(kinds))], kinds)
    equal = population.spread(params.federation["weights"]) == WEIGHTS.index("equal")
    return jnp.where(equal, counts.astype(values.dtype), out), received


def aggregate(population, sample: Sample, sent, weight, context) -> Aggregate:
    """The weighted mean of the perturbations, [F, q]; the gradient times sigma."""
    del weight
    counts = sample.valid if sent is None else sample.valid & sent
    values, received = shaped(population, sample.value, counts, context.params)
    return direction(population, values, sample.noise, received, context.params)


def server_of(config: ES) -> ServerStep:
    """A step uphill."""
    uphill = ascent(config)

    def step(model, memory, total, params):
        parameters, memory = uphill.step(model.parameters, memory, total, params)
        return model._replace(parameters=parameters), memory

    return ServerStep(lambda model: uphill.init(model.parameters), step)


def exchange_of(
    config: ES, aggregate: Callable = aggregate, server: ServerStep | None = None
) -> Exchange:
    """The exchange of a round; the parameters go down, without what is known of them."""
    return Exchange(
        message=message,
        uplink=uplink_of(config),
        aggregate=aggregate,
        server=server_of(config) if server is None else server,
        broadcast=lambda model: model.parameters,
        spec=SPEC,
        wire=episodic.wire_of(config),
        dedicated_server=True,
    )


def functions(
    config: ES, aggregate: Callable = aggregate, server: ServerStep | None = None
) -> Functions:
    """The algorithm as pure functions of a population.

    Args:
      config: the properties.
      aggregate: of the exchange.
      server: of the exchange, a step uphill by default.
    """
    network = network_of(config)
    link = exchange_of(config, aggregate, server)

    def work(population, params, state, differentiable):
        kind = "scan" if differentiable else config.loop
        centre = state.server.parameters
        noise, episode = run_perturbed(config, network, population, params, state, centre, kind)

        def remember(agent, noise, value, undiscounted, steps, params):
            value = value + params["return_offset"]
            experience = agent.experience.following(value, undiscounted, steps)
            place = agent.count % (BASELINE_WINDOW + 1)
            past = agent.past.at[place].set(experience.value)
            return Agent(experience, noise, past, agent.count + 1)

        agents = per_agent(remember, population, params, state.agents, noise, *episode[:3])
        state = dataclasses.replace(state, agents=agents)
        if config.evaluate:
            keys = episodic.episode_keys(state)
            first = tuple(episodic.first_key(population, key) for key in keys)
            now = run_episodes(config, network, first, centre, kind)
            state = dataclasses.replace(state, server=state.server._replace(value=now.value))
        return state, episode.steps.astype(jnp.uint32)

    drive = rounds(work, link)

    def init(population, params, keys):
        root = streams.keys_of(episodic.first_key(population, keys), streams.Episodic.MODEL)
        model = jax.vmap(lambda key: network.init(key, config.initializer))(root)
        server = Model(model, jnp.zeros(population.num_federations))
        noise, past = jnp.zeros(network.num_parameters), jnp.zeros(BASELINE_WINDOW + 1)
        agent = Agent(episodic.no_experience(), noise, past, jnp.int32(0))
        agents = episodic.alike(population, agent)
        return first_state(population, link, params, keys, agents, server, detailed=True)

    def measure(population, params, state) -> dict:
        del params
        own = episodic.measure(population, state, link.wire, state.agents.experience)
        return {**own, "reward_of_model": state.server.value} if config.evaluate else own

    return Functions(init, drive.round, drive.advance, measure, drive.parts)


# What `es` and `espc` are made of.
_build = functools.partial(
    episodic.build, check=check, parameters=parameters, functions=functions, static=static
)
