r"""Federated temporal difference learning with linear values, K local steps and an average.

Every agent evaluates one policy in an environment of its own, along the directions g_i of
`learners.linear_td`, and is given the mean of all parameters after every K steps. Without control
variates this ends, where environments differ and K > 1, at a point that is not the solution of the
mean of the agents' equations,

    1/N \sum_i (b_i - A_i theta) = 0.

With control variates c_i, whose mean is 0, it does:

    theta_i <- theta_i + rate (g_i(theta_i) + c_i)                 K times
    theta   <- 1/N \sum_i theta_i
    c_i     <- c_i + (theta - theta_i) / (K rate)

* Khodadadian, Sharma, Joshi and Maguluri, *Federated Reinforcement Learning: Linear Speedup Under
  Markovian Sampling*, arXiv 2206.10185: federated TD learning.
* Mangold, Samsonov, Labbi, Levin, Alami, Naumov and Moulines, *SCAFFLSA: Taming Heterogeneity in
  Federated Linear Stochastic Approximation and TD Learning*, arXiv 2402.04114: control variates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.define import Averaged, Learner, Steps, algorithm, average, per_federation
from fedjax_rl.envs.tabular import TabularMDP, check_mdp
from fedjax_rl.federation.state import Params, per_agent_in_turns
from fedjax_rl.fields import is_concrete, real_array
from fedjax_rl.fields.record import environment, host, record, static, traced
from fedjax_rl.learners import linear_td
from fedjax_rl.learners.tabular_steps import outcome_of_row, thresholds
from fedjax_rl.names import brief
from fedjax_rl.remembered import remembered

SAMPLING = ("markovian", "iid", "generative")
METRICS = {
    "error_server": ("federation", "squared distance of the mean parameters to the reference"),
    "error_local_mean": ("federation", "mean over the agents of error_local"),
    "error_local": ("agent", "squared distance of each agent's parameters to the reference"),
}


def _array(axes: int) -> Callable:
    """Whether a value is an array of so many axes, of finite numbers."""

    def fine(value) -> bool:
        array = real_array(value)
        return array is not None and array.ndim == axes and bool(np.isfinite(array).all())

    return fine


_is_vector = _array(1)


@record
class FedTD(Averaged):
    """Properties of federated TD learning.

    Attributes:
      mdp: the environment; one for all, or a family with a leading axis [N], one per agent. Where
        agents follow a trajectory each starts where its own says.
      policy: that is evaluated, [S, U]; None for the uniform one.
      learning_rate: at least 0.
      features: phi, [S, d]; None for one of every state.
      sampling: "markovian", a trajectory; "iid", a state drawn anew in every step from the
        stationary distribution of the policy in the agent's environment; "generative", the mean
        direction over one next state of every state. The ledger counts a step as one each time.
      control_variates: whether agents correct their directions by what they have learned of how
        they differ from the others. Every agent then has to be heard in every exchange.
      initial: number or [d], where theta begins.
      reference: what errors are measured against: "mean", the exact solution of the mean of the
        agents' equations (of least norm where there are several), or an array [d].
    """

    mdp: TabularMDP = environment(fields.instance(TabularMDP), by="host")
    policy: Any = host(
        None,
        fields.anything("probabilities [S, U]", _array(2), optional=True),
        cli=False,
    )
    learning_rate: Any = traced(0.1, fields.NOT_NEGATIVE)
    features: Any = host(
        None,
        fields.anything("an array [S, d] of real numbers", _array(2), optional=True),
        cli=False,
    )
    sampling: str = static("markovian", fields.word(SAMPLING))
    control_variates: bool = static(False, fields.switch())
    initial: Any = host(0.0, fields.number(arrays=1))
    reference: Any = host(
        "mean",
        fields.anything(
            "'mean' or an array [d] of real numbers",
            lambda value: value == "mean" if isinstance(value, str) else _is_vector(value),
        ),
        cli=False,
    )

    def check(self) -> None:
        """Refuses properties that do not fit together."""
        check_mdp(self.mdp)
        num_states, num_actions = self.mdp.num_states, self.mdp.num_actions
        if self.policy is not None:
            episodic.check_shape("policy", self.policy, (num_states, num_actions))
            rows = np.asarray(self.policy, np.float64)
            if (rows < 0).any() or not np.allclose(rows.sum(1), 1.0, rtol=0, atol=1e-6):
                raise ValueError(f"policy is {brief(self.policy)}; allowed: rows of sum 1")
        if self.features is not None and np.shape(self.features)[0] != num_states:
            raise ValueError(
                f"features is an array {list(np.shape(self.features))}; allowed: [{num_states}, d],"
                " a row for every state"
            )
        width = basis(self).shape[1:]
        for name in ("initial", "reference"):
            if not isinstance(getattr(self, name), str):
                episodic.check_shape(name, getattr(self, name), width)
        for name in ("transition", "discount", "initial_distribution"):
            if not is_concrete(getattr(self.mdp, name)):
                raise ValueError(
                    f"mdp.{name} is traced; allowed: numbers, of which only the reward is traced"
                )
        if self.control_variates:
            self._check_all_are_heard()

    def _check_all_are_heard(self) -> None:
        """Control variates have mean 0 only if the model is the mean of whole parameters."""
        if self.uplink is not None and self.uplink.send is not None:
            raise ValueError(
                f"uplink is {self.uplink} with control variates, whose mean is 0 only where "
                "everybody is heard; allowed: None"
            )
        if self.clock is not None and (
            self.clock.scheduler != "synchronous" or self.clock.rules.fails
        ):
            raise ValueError(
                f"clock is {self.clock} with control variates, whose mean is 0 only where "
                "everybody is heard; allowed: None, or a synchronous clock without failures"
            )

    def static(self) -> tuple:
        """The shapes of the environment and the features, and whether first states are drawn."""
        mdp = self.mdp
        shapes = mdp.transition.shape[-3:], np.shape(mdp.reward)[-3:], basis(self).shape
        return *shapes, mdp.transition.ndim, mdp.initial_distribution is not None

    def derived(self, num_agents: int) -> Params:
        """The environment, the features, where theta begins and what errors refer to."""
        phi, policy = basis(self), policy_of(self)
        own = _prepared(self.mdp, policy, self.sampling)
        agent, shared = {}, {"features": phi}
        if self.mdp.transition.ndim > 3:
            if len(self.mdp.transition) < num_agents:
                raise ValueError(
                    f"mdp is a family of {len(self.mdp.transition)} for num_agents {num_agents}; "
                    "allowed: at least one member per agent"
                )
            agent = {n: leaf[:num_agents] for n, leaf in own.items() if n != "policy"}
            shared["policy"] = own["policy"]
        else:
            shared |= own
        reference = self.reference
        if isinstance(reference, str):
            reference = linear_td.mean_solution(self.mdp, policy, phi, self.sampling, num_agents)
        first = episodic.filled(self.initial, phi.shape[1:])
        return Params(agent, {"initial": first, "reference": reference}, shared)


def basis(config: FedTD) -> np.ndarray:
    """The features, float64 [S, d]."""
    return _basis(config.features, config.mdp.num_states)


# One object for all federations stays one in the program.
@remembered(64)
def _basis(features, num_states: int) -> np.ndarray:
    return np.eye(num_states) if features is None else np.asarray(features, np.float64)


def policy_of(config: FedTD) -> np.ndarray:
    """The policy that is evaluated, float64 [S, U]."""
    shape = config.mdp.num_states, config.mdp.num_actions
    if config.policy is None:
        return np.full(shape, 1 / shape[1])
    return np.asarray(config.policy, np.float64)


@remembered(64)
def _prepared(mdp: TabularMDP, policy, sampling: str) -> dict:
    """What an agent knows of its environment, by name; of a family leading with the agents."""
    own = linear_td.prepared(mdp, policy)._asdict()
    own["initial_state"] = np.asarray(mdp.initial_state, np.int32)
    if mdp.initial_distribution is not None:
        own["start"] = thresholds(mdp.initial_distribution)
    if sampling == "iid":
        members = linear_td.members_of(mdp, mdp.transition.shape[0])
        stationary = np.stack([linear_td.visits(member, policy, sampling) for member in members])
        words = thresholds(stationary)
        own["stationary"] = words if mdp.transition.ndim > 3 else words[0]
    return own


class Agent(NamedTuple):
    """One agent.

    Attributes:
      parameters: theta_i, [d].
      state: int32, where it is.
      control: c_i, [d], or () without control variates.
      length: sum of the learning rates since the last exchange, or ().
    """

    parameters: jax.Array
    state: jax.Array
    control: Any
    length: Any


def _single(anew: bool, key, agent: Agent, own: linear_td.Environment, params):
    """The direction of one step, on a trajectory or from a state drawn anew, and where it ends."""
    words = streams.bits(key, (2 + anew,))
    state = outcome_of_row(words[0], params["stationary"]) if anew else agent.state
    following, reward = linear_td.transition(own, state, words[-2:])
    theta, phi = agent.parameters, params["features"]
    g = linear_td.direction(theta, phi, own.discount, state, reward, following)
    return g, agent.state if anew else following


def _generative(key, agent: Agent, own: linear_td.Environment, params):
    """The mean direction of a step from every state."""
    phi = params["features"]
    states = jnp.arange(phi.shape[0], dtype=jnp.int32)
    words = streams.bits(key, (phi.shape[0], 2))

    def from_state(state, words):
        following, reward = linear_td.transition(own, state, words)
        return linear_td.direction(agent.parameters, phi, own.discount, state, reward, following)

    return jnp.mean(jax.vmap(from_state)(states, words), axis=0), agent.state


_DIRECTIONS = {
    "markovian": functools.partial(_single, False),
    "iid": functools.partial(_single, True),
    "generative": _generative,
}


@algorithm(
    FedTD,
    environments=("mdp",),
    metrics=METRICS,
    sampled=lambda config: None,
    root_keys=False,
)
def fedtd(config: FedTD) -> Learner:
    """Federated temporal difference learning with linear values.

    Example:
      >>> import fedjax_rl as frl
      >>> mdp = frl.envs.paper_mdp()
      >>> algorithm = frl.fedtd(mdp, learning_rate=0.1, sync_period=10)
      >>> algorithm.replace(control_variates=True).config.control_variates
      True
    """
    direction, corrects = _DIRECTIONS[config.sampling], config.control_variates

    def first(key, params):
        state = params["initial_state"]
        if "start" in params:
            state = outcome_of_row(streams.bits(key), params["start"])
        theta = params["initial"]
        nothing = (jnp.zeros_like(theta), jnp.zeros(())) if corrects else ((), ())
        return Agent(theta, jnp.asarray(state, jnp.int32), *nothing)

    def step(key, agent, params):
        own = linear_td.Environment(*(params[name] for name in linear_td.Environment._fields))
        g, state = direction(key, agent, own, params)
        rate = params["learning_rate"]
        if corrects:
            # K rate of the recursion; a sum, because the rate may follow time.
            agent = agent._replace(length=agent.length + rate)
            g = g + agent.control
        return agent._replace(parameters=agent.parameters + rate * g, state=state)

    def adopt(agent, model, params):
        del params
        if not corrects:
            return agent._replace(parameters=model)
        # A schedule may have fallen to 0, where nobody has moved.
        moved = agent.length > 0
        change = (model - agent.parameters) / jnp.where(moved, agent.length, 1)
        control = agent.control + jnp.where(moved, change, 0)
        return Agent(model, agent.state, control, jnp.zeros_like(agent.length))

    def error(theta, params):
        return jnp.sum((theta - params["reference"]) ** 2)

    def measure(population, params, state) -> dict:
        local = per_agent_in_turns(error, population, params, state.agents.parameters)
        return {
            "error_server": per_federation(error, params, state.server),
            "error_local_mean": population.mean(local),
            "error_local": local,
        }

    share = lambda agent: agent.parameters
    return Learner(first, (Steps(step), average(config, share, adopt)), measure, share=share)
