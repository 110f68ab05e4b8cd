r"""Policy gradients from whole episodes: policies, trajectories, estimators.

A policy is a frozen record of functions of one flat vector of parameters, which is what agents
exchange. `roll_out` makes N episodes of every agent, `credits` says what each action is worth, and

    g = 1/N \sum_n \sum_t c_{n,t} grad log pi(a_{n,t} | s_{n,t})

is `gradient`, or `per_episode` for the N summands. They are separate because the methods that
build on the gradient evaluate it anew: at other parameters, weighted by a ratio of likelihoods
(`log_likelihood`), or differentiated once more.

* Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
  Learning* (1992): REINFORCE.
* Baxter and Bartlett, *Infinite-Horizon Policy-Gradient Estimation* (2001): G(PO)MDP.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.learners import episodes, policies
from fedjax_rl.names import check_known
from fedjax_rl.networks import MLP

# Policies -----------------------------------------------------------------------------------------


def _as_it_is(observation):
    return observation


class Policy:
    """What the estimators need of a policy; all for one agent and one step, callers vmap.

    Attributes:
      num_parameters: q.
    """

    num_parameters: int

    def init(self, key) -> jax.Array:
        """First parameters, float [q]."""
        raise NotImplementedError

    def sample(self, parameters, observation, word) -> jax.Array:
        """Draws an action.

        Args:
          parameters: [q].
          observation: as the environment gives it.
          word: uint32 scalar, random.
        """
        raise NotImplementedError

    def log_prob(self, parameters, observation, action) -> jax.Array:
        """Logarithm of the probability, or of the density, of an action; a scalar."""
        raise NotImplementedError

    def performed(self, action) -> jax.Array:
        """What the environment is told to do when this action was drawn."""
        return action

    def score(self, parameters, observation, action, weight) -> jax.Array:
        """Weighted sum of scores, [q]: `sum_t weight_t grad log pi(action_t | observation_t)`.

        One backward pass.

        Args:
          parameters: [q].
          observation: [T, ...].
          action: [T, ...].
          weight: [T].
        """

        def total(parameters):
            logs = jax.vmap(self.log_prob, in_axes=(None, 0, 0))(parameters, observation, action)
            return jnp.sum(weight * logs)

        return jax.grad(total)(parameters)


@dataclasses.dataclass(frozen=True)
class SoftmaxTable(Policy):
    """Softmax of one preference per state and action, laid out state by state; zeros at first.

    Attributes:
      num_states: S; observations are states in 0..S-1, an int32 scalar.
      num_actions: U.
    """

    num_states: int
    num_actions: int

    @property
    def num_parameters(self) -> int:
        """S U."""
        return self.num_states * self.num_actions

    def init(self, key) -> jax.Array:
        """Zeros: every action is as likely as any other; the key is not needed."""
        del key
        return jnp.zeros(self.num_parameters)

    def table(self, parameters) -> jax.Array:
        """The preferences [S, U]."""
        return parameters.reshape(self.num_states, self.num_actions)

    def sample(self, parameters, observation, word) -> jax.Array:
        """An action in 0..U-1; as in `Policy`."""
        return policies.categorical(self.table(parameters)[observation], word)

    def log_prob(self, parameters, observation, action) -> jax.Array:
        """As in `Policy`."""
        return jax.nn.log_softmax(self.table(parameters)[observation])[action]

    def score(self, parameters, observation, action, weight) -> jax.Array:
        """As in `Policy`, in closed form.

        Row s of the sum is what its actions weigh, minus the probabilities times what the visits
        of s weigh.
        """
        place = observation * self.num_actions + action
        taken = jnp.zeros_like(parameters).at[place].add(weight.astype(parameters.dtype))
        taken = self.table(taken)
        chances = jax.nn.softmax(self.table(parameters), axis=-1)
        return jnp.ravel(taken - chances * jnp.sum(taken, axis=-1, keepdims=True))


@dataclasses.dataclass(frozen=True)
class Categorical(Policy):
    """Softmax of the outputs of a network.

    Attributes:
      network: one output per action.
      encode: from an observation to what the network sees, as of an `envs.Task`.
      initializer: of the network.
    """

    network: MLP
    encode: Callable = _as_it_is
    initializer: str = "normal"

    @property
    def num_parameters(self) -> int:
        """Those of the network."""
        return self.network.num_parameters

    def init(self, key) -> jax.Array:
        """As the network's."""
        return self.network.init(key, self.initializer)

    def sample(self, parameters, observation, word) -> jax.Array:
        """An action in 0..U-1; as in `Policy`."""
        return policies.categorical(self.network.apply(parameters, self.encode(observation)), word)

    def log_prob(self, parameters, observation, action) -> jax.Array:
        """As in `Policy`."""
        outputs = self.network.apply(parameters, self.encode(observation))
        return jax.nn.log_softmax(outputs)[action]


