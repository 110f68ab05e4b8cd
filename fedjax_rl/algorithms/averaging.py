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
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_rl import fields, rounding, streams
from fedjax_rl.algorithms import held_out
from fedjax_rl.algorithms.define import Learner, algorithm
from fedjax_rl.algorithms.records import Varied
from fedjax_rl.envs import objective
from fedjax_rl.envs.family_optimum import optimum_of
from fedjax_rl.envs.tabular_tasks import task_of
from fedjax_rl.envs.task import Task
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.ledger import Wire
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.fields.record import environment, host, nested, record, static, traced
from fedjax_rl.names import brief

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


def _is_table(value) -> bool:
    """Whether a value is "random" or an array [S, U] of real numbers."""
    if isinstance(value, str):
        return value == "random"
    array = fields.real_array(value)
    return array.ndim == 2 and bool(np.isfinite(array).all())


@record
class Averaging(Varied):
    """Properties of QAvg and PAvg.

    Attributes:
      task: tabular; a family gives each agent its own.
      learning_rate: eta, above 0; of QAvg at most 1.
      local_steps: H, at least 1.
      initial: where the server's table begins, [S, U]; "random" draws action values from N(0, 1)
        and policies uniformly from the simplex; by default values are 0 and policies uniform.
      wire: the format of messages.
    """

    task: Task = environment(TABULAR, by="host")
    learning_rate: Any = traced(0.1, fields.POSITIVE)
    local_steps: int = static(10, fields.whole(1, follows=True))
    initial: Any = host(
        None, fields.anything("'random' or real numbers [S, U]", _is_table, optional=True)
    )
    wire: Wire = nested(Wire)

    @property
    def shape(self) -> tuple[int, int]:
        """S and U."""
        return self.task.num_states, self.task.num_actions

    def check(self) -> None:
        """Refuses tables of another shape."""
        super().check()
        table = not isinstance(self.initial, str | None)
        if table and np.shape(self.initial) != self.shape:
            raise ValueError(
                f"initial is an array {list(np.shape(self.initial))} with {self.shape[0]} states "
                f"and {self.shape[1]} actions; allowed: {list(self.shape)}"
            )

    def static(self) -> tuple:
        """Besides the task where tables begin."""
        kind = self.initial if isinstance(self.initial, str | None) else "given"
        return *super().static(), kind

    def derived(self, num_agents: int) -> Params:
        """The agents' environments, J* and the first table if it is given."""
        own = super().derived(num_agents)
        federation = {**own.federation, "optimum": optimum_of(own.agent["environment"])}
        if not isinstance(self.initial, str | None):
            federation["initial"] = np.asarray(self.initial, np.float64)
        return Params(own.agent, federation, {})


@record
class QAvg(Averaging):
    """Properties of QAvg; see `Averaging`."""

    learning_rate: Any = traced(0.1, fields.number(0, 1, above=True))


@record
class PAvg(Averaging):
    """Properties of PAvg; see `Averaging`."""

    def check(self) -> None:
        """Refuses a first policy that is none."""
        super().check()
        if isinstance(self.initial, str | None):
            return
        rows = np.asarray(self.initial, np.float64)
        if (rows < 0).any() or not np.allclose(rows.sum(-1), 1, atol=1e-6):
            raise ValueError(
                f"initial is {brief(self.initial)}; allowed: a policy, rows of which sum to one"
            )


class Model(NamedTuple):
    """What a server knows.

    Attributes:
      table: [S, U], action values or a policy.
      change: [S, U], of the last round.
    """

    table: jax.Array
    change: jax.Array


def bellman(table, mdp, learning_rate) -> jax.Array:
    """One step of QAvg, [S, U]: towards what the Bellman operator makes of the values.

    Args:
      table: [S, U], action values.
      mdp: of the agent.
      learning_rate: eta in (0, 1].
    """
    following = jnp.max(table, axis=-1)
    target = jnp.sum(mdp.transition * (mdp.reward + mdp.discount * following[None, None]), axis=-1)
    return (1 - learning_rate) * table + learning_rate * target


