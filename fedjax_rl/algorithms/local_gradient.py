r"""What the federated policy gradients have in common whose agents make H local steps a round.

The agents' environments may differ. Agent i has the objective J_i, the federation the mean

    J(theta) = 1/N \sum_i J_i(theta),

and every algorithm says along which direction an agent moves in its local steps and how the mean
of the changes becomes the server's next model. Gradients are sampled from episodes, or exact where
the environments are tables; there the suboptimality J* - J is measured exactly, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.properties import per_federation
from fedjax_rl.envs import objective
from fedjax_rl.envs.family_optimum import optimum_of
from fedjax_rl.envs.heterogeneity import LEVEL, PARTS, check_heterogeneity, differs, environments_of
from fedjax_rl.envs.tabular_tasks import TASK, task_of
from fedjax_rl.envs.task import Task
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.algorithm import Algorithm, Functions, describe_config
from fedjax_rl.federation.clock import Clock
from fedjax_rl.federation.clock.arrivals import driven
from fedjax_rl.federation.derivatives import DERIVATIVE
from fedjax_rl.federation.exchange import Exchange, first_state
from fedjax_rl.federation.ledger import HEADER, WORD, line
from fedjax_rl.federation.rounds import rounds
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.federation.uplinks import norm_squared
from fedjax_rl.fields import declared, is_number
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.names import check_known
from fedjax_rl.networks.mlp import ACTIVATIONS, INITIALIZERS
from fedjax_rl.rollouts.episodes import evaluate, sample_trajectories

GRADIENTS = ("sampled", "exact", "truncated")

METRICS = {
    "training_reward": (
        "federation",
        "mean discounted return of the round's episodes; those of different parameters, so that "
        "it is no measure of the model",
    ),
    "direction_norm": ("federation", "norm of the mean change per local step and learning rate"),
    "weight_mean": ("federation", "mean importance weight of the round; 1 where there is none"),
    "weight_max": ("federation", "largest importance weight of the round, before any truncation"),
    "overflows": ("federation", "importance weights so far beyond exp(+-20), or not a number"),
    "frequency": ("federation", "messages per agent and round"),
    "size": ("federation", "bytes sent per agent and round"),
}
OF_TABLES = {
    "gap": ("federation", "J* - J of the server's model, exact, both with the entropy bonus"),
    "objective": ("federation", "J of the server's model, exact, with the entropy bonus"),
    "plain_gap": ("federation", "J* - J of the server's model, exact, both without entropy bonus"),
    "plain_objective": ("federation", "J of the server's model, exact, without entropy bonus"),
    "gradient_norm": ("federation", "norm of the gradient of J there, exact"),
    "estimator_error": (
        "federation",
        "squared distance of the direction moved last from the gradient of J before that move",
    ),
    "objective_of_agent": ("agent", "J_i of the server's model, exact, with the entropy bonus"),
}
OF_EPISODES = {
    "return": ("federation", "mean over the agents of undiscounted returns of the server's model"),
    "reward": ("federation", "mean over the agents of discounted returns of the server's model"),
    "episode_steps": ("federation", "mean over the agents of the steps of these episodes"),
    "return_of_agent": ("agent", "mean undiscounted return of the server's model"),
}


@dataclasses.dataclass(frozen=True)
class LocalGradient:
    """Properties of every policy gradient with local steps.

    Attributes:
      task: of every agent; a family gives each its own.
      learning_rate: eta of a local step, above 0. By default what suits a table or a network.
      local_steps: H, at least 1.
      episodes_per_step: B, episodes of an agent for one gradient, at least 1.
      gradient: "sampled" from episodes, "exact" (tables: of the whole discounted future) or
        "truncated" (tables: exact, of the steps of an episode).
      estimator: "gpomdp" (every action is credited with what comes after it) or "reinforce" (with
        the whole return).
      discount_weight: whether step t of gpomdp counts discount^t, as the gradient of the
        discounted return has it.
      baseline: subtracted from the returns: "none", "state_mean" (tables), "batch_mean" or
        "linear" (regression on the observation and the time). By default "batch_mean" with a
        network and several episodes, which is biased by 1/B; "none" otherwise.
      normalize: whether the advantages of a batch are standardised.
      entropy: tau, weight of the policy's entropy in the reward, at least 0.
      policy: "table" (softmax of one preference per state and action, zeros at first) or "mlp" (a
        network: softmax for discrete actions, Gaussian for continuous ones). By default the table
        where there is one.
      hidden: units in each hidden layer.
      activation: of the hidden units, "tanh" or "relu".
      initializer: "normal" (weights N(0, 1 / inputs), biases 0), "uniform" (all parameters within
        +- 1 / sqrt(inputs)) or "orthogonal" (times sqrt(2), 0.01 in the last layer; biases 0).
      deviation: first standard deviation of continuous actions, above 0; it is learned.
      heterogeneity: level of the difference between the agents' environments, at least 0; at 0
        they are alike.
      heterogeneity_of: what differs, such as gravity or kernels; by default all but what has a
        unit of its own, such as the width of the first states.
      heterogeneity_seed: of the differences.
      evaluation_episodes: per agent and record, where J is not known exactly; at least 1.
      uplink: who sends, or what, after the local steps, see `federation.uplinks`; by default
        everybody everything.
      clock: how long agents take and whom the server waits for, see `federation.clock`; by
        default rounds in which time does not pass.
      loop: of the episodes, "while" or "scan".
      word_bytes: bytes of a number on the wire, 2, 4 or 8.
      header_bytes: bytes of every message besides.
      derivative: None, or "pathwise" to allow derivatives that leave out how
        episodes are drawn; see `federation.derivatives`.
    """

    task: Task = declared(allowed=TASK)
    learning_rate: Any = declared(None, fields.POSITIVE.or_none(), by_policy=(0.05, 0.0005))
    local_steps: int = declared(10, fields.whole(1, follows=True))
    episodes_per_step: int = declared(1, fields.COUNT)
    gradient: str = declared("sampled", fields.word(GRADIENTS))
    estimator: str = declared("gpomdp", fields.word(learner.ESTIMATORS))
    discount_weight: bool = declared(True, fields.switch())
    baseline: str | None = declared(None, fields.word(learner.BASELINES).or_none())
    normalize: bool = declared(False, fields.switch())
    entropy: Any = declared(0.0, fields.NOT_NEGATIVE)
    policy: str | None = declared(None, fields.word(learner.POLICIES).or_none())
    hidden: tuple[int, ...] = declared((8, 8), episodic.HIDDEN)
    activation: str = declared("tanh", fields.word(ACTIVATIONS))
    initializer: str = declared("normal", fields.word(INITIALIZERS))
    deviation: float = declared(1.0, episodic.DEVIATION)
    heterogeneity: Any = declared(0.0, LEVEL)
    heterogeneity_of: tuple[str, ...] | None = declared(None, PARTS)
    heterogeneity_seed: int = declared(0, fields.SEED)
    evaluation_episodes: int = declared(10, fields.COUNT)
    uplink: uplinks.Uplink | None = declared(None, episodic.UPLINK)
    clock: Clock | None = declared(None, episodic.CLOCK)
    loop: str = declared("while", episodic.LOOP)
    word_bytes: int = declared(4, WORD)
    header_bytes: int = declared(0, HEADER)
    derivative: str | None = declared(None, DERIVATIVE, cli=False)


class Pieces(NamedTuple):
    """What one of these algorithms adds.

    Attributes:
      names: traced properties of federations besides the common ones; a bound that is None is
        infinite.
      static: `config -> hashable`, of its own properties.
      functions: as in `Algorithm`.
      traced: `(config, num_agents) -> dict` of further traced scalars of a federation.
      vectors: `config -> int`, how many times as many numbers as parameters a message has.
      check: `config -> None`, raises ValueError where its properties do not fit together.
    """

    names: tuple[str, ...]
    static: Callable
    functions: Callable
    traced: Callable = lambda config, num_agents: {}
    vectors: Callable = lambda config: 1
    check: Callable = lambda config: None


def build(name: str, kind: type, factory, task, values: dict, pieces: Pieces) -> Algorithm:
    """An algorithm on a task, its properties checked.

    Args:
      name: as on the command line.
      kind: dataclass of the properties, derived from `LocalGradient`.
      factory: what makes the algorithm from the task and its properties.
      task: a `Task`, or a `TabularMDP` or a family of them, whose episodes are then cut off where
        the discount has left a hundredth.
      values: of the properties.
      pieces: what it adds.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    for value in values:
        check_known(value, [f.name for f in dataclasses.fields(kind)], f"property of {name}")
    config = fields.check_config(kind(task=task_of(task), **values))
    episodic.check_task(config.task)
    check(config)
    pieces.check(config)

    def parameters(config, num_agents):
        config = resolved(config)
        common = _parameters(config, num_agents, pieces.names, pieces.vectors(config))
        own = pieces.traced(config, num_agents)
        return dataclasses.replace(common, federation={**common.federation, **own})

    def static(config):
        config = resolved(config)
        return (*_static(config), *pieces.static(config))

    own = OF_TABLES if config.task.tabular else OF_EPISODES
    return driven(
        Algorithm(
            name=name,
            config=config,
            factory=factory,
            parameters=parameters,
            functions=lambda config: pieces.functions(resolved(config)),
            static=static,
            metrics={**own, **METRICS},
            describe=lambda config: describe_config(resolved(config)),
            unit="round",
            headline=next(iter(own)),
            sampled=_sampled,
        )
    )