@dataclasses.dataclass(frozen=True)
class Gaussian(Policy):
    """Independent normal actions: means from a network, deviations the same in every state.

    The parameters are the network's and then the logarithms of the deviations [M]. The environment
    gets the action clipped to [-1, 1]; the density is that of the action before.

    Attributes:
      network: M outputs, the means.
      encode: as of `Categorical`.
      initializer: of the network.
      deviation: at first, above 0.
    """

    network: MLP
    encode: Callable = _as_it_is
    initializer: str = "normal"
    deviation: float = 0.5

    @property
    def num_actions(self) -> int:
        """M."""
        return self.network.sizes[-1]

    @property
    def num_parameters(self) -> int:
        """Those of the network and M."""
        return self.network.num_parameters + self.num_actions

    def init(self, key) -> jax.Array:
        """As the network's, with the deviation given."""
        log_deviation = jnp.full(self.num_actions, math.log(self.deviation))
        return jnp.concatenate([self.network.init(key, self.initializer), log_deviation])

    def moments(self, parameters, observation) -> tuple[jax.Array, jax.Array]:
        """Means and logarithms of the deviations, both [M]."""
        own = parameters[: self.network.num_parameters]
        mean = self.network.apply(own, self.encode(observation))
        return mean, parameters[self.network.num_parameters :]

    def sample(self, parameters, observation, word) -> jax.Array:
        """An action [M], not clipped; as in `Policy`."""
        mean, log_deviation = self.moments(parameters, observation)
        key = (word, jnp.uint32(0))
        places = jnp.arange(self.num_actions, dtype=jnp.uint32)
        words = jax.vmap(lambda place: streams.threefry(key, place))(places)
        return mean + jnp.exp(log_deviation) * streams.normal(words, mean.dtype)

    def log_prob(self, parameters, observation, action) -> jax.Array:
        """As in `Policy`."""
        mean, log_deviation = self.moments(parameters, observation)
        scaled = (action - mean) * jnp.exp(-log_deviation)
        each = -(scaled**2) / 2 - log_deviation - math.log(2 * math.pi) / 2
        return jnp.sum(each)

    def performed(self, action) -> jax.Array:
        """The action clipped to [-1, 1]."""
        return jnp.clip(action, -1.0, 1.0)


# Trajectories -------------------------------------------------------------------------------------


