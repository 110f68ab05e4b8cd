r"""FedAPG: analytic policy gradients, averaged over a federation.

Where the step of an environment has a derivative, an episode has one: with what is drawn held
fixed, an action is a smooth function of the parameters, and so is the return. In a round every
agent makes H steps from the server's parameters,

    theta <- theta + eta d/dtheta 1/B \sum_b G_b(theta),

G_b the discounted return of the b-th of B fresh episodes, and the server moves along the mean
change. Of smooth systems these estimates have a variance that is smaller by orders of magnitude
than that of likelihood ratios (`fedpg`), as they say how every entry of an action matters, not
only how a return compares with others. Where contacts make steps stiff, or systems are chaotic,
derivatives over many steps grow without bound: `truncation` cuts them, with a bias, and
`gradient_clip` bounds them. What does not follow a path is left out: that an episode ends by its
state, and who touches what.

* Freeman et al., *Brax: A Differentiable Physics Engine for Large Scale Rigid Body Simulation*,
  arXiv 2106.13281, section 4.3: analytic policy gradients.
* Suh, Simchowitz, Zhang and Tedrake, *Do Differentiable Simulators Give Better Policy Gradients?*,
  arXiv 2202.00817: what their variance and their bias are.
* Xu et al., *Accelerated Policy Learning with Parallel Differentiable Simulation*, arXiv
  2204.07137: derivatives that are cut, there with a critic behind every cut.
* McMahan et al., arXiv 1602.05629: local steps and averaging; Reddi et al., arXiv 2003.00295:
  optimisers at the server.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_rl import fields
from fedjax_rl.algorithms import episodic, local_metrics
from fedjax_rl.algorithms.define import Learner, algorithm
from fedjax_rl.algorithms.local_gradient import gradients_of, learner_of, local_steps, moving
from fedjax_rl.algorithms.local_gradient_properties import Ascent
from fedjax_rl.algorithms.observed import Observations
from fedjax_rl.algorithms.oracle import Oracle
from fedjax_rl.algorithms.records import GradientOptimizer, Network, Varied
from fedjax_rl.envs.tabular_tasks import task_of
from fedjax_rl.envs.task import Continuous
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.ledger import Wire
from fedjax_rl.federation.state import per_agent
from fedjax_rl.fields import is_number
from fedjax_rl.fields.record import nested, record, static, traced
from fedjax_rl.learners import optimizers
from fedjax_rl.learners.observations import joined
from fedjax_rl.learners.path_policies import Smooth, smooth_policy
from fedjax_rl.rollouts.paths import differentiable_episodes

ACTIONS = ("mean", "drawn")
# Nothing is weighed by importance here.
_OTHERS = ("weight_mean", "weight_max", "overflows")


@record
class FedAPG(Ascent, Varied):
    """Properties of FedAPG; see also `Ascent`.

    Attributes:
      learning_rate: eta of a local step, above 0.
      local_steps: H, at least 1.
      episodes_per_step: B, episodes of an agent for one gradient, at least 1.
      truncation: steps after which derivatives are cut; None for those of whole episodes.
      gradient_clip: largest norm of a gradient, above 0; may be infinite.
      local_optimizer: of an agent's steps within a round; "sgd" goes along the gradient.
      actions: "mean" (what the network says) or "drawn" (with normal noise, whose deviation is
        learned). Bounded actions are tanh of either.
      deviation: first standard deviation of the noise, above 0.
      network: of the policy; `hidden=()` is an affine one.
      observations: what policies see.
      evaluation_episodes: per agent and record, at least 1.
      wire: the format of messages.
    """

    learning_rate: Any = traced(0.003, fields.POSITIVE)
    local_steps: int = static(10, fields.whole(1, follows=True))
    episodes_per_step: int = static(4, fields.COUNT)
    truncation: int | None = static(None, fields.COUNT.or_none())
    gradient_clip: Any = traced(math.inf, fields.number(0, above=True, infinite=True))
    local_optimizer: GradientOptimizer = nested(GradientOptimizer)
    actions: str = static("mean", fields.word(ACTIONS))
    deviation: float = static(0.3, episodic.DEVIATION)
    network: Network = nested(Network, hidden=(32, 32))
    observations: Observations = nested(Observations)
    evaluation_episodes: int = static(10, fields.COUNT)
    wire: Wire = nested(Wire)

    # A policy of a table has no path.
    is_table = False

    def check(self) -> None:
        """Refuses tasks without a path, and properties that do not fit together."""
        super().check()
        check_path(self.task)
        self.make_policy()

    @property
    def clips(self) -> bool:
        """Whether gradients have to be measured at all."""
        return not (is_number(self.gradient_clip) and self.gradient_clip == math.inf)

    def static(self) -> tuple:
        """Besides the task whether gradients are clipped."""
        return *super().static(), self.clips

    def make_policy(self) -> Smooth:
        """The policy of all agents."""
        own = self.network
        deviation = float(self.deviation) if self.actions == "drawn" else None
        return smooth_policy(self.task, own.hidden, own.activation, own.initializer, deviation)


def check_path(task) -> None:
    """Refuses a task through whose steps nothing can be differentiated.

    Raises:
      ValueError: naming the task and why.
    """
    if not isinstance(task.action, Continuous):
        why = f"whose {task.action.num} actions are discrete"
    elif not getattr(task.env, "reversible", True):
        why = "whose physics has loops that cannot be differentiated in reverse"
    elif not hasattr(task.env, "reversible") and not _reversible(task):
        why = "whose step cannot be differentiated in reverse"
    else:
        return
    raise ValueError(
        f"task is {task.name}, {why}; allowed: continuous actions and a smooth step, such as "
        "envs.lqr() or gymnax/Pendulum-v1"
    )


def _reversible(task) -> bool:
    """Whether JAX can trace the derivative of a step; environments of anybody may have loops."""

    def reward(action, key, state):
        observation, new, reward, *_ = task.env.step(key, state, action, task.params)
        floats = [x for x in jax.tree.leaves((observation, new)) if jnp.issubdtype(x.dtype, float)]
        return reward + sum(jnp.sum(x).astype(reward.dtype) for x in floats)

    def derivative(key):
        action = jnp.zeros(task.action.size, jnp.float32)
        _, state = task.env.reset(key, task.params)
        return jax.grad(reward)(action, key, state)

    try:
        jax.eval_shape(derivative, jax.random.key(0))
    except Exception:  # whatever somebody's own code does
        return False
    return True


class PathOracle(Oracle):
    """Gradients of all agents through their episodes."""

    # What is measured is differentiated, too.
    evaluation_loop = "scan"

    def __init__(self, config: FedAPG) -> None:
        """Takes the static properties, resolved."""
        self.config, self.task = config, config.task
        self.policy = config.make_policy()
        self.critic = None
        self.observations = config.observations

    def gradients(self, population, params, keys, parameters, kept, count, differentiable):
        """Gradients of all agents at their own parameters, as of `Oracle`."""
        del population, differentiable
        observes = self.observations.normalize != "none"

        def total(parameters):
            policy, own = self.player(parameters, kept.normalizer if observes else None)
            made = differentiable_episodes(
                self.task,
                policy,
                keys,
                own,
                count,
                environment=self.own(params),
                truncation=self.config.truncation,
                observes=observes,
            )
            # An agent's return knows its own parameters alone: of the sum, each has its gradient.
            return jnp.sum(jnp.mean(made.value, axis=1)), made

        gradients, made = jax.grad(total, has_aux=True)(parameters)
        seen = kept.statistics
        statistics = seen._replace(
            value=seen.value + jnp.sum(made.value, axis=1),
            episodes=seen.episodes + count,
            steps=seen.steps + jnp.sum(made.steps, axis=1, dtype=jnp.uint32),
        )
        after = kept._replace(statistics=statistics)
        if observes:
            own = joined(kept.observed.own, made.observed)
            after = after._replace(observed=kept.observed._replace(own=own))
        return gradients, after


def metrics_of(config: FedAPG) -> dict:
    """Those of policy gradients with local steps, but for importance weights."""
    return {n: x for n, x in local_metrics.metrics_of(config).items() if n not in _OTHERS}


def sampled(config: FedAPG) -> str | None:
    """Why a derivative is wrong: what is drawn follows the path, but who ends when does not."""
    endless = getattr(config.task.env, "endless", False)
    return None if endless else "an episode may end by a state that follows from what is learned"


@algorithm(
    FedAPG,
    environments=("task",),
    metrics=metrics_of,
    unit="round",
    headline="return",
    sampled=sampled,
    adapt=task_of,
)
def fedapg(config: FedAPG) -> Learner:
    """FedAPG: local steps along derivatives through episodes, and averaging.

    Example:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedapg(frl.envs.lqr(), network={"hidden": ()}, local_steps=5)
      >>> algorithm.config.make_policy().num_parameters, algorithm.headline
      (3, 'return')
    """
    oracle = PathOracle(config)

    def direction(population, params, state, models, now, keys, place, differentiable):
        gradients, kept = gradients_of(oracle, population, params, keys, now, differentiable)

        def bounded(gradient, params):
            return optimizers.bounded(gradient, params["gradient_clip"])[0]

        if config.clips:
            # Where nothing is, the derivative of a norm at 0 would be nan.
            gradients = per_agent(bounded, population, params, gradients)
        return gradients, now._replace(oracle=kept)

    link = Exchange(
        message=lambda agent, broadcast, params: agent.change,
        server=moving(config),
        broadcast=lambda model: model.parameters,
        dedicated_server=True,
    )
    learner = learner_of(oracle, local_steps(oracle, direction), link)

    def measure(population, params, state) -> dict:
        made = learner.measure(population, params, state)
        return {name: value for name, value in made.items() if name not in _OTHERS}

    return learner._replace(measure=measure)