def ascent(table, mdp, learning_rate) -> jax.Array:
    """One step of PAvg, [S, U]: uphill and back onto the simplex.

    Args:
      table: [S, U], a policy.
      mdp: of the agent.
      learning_rate: eta, above 0.
    """
    # The slope of J in the probabilities is d_i Q_i, the policy gradient theorem.
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


def _learner(config: Averaging) -> Learner:
    """What both have in common besides the step."""
    of_values = isinstance(config, QAvg)
    step, policy = (bellman, greedy) if of_values else (ascent, lambda table: table)
    uplink = config.transmits()

    def move(model, state, total, params):
        del params
        table = model.table + total
        if uplink.alters and not of_values:
            # A mean of policies is one; with changes that are compressed or old it need not be.
            table = onto_simplex(table)
        return Model(table, table - model.table if uplink.alters else total), state

    def learn(table, params):
        def one(table, _):
            return step(table, params["environment"], params["learning_rate"]), None

        # Changes rather than tables: an uplink may compress them, and they fade as learning ends.
        return jax.lax.scan(one, table, length=config.local_steps)[0] - table

    def work(population, params, state, differentiable):
        del differentiable
        changes = per_agent(learn, population, params, population.spread(state.server.table))
        # Environments are known: no step of one is made.
        nothing = jnp.zeros(population.num_agents, jnp.uint32)
        return dataclasses.replace(state, agents=changes), nothing

    def first_model(key, params):
        states, actions = config.shape
        table = jnp.zeros(config.shape) if of_values else jnp.full(config.shape, 1 / actions)
        if isinstance(config.initial, str):
            own = jax.random.fold_in(key, streams.Episodic.MODEL)
            if of_values:
                table = jax.random.normal(own, config.shape)
            else:
                table = jax.random.dirichlet(own, jnp.ones(actions), (states,))
        elif config.initial is not None:
            table = params["initial"]
        return Model(table, jnp.zeros(config.shape))

    def value(table, params):
        return objective.direct_value(params["environment"], policy(table))

    def measure(population, params, state) -> dict:
        values = per_agent(value, population, params, population.spread(state.server.table))
        change = jax.vmap(lambda x: jnp.sqrt(jnp.sum(x**2)))(state.server.change)
        if uplink.send is not None and uplink.silent != "remembered":
            # A server that has heard nobody is as it was, with the change of the round before.
            moved = population.sum(state.sent.messages) > 0
            change = jnp.where(moved, change, 0)
        unseen = {}
        if config.held_out.members:
            unseen = held_out.exactly(value, params, state.server.table)
        return {
            **unseen,
            "gap": params.federation["optimum"] - population.mean(values),
            "objective": population.mean(values),
            "change_norm": change,
            "objective_of_agent": values,
        }

    link = Exchange(
        message=lambda agent, broadcast, params: agent,
        server=ServerStep(lambda model: (), move),
        broadcast=lambda model: model.table,
        dedicated_server=True,
    )
    return Learner(
        lambda key, params: jnp.zeros(config.shape), (work, link), measure, model=first_model
    )


# Decorates `config -> Learner` with what is the same of both.
_of_both = functools.partial(
    algorithm,
    environments=("tabular", "mdp"),
    metrics=lambda config: {**METRICS, **held_out.metrics_of(config, exact=True)},
    unit="round",
    headline="gap",
    sampled=lambda config: None,
    adapt=task_of,
)


@_of_both(QAvg)
def qavg(config: QAvg) -> Learner:
    """Federated averaging of action values.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(4), max_steps=20)
      >>> frl.qavg(task, learning_rate=0.2, local_steps=4).headline
      'gap'
    """
    return _learner(config)


@_of_both(PAvg)
def pavg(config: PAvg) -> Learner:
    """Federated averaging of policies.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(4), max_steps=20)
      >>> frl.pavg(task, learning_rate=0.2, local_steps=4).headline
      'gap'
    """
    return _learner(config)
