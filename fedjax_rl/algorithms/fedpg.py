r"""FedPG: local policy gradient steps and averaging, with and without the usual remedies.

In a round every agent makes H steps from the server's parameters,

    theta <- theta + eta (g_i(theta) + c - c_i - mu (theta - theta_server)),

and the server moves along the mean change. Without control variates (c = c_i = 0) the fixed point
is biased where environments differ and H > 1: there, to first order in eta H,

    grad J = - eta (H - 1) / 2 * 1/N \sum_i grad^2 J_i grad J_i.

* McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized Data*,
  arXiv 1602.05629: local steps and averaging.
* Karimireddy et al., *SCAFFOLD*, arXiv 1910.06378: control variates kept from round to round,
  option II.
* Li et al., *Federated Optimization in Heterogeneous Networks*, arXiv 1812.06127: FedProx, the
  term with mu.
* Reddi et al., *Adaptive Federated Optimization*, arXiv 2003.00295; Hsu et al., arXiv 1909.06335:
  FedAdam and FedAvgM, optimisers at the server.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from fedjax_rl import fields
from fedjax_rl.algorithms.define import Learner, variant
from fedjax_rl.algorithms.local_gradient import (
    gradients_of,
    learner_of,
    local_steps,
    mean_direction,
    moving,
    policy_gradient,
)
from fedjax_rl.algorithms.local_gradient_properties import LocalAscent
from fedjax_rl.algorithms.oracle import Oracle
from fedjax_rl.federation.aggregators import Aggregate, mean, part_of_all
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import per_agent
from fedjax_rl.federation.uplinks import MessageSpec
from fedjax_rl.fields.record import record, static, traced

CORRECTIONS = ("none", "scaffold")


@record
class FedPG(LocalAscent):
    """Properties of FedPG; see also `LocalAscent`.

    Attributes:
      correction: of the local gradients: "none" or "scaffold" (control variates).
      proximal: mu of FedProx, at least 0.
    """

    correction: str = static("none", fields.word(CORRECTIONS))
    proximal: Any = traced(0.0, fields.NOT_NEGATIVE)

    def check(self) -> None:
        """Refuses properties that do not fit together."""
        super().check()
        if self.correction == "scaffold" and self.local_rule is not None:
            raise ValueError(
                f"local_optimizer.name is {self.local_rule} with correction scaffold, "
                "whose control variates are changes over learning rates; allowed: sgd"
            )


def controlled(population, message, sent, weight, context) -> Aggregate:
    """The mean change of those who count; what the mean of *all* control variates changes by.

    Args:
      population: who belongs to whom.
      message: changes and changes of control variates, [A, q] each.
      sent: bool [A], or None for all.
      weight: of the agents, as `mean` takes it.
      context: says which part of all members was heard.

    Returns:
      Two of [F, q], and which of the first are there.
    """
    change, control = message
    total = mean(population, change, sent, weight)
    return Aggregate((total.value, part_of_all(population, control, context)), total.present)


def server_of(config: FedPG) -> ServerStep:
    """Moves along the mean change, and the control variate with the mean of the agents'."""
    move = moving(config)

    def step(model, state, total, params):
        change, control = total
        model, state = move.step(model, state, change, params)
        return model._replace(correction=model.correction + control), state

    return move._replace(step=step) if config.correction == "scaffold" else move


# The difference to what the server knows of an agent's control variate is told anew every time.
SPEC = MessageSpec(owed=lambda numbers: (numbers[0], jnp.zeros_like(numbers[1])))


@policy_gradient(FedPG)
def fedpg(config: FedPG) -> Learner:
    """FedPG: local policy gradient steps, and averaging.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(4), max_steps=20)
      >>> algorithm = frl.fedpg(task, local_steps=10, gradient="exact")
      >>> algorithm.headline
      'gap'
    """
    oracle = Oracle(config)
    corrects = config.correction == "scaffold"

    def direction(population, params, state, models, now, keys, place, differentiable):
        gradients, kept = gradients_of(oracle, population, params, keys, now, differentiable)

        def corrected(gradient, parameters, agent, model, params):
            pull = params["proximal"] * (parameters - model.parameters)
            return gradient + model.correction - agent.memory - pull

        moves = per_agent(
            corrected, population, params, gradients, now.parameters, state.agents, models
        )
        return moves, now._replace(oracle=kept)

    def propose(agent, model, params):
        # Option II of SCAFFOLD, uphill: c_i - c + (theta_i - theta) / (H eta).
        return agent.memory - model.correction + mean_direction(config, agent.change, params)

    def message(agent, broadcast, params):
        return agent.change, agent.proposal - agent.memory

    def acknowledge(agent, told, params):
        # By what the server heard: its mean must stay that of these.
        memory = agent.proposal if told is None else agent.memory + told[1]
        return agent._replace(memory=memory)

    link = Exchange(
        message=message if corrects else lambda agent, broadcast, params: agent.change,
        acknowledge=acknowledge if corrects else None,
        aggregate=controlled if corrects else mean,
        server=server_of(config),
        broadcast=lambda model: (
            (model.parameters, model.correction) if corrects else model.parameters
        ),
        spec=SPEC if corrects else MessageSpec(),
        dedicated_server=True,
    )
    work = local_steps(oracle, direction, propose if corrects else None)
    return learner_of(oracle, work, link)


scaffold_pg = variant(
    fedpg,
    "scaffold_pg",
    """FedPG with control variates.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(4), max_steps=20)
      >>> frl.scaffold_pg(task, local_steps=10).config.correction
      'scaffold'
    """,
    correction="scaffold",
)
fedprox_pg = variant(
    fedpg,
    "fedprox_pg",
    """FedPG that holds the agents near the server's model.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(4), max_steps=20)
      >>> frl.fedprox_pg(task, proximal=0.5).config.proximal
      0.5
    """,
    proximal=0.1,
)
fedavgm_pg = variant(
    fedpg,
    "fedavgm_pg",
    """FedPG with momentum at the server.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(4), max_steps=20)
      >>> algorithm = frl.fedavgm_pg(task, **{"optimizer.momentum": 0.5})
      >>> algorithm.config.optimizer
      Optimizer(name='momentum', momentum=0.5)
    """,
    optimizer="momentum",
)
fedadam_pg = variant(
    fedpg,
    "fedadam_pg",
    """FedPG with Adam at the server.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(4), max_steps=20)
      >>> frl.fedadam_pg(task).config.optimizer.name
      'adam'
    """,
    optimizer="adam",
    # A step of Adam is as long as its rate, whatever the change was.
    server_learning_rate=0.01,
)
