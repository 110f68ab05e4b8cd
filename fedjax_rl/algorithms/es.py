"""Evolution strategies with scalar messages, and with probabilistic communication.

Every agent perturbs the server's parameters, runs one episode and sends its return; the server
draws the perturbations again from the shared seeds and moves along their weighted mean.

* Salimans, Ho, Chen, Sidor and Sutskever, *Evolution Strategies as a Scalable Alternative to
  Reinforcement Learning*, arXiv 1703.03864: ES.
* Gunn, *Communication Efficient Distributed Reinforcement Learning* (2023), sections 2.4.4 and 4:
  ES on raw returns, and ESPC, which is ES on the uplink `probabilistic`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, rounding, streams
from fedjax_rl.algorithms import episodic, held_out
from fedjax_rl.algorithms.episodic import Experience
from fedjax_rl.algorithms.learner import Learner
from fedjax_rl.algorithms.strategy import (
    Strategy,
    ascent,
    direction,
    evolution_strategy,
    network_of,
    nothing_owed,
    run_perturbed,
    unseen,
)
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.federation.uplinks import MessageSpec, norm_squared
from fedjax_rl.fields import is_number
from fedjax_rl.fields.record import engine, host, record, static, traced
from fedjax_rl.learners import draws, evolution

BASELINES = ("none", "own_window")
UTILITIES = ("signed", "absolute", "return", "norm")

MODEL_METRIC = {"reward_of_model": ("federation", "return of an episode of the unperturbed policy")}

# Returns an agent averages for a baseline of its own.
BASELINE_WINDOW = 5


@record
class ES(Strategy):
    """Properties of evolution strategies; see also `Strategy`.

    Attributes:
      shaping: what is done to the returns that were received: "raw", "center" (minus their mean),
        "zscore" or "rank" (centred ranks, ties averaged).
      baseline: "none", or "own_window": an agent subtracts the mean of its last 5 returns, the
        present one excluded, and sends the difference; there is no message in episode 0.
      weights: "return", or "equal": whatever was received counts 1 (a control experiment).
      evaluate: whether to run an episode of the unperturbed policy, too (`reward_of_model`).
    """

    shaping: str = traced("raw", fields.word(evolution.SHAPINGS), by="word")
    baseline: str = traced("none", fields.word(BASELINES), by="word")
    weights: str = traced("return", fields.word(evolution.WEIGHTS), by="word")
    evaluate: bool = static(False, fields.switch())

    def check(self) -> None:
        """Refuses properties that do not fit together."""
        super().check()
        self.check_rounds("evaluate")

    @property
    def plays_alone(self) -> bool:
        """As of `Strategy`."""
        return self.evaluate

    @property
    def utility_of_samples(self) -> str:
        """The utility of samples, where an uplink asks for it."""
        return "signed" if self.baseline == "none" else "absolute"

    def derived(self, num_agents: int) -> Params:
        """The place of the utility among `UTILITIES`."""
        own = super().derived(num_agents)
        place = np.int32(UTILITIES.index(self.utility_of_samples))
        return Params({}, {**own.federation, "utility": place}, {})


@record
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

    target_senders: Any = engine(None, fields.whole(0, follows=True, traced=True).or_none())
    window: Any = engine(5, fields.whole(1, traced=True))
    utility: str | None = host(None, fields.word(UTILITIES).or_none())
    utility_model: Any = engine("gaussian", uplinks.UTILITY_MODEL)
    uplink: uplinks.Uplink | None = engine(
        None, fields.nothing("espc is es with the uplink probabilistic"), cli=False
    )

    @property
    def utility_of_samples(self) -> str:
        """What was asked for."""
        return self.utility or super().utility_of_samples

    def unscored(self) -> str | None:
        """As of `Strategy`."""
        return (
            "derivative is 'score' for espc, whose agents decide by the norm of a perturbation "
            "whether they send; allowed: None, 'pathwise'"
        )

    def transmits(self, num_agents=None) -> uplinks.Uplink:
        """Who has a sample of more utility than its last ones.

        Raises:
          ValueError: more senders than agents.
        """
        target = self.target_senders
        if num_agents is not None and is_number(target) and (target or 0) > num_agents:
            raise ValueError(
                f"target_senders is {target} with num_agents {num_agents}; allowed: a whole "
                "number from 0 to num_agents"
            )
        if target is None:
            # Of a single agent, which would be silent for ever, everything.
            target = 0 if num_agents is None else max(1, num_agents // 2)
        return uplinks.probabilistic(target, self.window, None, self.utility_model)


def metrics_of(config: ES) -> dict:
    """The metrics of an algorithm with such properties."""
    of_model = MODEL_METRIC if config.evaluate else {}
    return {**episodic.METRICS, **of_model, **held_out.metrics_of(config)}


class Agent(NamedTuple):
    """One agent.

    Attributes:
      experience: of its last episode.
      noise: [q], its perturbation in units of sigma.
      past: [5], its last returns, a ring.
      count: int32, episodes behind it.
      drawn: scalar 0 whose derivative is that of the log-density of its perturbed parameters, of
        all rounds; or ().
    """

    experience: Experience
    noise: jax.Array
    past: jax.Array
    count: jax.Array
    drawn: Any = ()


class Sample(NamedTuple):
    """A message; on the wire only the value.

    Attributes:
      value: return, or its difference to the agent's baseline.
      noise: [q], drawn again by the server.
      utility: what the uplink goes by.
      valid: whether there is anything to send.
    """

    value: jax.Array
    noise: jax.Array
    utility: jax.Array
    valid: jax.Array


class Model(NamedTuple):
    """The server's model.

    Attributes:
      parameters: [q].
      value: return of the unperturbed policy in this round; 0 where not asked for.
      drawn: scalar 0 whose derivative is that of the log-probability of all its actions; or ().
    """

    parameters: jax.Array
    value: jax.Array
    drawn: Any = ()


def message(agent: Agent, model: Model, params) -> Sample:
    """The sample of an agent's last episode.

    Args:
      agent: of now.
      model: that was sent down.
      params: of the agent's federation.
    """
    seen = jnp.minimum(agent.count - 1, BASELINE_WINDOW)
    # The ring holds the present return already, at the place of episode count - 1.
    places = jnp.arange(BASELINE_WINDOW + 1, dtype=jnp.int32)
    now = (agent.count - 1) % (BASELINE_WINDOW + 1)
    # Without the present return, which the perturbation has made: with it the estimate is biased.
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


def shaped(population, sample: Sample, sent, params: Params) -> tuple:
    """The weights of the perturbations [A], how many count [F], and which do, bool [A].

    Args:
      population: who belongs to whom.
      sample: messages, leaves [A, ...].
      sent: bool [A], or None for all.
      params: of the federations.
    """
    counts = sample.valid if sent is None else sample.valid & sent
    own = params.federation
    values, received = evolution.shaped(
        population, sample.value, counts, own["shaping"], own["weights"]
    )
    return values, received, counts


def aggregate(population, sample: Sample, sent, weight, context) -> Aggregate:
    """The weighted mean of the perturbations, [F, q]; the gradient times sigma.

    Args:
      population: who belongs to whom.
      sample: messages, leaves [A, ...].
      sent: bool [A], or None for all.
      weight: not asked for, the samples say what they weigh.
      context: of the exchange, with the properties of the federations.
    """
    del weight
    values, received, _ = shaped(population, sample, sent, context.params)
    return direction(population, values, sample.noise, received, context.params)


def server_of(config: ES) -> ServerStep:
    """A step uphill."""
    uphill = ascent(config.optimizer)

    def step(model, memory, total, params):
        parameters, memory = uphill.step(model.parameters, memory, total, params)
        return model._replace(parameters=parameters), memory

    return ServerStep(lambda model: uphill.init(model.parameters), step)


def exchange_of(config: ES) -> Exchange:
    """The exchange of a round; the parameters go down, without what is known of them."""
    return Exchange(
        message=message,
        aggregate=aggregate,
        server=server_of(config),
        broadcast=lambda model: model.parameters,
        spec=SPEC,
        dedicated_server=True,
    )


def strategy(config: ES, link: Exchange) -> Learner:
    """A strategy with that exchange.

    Args:
      config: of the algorithm.
      link: the exchange.
    """
    network, scored = network_of(config), config.derivative == "score"

    def first(key, params):
        del key, params
        noise, past = jnp.zeros(network.num_parameters), jnp.zeros(BASELINE_WINDOW + 1)
        drawn = jnp.zeros(()) if scored else ()
        return Agent(episodic.no_experience(), noise, past, jnp.int32(0), drawn)

    def model(key, params):
        del params
        key = jax.random.fold_in(key, streams.Episodic.MODEL)
        counted = scored and config.evaluate
        drawn = jnp.zeros(()) if counted else ()
        return Model(network.init(key, config.network.initializer), jnp.zeros(()), drawn)

    def remember(agent, noise, value, undiscounted, steps, params):
        value = value + params["return_offset"]
        experience = agent.experience.following(value, undiscounted, steps)
        place = agent.count % (BASELINE_WINDOW + 1)
        past = agent.past.at[place].set(experience.value)
        drawn = agent.drawn
        if scored:
            drawn = drawn + draws.score(evolution.log_density(noise, params["sigma"]))
        return Agent(experience, noise, past, agent.count + 1, drawn)

    def work(population, params, state, differentiable):
        kind = "scan" if differentiable else config.loop
        centre = state.server.parameters
        noise, episode, own = run_perturbed(
            config, network, population, params, state, centre, kind, besides=config.evaluate
        )
        agents = per_agent(remember, population, params, state.agents, noise, *episode[:3])
        state = dataclasses.replace(state, agents=agents)
        if own is not None:
            model = state.server._replace(value=own.value)
            if scored:
                model = model._replace(drawn=model.drawn + draws.score(own.log_probability))
            state = dataclasses.replace(state, server=model)
        return state, episode.steps.astype(jnp.uint32)

    def measure(population, params, state) -> dict:
        own = episodic.measure(population, state, config.wire, state.agents.experience)
        own |= unseen(config, network, population, params, state, state.server.parameters)
        return {**own, "reward_of_model": state.server.value} if config.evaluate else own

    more = {"drawn": lambda agents: agents.drawn} if scored else {}
    if scored and config.evaluate:
        more["drawn_by_server"] = lambda server: server.drawn
    return Learner(first, (work, link), measure, model=model, own=episodic.OWN, **more)


@evolution_strategy(ES, metrics=metrics_of)
def es(config: ES) -> Learner:
    """Evolution strategies.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> algorithm = frl.es(task, network=(8, 8), optimizer="adam", shaping="center")
      >>> algorithm.unit, algorithm.headline
      ('episode', 'reward')
    """
    return strategy(config, exchange_of(config))


@evolution_strategy(ESPC, metrics=metrics_of, draws=("target_senders",))
def espc(config: ESPC) -> Learner:
    """ES with probabilistic communication.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> half = frl.by_agents(lambda num_agents: num_agents // 2)
      >>> frl.espc(task, target_senders=half).at(50).config.target_senders
      25
    """
    return strategy(config, exchange_of(config))
