"""Evolution strategies that search for behaviours nobody has shown before.

The learner keeps a few sets of parameters and an archive of behaviours. In every round it picks
one set, the more novel its behaviour the likelier; the agents perturb it, run an episode each and
send return and behaviour; the learner moves the set along the perturbations weighted with ranks,

    w rank(return) + (1 - w) rank(novelty),

runs one episode of it by itself and archives the behaviour. The learner's own episodes count among
the environment steps of its federation, and in no mean over agents.

* Conti, Madhavan, Petroski Such, Lehman, Stanley and Clune, *Improving Exploration in Evolution
  Strategies for Deep Reinforcement Learning via a Population of Novelty-Seeking Agents*, arXiv
  1712.06560: NS-ES (w is 0), NSR-ES (1/2) and NSRA-ES (w adapts).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.episodic import Experience
from fedjax_rl.algorithms.properties import per_federation
from fedjax_rl.algorithms.strategy import (
    Strategy,
    ascent,
    behaviour_of,
    centred_ranks,
    direction,
    network_of,
    nothing_owed,
    of_now,
    run_perturbed,
    static_strategy,
    traced,
)
from fedjax_rl.envs.task import Task
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.exchange import Exchange, first_state
from fedjax_rl.federation.ledger import line
from fedjax_rl.federation.rounds import rounds
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.federation.uplinks import MessageSpec
from fedjax_rl.fields import declared
from fedjax_rl.learners import novelty as search
from fedjax_rl.rollouts.episodes import run_episodes

# Below every return, and with a square that is finite: a model says whether it has diverged.
_LEAST = -1e18

METRICS = {
    **episodic.METRICS,
    "reward_of_model": (
        "federation",
        "return of the learner's own episode with the parameters of this round after their step",
    ),
    "novelty": ("federation", "mean over the messages received of their behaviours' novelty"),
    "reward_weight": ("federation", "w, weight of the return against novelty"),
    "chosen": ("federation", "which of the learner's sets of parameters this round was about"),
}


@dataclasses.dataclass(frozen=True)
class NoveltySearch(Strategy):
    """Properties of NS-ES and NSR-ES; see also `Strategy`.

    Attributes:
      meta_population: M, sets of parameters, at least 1.
      neighbours: K, entries of the archive that novelty is measured against, at least 1.
      archive_size: C, behaviours kept, the latest ones; at least M.
    """

    meta_population: int = declared(5, fields.COUNT)
    neighbours: int = declared(10, fields.COUNT)
    archive_size: int = declared(256, fields.COUNT)


@dataclasses.dataclass(frozen=True)
class AdaptiveNoveltySearch(NoveltySearch):
    """Properties of NSRA-ES; see also `NoveltySearch`.

    Attributes:
      reward_weight: w at the start, in [0, 1].
      weight_step: change of w, in [0, 1]: up with every best return so far, down after `patience`
        rounds without one.
      patience: rounds, at least 1.
    """

    reward_weight: Any = declared(1.0, fields.PROBABILITY)
    weight_step: Any = declared(0.05, fields.PROBABILITY)
    patience: Any = declared(50, fields.whole(1, follows=True, traced=True))


def ns_es(task: Task, **values) -> Algorithm:
    """Novelty search by evolution strategies; see `NoveltySearch` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    fixed = functools.partial(parameters, weight=0.0)
    return _build("ns-es", NoveltySearch, ns_es, task, values, parameters=fixed)


def nsr_es(task: Task, **values) -> Algorithm:
    """Novelty and return in equal parts; see `NoveltySearch` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    fixed = functools.partial(parameters, weight=0.5)
    return _build("nsr-es", NoveltySearch, nsr_es, task, values, parameters=fixed)


def nsra_es(task: Task, **values) -> Algorithm:
    """Novelty where the return stagnates; see `AdaptiveNoveltySearch` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return _build("nsra-es", AdaptiveNoveltySearch, nsra_es, task, values)


def check(config: NoveltySearch) -> None:
    """Raises ValueError for properties that do not fit together."""
    if config.archive_size < config.meta_population:
        raise ValueError(
            f"archive_size is {config.archive_size} with meta_population {config.meta_population}; "
            "allowed: at least as many"
        )


def parameters(config: NoveltySearch, num_agents: int, weight: float | None = None) -> Params:
    """What is traced, for one federation; `weight` is that of the return unless it adapts."""
    federation = traced(config, num_agents)
    if weight is None:
        names = ("reward_weight", "weight_step", "patience")
        federation |= per_federation(config, names, num_agents)
    else:
        federation |= {"reward_weight": weight, "weight_step": 0.0, "patience": 1.0}
    # A message is the return and the behaviour.
    uplink, numbers = episodic.uplink_of(config), 1 + config.task.behaviour_size
    federation |= episodic.uplink_parameters(uplink, num_agents, numbers)
    return Params({}, federation, {})


def static(config: NoveltySearch) -> tuple:
    """Equal for configurations that one compilation serves."""
    sizes = (config.meta_population, config.neighbours, config.archive_size)
    return (*static_strategy(config), episodic.uplink_of(config).static, *sizes)


