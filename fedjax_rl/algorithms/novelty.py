"""Evolution strategies that search for behaviours nobody has shown before.

The server keeps a few sets of parameters and an archive of behaviours. In every round it picks
one set, the more novel its behaviour the likelier; the agents perturb it, run an episode each and
send return and behaviour; the server moves the set along the perturbations weighted with ranks,

    w rank(return) + (1 - w) rank(novelty),

runs one episode of it by itself and archives the behaviour. The server's own episodes count among
the environment steps of its federation, and in no mean over agents.

* Conti, Madhavan, Petroski Such, Lehman, Stanley and Clune, *Improving Exploration in Evolution
  Strategies for Deep Reinforcement Learning via a Population of Novelty-Seeking Agents*, arXiv
  1712.06560: NS-ES (w is 0), NSR-ES (1/2) and NSRA-ES (w adapts).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import episodic, held_out
from fedjax_rl.algorithms.assemble import first_keys, per_federation
from fedjax_rl.algorithms.episodic import Experience
from fedjax_rl.algorithms.learner import Learner
from fedjax_rl.algorithms.strategy import (
    Strategy,
    ascent,
    behaviour_of,
    direction,
    evolution_strategy,
    log_probability_of,
    network_of,
    nothing_owed,
    of_now,
    run_perturbed,
    unseen,
)
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.ledger import line
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.federation.uplinks import MessageSpec
from fedjax_rl.fields.record import record, static, traced
from fedjax_rl.learners import draws, evolution
from fedjax_rl.learners import novelty as search
from fedjax_rl.learners.evolution import centred_ranks
from fedjax_rl.rollouts.episodes import run_episodes

METRICS = {
    **episodic.METRICS,
    "reward_of_model": (
        "federation",
        "return of the server's own episode with the parameters of this round after their step",
    ),
    "novelty": ("federation", "mean over the messages received of their behaviours' novelty"),
    "reward_weight": ("federation", "w, weight of the return against novelty"),
    "chosen": ("federation", "which of the server's sets of parameters this round was about"),
}


def metrics_of(config: Strategy) -> dict:
    """The metrics of an algorithm with such properties."""
    return {**METRICS, **held_out.metrics_of(config)}


@record
class NoveltySearch(Strategy):
    """Properties of NS-ES and NSR-ES; see also `Strategy`.

    Attributes:
      meta_population: M, sets of parameters, at least 1.
      neighbours: K, entries of the archive that novelty is measured against, at least 1.
      archive_size: C, behaviours kept, the latest ones; at least M.
    """

    meta_population: int = static(5, fields.COUNT)
    neighbours: int = static(10, fields.COUNT)
    archive_size: int = static(256, fields.COUNT)

    # w where it is no property.
    fixed_weight: ClassVar[float | None] = 0.0

    def check(self) -> None:
        """Refuses an archive that does not even hold the first behaviours."""
        super().check()
        if self.archive_size < self.meta_population:
            raise ValueError(
                f"archive_size is {self.archive_size} with meta_population "
                f"{self.meta_population}; allowed: at least as many"
            )

    @property
    def plays_alone(self) -> bool:
        """As of `Strategy`."""
        return True

    def derived(self, num_agents: int) -> Params:
        """The weight of the return, and that it does not change."""
        own = super().derived(num_agents)
        if self.fixed_weight is not None:
            fixed = {"reward_weight": self.fixed_weight, "weight_step": 0.0, "patience": 1.0}
            own.federation.update(fixed)
        return own


@record
class RewardedNoveltySearch(NoveltySearch):
    """Properties of NSR-ES, those of NS-ES; see `NoveltySearch`."""

    fixed_weight: ClassVar[float | None] = 0.5


@record
class AdaptiveNoveltySearch(NoveltySearch):
    """Properties of NSRA-ES; see also `NoveltySearch`.

    Attributes:
      reward_weight: w at the start, in [0, 1].
      weight_step: change of w, in [0, 1]: up with every best return so far, down after `patience`
        rounds without one.
      patience: rounds, at least 1.
    """

    reward_weight: Any = traced(1.0, fields.PROBABILITY, scheduled=False)
    weight_step: Any = traced(0.05, fields.PROBABILITY)
    patience: Any = traced(50, fields.whole(1, follows=True, traced=True), scheduled=False)

    fixed_weight: ClassVar[float | None] = None


class Agent(NamedTuple):
    """One agent.

    Attributes:
      experience: of its last episode.
      noise: [q], its perturbation in units of sigma.
      behaviour: [b], of its last episode.
      valid: whether that episode's return and behaviour are finite.
      drawn: as of `es.Agent`; or ().
    """

    experience: Experience
    noise: jax.Array
    behaviour: jax.Array
    valid: jax.Array
    drawn: Any = ()


class Sample(NamedTuple):
    """A message; on the wire only return and behaviour.

    Attributes:
      value: return.
      behaviour: [b].
      noise: [q], drawn again by the server.
      valid: whether there is anything to send.
    """

    value: jax.Array
    behaviour: jax.Array
    noise: jax.Array
    valid: jax.Array


def message(agent: Agent, broadcast, params) -> Sample:
    """What an agent has to say of its last episode."""
    del broadcast, params
    return Sample(agent.experience.value, agent.behaviour, agent.noise, agent.valid)


SPEC = MessageSpec(
    numbers=lambda sample: (sample.value, sample.behaviour),
    replaced=lambda sample, numbers: sample._replace(value=numbers[0], behaviour=numbers[1]),
    items=lambda sample: (jnp.abs(sample.value)[None], sample.valid[None]),
    utility=lambda sample: sample.value,
    owed=nothing_owed,
)


def aggregate(neighbours: int):
    """The exchange's aggregate: perturbations weighted with the ranks of return and novelty."""

    def apply(population, sample: Sample, sent, weight, context) -> Aggregate:
        del weight
        # Earlier samples are of other sets of parameters.
        sent = of_now(sent, context)
        counts = sample.valid if sent is None else sample.valid & sent
        archive = population.spread(context.model.archive)
        found = jax.vmap(lambda a, b: search.novelty(a, b, neighbours))(archive, sample.behaviour)
        found = jnp.where(counts, found, jnp.zeros_like(found))
        w = population.spread(context.model.weight)
        # Ranked apart: returns and distances have no unit in common.
        values = w * centred_ranks(population, sample.value, counts)
        values = values + (1 - w) * centred_ranks(population, found, counts)
        received = population.sum(counts.astype(values.dtype))
        total = direction(population, values, sample.noise, received, context.params)
        mean = population.sum(found) / jnp.maximum(received, 1)
        return Aggregate((total.value, mean), total.present)

    return apply


