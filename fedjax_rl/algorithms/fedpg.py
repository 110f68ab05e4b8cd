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

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_rl import fields
from fedjax_rl.algorithms import episodic, local_gradient
from fedjax_rl.algorithms.local_gradient import LocalGradient, Oracle, mean_direction
from fedjax_rl.envs.task import Task
from fedjax_rl.federation.aggregators import Aggregate, mean, part_of_all
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import per_agent
from fedjax_rl.federation.uplinks import MessageSpec
from fedjax_rl.fields import declared

CORRECTIONS = ("none", "scaffold")


@dataclasses.dataclass(frozen=True)
class FedPG(LocalGradient):
    """Properties of FedPG; see also `LocalGradient`.

    Attributes:
      correction: of the local gradients: "none" or "scaffold" (control variates).
      proximal: mu of FedProx, at least 0.
      optimizer: of the server: "sgd" (the mean change, times the server's learning rate),
        "momentum" (FedAvgM) or "adam" (FedAdam: 0.9, 0.999, 1e-8).
      server_learning_rate: alpha, above 0.
      server_momentum: of the optimiser "momentum", in [0, 1].
    """

    correction: str = declared("none", fields.word(CORRECTIONS))
    proximal: Any = declared(0.0, fields.NOT_NEGATIVE)
    optimizer: str = declared("sgd", fields.word(episodic.OPTIMIZERS))
    server_learning_rate: Any = declared(1.0, fields.POSITIVE)
    server_momentum: Any = declared(0.9, fields.PROBABILITY)


def fedpg(task: Task, **values) -> Algorithm:
    """FedPG; see `FedPG` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return local_gradient.build("fedpg", FedPG, fedpg, task, values, _PIECES)


def scaffold_pg(task: Task, **values) -> Algorithm:
    """FedPG with control variates.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return fedpg(task, **{"correction": "scaffold", **values})


def fedprox_pg(task: Task, **values) -> Algorithm:
    """FedPG that holds the agents near the server's model.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return fedpg(task, **{"proximal": 0.1, **values})


def fedavgm_pg(task: Task, **values) -> Algorithm:
    """FedPG with momentum at the server.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return fedpg(task, **{"optimizer": "momentum", **values})


def fedadam_pg(task: Task, **values) -> Algorithm:
    """FedPG with Adam at the server.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return fedpg(task, **{"optimizer": "adam", "server_learning_rate": 0.01, **values})


def controlled(population, message, sent, weight, context) -> Aggregate:
    """The mean change of those who count; what the mean of *all* control variates changes by."""
    change, control = message
    total = mean(population, change, sent, weight)
    return Aggregate((total.value, part_of_all(population, control, context)), total.present)


def server_of(config: FedPG) -> ServerStep:
    """Moves along the mean change, and the control variate with the mean of the agents'."""
    optimizer = episodic.optimizer_of(config)

    def init(model):
        return optimizer.init(model.parameters), jnp.zeros_like(model.parameters)

    def step(model, memory, total, params):
        memory, speed = memory
        change, control = total if config.correction == "scaffold" else (total, 0)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
            move, memory = optimizer.update(change, memory, model.parameters)
        if config.optimizer == "momentum":
            speed = params["server_momentum"] * speed + move
            move = speed
        model = model._replace(
            parameters=model.parameters + params["server_learning_rate"] * move,
            previous=model.parameters,
            direction=mean_direction(config, change, params),
            correction=model.correction + control,
        )
        return model, (memory, speed)

    return ServerStep(init, step)


# The difference to what the server knows of an agent's control variate is told anew every time.
SPEC = MessageSpec(owed=lambda numbers: (numbers[0], jnp.zeros_like(numbers[1])))


def _functions(config: FedPG) -> Functions:
    oracle = Oracle(config)
    corrects = config.correction == "scaffold"

    def direction(population, params, state, models, now, keys, place, differentiable):
        gradients, tally = oracle.gradients(
            population,
            params,
            keys,
            now.parameters,
            now.tally,
            config.episodes_per_step,
            differentiable,
        )

        def corrected(gradient, parameters, agent, model, params):
            pull = params["proximal"] * (parameters - model.parameters)
            return gradient + model.correction - agent.memory - pull

        moves = per_agent(
            corrected, population, params, gradients, now.parameters, state.agents, models
        )
        return moves, now._replace(tally=tally)

    def propose(agent, model, params):
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
        uplink=episodic.uplink_of(config),
        aggregate=controlled if corrects else mean,
        server=server_of(config),
        broadcast=lambda model: (
            (model.parameters, model.correction) if corrects else model.parameters
        ),
        spec=SPEC if corrects else MessageSpec(),
        wire=episodic.wire_of(config),
        dedicated_server=True,
    )
    work = local_gradient.local_steps(oracle, direction, propose if corrects else None)
    return local_gradient.assemble(oracle, work, link)


_PIECES = local_gradient.Pieces(
    names=("proximal", "server_learning_rate", "server_momentum"),
    static=lambda config: (config.correction, config.optimizer),
    functions=_functions,
    vectors=lambda config: 2 if config.correction == "scaffold" else 1,
)
