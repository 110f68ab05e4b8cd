r"""QAvg and PAvg: tables that are improved where an agent lives, and averaged.

Every agent knows its own environment. In a round it makes H steps from the server's table,

    QAvg    Q <- (1 - eta) Q + eta (R_i + gamma P_i max_u Q),
    PAvg    pi <- projection onto the simplex of (pi + eta d_i Q_i^pi),

and the server takes the mean. Both end where no agent's own objective is best, nor their mean: the
baselines that averaging in different environments is measured against.

* Jin, Peng, Yang, Wang and Zhang, *Federated Reinforcement Learning with Environment
  Heterogeneity*, arXiv 2204.02634, Algorithms 1 and 2.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_rl import fields
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.properties import per_federation
from fedjax_rl.envs import objective
from fedjax_rl.envs.family_optimum import optimum_of
from fedjax_rl.envs.heterogeneity import LEVEL, PARTS, check_heterogeneity, environments_of
from fedjax_rl.envs.tabular_tasks import task_of
from fedjax_rl.envs.task import Task
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.derivatives import DERIVATIVE
from fedjax_rl.federation.exchange import Exchange, first_state
from fedjax_rl.federation.ledger import HEADER, WORD
from fedjax_rl.federation.rounds import rounds
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.fields import declared
from fedjax_rl.learners import rounding

METRICS = {
    "gap": ("federation", "J* - J of the server's policy, exact"),
    "objective": ("federation", "J of the server's policy, exact"),
    "change_norm": ("federation", "norm of the mean change of the last round"),
    "objective_of_agent": ("agent", "J_i of the server's policy, exact"),
}

TABULAR = fields.instance(
    Task,
    text="a tabular task, of which all is known, such as envs.dirichlet_mdps(4)",
    where=lambda task: task.tabular,
)


@dataclasses.dataclass(frozen=True)
class Averaging:
    """Properties of QAvg and PAvg.

    Attributes:
      task: tabular; a family gives each agent its own.
      learning_rate: eta, above 0; of QAvg at most 1.
      local_steps: H, at least 1.
      heterogeneity: level of the difference between the agents' environments, at least 0.
      heterogeneity_of: what differs, "rewards" or "kernels"; by default both.
      heterogeneity_seed: of the differences.
      uplink: who sends, or what, see `federation.uplinks`; by default everybody everything. Where
        it compresses policies, or goes on with old ones, the server takes the nearest policy.
      word_bytes: bytes of a number on the wire, 2, 4 or 8.
      header_bytes: bytes of every message besides.
      derivative: None, or "pathwise" to allow derivatives that leave out how
        an uplink chooses what it sends; see `federation.derivatives`.
    """

    task: Task = declared(allowed=TABULAR)
    learning_rate: Any = declared(0.1, fields.POSITIVE)
    local_steps: int = declared(10, fields.whole(1, follows=True))
    heterogeneity: Any = declared(0.0, LEVEL)
    heterogeneity_of: tuple[str, ...] | None = declared(None, PARTS)
    heterogeneity_seed: int = declared(0, fields.SEED)
    uplink: uplinks.Uplink | None = declared(None, episodic.UPLINK)
    word_bytes: int = declared(4, WORD)
    header_bytes: int = declared(0, HEADER)
    derivative: str | None = declared(None, DERIVATIVE, cli=False)


@dataclasses.dataclass(frozen=True)
class QAvg(Averaging):
    """Properties of QAvg; see `Averaging`."""

    learning_rate: Any = declared(0.1, fields.number(0, 1, above=True))


@dataclasses.dataclass(frozen=True)
class PAvg(Averaging):
    """Properties of PAvg; see `Averaging`."""


def qavg(task: Task, **values) -> Algorithm:
    """Federated averaging of action values; see `Averaging` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return _build("qavg", QAvg, qavg, task, values)