def server_of(config: NoveltySearch) -> ServerStep:
    """A step uphill of the chosen parameters, each with an optimiser of its own."""
    uphill = ascent(config.optimizer)

    def step(model, memory, total, params):
        gradient, novelty = total
        learned = model.parameters, memory
        # Moments of another set of parameters would be a momentum from somewhere else.
        own = jax.tree.map(lambda x: x[model.chosen], learned)
        own = uphill.step(*own, gradient, params)
        learned = jax.tree.map(lambda x, y: x.at[model.chosen].set(y), learned, own)
        model = model._replace(parameters=learned[0], novelty=novelty, stepped=jnp.asarray(True))
        return model, learned[1]

    return ServerStep(lambda model: jax.vmap(uphill.init)(model.parameters), step)


def exchange_of(config: NoveltySearch) -> Exchange:
    """The exchange of a round; down go the parameters of the round alone."""
    return Exchange(
        message=message,
        aggregate=aggregate(config.neighbours),
        server=server_of(config),
        broadcast=lambda model: model.parameters[model.chosen],
        spec=SPEC,
        dedicated_server=True,
    )


@evolution_strategy(NoveltySearch, metrics=metrics_of)
def ns_es(config: NoveltySearch) -> Learner:
    """Novelty search by evolution strategies.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.simple_grid(max_steps=20)
      >>> algorithm = frl.ns_es(task, meta_population=3, neighbours=5)
      >>> algorithm.config.neighbours
      5
    """
    network, link, many = network_of(config), exchange_of(config), config.meta_population
    scored = config.derivative == "score"

    def run_alone(keys, parameters, kind):
        """The servers' own few episodes: by matrix products, which compile faster."""
        kind = "while" if kind == "compact" else kind
        act, options = behaviour_of(config, network), {"kind": kind, "behaviour": True}
        if scored:
            options["log_probability"] = log_probability_of(network)
        return run_episodes(config.task, act, keys, parameters, **options)

    def server_keys(population, state):
        """Keys of every server's round, [3, F]: of the choice, and a pair of its episode."""
        own = first_keys(population, state.keys)
        own = streams.keys_of(own, streams.Episodic.LEARNER, state.time)
        return jax.vmap(lambda key: jax.random.split(key, 3), out_axes=1)(own)

    def first(key, params):
        del key, params
        noise, nothing = jnp.zeros(network.num_parameters), jnp.zeros(config.task.behaviour_size)
        drawn = jnp.zeros(()) if scored else ()
        return Agent(episodic.no_experience(), noise, nothing, jnp.asarray(False), drawn)

    def model(key, params):
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
            jax.random.fold_in(key, streams.Episodic.MODEL), jnp.arange(many)
        )
        start = jax.vmap(lambda key: network.init(key, config.network.initializer))(keys)
        sizes = config.archive_size, config.task.behaviour_size
        own = search.first_model(start, *sizes, params["reward_weight"])
        return own._replace(drawn=jnp.zeros(())) if scored else own

    def begin(population, params, state):
        """An episode of every set of parameters."""
        own = first_keys(population, state.keys)
        # The stream of the first parameters has M keys; this is the next one.
        own = streams.keys_of(own, streams.Episodic.MODEL, many)
        pairs = jax.vmap(lambda key: jax.random.split(key, (2, many)))(own)
        flat = tuple(pairs[:, n].reshape(-1) for n in range(2))
        size = population.num_federations
        start = state.server.parameters.reshape(size * many, -1)
        episode = run_alone(flat, start, config.loop)
        behaviours = episode.behaviour.reshape(size, many, -1)
        value = episode.value.reshape(size, many)[:, 0] + params.federation["return_offset"]
        server = jax.vmap(search.begun)(state.server, value, behaviours)
        steps = jnp.sum(episode.steps.reshape(size, many), axis=1, dtype=jnp.uint32)
        spent = state.ledger.add(line(env_steps=1), steps)
        return dataclasses.replace(state, server=server, ledger=spent)

    def remember(agent, noise, value, undiscounted, behaviour, steps, params):
        value = value + params["return_offset"]
        fine = jnp.all(jnp.isfinite(behaviour))
        experience = agent.experience.following(value, undiscounted, steps, fine)
        valid = fine & jnp.isfinite(value)
        behaviour = jnp.where(valid, behaviour, jnp.zeros_like(behaviour))
        drawn = agent.drawn
        if scored:
            drawn = drawn + draws.score(evolution.log_density(noise, params["sigma"]))
        return Agent(experience, noise, behaviour, valid, drawn)

    def work(population, params, state, differentiable):
        draw = server_keys(population, state)[0]
        model = jax.vmap(lambda key, model: search.choose(key, model, config.neighbours))(
            draw, state.server
        )
        centre = jax.vmap(link.broadcast)(model)
        kind = "scan" if differentiable else config.loop
        noise, episode, _ = run_perturbed(
            config, network, population, params, state, centre, kind, behaviour=True
        )
        seen = (noise, *episode[:2], episode.behaviour, episode.steps)
        agents = per_agent(remember, population, params, state.agents, *seen)
        state = dataclasses.replace(state, agents=agents, server=model)
        return state, episode.steps.astype(jnp.uint32)

    def after(population, params, state, differentiable):
        keys = server_keys(population, state)
        kind = "scan" if differentiable else config.loop
        episode = run_alone(tuple(keys[1:]), jax.vmap(link.broadcast)(state.server), kind)
        value = episode.value + params.federation["return_offset"]
        server = per_federation(search.settle, params, state.server, value, episode.behaviour)
        if scored:
            drawn = state.server.drawn + draws.score(episode.log_probability)
            server = server._replace(drawn=drawn)
        return dataclasses.replace(state, server=server), episode.steps.astype(jnp.uint32)

    def measure(population, params, state) -> dict:
        model = state.server
        parameters = jax.vmap(link.broadcast)(model)
        return {
            **unseen(config, network, population, params, state, parameters),
            **episodic.measure(population, state, config.wire, state.agents.experience),
            "reward_of_model": model.value,
            "novelty": model.novelty,
            "reward_weight": model.weight,
            "chosen": model.chosen.astype(jnp.float32),
        }

    more = {"own": episodic.OWN}
    if scored:
        more["drawn"] = lambda agents: agents.drawn
        more["drawn_by_server"] = lambda server: server.drawn
    return Learner(first, (work, link), measure, model=model, begin=begin, after=after, **more)


@evolution_strategy(RewardedNoveltySearch, metrics=metrics_of)
def nsr_es(config: RewardedNoveltySearch) -> Learner:
    """Novelty and return in equal parts.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.simple_grid(max_steps=20)
      >>> frl.nsr_es(task, neighbours=5).config.neighbours
      5
    """
    return ns_es.definition.learner(config)


@evolution_strategy(
    AdaptiveNoveltySearch,
    metrics=metrics_of,
    draws=("patience",),
    scoreless=("task", "patience"),
)
def nsra_es(config: AdaptiveNoveltySearch) -> Learner:
    """Novelty where the return stagnates.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.simple_grid(max_steps=20)
      >>> algorithm = frl.nsra_es(task, reward_weight=1.0, patience=20)
      >>> algorithm.config.patience
      20
    """
    return ns_es.definition.learner(config)
