r"""Policy gradients from whole episodes: on the policy, off it, and differentiated once more.

Of N episodes of every agent, `advantages` says how much better than expected each action was, and

    g(theta) = 1/N \sum_n \sum_t c_{n,t} grad log pi_theta(a_{n,t} | s_{n,t})

is `gradient`, or `per_episode` for the N summands; `estimate` does all of that. With an entropy
bonus tau the reward of a step is r_t - tau log pi_theta(a_t | s_t): sums of scores need no other
term, but the bonus moves with theta where g is differentiated.

Episodes of other parameters count with the ratio of their likelihoods (`importance_weights`,
`weighted_gradient`). The derivative of that along a direction is the product of the Hessian with
it (`hessian_vector`).

Everything is for one agent; callers vmap. Axis letters: N episodes, T steps, q parameters. Each of
these has a module of its own, as policies and advantages have, and all are to be found here.

* Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
  Learning* (1992): REINFORCE.
* Baxter and Bartlett, *Infinite-Horizon Policy-Gradient Estimation* (2001): G(PO)MDP.
* Precup, Sutton and Singh, *Eligibility Traces for Off-Policy Policy Evaluation* (ICML 2000):
  weights of episodes and of decisions.
* Papini et al., *Stochastic Variance-Reduced Policy Gradient*, arXiv 1806.05618: weighted
  gradients as corrections.
* Shen, Ribeiro, Hassani, Qian and Mi, *Hessian Aided Policy Gradient* (ICML 2019): products with
  the Hessian in place of them.
"""

from __future__ import annotations

from fedjax_rl.learners.advantages import (
    BASELINES,
    CRITIC,
    ESTIMATORS,
    AdvantageRule,
    advantages,
    returns_of,
    returns_to_go,
)
from fedjax_rl.learners.fitting_policies import POLICIES, check_fits, policy_for
from fedjax_rl.learners.hessian import hessian_vector
from fedjax_rl.learners.importance import (
    WEIGHTS,
    importance_weights,
    log_weights,
    weighted_gradient,
)
from fedjax_rl.learners.network_policies import Categorical, Gaussian
from fedjax_rl.learners.score_gradient import (
    estimate,
    gradient,
    log_likelihood,
    per_episode,
    variance_of_mean,
)
from fedjax_rl.learners.stochastic_policies import Policy, SoftmaxTable
from fedjax_rl.learners.trajectories import Trajectories, without_padding

__all__ = [
    "BASELINES",
    "CRITIC",
    "ESTIMATORS",
    "POLICIES",
    "WEIGHTS",
    "AdvantageRule",
    "Categorical",
    "Gaussian",
    "Policy",
    "SoftmaxTable",
    "Trajectories",
    "advantages",
    "check_fits",
    "estimate",
    "gradient",
    "hessian_vector",
    "importance_weights",
    "log_likelihood",
    "log_weights",
    "per_episode",
    "policy_for",
    "returns_of",
    "returns_to_go",
    "variance_of_mean",
    "weighted_gradient",
    "without_padding",
]
