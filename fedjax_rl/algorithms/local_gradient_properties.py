"""Properties of the policy gradients whose agents make H local steps a round."""

from __future__ import annotations

import dataclasses
from typing import Any

from fedjax_rl import fields
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.observed import Observations
from fedjax_rl.algorithms.records import (
    GradientOptimizer,
    Network,
    Optimizer,
    Varied,
    of_policy,
    resolved_by_policy,
)
from fedjax_rl.envs.family_optimum import optimum_of
from fedjax_rl.federation.ledger import Wire
from fedjax_rl.federation.state import Params
from fedjax_rl.fields import is_number
from fedjax_rl.fields.record import Record, nested, record, static, traced
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.learners.critic import ValueNetwork
from fedjax_rl.networks import MLP
from fedjax_rl.networks.mlp import INITIALIZERS

MOMENTS = ("reset", "local")
GRADIENTS = ("sampled", "exact", "truncated")
BASELINES = (*learner.BASELINES, learner.CRITIC)


@record
class Critic(Network):
    """A value of an agent's own, of the observation and the time, which its estimates subtract.

    It is personal: fitted by every agent to its own episodes, after the estimates that are made of
    them, it is not sent and costs no message. Its inputs and returns are normalised by the moments
    of all that it has seen; see `learners.critic`. It follows the policy with a delay: plain local
    steps of a rate that is fine with the mean of a batch may be too long, those of standardised
    advantages (`normalize`) or of Adam are not.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> algorithm = frl.fedpg(task, baseline="critic", critic={"gae_lambda": 1.0})
      >>> algorithm.config.critic.hidden
      (32, 32)

    Attributes:
      hidden: units in each hidden layer of its network.
      activation: of the hidden units, "tanh" or "relu".
      initializer: as of `Network`.
      learning_rate: of its optimiser, which is Adam, above 0.
      steps: of it, on all episodes of a gradient together, at least 1.
      gae_lambda: lambda of the advantages, in [0, 1]; 1 has no bias, less of it less variance.
    """

    hidden: tuple[int, ...] = static((32, 32), fields.sizes())
    initializer: str = static("orthogonal", fields.word(INITIALIZERS))
    learning_rate: Any = traced(0.003, fields.POSITIVE)
    steps: int = static(10, fields.COUNT)
    gae_lambda: Any = traced(0.97, fields.PROBABILITY)