class Agent(NamedTuple):
    """One agent.

    Attributes:
      experience: of its last episode.
      noise: [q], its perturbation in units of sigma.
      behaviour: [b], of its last episode.
      valid: whether that episode's return and behaviour are finite.
    """

    experience: Experience
    noise: jax.Array
    behaviour: jax.Array
    valid: jax.Array


class Sample(NamedTuple):
    """A message; on the wire only return and behaviour.

    Attributes:
      value: return.
      behaviour: [b].
      noise: [q], drawn again by the learner.
      valid: whether there is anything to send.
    """

    value: jax.Array
    behaviour: jax.Array
    noise: jax.Array
    valid: jax.Array


class Model(NamedTuple):
    """The learner.

    Attributes:
      parameters: [M, q].
      behaviours: [M, b], of each set of parameters as last seen.
      archive: of behaviours.
      chosen: int32, the set of parameters of this round.
      stepped: whether it has made a step in this round.
      value: return of its last episode, that of the first set of parameters at the start.
      novelty: mean novelty of the behaviours received last.
      weight: w, of the return.
      best: largest return of the learner's own episodes so far.
      waited: int32, rounds since then, or since w went down.
    """

    parameters: jax.Array
    behaviours: jax.Array
    archive: search.Archive
    chosen: jax.Array
    stepped: jax.Array
    value: jax.Array
    novelty: jax.Array
    weight: jax.Array
    best: jax.Array
    waited: jax.Array


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
        values = w * centred_ranks(population, sample.value, counts)
        values = values + (1 - w) * centred_ranks(population, found, counts)
        received = population.sum(counts.astype(values.dtype))
        total = direction(population, values, sample.noise, received, context.params)
        mean = population.sum(found) / jnp.maximum(received, 1)
        return Aggregate((total.value, mean), total.present)

    return apply


def server_of(config: NoveltySearch) -> ServerStep:
    """A step uphill of the chosen parameters, each with an optimiser of its own."""
    uphill = ascent(config)

    def step(model, memory, total, params):
        gradient, novelty = total
        learned = model.parameters, memory
        own = jax.tree.map(lambda x: x[model.chosen], learned)
        own = uphill.step(*own, gradient, params)
        learned = jax.tree.map(lambda x, y: x.at[model.chosen].set(y), learned, own)
        model = model._replace(parameters=learned[0], novelty=novelty, stepped=jnp.asarray(True))
        return model, learned[1]

    return ServerStep(lambda model: jax.vmap(uphill.init)(model.parameters), step)


def choose(key, model: Model, neighbours: int) -> Model:
    """Draws the parameters of a round, with chances in proportion to their novelty."""
    found = jax.vmap(lambda b: search.novelty(model.archive, b, neighbours))(model.behaviours)
    # Without any novelty all have the same chance.
    logits = jnp.where(jnp.sum(found) > 0, jnp.log(found), jnp.zeros_like(found))
    chosen = jax.random.categorical(key, logits).astype(jnp.int32)
    return model._replace(chosen=chosen, stepped=jnp.asarray(False))


def adapt(model: Model, value, params) -> Model:
    """The weight of the return after an episode with that return.

    Args:
      model: the learner.
      value: return, float scalar.
      params: with "weight_step" and "patience".
    """
    dw = params["weight_step"]
    better = value > model.best
    waited = jnp.where(better, 0, model.waited + 1)
    tired = ~better & (waited.astype(dw.dtype) >= params["patience"])
    change = jnp.where(better, dw, jnp.where(tired, -dw, jnp.zeros_like(dw)))
    return model._replace(
        weight=jnp.clip(model.weight + change, 0, 1),
        best=jnp.maximum(model.best, jnp.where(better, value, model.best)),
        waited=jnp.where(tired, 0, waited),
    )


def settle(model: Model, value, behaviour, params) -> Model:
    """The learner after its own episode with the parameters of the round.

    Args:
      model: the learner.
      value: return of the episode, float scalar.
      behaviour: [b].
      params: of the federation.

    Returns:
      The learner with the behaviour in its archive; as it was, where it has made no step or the
      episode was not finite.
    """
    fine = model.stepped & jnp.isfinite(value) & jnp.all(jnp.isfinite(behaviour))
    new = adapt(model, value, params)._replace(
        value=value,
        behaviours=model.behaviours.at[model.chosen].set(behaviour),
        archive=search.add(model.archive, behaviour),
    )
    return jax.tree.map(lambda new, old: jnp.where(fine, new, old), new, model)


def exchange_of(config: NoveltySearch) -> Exchange:
    """The exchange of a round; down go the parameters of the round alone."""
    return Exchange(
        message=message,
        uplink=episodic.uplink_of(config),
        aggregate=aggregate(int(config.neighbours)),
        server=server_of(config),
        broadcast=lambda model: model.parameters[model.chosen],
        spec=SPEC,
        wire=episodic.wire_of(config),
        dedicated_server=True,
    )