class Trajectories(NamedTuple):
    """N episodes of one agent, each padded to T steps.

    Attributes:
      observation: [N, T, ...], before each action, as the environment gives it.
      action: [N, T, ...], as drawn.
      reward: [N, T], 0 in the padding.
      mask: bool [N, T], the steps that were made.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    mask: jax.Array

    @property
    def steps(self) -> jax.Array:
        """Length of each episode, int32 [..., N]."""
        return jnp.sum(self.mask, axis=-1, dtype=jnp.int32)


class _Now(NamedTuple):
    """An episode under way; `past` has the leaves of `Trajectories` as [T, ...]."""

    state: object
    observation: jax.Array
    alive: jax.Array
    past: Trajectories


def roll_out(
    task,
    policy: Policy,
    keys,
    parameters,
    num_episodes: int,
    *,
    environment=None,
    kind: str = "while",
) -> Trajectories:
    """N episodes of every agent under its own parameters.

    Every episode has a place of its own in the loop, with a copy of the agent's parameters: on a
    CPU that takes two thirds of the time of episodes nested in agents, and half to compile.

    Args:
      task: an `envs.Task`.
      policy: of all agents.
      keys: typed keys, a pair of [A]: of the first states, and of everything drawn in the
        episodes. Episode n has n folded in, whatever N is.
      parameters: [A, q].
      num_episodes: N, at least 1.
      environment: parameters of the environment, leaves [A, ...]; the task's own by default.
      kind: of `episodes.LOOPS`.

    Returns:
      `Trajectories` with leaves [A, N, T, ...], T the longest episode of the task.

    Raises:
      ValueError: an unknown kind.
    """
    own = environment is not None
    agents = parameters.shape[0]
    numbers = jnp.arange(num_episodes, dtype=jnp.uint32)

    def each(x):
        return jax.tree.map(lambda x: jnp.repeat(x, num_episodes, axis=0), x)

    resets, draws = (
        jax.vmap(jax.random.fold_in)(each(key), jnp.tile(numbers, agents)) for key in keys
    )
    environment = each(environment) if own else ()

    def begin(key, environment):
        observation, state = task.env.reset(key, environment if own else task.params)
        drawn = jax.eval_shape(policy.sample, parameters[0], observation, numbers[0])

        def buffer(shape, dtype):
            return jnp.zeros((task.max_steps, *shape), dtype)

        past = Trajectories(
            buffer(observation.shape, observation.dtype),
            buffer(drawn.shape, drawn.dtype),
            buffer((), parameters.dtype),
            buffer((), bool),
        )
        return _Now(state, observation, jnp.asarray(True), past)

    def step(t, fixed, now):
        parameters, data, environment = fixed
        # As in `episodes`: a word for the action, two for the environment.
        first = jnp.uint32(3) * t
        word, *rest = (streams.threefry(data, first + jnp.uint32(n)) for n in range(3))
        action = policy.sample(parameters, now.observation, word)
        key = jax.random.wrap_key_data(jnp.stack(rest), impl=streams.IMPLEMENTATION)
        observation, state, reward, terminated, truncated, _ = task.env.step(
            key, now.state, policy.performed(action), environment if own else task.params
        )
        reward = jnp.where(now.alive, reward, jnp.zeros_like(reward)).astype(parameters.dtype)
        made = Trajectories(now.observation, action, reward, now.alive)
        past = jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_index_in_dim(old, new, t.astype(jnp.int32), 0),
            now.past,
            made,
        )
        return _Now(state, observation, now.alive & ~(terminated | truncated), past)

    done = episodes.loop(
        step,
        lambda now: now.alive,
        (each(parameters), jax.random.key_data(draws), environment),
        jax.vmap(begin)(resets, environment),
        task.max_steps,
        kind,
    )
    return jax.tree.map(lambda x: x.reshape(agents, num_episodes, *x.shape[1:]), done.past)


# Steps below which trajectories are not shortened any further.
_SHORTEST = 32


def without_padding(function: Callable, trajectories: Trajectories, *others):
    """Calls a function on trajectories cut off where, to a factor of two, the longest one ends.

    One of a few programs is chosen while running: with episodes of 20 steps out of 500, most of
    a backward pass would be spent on padding.

    Args:
      function: `(trajectories, *others) -> pytree` of shapes that do not depend on T.
      trajectories: leaves [A, N, T, ...], of all agents. Not to be called under `vmap`, where all
        of the programs would run.
      *others: further arguments.
    """
    lengths = [trajectories.mask.shape[2]]
    while lengths[-1] // 2 >= _SHORTEST:
        lengths.append(lengths[-1] // 2)
    longest = jnp.max(trajectories.steps)
    place = sum(((longest <= length).astype(jnp.int32) for length in lengths[1:]), jnp.int32(0))

    def cut(length, trajectories, *others):
        short = jax.tree.map(lambda x: x[:, :, :length], trajectories)
        return function(short, *others)

    branches = [functools.partial(cut, length) for length in lengths]
    return jax.lax.switch(place, branches, trajectories, *others)


# Credit -------------------------------------------------------------------------------------------


def returns_to_go(reward, discount) -> jax.Array:
    r"""Discounted return from every step on, `G_t = \sum_{k >= t} discount^{k-t} r_{k+1}`.

    Args:
      reward: [..., T], that of the action in t at place t.
      discount: scalar.

    Returns:
      [..., T].
    """

    def back(following, reward):
        now = reward + jnp.asarray(discount, reward.dtype) * following
        return now, now

    reward = jnp.moveaxis(reward, -1, 0)
    _, returns = jax.lax.scan(back, jnp.zeros_like(reward[0]), reward, reverse=True, unroll=4)
    return jnp.moveaxis(returns, 0, -1)


def _mean_where(values, mask, axis):
    count = jnp.maximum(jnp.sum(mask, axis=axis, keepdims=True), 1).astype(values.dtype)
    values = jnp.where(mask, values, jnp.zeros_like(values))
    return jnp.sum(values, axis=axis, keepdims=True) / count


def _no_baseline(trajectories, returns, num_states):
    return jnp.zeros_like(returns)


def _state_mean(trajectories, returns, num_states):
    """Of every state, over all its visits; the present one is among them."""
    state, mask = trajectories.observation, trajectories.mask
    there = mask.astype(returns.dtype)
    nothing = jnp.zeros(num_states, returns.dtype)
    total = nothing.at[state].add(there * returns)
    visits = nothing.at[state].add(there)
    return (total / jnp.maximum(visits, 1))[state]


def _batch_mean(trajectories, returns, num_states):
    """Of every step, over the episodes that have got there."""
    return jnp.broadcast_to(_mean_where(returns, trajectories.mask, 0), returns.shape)


# `(trajectories, returns [N, T], num_states) -> [N, T]`.
BASELINES: dict[str, Callable] = {
    "none": _no_baseline,
    "state_mean": _state_mean,
    "batch_mean": _batch_mean,
}
ESTIMATORS = ("gpomdp", "reinforce")


def credits(
    trajectories: Trajectories,
    discount,
    *,
    estimator: str = "gpomdp",
    baseline: str = "none",
    discount_weight: bool = True,
    num_states: int | None = None,
) -> jax.Array:
    r"""What every action is worth: the weights c_t of the scores, [N, T].

        gpomdp       c_t = discount^t (G_t - b_t),   G_t the return from t on
        reinforce    c_t = G_0 - b_t

    Without a baseline both have the gradient of the discounted return as their mean. The
    baselines are means over the agent's own N episodes, the present one included, which shrinks
    the mean by a term of order 1/N.

    Args:
      trajectories: of one agent.
      discount: scalar.
      estimator: of `ESTIMATORS`.
      baseline: "none", "state_mean" (of each state, where observations are states) or
        "batch_mean" (of each step, over the episodes that have got there).
      discount_weight: whether gpomdp has its factor discount^t. Without it, and without a
        baseline, this is the update that is often printed as REINFORCE.
      num_states: S, for "state_mean".

    Returns:
      Zero in the padding.

    Raises:
      ValueError: an unknown word, or "state_mean" without S.
    """
    check_known(estimator, ESTIMATORS, "estimator")
    check_known(baseline, BASELINES, "baseline")
    if baseline == "state_mean" and num_states is None:
        raise ValueError(
            "baseline is state_mean without num_states; allowed: none or batch_mean where "
            "observations are no states"
        )
    returns = returns_to_go(trajectories.reward, discount)
    if estimator == "reinforce":
        returns = jnp.broadcast_to(returns[:, :1], returns.shape)
    worth = returns - BASELINES[baseline](trajectories, returns, num_states)
    if estimator == "gpomdp" and discount_weight:
        exponent = jnp.arange(returns.shape[1], dtype=returns.dtype)
        worth = worth * (jnp.asarray(discount, returns.dtype) ** exponent)[None]
    return jnp.where(trajectories.mask, worth, jnp.zeros_like(worth))


# Gradients ----------------------------------------------------------------------------------------


def log_likelihood(policy: Policy, parameters, trajectories: Trajectories) -> jax.Array:
    """Logarithm of the probability of every action that was taken, [N, T]; 0 in the padding.

    What depends on the policy in the likelihood of an episode is its sum over the steps.
    """
    each = jax.vmap(jax.vmap(policy.log_prob, in_axes=(None, 0, 0)), in_axes=(None, 0, 0))
    logs = each(parameters, trajectories.observation, trajectories.action)
    return jnp.where(trajectories.mask, logs, jnp.zeros_like(logs))


def gradient(policy: Policy, parameters, trajectories: Trajectories, worth) -> jax.Array:
    """The estimate of the gradient, [q]: mean over the episodes.

    Args:
      policy: that has been followed, or another of the same actions.
      parameters: [q], where the scores are taken.
      trajectories: of one agent.
      worth: [N, T], such as `credits`; 0 in the padding.
    """
    observation, action = trajectories.observation, trajectories.action
    flat = (x.reshape(-1, *x.shape[2:]) for x in (observation, action, worth))
    return policy.score(parameters, *flat) / worth.shape[0]


def per_episode(policy: Policy, parameters, trajectories: Trajectories, worth) -> jax.Array:
    """The summands of the estimate, one per episode, [N, q]; as in `gradient`, their mean."""
    score = jax.vmap(policy.score, in_axes=(None, 0, 0, 0))
    return score(parameters, trajectories.observation, trajectories.action, worth)


def variance_of_mean(gradients) -> jax.Array:
    """Estimated variance of the mean of N gradients [N, q], summed over coordinates; a scalar.

    The sample variance over N; 0 for N = 1, where there is no estimate.
    """
    count = gradients.shape[0]
    apart = gradients - jnp.mean(gradients, axis=0, keepdims=True)
    return jnp.sum(apart**2) / (max(count - 1, 1) * count)
