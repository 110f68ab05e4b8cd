"""Distributed REINFORCE, and LAPG, which sends a gradient only where it has changed.

In every round each agent runs N episodes of the learner's policy and sends its estimate of the
policy gradient; the learner moves along the mean.

* Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
  Learning* (1992): REINFORCE.
* Chen, Zhang, Giannakis and Basar, *Communication-Efficient Policy Gradient Methods for
  Distributed Reinforcement Learning*, arXiv 1812.03239: LAPG, which is REINFORCE on the uplink
  `lazy`. There the learner sums gradients; here it takes their mean, so that its learning rate is
  N times theirs.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.episodic import Experience
from fedjax_rl.algorithms.properties import per_federation
from fedjax_rl.envs.task import Task
from fedjax_rl.federation import aggregators, uplinks
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.derivatives import DERIVATIVE
from fedjax_rl.federation.exchange import Exchange, first_state
from fedjax_rl.federation.ledger import HEADER, WORD
from fedjax_rl.federation.rounds import rounds
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.federation.uplinks import MessageSpec, norm_squared
from fedjax_rl.fields import declared, is_number
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.networks.mlp import ACTIVATIONS, INITIALIZERS

METRICS = {
    **episodic.METRICS,
    "reward": ("federation", "mean over the agents and their episodes of the discounted return"),
    "frequency": ("federation", "messages per agent and round"),
    "size": ("federation", "bytes sent per agent and round"),
    "episode_steps": ("federation", "mean over the agents and their episodes of the steps"),
    "non_finite": ("federation", "gradients so far that were not finite and were left out"),
    "reward_of_agent": ("agent", "mean over each agent's episodes of the discounted return"),
}


@dataclasses.dataclass(frozen=True)
class Reinforce:
    """Properties of distributed REINFORCE.

    Attributes:
      task: of every agent.
      learning_rate: alpha, at least 0.
      episodes_per_round: N, episodes an agent averages over for one gradient, at least 1.
      estimator: "gpomdp" (every action is credited with what comes after it) or "reinforce" (with
        the whole return).
      discount_weight: whether step t of gpomdp counts discount^t, as the gradient of the
        discounted return has it.
      baseline: subtracted from the returns: "none", "state_mean" (grids: mean of the agent's own
        returns from a state) or "batch_mean" (mean of its returns from a step on). By default
        "state_mean" with a table, "batch_mean" with a network, "none" with N = 1.
      policy: "table" (grids: softmax of one preference per state and action, zeros at first) or
        "mlp" (a network: softmax for discrete actions, Gaussian for continuous ones). By default
        the table where there is one.
      hidden: units in each hidden layer.
      activation: of the hidden units, "tanh" or "relu".
      initializer: "normal" (weights N(0, 1 / inputs), biases 0), "uniform" (all parameters within
        +- 1 / sqrt(inputs)) or "orthogonal" (times sqrt(2), 0.01 in the last layer; biases 0).
      deviation: first standard deviation of continuous actions, above 0; it is learned.
      optimizer: "sgd", "momentum" or "adam" (0.9, 0.999, 1e-8).
      momentum: of the optimiser "momentum", in [0, 1].
      uplink: who sends, see `federation.uplinks`; everybody by default.
      loop: of the episodes, "while", "compact" or "scan".
      word_bytes: bytes of a number on the wire, 2, 4 or 8.
      header_bytes: bytes of every message besides.
      derivative: None, or "pathwise" to allow derivatives that leave out how
        actions are drawn; see `federation.derivatives`.
    """

    task: Task = declared(allowed=episodic.TASK)
    learning_rate: Any = declared(0.1, fields.NOT_NEGATIVE)
    episodes_per_round: int = declared(10, fields.COUNT)
    estimator: str = declared("gpomdp", fields.word(learner.ESTIMATORS))
    discount_weight: bool = declared(True, fields.switch())
    baseline: str | None = declared(None, fields.word(learner.BASELINES).or_none())
    policy: str | None = declared(None, fields.word(learner.POLICIES).or_none())
    hidden: tuple[int, ...] = declared((8, 8), episodic.HIDDEN)
    activation: str = declared("tanh", fields.word(ACTIVATIONS))
    initializer: str = declared("normal", fields.word(INITIALIZERS))
    deviation: float = declared(0.5, episodic.DEVIATION)
    optimizer: str = declared("sgd", fields.word(episodic.OPTIMIZERS))
    momentum: Any = declared(0.9, fields.PROBABILITY)
    uplink: uplinks.Uplink | None = declared(None, episodic.UPLINK)
    loop: str = declared("while", episodic.LOOP)
    word_bytes: int = declared(4, WORD)
    header_bytes: int = declared(0, HEADER)
    derivative: str | None = declared(None, DERIVATIVE, cli=False)


@dataclasses.dataclass(frozen=True)
class LAPG(Reinforce):
    """Properties of the lazily aggregated policy gradient; see also `Reinforce`.

    Attributes:
      learning_rate: alpha, above 0, as the threshold is divided by it.
      weight: xi, of each recent move of the model in the threshold, at least 0.
      depth: D, moves that count, at least 1.
      variance: c_var, factor of the estimated variance of the gradient in the threshold, at least
        0. Agents alike, about 2 is where it begins to tell: a change of pure noise has twice the
        variance of a gradient.
    """

    learning_rate: Any = declared(0.1, fields.POSITIVE)
    uplink: uplinks.Uplink | None = declared(
        None, fields.nothing("lapg is reinforce with the uplink lazy"), cli=False
    )
    weight: Any = declared(0.1, fields.NOT_NEGATIVE)
    depth: int = declared(10, fields.COUNT)
    variance: Any = declared(2.0, fields.NOT_NEGATIVE)


def reinforce(task: Task, **values) -> Algorithm:
    """Distributed REINFORCE; see `Reinforce` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return _build("reinforce", Reinforce, reinforce, task, values)