def functions(config: NoveltySearch) -> Functions:
    """The algorithm as pure functions of a population."""
    network = network_of(config)
    neighbours, many = int(config.neighbours), int(config.meta_population)
    link = exchange_of(config)

    def run_alone(keys, parameters, kind):
        """The learners' own few episodes: by matrix products, which compile faster."""
        kind = "while" if kind == "compact" else kind
        act = behaviour_of(config, network)
        return run_episodes(config.task, act, keys, parameters, kind=kind, behaviour=True)

    def learner_keys(population, keys, time, num):
        """Keys of every learner, [num, F]."""
        own = episodic.first_key(population, keys)
        own = streams.keys_of(own, streams.Episodic.LEARNER, time)
        return jax.vmap(lambda key: jax.random.split(key, num), out_axes=1)(own)

    def work(population, params, state, differentiable):
        draw = learner_keys(population, state.keys, state.time, 3)[0]
        model = jax.vmap(lambda key, model: choose(key, model, neighbours))(draw, state.server)
        centre = jax.vmap(link.broadcast)(model)
        kind = "scan" if differentiable else config.loop
        noise, episode = run_perturbed(
            config, network, population, params, state, centre, kind, behaviour=True
        )

        def remember(agent, noise, value, undiscounted, behaviour, steps, params):
            value = value + params["return_offset"]
            fine = jnp.all(jnp.isfinite(behaviour))
            experience = agent.experience.following(value, undiscounted, steps, fine)
            valid = fine & jnp.isfinite(value)
            behaviour = jnp.where(valid, behaviour, jnp.zeros_like(behaviour))
            return Agent(experience, noise, behaviour, valid)

        seen = (noise, *episode[:2], episode.behaviour, episode.steps)
        agents = per_agent(remember, population, params, state.agents, *seen)
        state = dataclasses.replace(state, agents=agents, server=model)
        return state, episode.steps.astype(jnp.uint32)

    def after(population, params, state, differentiable):
        keys = learner_keys(population, state.keys, state.time, 3)
        kind = "scan" if differentiable else config.loop
        episode = run_alone(tuple(keys[1:]), jax.vmap(link.broadcast)(state.server), kind)
        value = episode.value + params.federation["return_offset"]
        server = jax.vmap(settle)(state.server, value, episode.behaviour, params.federation)
        return dataclasses.replace(state, server=server), episode.steps.astype(jnp.uint32)

    drive = rounds(work, link, after=after)

    def init(population, params, keys):
        federations = population.num_federations
        root = streams.keys_of(episodic.first_key(population, keys), streams.Episodic.MODEL)
        own = jax.vmap(
            lambda key: jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(many + 1))
        )(root)
        start = jax.vmap(jax.vmap(lambda key: network.init(key, config.initializer)))(own[:, :many])
        pairs = jax.vmap(lambda key: jax.random.split(key, (2, many)))(own[:, many])
        flat = tuple(pairs[:, n].reshape(-1) for n in range(2))
        episode = run_alone(flat, start.reshape(federations * many, -1), config.loop)
        value = episode.value.reshape(federations, many)[:, 0] + params.federation["return_offset"]
        behaviours = episode.behaviour.reshape(federations, many, -1)

        def learner(parameters, behaviours, value, weight):
            archive = search.empty(int(config.archive_size), config.task.behaviour_size)
            for n in range(many):
                fine = jnp.all(jnp.isfinite(behaviours[n]))
                archive = search.add(archive, behaviours[n], fine)
            return Model(
                parameters=parameters,
                behaviours=jnp.where(jnp.isfinite(behaviours), behaviours, 0.0),
                archive=archive,
                chosen=jnp.int32(0),
                stepped=jnp.asarray(False),
                value=jnp.where(jnp.isfinite(value), value, jnp.zeros_like(value)),
                novelty=jnp.zeros(()),
                weight=jnp.asarray(weight, value.dtype),
                best=jnp.asarray(_LEAST, value.dtype),
                waited=jnp.int32(0),
            )

        weight = params.federation["reward_weight"]
        server = jax.vmap(learner)(start, behaviours, value, weight)

        noise, nothing = jnp.zeros(network.num_parameters), jnp.zeros(config.task.behaviour_size)
        agent = Agent(episodic.no_experience(), noise, nothing, jnp.asarray(False))
        agents = episodic.alike(population, agent)
        state = first_state(population, link, params, keys, agents, server, detailed=True)
        steps = jnp.sum(episode.steps.reshape(federations, many), axis=1, dtype=jnp.uint32)
        spent = state.ledger.add(line(env_steps=1), steps)
        return dataclasses.replace(state, ledger=spent)

    def measure(population, params, state) -> dict:
        del params
        model = state.server
        return {
            **episodic.measure(population, state, link.wire, state.agents.experience),
            "reward_of_model": model.value,
            "novelty": model.novelty,
            "reward_weight": model.weight,
            "chosen": model.chosen.astype(jnp.float32),
        }

    return Functions(init, drive.round, drive.advance, measure)


# What the three are made of; the first two have parameters of their own.
_build = functools.partial(
    episodic.build,
    check=check,
    parameters=parameters,
    functions=functions,
    static=static,
    metrics=METRICS,
)
