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
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.define import Federated, Learner, algorithm
from fedjax_rl.algorithms.episodic import Experience
from fedjax_rl.algorithms.records import Network, Optimizer, resolved_by_policy
from fedjax_rl.envs.task import Task
from fedjax_rl.federation import aggregators, uplinks
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.ledger import Wire
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import per_agent
from fedjax_rl.federation.uplinks import MessageSpec, norm_squared
from fedjax_rl.fields import is_number
from fedjax_rl.fields.record import engine, environment, nested, record, static, traced
from fedjax_rl.learners import draws
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.rollouts.episodes import sample_trajectories

METRICS = {
    **episodic.METRICS,
    "reward": ("federation", "mean over the agents and their episodes of the discounted return"),
    "frequency": ("federation", "messages per agent and round"),
    "size": ("federation", "bytes sent per agent and round"),
    "episode_steps": ("federation", "mean over the agents and their episodes of the steps"),
    "non_finite": ("federation", "gradients so far that were not finite and were left out"),
    "reward_of_agent": ("agent", "mean over each agent's episodes of the discounted return"),
}


@record
class Reinforce(Federated):
    """Properties of distributed REINFORCE.

    Attributes:
      task: of every agent.
      learning_rate: alpha, at least 0. By default what suits a table or a network.
      episodes_per_round: N, episodes an agent averages over for one gradient, at least 1.
      estimator: "gpomdp" (every action is credited with what comes after it) or "reinforce" (with
        the whole return).
      discount_weight: whether step t of gpomdp counts discount^t, as the gradient of the
        discounted return has it.
      baseline: subtracted from the returns: "none", "state_mean" (grids: mean of the agent's own
        returns from a state) or "batch_mean" (mean of its returns from a step on). By default
        "state_mean" with a table, "batch_mean" with a network, "none" with N = 1.
      normalize: whether the advantages of a batch are standardised; by default with a network.
      policy: "table" (grids: softmax of one preference per state and action, zeros at first) or
        "mlp" (a network: softmax for discrete actions, Gaussian for continuous ones). By default
        the table where there is one.
      network: of the policy "mlp".
      deviation: first standard deviation of continuous actions, above 0; it is learned.
      optimizer: of the server.
      loop: of the episodes, "while", "compact" or "scan".
      wire: the format of messages.
    """

    task: Task = environment(episodic.TASK)
    learning_rate: Any = traced(None, fields.NOT_NEGATIVE.or_none(), by_policy=(0.1, 0.02))
    episodes_per_round: int = static(10, fields.COUNT)
    estimator: str = static("gpomdp", fields.word(learner.ESTIMATORS))
    discount_weight: bool = static(True, fields.switch())
    baseline: str | None = static(None, fields.word(learner.BASELINES).or_none())
    normalize: bool | None = static(None, fields.switch().or_none(), by_policy=(False, True))
    policy: str | None = static(None, fields.word(learner.POLICIES).or_none())
    network: Network = nested(Network)
    deviation: float = static(0.5, episodic.DEVIATION)
    optimizer: Optimizer = nested(Optimizer)
    loop: str = static("while", episodic.LOOP)
    wire: Wire = nested(Wire)

    def check(self) -> None:
        """Refuses properties that do not fit together."""
        episodic.check_task(self.task)
        count, states = self.episodes_per_round, self.task.num_states is not None
        for name, value in (("policy", "table"), ("baseline", "state_mean")):
            if getattr(self, name) == value and not states:
                raise ValueError(
                    f"{name} is {value} on {self.task.name}; allowed: on a grid or a tabular MDP, "
                    "whose observations are states"
                )
        if self.baseline == "batch_mean" and count == 1:
            raise ValueError(
                "baseline is batch_mean with episodes_per_round 1, which leaves nothing to learn "
                "from; allowed: episodes_per_round of at least 2"
            )
        policy_of(self)

    def with_defaults(self):
        """With the baseline that fits, and the defaults of a table, or of a network."""
        table = isinstance(policy_of(self), learner.SoftmaxTable)
        own = resolved_by_policy(self, table)
        if own.baseline is not None:
            return own
        fitting = "state_mean" if table else "batch_mean"
        # Of one episode a mean is the return itself, and no advantage would be left.
        fitting = "none" if self.episodes_per_round == 1 else fitting
        return dataclasses.replace(own, baseline=fitting)