def lapg(task: Task, **values) -> Algorithm:
    """REINFORCE with lazy uploads; see `LAPG` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return _build("lapg", LAPG, lapg, task, values)


def _build(name, kind, factory, task, values) -> Algorithm:
    return episodic.build(
        name,
        kind,
        factory,
        task,
        values,
        check=check,
        parameters=parameters,
        functions=functions,
        static=static,
        metrics=METRICS,
        unit="round",
    )


def check(config: Reinforce) -> None:
    """Raises ValueError for properties that do not fit together."""
    count = config.episodes_per_round
    states = config.task.num_states is not None
    for name, value in (("policy", "table"), ("baseline", "state_mean")):
        if getattr(config, name) == value and not states:
            raise ValueError(
                f"{name} is {value} on {config.task.name}; allowed: on a grid or a tabular MDP, "
                "whose observations are states"
            )
    if config.baseline == "batch_mean" and count == 1:
        raise ValueError(
            "baseline is batch_mean with episodes_per_round 1, which leaves nothing to learn from; "
            "allowed: episodes_per_round of at least 2"
        )
    policy_of(config)
    if not isinstance(config, LAPG):
        return
    if count == 1 and not (is_number(config.variance) and config.variance == 0):
        raise ValueError(
            f"variance is {config.variance} with episodes_per_round 1, which has no sample "
            "variance; allowed: 0, or episodes_per_round of at least 2"
        )


def policy_of(config: Reinforce) -> learner.Policy:
    """The policy of all agents."""
    return learner.policy_for(
        config.task,
        config.policy,
        hidden=config.hidden,
        activation=config.activation,
        initializer=config.initializer,
        deviation=config.deviation,
    )


def baseline_of(config: Reinforce) -> str:
    """The baseline asked for, or the one that fits."""
    if config.baseline is not None:
        return config.baseline
    if config.episodes_per_round == 1:
        return "none"
    return "state_mean" if isinstance(policy_of(config), learner.SoftmaxTable) else "batch_mean"


def uplink_of(config: Reinforce) -> uplinks.Uplink:
    """Who sends."""
    if isinstance(config, LAPG):
        return uplinks.lazy(config.weight, config.depth, config.variance)
    return episodic.uplink_of(config)


def parameters(config: Reinforce, num_agents: int) -> Params:
    """What is traced, for one federation."""
    federation = per_federation(config, ("learning_rate", "momentum"), num_agents)
    numbers = policy_of(config).num_parameters
    federation |= episodic.uplink_parameters(uplink_of(config), num_agents, numbers)
    return Params({}, federation, {})


def static(config: Reinforce):
    """Equal for configurations that one compilation serves."""
    policy = policy_of(config)
    return (
        config.task,
        config.episodes_per_round,
        config.estimator,
        config.discount_weight,
        baseline_of(config),
        type(policy),
        getattr(policy, "network", None),
        config.initializer,
        config.deviation,
        config.optimizer,
        config.loop,
        uplink_of(config).static,
        episodic.wire_of(config),
    )


class Gradient(NamedTuple):
    """A message; on the wire only the value.

    Attributes:
      value: [q].
      variance: of the value, estimated, summed over it.
      valid: whether the value is finite and therefore means something.
    """

    value: jax.Array
    variance: jax.Array
    valid: jax.Array


class Agent(NamedTuple):
    """One agent.

    Attributes:
      experience: of its last round: the mean return, and the steps of all its episodes.
      gradient: of its last round.
    """

    experience: Experience
    gradient: Gradient


SPEC = MessageSpec(
    numbers=lambda message: message.value,
    # What an uplink puts there is finite: it lets no other message pass.
    replaced=lambda message, value: message._replace(value=value, valid=jnp.ones_like(True)),
    items=lambda message: (jnp.sqrt(norm_squared(message.value))[None], message.valid[None]),
    variance=lambda message: message.variance,
    step=lambda params: params["learning_rate"],
)


def aggregate(population, message: Gradient, sent, weight, context) -> Aggregate:
    """The mean of the gradients that mean something, [F, q]."""
    counts = message.valid if sent is None else message.valid & sent
    return aggregators.mean(population, message.value, counts, weight, context)


def server_of(config: Reinforce) -> ServerStep:
    """A step uphill."""
    optimizer = episodic.optimizer_of(config)

    def init(model):
        return optimizer.init(model), jnp.zeros_like(model)

    def step(model, memory, total, params):
        memory, speed = memory
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
            direction, memory = optimizer.update(total, memory, model)
        if config.optimizer == "momentum":
            speed = params["momentum"] * speed + direction
            direction = speed
        return model + params["learning_rate"] * direction, (memory, speed)

    return ServerStep(init, step)


def functions(config: Reinforce) -> Functions:
    """The algorithm as pure functions of a population."""
    task, policy, count = config.task, policy_of(config), config.episodes_per_round
    link = Exchange(
        message=lambda agent, model, params: agent.gradient,
        uplink=uplink_of(config),
        aggregate=aggregate,
        server=server_of(config),
        spec=SPEC,
        wire=episodic.wire_of(config),
        dedicated_server=True,
    )
    credit = {
        "estimator": config.estimator,
        "baseline": baseline_of(config),
        "discount_weight": config.discount_weight,
        "num_states": task.num_states,
    }

    def learn(agent, model, trajectories, params):
        worth = learner.credits(trajectories, task.discount, **credit)
        if link.uplink.send is None:  # nobody asks for the variance
            value = learner.gradient(policy, model, trajectories, worth)
            variance = jnp.zeros(())
        else:
            each = learner.per_episode(policy, model, trajectories, worth)
            value, variance = jnp.mean(each, axis=0), learner.variance_of_mean(each)
        valid = jnp.all(jnp.isfinite(value)) & jnp.isfinite(variance)
        value = jnp.where(valid, value, jnp.zeros_like(value))
        variance = jnp.where(valid, variance, jnp.zeros_like(variance))
        returns = learner.returns_to_go(trajectories.reward, task.discount)[:, 0]
        totals = jnp.sum(trajectories.reward, axis=-1)
        steps = jnp.sum(trajectories.steps, dtype=jnp.int32)
        experience = agent.experience.following(jnp.mean(returns), jnp.mean(totals), steps, valid)
        return Agent(experience, Gradient(value, variance, valid))

    def work(population, params, state, differentiable):
        kind = "scan" if differentiable else config.loop
        models = population.spread(state.server)
        keys = episodic.episode_keys(state)
        trajectories = learner.roll_out(task, policy, keys, models, count, kind=kind)

        def everybody(trajectories, agents, models):
            return per_agent(learn, population, params, agents, models, trajectories)

        agents = learner.without_padding(everybody, trajectories, state.agents, models)
        state = dataclasses.replace(state, agents=agents)
        return state, agents.experience.steps.astype(jnp.uint32)

    drive = rounds(work, link)

    def init(population, params, keys):
        first = jax.random.wrap_key_data(
            population.first(jax.random.key_data(keys)), impl="threefry2x32"
        )
        server = jax.vmap(lambda key: policy.init(jax.random.fold_in(key, episodic.MODEL_STREAM)))(
            first
        )
        nothing = Gradient(jnp.zeros(policy.num_parameters), jnp.zeros(()), jnp.asarray(True))
        agents = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (population.num_agents, *x.shape)),
            Agent(episodic.no_experience(), nothing),
        )
        return first_state(population, link, params, keys, agents, server, detailed=True)

    def measure(population, params, state) -> dict:
        del params
        own = episodic.measure(population, state, link, state.agents.experience)
        return {**own, "episode_steps": own["episode_steps"] / count}

    return Functions(init, drive.round, drive.advance, measure)
