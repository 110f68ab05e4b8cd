"""FedAC: one-step tabular actor-critic, averaged after every K steps (Sutton and Barto, 13.5)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import envs, fields
from fedjax_rl.algorithms import define as frl

RATE = fields.number(0, above=True, per_agent=True)


@frl.record
class FedAC(frl.Averaged):
    """Properties of federated actor-critic.

    Attributes:
      mdp: of every agent.
      learning_rate: of the policy, above 0, one for all agents or one for each.
      critic_rate: of the values, above 0, likewise.
    """

    mdp: envs.TabularMDP = frl.environment(fields.instance(envs.TabularMDP), by="shared")
    learning_rate: float = frl.traced(0.05, RATE, by="agent")
    critic_rate: float = frl.traced(0.1, RATE, by="agent")


class Agent(NamedTuple):
    """Preferences [S, U], values [S] and the state that it is in, int32."""

    logits: jax.Array
    values: jax.Array
    state: jax.Array


def step(key, agent, params):
    """An action, the TD error of what comes of it, and a step along it of policy and values."""
    (logits, values, state), mdp = agent, params["mdp"]
    act, move = jax.random.split(key)
    action = jax.random.categorical(act, logits[state])
    following = jax.random.categorical(move, jnp.log(mdp.transition[state, action]))
    reward = jnp.broadcast_to(mdp.reward, mdp.transition.shape)[state, action, following]
    error = reward + mdp.discount * values[following] - values[state]
    score = jax.nn.one_hot(action, logits.shape[1]) - jax.nn.softmax(logits[state])
    logits = logits.at[state].add(params["learning_rate"] * error * score)
    values = values.at[state].add(params["critic_rate"] * error)
    return Agent(logits, values, following.astype(state.dtype))


@frl.algorithm(FedAC, environments=("mdp",), metrics={"objective": ("federation", "J, exact")})
def fedac(config):
    """Federated actor-critic."""
    shape = config.mdp.num_states, config.mdp.num_actions
    first = lambda key, own: Agent(jnp.zeros(shape), jnp.zeros(shape[0]), jnp.int32(0))
    share = lambda agent: agent[:2]
    exchange = frl.average(config, share, lambda agent, model, own: Agent(*model, agent.state))
    value = lambda model, own: envs.objective.value(own["mdp"], model[0])
    measure = frl.of_servers(objective=value)
    return frl.Learner(first, (frl.Steps(step), exchange), measure, share=share)