@record
class LAPG(Reinforce):
    """Properties of the lazily aggregated policy gradient; see also `Reinforce`.

    Attributes:
      learning_rate: alpha, above 0, as the threshold is divided by it. By default what suits a
        table or a network.
      weight: xi, of each recent move of the model in the threshold, at least 0.
      depth: D, moves that count, at least 1.
      variance: c_var, factor of the estimated variance of the gradient in the threshold, at least
        0. Agents alike, about 2 is where it begins to tell: a change of pure noise has twice the
        variance of a gradient.
    """

    learning_rate: Any = traced(None, fields.POSITIVE.or_none(), by_policy=(0.1, 0.02))
    uplink: uplinks.Uplink | None = engine(
        None, fields.nothing("lapg is reinforce with the uplink lazy"), cli=False
    )
    weight: Any = engine(0.1, fields.NOT_NEGATIVE)
    depth: int = engine(10, fields.COUNT)
    variance: Any = engine(2.0, fields.NOT_NEGATIVE)

    def check(self) -> None:
        """Refuses properties that do not fit together."""
        super().check()
        known = is_number(self.variance) and self.variance == 0
        if self.episodes_per_round == 1 and not known:
            raise ValueError(
                f"variance is {self.variance} with episodes_per_round 1, which has no sample "
                "variance; allowed: 0, or episodes_per_round of at least 2"
            )

    def transmits(self, num_agents=None) -> uplinks.Uplink:
        """Who has something new to say."""
        # arXiv 1812.03239 has a bound on the variance there, of constants that nobody knows;
        # here it is estimated from the episodes of the round.
        return uplinks.lazy(self.weight, self.depth, self.variance)


