"""Properties of the policy gradients whose agents make H local steps a round."""

from __future__ import annotations

import dataclasses
from typing import Any

from fedjax_rl import fields
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.records import Network, Varied
from fedjax_rl.envs.family_optimum import optimum_of
from fedjax_rl.federation.ledger import Wire
from fedjax_rl.federation.state import Params
from fedjax_rl.fields import is_number
from fedjax_rl.fields.record import nested, record, static, traced
from fedjax_rl.learners import policy_gradient as learner

GRADIENTS = ("sampled", "exact", "truncated")


@record
class LocalGradient(Varied):
    """Properties of every policy gradient with local steps.

    Attributes:
      learning_rate: eta of a local step, above 0. By default what suits a table or a network.
      local_steps: H, at least 1.
      episodes_per_step: B, episodes of an agent for one gradient, at least 1.
      gradient: "sampled" from episodes, "exact" (tables: of the whole discounted future) or
        "truncated" (tables: exact, of the steps of an episode).
      estimator: "gpomdp" (every action is credited with what comes after it) or "reinforce" (with
        the whole return).
      discount_weight: whether step t of gpomdp counts discount^t, as the gradient of the
        discounted return has it.
      baseline: subtracted from the returns: "none", "state_mean" (tables), "batch_mean" or
        "linear" (regression on the observation and the time). By default "batch_mean" with a
        network and several episodes, which is biased by 1/B; "none" otherwise.
      normalize: whether the advantages of a batch are standardised.
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

    learning_rate: Any = traced(None, fields.POSITIVE.or_none(), by_policy=(0.05, 0.0005))
    local_steps: int = static(10, fields.whole(1, follows=True))
    episodes_per_step: int = static(1, fields.COUNT)
    gradient: str = static("sampled", fields.word(GRADIENTS))
    estimator: str = static("gpomdp", fields.word(learner.ESTIMATORS))
    discount_weight: bool = static(True, fields.switch())
    baseline: str | None = static(None, fields.word(learner.BASELINES).or_none())
    normalize: bool = static(False, fields.switch())
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
        if self.baseline == "batch_mean" and self.episodes_per_step == 1:
            raise ValueError(
                "baseline is batch_mean with episodes_per_step 1, which leaves nothing to learn "
                "from; allowed: episodes_per_step of at least 2"
            )

    @property
    def is_table(self) -> bool:
        """Whether the policy is a table."""
        return self.policy == "table" or (self.policy is None and self.task.num_states is not None)

    @property
    def regularised(self) -> bool:
        """Whether the entropy has to be computed at all."""
        return not is_number(self.entropy) or bool(self.entropy != 0)

    def resolved(self):
        """With the defaults of a table, or of a network."""
        missing = {
            field.name: field.metadata["by_policy"][0 if self.is_table else 1]
            for field in dataclasses.fields(self)
            if "by_policy" in field.metadata and getattr(self, field.name) is None
        }
        return dataclasses.replace(self, **missing) if missing else self

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