def _sampled(config) -> str | None:
    """Why a derivative is wrong: gradients are estimated from episodes of the parameters."""
    if config.gradient != "sampled":
        return None
    return "gradients are sampled from episodes (on tables with gradient='exact' it is exact)"


def resolved(config):
    """The configuration with what follows from the others filled in, where it is None.

    A configuration keeps its None until it is used, so that a default is that of the policy which
    is used in the end, in whatever order properties are set.
    """
    place = 0 if _is_table(config) else 1
    missing = {
        field.name: field.metadata["by_policy"][place]
        for field in dataclasses.fields(config)
        if "by_policy" in field.metadata and getattr(config, field.name) is None
    }
    return dataclasses.replace(config, **missing) if missing else config


def _is_table(config) -> bool:
    return config.policy == "table" or (
        config.policy is None and config.task.num_states is not None
    )


def check(config: LocalGradient) -> None:
    """Raises ValueError for properties that do not fit together."""
    task = config.task
    policy_of(config)
    if config.gradient != "sampled" and not (task.tabular and _is_table(config)):
        raise ValueError(
            f"gradient is {config.gradient} on {task.name} with the policy "
            f"{'table' if _is_table(config) else 'mlp'}; allowed: sampled, or a tabular MDP with "
            "the policy table"
        )
    if config.baseline == "state_mean" and task.num_states is None:
        raise ValueError(
            f"baseline is state_mean on {task.name}; allowed: where observations are states"
        )
    if config.baseline == "batch_mean" and config.episodes_per_step == 1:
        raise ValueError(
            "baseline is batch_mean with episodes_per_step 1, which leaves nothing to learn from; "
            "allowed: episodes_per_step of at least 2"
        )
    check_heterogeneity(config)