def policy_of(config: Reinforce) -> learner.Policy:
    """The policy of all agents."""
    network = config.network
    return learner.policy_for(
        config.task,
        config.policy,
        hidden=network.hidden,
        activation=network.activation,
        initializer=network.initializer,
        deviation=config.deviation,
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
      drawn: scalar 0 whose derivative is that of the log-probability of all its actions; or ().
    """

    experience: Experience
    gradient: Gradient
    drawn: Any = ()


SPEC = MessageSpec(
    numbers=lambda message: message.value,
    # What an uplink puts there is finite: it lets no other message pass.
    replaced=lambda message, value: message._replace(value=value, valid=jnp.ones_like(True)),
    items=lambda message: (jnp.sqrt(norm_squared(message.value))[None], message.valid[None]),
    variance=lambda message: message.variance,
    step=lambda params: params["learning_rate"],
)


def aggregate(population, message: Gradient, sent, weight, context) -> Aggregate:
    """The mean of the gradients that mean something, [F, q].

    Args:
      population: who belongs to whom.
      message: leaves [A, ...].
      sent: bool [A], or None for all.
      weight: of the agents, as `mean` takes it.
      context: of the exchange.
    """
    counts = message.valid if sent is None else message.valid & sent
    return aggregators.mean(population, message.value, counts, weight, context)


def ascent(optimizer: Optimizer) -> ServerStep:
    """A step uphill of a model that is one vector [q]."""

    def step(model, memory, total, params):
        momentum = params["optimizer.momentum"]
        direction, memory = optimizer.direction(total, memory, model, momentum)
        return model + params["learning_rate"] * direction, memory

    return ServerStep(optimizer.init, step)


# Decorates `config -> Learner` with what is the same of both.
_of_both = functools.partial(
    algorithm,
    environments=("grid", "task"),
    metrics=METRICS,
    unit="round",
    headline="reward",
    sampled=lambda config: "episodes are drawn from what is learned",
)


@_of_both(Reinforce, estimators=lambda config: ("score",))
def reinforce(config: Reinforce) -> Learner:
    """Distributed REINFORCE.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.simple_grid(max_steps=20)
      >>> state = frl.init(frl.reinforce(task, episodes_per_round=2), num_agents=4)
      >>> state.state.server.shape
      (1, 125)
    """
    task, policy, count = config.task, policy_of(config), config.episodes_per_round
    everybody_sends, scored = config.transmits().send is None, config.derivative == "score"
    rule = {
        "estimator": config.estimator,
        "baseline": config.baseline,
        "discount_weight": config.discount_weight,
        "num_states": task.num_states,
        "normalize": config.normalize,
    }

    def first(key, params):
        del key, params
        nothing = Gradient(jnp.zeros(policy.num_parameters), jnp.zeros(()), jnp.asarray(True))
        return Agent(episodic.no_experience(), nothing, jnp.zeros(()) if scored else ())

    def model(key, params):
        del params
        return policy.init(jax.random.fold_in(key, streams.Episodic.MODEL))

    def learn(agent, model, trajectories, params):
        del params
        advantages = learner.advantages(trajectories, task.discount, **rule)
        if everybody_sends:  # nobody asks for the variance
            value = learner.gradient(policy, model, trajectories, advantages)
            variance = jnp.zeros(())
        else:
            each = learner.per_episode(policy, model, trajectories, advantages)
            value, variance = jnp.mean(each, axis=0), learner.variance_of_mean(each)
        # One gradient that is not finite would spoil the mean for everybody: it is left out.
        valid = jnp.all(jnp.isfinite(value)) & jnp.isfinite(variance)
        value = jnp.where(valid, value, jnp.zeros_like(value))
        variance = jnp.where(valid, variance, jnp.zeros_like(variance))
        returns = learner.returns_of(trajectories.reward, task.discount)
        totals = jnp.sum(trajectories.reward, axis=-1)
        steps = jnp.sum(trajectories.steps, dtype=jnp.int32)
        experience = agent.experience.following(jnp.mean(returns), jnp.mean(totals), steps, valid)
        drawn = agent.drawn
        if scored:
            logs = learner.log_likelihood(policy, model, trajectories)
            drawn = drawn + draws.score(jnp.sum(logs))
        return Agent(experience, Gradient(value, variance, valid), drawn)

    def work(population, params, state, differentiable):
        # Reverse mode needs a loop of known length.
        kind = "scan" if differentiable else config.loop
        models = population.spread(state.server)
        keys = episodic.episode_keys(state)
        # What is drawn is held fixed where its probability counts, else it would count twice.
        players = jax.lax.stop_gradient(models) if scored else models
        trajectories = sample_trajectories(task, policy, keys, players, count, kind=kind)

        def everybody(trajectories, agents, models):
            return per_agent(learn, population, params, agents, models, trajectories)

        agents = learner.without_padding(everybody, trajectories, state.agents, models)
        state = dataclasses.replace(state, agents=agents)
        return state, agents.experience.steps.astype(jnp.uint32)

    def measure(population, params, state) -> dict:
        del params
        own = episodic.measure(population, state, config.wire, state.agents.experience)
        return {**own, "episode_steps": own["episode_steps"] / count}

    link = Exchange(
        message=lambda agent, model, params: agent.gradient,
        aggregate=aggregate,
        server=ascent(config.optimizer),
        spec=SPEC,
        dedicated_server=True,
    )
    drawn = (lambda agents: agents.drawn) if scored else None
    return Learner(first, (work, link), measure, model=model, drawn=drawn, own=episodic.OWN)


@_of_both(LAPG, draws=("weight", "variance"))
def lapg(config: LAPG) -> Learner:
    """REINFORCE with lazy uploads.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.simple_grid(max_steps=20)
      >>> algorithm = frl.lapg(task, weight=0.5, depth=5)
      >>> str(algorithm.config.transmits())
      'lazy(weight=0.5, depth=5)'
    """
    return reinforce.definition.learner(config)