@record
class LocalGradient(Varied):
    """Properties of every policy gradient with local steps.

    Attributes:
      learning_rate: eta of a local step, above 0. By default what suits a table or a network.
      local_steps: H, at least 1.
      episodes_per_step: B, episodes of an agent for one gradient, at least 1. By default 1 with a
        table and 4 with a network.
      gradient: "sampled" from episodes, "exact" (tables: of the whole discounted future) or
        "truncated" (tables: exact, of the steps of an episode).
      estimator: "gpomdp" (every action is credited with what comes after it) or "reinforce" (with
        the whole return).
      discount_weight: whether step t of gpomdp counts discount^t, as the gradient of the
        discounted return has it.
      baseline: subtracted from the returns: "none", "state_mean" (tables), "batch_mean" or
        "linear" (regression on the observation and the time) or "critic" (a value that the agent
        learns). By default "batch_mean" with a network and several episodes, which is biased by
        1/B; "none" otherwise.
      critic: of the baseline "critic".
      normalize: whether the advantages of a batch are standardised. By default with a network: its
        gradients are then of one size at returns of 10 and of 500.
      observations: what policies see; a critic normalises for itself.
      entropy: tau, weight of the policy's entropy in the reward, at least 0.
      policy: "table" (softmax of one preference per state and action, zeros at first) or "mlp" (a
        network: softmax for discrete actions, Gaussian for continuous ones). By default the table
        where there is one.
      network: of the policy "mlp".
      deviation: first standard deviation of continuous actions, above 0; it is learned.
      evaluation_episodes: per agent and record, where J is not known exactly; at least 1.
      loop: of the episodes, "while" or "scan".
      wire: the format of messages.
    """

    learning_rate: Any = traced(None, fields.POSITIVE.or_none(), by_policy=(0.05, 0.005))
    local_steps: int = static(10, fields.whole(1, follows=True))
    episodes_per_step: int | None = static(None, fields.COUNT.or_none(), by_policy=(1, 4))
    gradient: str = static("sampled", fields.word(GRADIENTS))
    estimator: str = static("gpomdp", fields.word(learner.ESTIMATORS))
    discount_weight: bool = static(True, fields.switch())
    baseline: str | None = static(None, fields.word(BASELINES).or_none())
    critic: Critic = nested(Critic)
    normalize: bool | None = static(None, fields.switch().or_none(), by_policy=(False, True))
    observations: Observations = nested(Observations)
    # J* depends on it, which is computed once.
    entropy: Any = traced(0.0, fields.NOT_NEGATIVE, scheduled=False)
    policy: str | None = static(None, fields.word(learner.POLICIES).or_none())
    network: Network = nested(Network)
    deviation: float = static(1.0, episodic.DEVIATION)
    evaluation_episodes: int = static(10, fields.COUNT)
    loop: str = static("while", episodic.LOOP)
    wire: Wire = nested(Wire)

    def check(self) -> None:
        """Refuses properties that do not fit together."""
        super().check()
        task = self.task
        self.make_policy()
        if self.gradient != "sampled" and not (task.tabular and self.is_table):
            raise ValueError(
                f"gradient is {self.gradient} on {task.name} with the policy "
                f"{'table' if self.is_table else 'mlp'}; allowed: sampled, or a tabular MDP with "
                "the policy table"
            )
        if self.baseline == "state_mean" and task.num_states is None:
            raise ValueError(
                f"baseline is state_mean on {task.name}; allowed: where observations are states"
            )
        if self.baseline == "batch_mean" and self.of_policy("episodes_per_step") == 1:
            raise ValueError(
                "baseline is batch_mean with episodes_per_step 1, which leaves nothing to learn "
                "from; allowed: episodes_per_step of at least 2"
            )
        if self.observations.normalize != "none" and task.num_states is not None:
            raise ValueError(
                f"observations.normalize is {self.observations.normalize} on {task.name}, whose "
                "observations are states; allowed: none"
            )
        for name, allowed in (("estimator", "gpomdp"), ("gradient", "sampled")):
            if self.baseline == learner.CRITIC and getattr(self, name) != allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)} with baseline critic; allowed: {allowed}"
                )

    @property
    def is_table(self) -> bool:
        """Whether the policy is a table."""
        return self.policy == "table" or (self.policy is None and self.task.num_states is not None)

    @property
    def local_rule(self) -> str | None:
        """The optimiser of local steps; None where they go along the gradient."""
        return None

    @property
    def keeps_moments(self) -> bool:
        """Whether an agent goes on with the moments of its local optimiser."""
        return False

    @property
    def regularised(self) -> bool:
        """Whether the entropy has to be computed at all."""
        return not is_number(self.entropy) or bool(self.entropy != 0)

    def of_policy(self, name: str):
        """A property, or its default of a table or of a network."""
        return of_policy(self, name, self.is_table)

    def with_defaults(self):
        """With the defaults of a table, or of a network."""
        return resolved_by_policy(self, self.is_table)

    def make_policy(self) -> learner.Policy:
        """The policy of all agents."""
        return learner.policy_for(
            self.task,
            self.policy,
            hidden=self.network.hidden,
            activation=self.network.activation,
            initializer=self.network.initializer,
            deviation=self.deviation,
        )

    def make_advantages(self) -> learner.AdvantageRule:
        """How advantages are made of the rewards of an episode."""
        several = not self.is_table and self.episodes_per_step > 1
        return learner.AdvantageRule(
            estimator=self.estimator,
            baseline=self.baseline or ("batch_mean" if several else "none"),
            discount_weight=self.discount_weight,
            num_states=self.task.num_states,
            normalize=self.normalize,
        )

    def make_critic(self) -> ValueNetwork | None:
        """What an agent's states are worth; None without a critic."""
        if self.baseline != learner.CRITIC:
            return None
        own = self.critic
        network = MLP((self.task.observation_size + 1, *own.hidden, 1), own.activation)
        return ValueNetwork(network, self.task.encode, self.task.max_steps, own.initializer)

    def static(self) -> tuple:
        """Besides the task whether the entropy is computed."""
        return *super().static(), self.regularised

    def derived(self, num_agents: int) -> Params:
        """The agents' environments and, on tables, J* with and without entropy."""
        own = super().derived(num_agents)
        if not self.task.tabular:
            return own
        mdps = own.agent["environment"]
        best = {"optimum": optimum_of(mdps, self.entropy)}
        if self.regularised:
            # With the bonus is what is climbed; without is what compares between weights of it.
            best["plain_optimum"] = optimum_of(mdps)
        return Params(own.agent, {**own.federation, **best}, {})


@record
class Ascent(Record):
    """Optimisers of local steps and of a server that moves along the mean change.

    Whatever that was made of. Not so where a change divided by the learning rate stands for a
    gradient, as in a momentum or a control variate.

    Attributes:
      local_optimizer: of an agent's steps within a round; "sgd" goes along the gradient.
      local_moments: its moments at the beginning of a round: "reset" (as of nothing) or "local"
        (each agent goes on with its own).
      optimizer: of the server: "sgd" (the mean change, times the server's learning rate),
        "momentum" (FedAvgM) or "adam" (FedAdam).
      server_learning_rate: of the server's optimiser, above 0. By default 1, and 0.1 for momentum
        with a network, whose steps are then in the end as long as without.
    """

    local_optimizer: GradientOptimizer = nested(GradientOptimizer, name="sgd")
    local_moments: str = static("reset", fields.word(MOMENTS))
    optimizer: Optimizer = nested(Optimizer)
    server_learning_rate: Any = traced(None, fields.POSITIVE.or_none())

    def with_defaults(self):
        """With the server's learning rate that fits."""
        own = super().with_defaults()
        if own.server_learning_rate is not None:
            return own
        slow = self.optimizer.name == "momentum" and not self.is_table
        return dataclasses.replace(own, server_learning_rate=0.1 if slow else 1.0)

    @property
    def local_rule(self) -> str | None:
        """The optimiser of local steps; None where they go along the gradient."""
        return None if self.local_optimizer.name == "sgd" else self.local_optimizer.name

    @property
    def keeps_moments(self) -> bool:
        """Whether an agent goes on with the moments of its local optimiser."""
        return self.local_rule is not None and self.local_moments == "local"


@record
class LocalAscent(Ascent, LocalGradient):
    """Properties of those whose local steps may be any optimiser's; see the two."""