def policy_of(config: LocalGradient) -> learner.Policy:
    """The policy of all agents."""
    return learner.policy_for(
        config.task,
        config.policy,
        hidden=config.hidden,
        activation=config.activation,
        initializer=config.initializer,
        deviation=config.deviation,
    )


def advantages_of(config: LocalGradient) -> learner.AdvantageRule:
    """How advantages are made of the rewards of an episode."""
    baseline = config.baseline
    if baseline is None:
        several = not _is_table(config) and config.episodes_per_step > 1
        baseline = "batch_mean" if several else "none"
    return learner.AdvantageRule(
        estimator=config.estimator,
        baseline=baseline,
        discount_weight=config.discount_weight,
        num_states=config.task.num_states,
        normalize=config.normalize,
    )


def _parameters(
    config: LocalGradient, num_agents: int, names: tuple[str, ...], vectors: int
) -> Params:
    """What is traced, for one federation."""
    names = ("learning_rate", "entropy", *names)
    given = [name for name in names if getattr(config, name) is not None]
    federation = dict.fromkeys(names, np.inf) | per_federation(config, given, num_agents)
    numbers = vectors * policy_of(config).num_parameters
    federation |= episodic.uplink_parameters(episodic.uplink_of(config), num_agents, numbers)
    agent = {}
    if differs(config):
        agent["environment"] = environments_of(config, num_agents)
    if config.task.tabular:
        federation["optimum"] = optimum_of(agent["environment"], federation["entropy"])
        if _regularised(config.entropy):
            federation["plain_optimum"] = optimum_of(agent["environment"])
    return Params(agent, federation, {})