def pavg(task: Task, **values) -> Algorithm:
    """Federated averaging of policies; see `Averaging` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return _build("pavg", PAvg, pavg, task, values)


def _build(name, kind, factory, task, values) -> Algorithm:
    task = task_of(task)
    return episodic.build(
        name,
        kind,
        factory,
        task,
        values,
        check=_check,
        parameters=_parameters,
        functions=_functions,
        static=_static,
        metrics=METRICS,
        unit="round",
        headline="gap",
        sampled=lambda config: None,
    )


def _check(config: Averaging) -> None:
    check_heterogeneity(config)


def _parameters(config: Averaging, num_agents: int) -> Params:
    federation = per_federation(config, ("learning_rate",), num_agents)
    numbers = config.task.num_states * config.task.num_actions
    federation |= episodic.uplink_parameters(episodic.uplink_of(config), num_agents, numbers)
    mdps = environments_of(config, num_agents)
    federation["optimum"] = optimum_of(mdps)
    return Params({"environment": mdps}, federation, {})


def _static(config: Averaging) -> tuple:
    uplink = episodic.uplink_of(config).static
    return config.task.static, config.local_steps, uplink, episodic.wire_of(config)


class Model(NamedTuple):
    """What a server knows.

    Attributes:
      table: [S, U], action values or a policy.
      change: [S, U], of the last round.
    """

    table: jax.Array
    change: jax.Array


def bellman(table, mdp, learning_rate) -> jax.Array:
    """One step of QAvg, [S, U]: towards what the Bellman operator makes of the values."""
    following = jnp.max(table, axis=-1)
    target = jnp.sum(mdp.transition * (mdp.reward + mdp.discount * following[None, None]), axis=-1)
    return (1 - learning_rate) * table + learning_rate * target


def ascent(table, mdp, learning_rate) -> jax.Array:
    """One step of PAvg, [S, U]: uphill and back onto the simplex."""
    uphill = table + learning_rate * jax.grad(objective.direct_value, argnums=1)(mdp, table)
    return onto_simplex(uphill)


@jax.custom_jvp
def onto_simplex(table) -> jax.Array:
    """The nearest policy, [S, U]."""
    return _projected(table)


@onto_simplex.defjvp
def _along_simplex(primals, tangents):
    # Here rather than later, when the promotion may be another.
    with jax.numpy_dtype_promotion("standard"):
        return jax.jvp(_projected, primals, tangents)


def _projected(table) -> jax.Array:
    # Optax divides numbers by integers, which the strict promotion of a caller may refuse.
    with jax.numpy_dtype_promotion("standard"):
        return jax.vmap(optax.projections.projection_simplex)(table)


def greedy(table) -> jax.Array:
    """The policy [S, U] that takes the best action."""
    best = jnp.argmax(rounding.best_of(table), axis=-1)
    return jax.nn.one_hot(best, table.shape[-1], dtype=table.dtype)


def _functions(config: Averaging) -> Functions:
    of_values = isinstance(config, QAvg)
    step, policy = (bellman, greedy) if of_values else (ascent, lambda table: table)
    uplink = episodic.uplink_of(config)

    def move(model, memory, total, params):
        table = model.table + total
        if uplink.alters and not of_values:
            # A mean of policies is one; with changes that are compressed or old it need not be.
            table = onto_simplex(table)
        return Model(table, table - model.table if uplink.alters else total), memory

    link = Exchange(
        message=lambda agent, broadcast, params: agent,
        uplink=uplink,
        server=ServerStep(lambda model: (), move),
        broadcast=lambda model: model.table,
        wire=episodic.wire_of(config),
        dedicated_server=True,
    )

    def learn(table, params):
        def one(table, _):
            return step(table, params["environment"], params["learning_rate"]), None

        return jax.lax.scan(one, table, length=config.local_steps)[0] - table

    def work(population, params, state, differentiable):
        del differentiable
        changes = per_agent(learn, population, params, population.spread(state.server.table))
        nothing = jnp.zeros(population.num_agents, jnp.uint32)
        return dataclasses.replace(state, agents=changes), nothing

    drive = rounds(work, link)

    def init(population, params, keys):
        shape = (config.task.num_states, config.task.num_actions)
        table = jnp.zeros(shape) if of_values else jnp.full(shape, 1 / shape[1])
        server = Model(table, jnp.zeros(shape))
        server = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (population.num_federations, *shape)), server
        )
        agents = jnp.zeros((population.num_agents, *shape))
        return first_state(population, link, params, keys, agents, server, detailed=True)

    def measure(population, params, state) -> dict:
        def value(table, params):
            return objective.direct_value(params["environment"], policy(table))

        values = per_agent(value, population, params, population.spread(state.server.table))
        change = jax.vmap(lambda x: jnp.sqrt(jnp.sum(x**2)))(state.server.change)
        if uplink.send is not None and uplink.silent != "remembered":
            # A server that has heard nobody is as it was, with the change of the round before.
            moved = population.sum(state.sent.messages) > 0
            change = jnp.where(moved, change, 0)
        return {
            "gap": params.federation["optimum"] - population.mean(values),
            "objective": population.mean(values),
            "change_norm": change,
            "objective_of_agent": values,
        }

    return Functions(init, drive.round, drive.advance, measure)