def _static(config: LocalGradient) -> tuple:
    policy = policy_of(config)
    entropy = config.entropy
    return (
        config.task.static if differs(config) else config.task,
        differs(config),
        config.local_steps,
        config.episodes_per_step,
        config.gradient,
        advantages_of(config),
        _regularised(entropy),
        type(policy),
        getattr(policy, "network", None),
        config.initializer,
        config.deviation,
        config.evaluation_episodes,
        config.loop,
        episodic.uplink_of(config).static,
        episodic.wire_of(config),
    )


def _regularised(entropy) -> bool:
    """Whether the entropy has to be computed at all."""
    return not is_number(entropy) or bool(entropy != 0)


# A population -------------------------------------------------------------------------------------


class Model(NamedTuple):
    """What a server knows; all [q].

    Attributes:
      parameters: theta.
      previous: theta before the last round.
      direction: mean change of the last round per local step and learning rate.
      correction: what the agents correct their gradients with: the mean gradient, or the control
        variate; 0 where there is none.
    """

    parameters: jax.Array
    previous: jax.Array
    direction: jax.Array
    correction: jax.Array


class Tally(NamedTuple):
    """What an agent has seen in a round, all scalars.

    Attributes:
      value: sum of the discounted returns of its episodes.
      episodes: how many, float.
      steps: environment steps, uint32.
      weight: sum of its importance weights.
      weights: how many, float.
      largest: the largest of them.
      overflows: int32, of all rounds.
    """

    value: jax.Array
    episodes: jax.Array
    steps: jax.Array
    weight: jax.Array
    weights: jax.Array
    largest: jax.Array
    overflows: jax.Array

    def following(self) -> Tally:
        """Of a round that begins."""
        return jax.tree.map(jnp.zeros_like, self)._replace(overflows=self.overflows)

    def seen(self, trajectories: learner.Trajectories, discount) -> Tally:
        """With the episodes [N, T] of one more gradient."""
        returns = learner.returns_to_go(trajectories.reward, discount)[:, 0]
        return self._replace(
            value=self.value + jnp.sum(returns),
            episodes=self.episodes + returns.shape[0],
            steps=self.steps + jnp.sum(trajectories.steps, dtype=jnp.uint32),
        )

    def weighed(self, weights, overflows) -> Tally:
        """With the importance weights [N] of one more gradient, before any truncation."""
        return self._replace(
            weight=self.weight + jnp.sum(weights),
            weights=self.weights + weights.size,
            largest=jnp.maximum(self.largest, jnp.max(weights)),
            overflows=self.overflows + overflows,
        )


def no_tally() -> Tally:
    """Of an agent that has not begun."""
    nothing = jnp.zeros(())
    return Tally(nothing, nothing, jnp.uint32(0), nothing, nothing, nothing, jnp.int32(0))


class Agent(NamedTuple):
    """One agent.

    Attributes:
      change: [q], of its parameters in the last round.
      memory: [q], its own part of the correction: its gradient at the server's model, or its
        control variate.
      proposal: [q], its memory once it has been heard.
      tally: of its last round.
    """

    change: jax.Array
    memory: jax.Array
    proposal: jax.Array
    tally: Tally


class Oracle:
    """Episodes and gradients of all agents of a population, as an algorithm asks for them."""

    def __init__(self, config: LocalGradient) -> None:
        """Takes the properties that are static."""
        self.config = config
        self.task = config.task
        self.policy = policy_of(config)
        self.advantages = advantages_of(config)
        self.exact = config.gradient != "sampled"
        self._own = differs(config)
        self.regularised = _regularised(config.entropy)

    def entropy(self, params) -> Any:
        """Weight of the entropy of one agent; a plain 0 where nobody has any."""
        return params["entropy"] if self.regularised else 0.0

    def value(self, parameters, params) -> jax.Array:
        """J_i on a table, a scalar; unbatched."""
        logits = self.policy.logits(parameters)
        return objective.value(params["environment"], logits, self.entropy(params))

    def plain_value(self, parameters, params) -> jax.Array:
        """J_i on a table without the entropy bonus, a scalar; unbatched."""
        return objective.value(params["environment"], self.policy.logits(parameters))

    def gradient(self, parameters, params) -> jax.Array:
        """Gradient of J_i, or of what an episode sees of it, [q]; unbatched."""
        if self.config.gradient == "exact":
            return jax.grad(self.value)(parameters, params)

        def truncated(parameters):
            logits, mdp = self.policy.logits(parameters), params["environment"]
            steps = self.task.max_steps
            return objective.truncated_value(mdp, logits, steps, self.entropy(params))

        return jax.grad(truncated)(parameters)

    def sample(self, params, keys, parameters, count: int, differentiable: bool):
        """Episodes of all agents under parameters [A, q]: `Trajectories` of [A, count, T]."""
        kind = "scan" if differentiable else self.config.loop
        return sample_trajectories(
            self.task, self.policy, keys, parameters, count, environment=self.own(params), kind=kind
        )

    def own(self, params: Params):
        """Parameters of the agents' environments, [A, ...], or None where all are alike."""
        return params.agent["environment"] if self._own else None

    def estimate(self, parameters, trajectories, params) -> jax.Array:
        """The estimated gradient [q] of one agent."""
        return learner.estimate(
            self.policy,
            parameters,
            trajectories,
            self.task.discount,
            self.advantages,
            self.entropy(params),
        )

    def gradients(self, population, params, keys, parameters, tallies, count, differentiable):
        """Gradients of all agents at their own parameters.

        Args:
          population: who belongs to whom.
          params: traced properties.
          keys: a pair of [A], as `rollouts.episodes.sample_trajectories` takes them.
          parameters: [A, q].
          tallies: `Tally` of [A].
          count: episodes of each agent.
          differentiable: whether loops have a static length.

        Returns:
          [A, q] and the tallies.
        """
        if self.exact:
            return per_agent(self.gradient, population, params, parameters), tallies

        def one(parameters, tally, trajectories, params):
            value = self.estimate(parameters, trajectories, params)
            return value, tally.seen(trajectories, self.task.discount)

        def everybody(trajectories, parameters, tallies):
            return per_agent(one, population, params, parameters, tallies, trajectories)

        trajectories = self.sample(params, keys, parameters, count, differentiable)
        return learner.without_padding(everybody, trajectories, parameters, tallies)


def keys_at(keys, time, place) -> tuple:
    """Keys of first states and of episodes, [A] each, of one gradient.

    Args:
      keys: [A], of a stream or of the agents.
      time: the round.
      place: of the gradient in the round.
    """

    def at(stream):
        own = streams.keys_of(keys, stream, time)
        return jax.vmap(jax.random.fold_in, in_axes=(0, None))(own, place)

    return at(streams.Episodic.RESET), at(streams.Episodic.EPISODE)


def local_steps(oracle: Oracle, direction: Callable, propose: Callable | None = None) -> Callable:
    """The work of a round: H steps of every agent from the server's parameters.

    Args:
      oracle: makes episodes and gradients.
      direction: `(population, params, state, models, now, keys, place, differentiable) ->
        (moves [A, q], now)`: along which every agent steps. `models` is the servers' `Model`
        spread to [A]; `now` a `Now` of [A] whose parameters the step starts from.
      propose: `(agent, model, params) -> memory`, unbatched: what the agent's memory becomes once
        its change has been heard; by default it stays.

    Returns:
      As `rounds` takes it.
    """
    config = oracle.config

    def work(population, params, state, differentiable):
        models = population.spread(state.server)
        start = Now(models.parameters, models.parameters, models.direction, state.agents.tally)

        def step(now, place):
            keys = keys_at(state.keys, state.time, place)
            moves, new = direction(
                population, params, state, models, now, keys, place, differentiable
            )

            def moved(parameters, move, params):
                return parameters + params["learning_rate"] * move

            parameters = per_agent(moved, population, params, now.parameters, moves)
            return new._replace(parameters=parameters, before=now.parameters), None

        places = jnp.arange(config.local_steps, dtype=jnp.uint32)
        end, _ = jax.lax.scan(step, start, places)
        agents = state.agents._replace(change=end.parameters - models.parameters, tally=end.tally)
        if propose is not None:
            agents = agents._replace(
                proposal=per_agent(propose, population, params, agents, models)
            )
        before = state.agents.tally.steps
        state = dataclasses.replace(state, agents=agents)
        return state, end.tally.steps - before

    return work


class Now(NamedTuple):
    """Where every agent is among its local steps; leaves [A, ...].

    Attributes:
      parameters: [A, q].
      before: [A, q], those of one step earlier.
      direction: [A, q], a running estimate of the gradient, where an algorithm keeps one.
      tally: `Tally` of the round so far.
    """

    parameters: jax.Array
    before: jax.Array
    direction: jax.Array
    tally: Tally


def begin(population, params, state, differentiable):
    """The work that starts a round: the tallies begin anew."""
    del params, differentiable
    agents = state.agents._replace(tally=state.agents.tally.following())
    state = dataclasses.replace(state, agents=agents)
    return state, jnp.zeros(population.num_agents, jnp.uint32)


def mean_direction(config: LocalGradient, change, params) -> jax.Array:
    """The mean change of a round per local step and learning rate, [q]; unbatched."""
    return change / (params["learning_rate"] * config.local_steps)


def _no_direction(parameters) -> Model:
    nothing = jnp.zeros_like(parameters)
    return Model(parameters, parameters, nothing, nothing)


def _no_change(parameters) -> Agent:
    nothing = jnp.zeros_like(parameters)
    return Agent(nothing, nothing, nothing, no_tally())


def assemble(
    oracle: Oracle,
    *parts,
    directions: Callable | None = None,
    first_model: Callable = _no_direction,
    first_agent: Callable = _no_change,
) -> Functions:
    """The functions of an algorithm from what a round consists of.

    Args:
      oracle: makes episodes and gradients.
      *parts: of `rounds`.
      directions: `(population, params, keys, parameters [A, q]) -> (messages [A, q], steps [A])`,
        whose means are the servers' first directions, and the environment steps they take; the
        directions are zero by default.
      first_model: from parameters [F, q] to the servers' first models; `Model` by default. Of
        another kind `parameters`, `previous` and `direction` are asked for.
      first_agent: from the parameters [q] to an agent that has not begun; `Agent` by default. Of
        another kind `tally` is asked for.
    """
    config, task, policy = oracle.config, oracle.task, oracle.policy
    links = tuple(part for part in parts if isinstance(part, Exchange))
    drive = rounds(begin, *parts)

    def init(population, params, keys):
        own = streams.keys_of(episodic.first_key(population, keys), streams.Episodic.MODEL)
        parameters = jax.vmap(policy.init)(own).astype(jnp.result_type(float))
        server = first_model(parameters)
        agents = episodic.alike(population, first_agent(parameters[0]))
        link = links[0] if len(links) == 1 else links
        state = first_state(population, link, params, keys, agents, server, detailed=True)
        if directions is None:
            return state
        each, steps = directions(population, params, keys, population.spread(parameters))
        server = server._replace(direction=population.mean(each))
        floats, wire = policy.num_parameters, links[-1].wire
        size = floats * wire.word_bytes + wire.header_bytes
        once = jnp.ones(population.num_federations, jnp.uint32)
        everybody = jnp.asarray(population.sizes).astype(jnp.uint32)
        spent = state.ledger.add(line(communications=1), once)
        spent = spent.add(line(messages_up=1, floats_up=floats, bytes_up=size), everybody)
        spent = spent.add(line(env_steps=1), population.sum(steps))
        return dataclasses.replace(state, server=server, ledger=spent)

    def exactly(population, params, state) -> dict:
        models = population.spread(state.server)

        def at(parameters, params):
            return jax.value_and_grad(oracle.value)(parameters, params)

        values, gradients = per_agent(at, population, params, models.parameters)
        before = per_agent(jax.grad(oracle.value), population, params, models.previous)
        error = state.server.direction - population.mean(before)
        plain, best = values, params.federation["optimum"]
        if oracle.regularised:
            plain = per_agent(oracle.plain_value, population, params, models.parameters)
            best = params.federation["plain_optimum"]
        return {
            "gap": params.federation["optimum"] - population.mean(values),
            "objective": population.mean(values),
            "plain_gap": best - population.mean(plain),
            "plain_objective": population.mean(plain),
            "gradient_norm": jnp.sqrt(jax.vmap(norm_squared)(population.mean(gradients))),
            "estimator_error": jax.vmap(norm_squared)(error),
            "objective_of_agent": values,
        }

    def by_episodes(population, params, state) -> dict:
        keys = keys_at(
            streams.keys_of(state.keys, streams.Episodic.EVALUATION), state.time, jnp.uint32(0)
        )
        value, undiscounted, steps = evaluate(
            task,
            policy,
            keys,
            population.spread(state.server.parameters),
            config.evaluation_episodes,
            environment=oracle.own(params),
        )
        return {
            "return": population.mean(undiscounted),
            "reward": population.mean(value),
            "episode_steps": population.mean(steps),
            "return_of_agent": undiscounted,
        }

    def measure(population, params, state) -> dict:
        tally, link = state.agents.tally, links[-1]
        totals = population.sum(
            (tally.value, tally.episodes, tally.weight, tally.weights, tally.overflows)
        )
        value, count, weight, weights, overflows = totals
        largest = population.max(tally.largest)
        own = exactly if task.tabular else by_episodes
        return {
            **own(population, params, state),
            "training_reward": value / jnp.maximum(count, 1),
            "direction_norm": jnp.sqrt(jax.vmap(norm_squared)(state.server.direction)),
            "weight_mean": jnp.where(weights > 0, weight / jnp.maximum(weights, 1), 1.0),
            "weight_max": jnp.where(weights > 0, largest, 1.0),
            "overflows": overflows.astype(jnp.float32),
            "frequency": population.mean(state.sent.messages.astype(jnp.float32)),
            "size": population.mean(state.sent.bytes(link.wire).astype(jnp.float32)),
        }

    return Functions(init, drive.round, drive.advance, measure, drive.parts)
