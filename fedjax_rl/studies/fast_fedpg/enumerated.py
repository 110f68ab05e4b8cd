"""What is unbiased: estimators by enumeration, and the mean MDP."""

# ruff: noqa: RUF001 -- the labels say − and ∝ as printed numbers do

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from fedjax_rl import envs
from fedjax_rl.envs import objective
from fedjax_rl.learners import enumeration
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.studies.claims import control, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import exact
from fedjax_rl.studies.pictures import against, page
from fedjax_rl.studies.policy_gradients import ENTROPY
from fedjax_rl.studies.runs import Stage

LEVELS = (0.0, 0.01, 0.1, 0.3, 1.0)  # of kernels that differ
WRONG = ("weight left out", "weight upside down", "weight at most 1.8", "score left out")


@figure("estimators", "what is unbiased: estimators, and the mean MDP")
def estimators(size):
    """Proposition 1 needs one kernel: where kernels differ, the mean MDP has another gradient."""
    del size
    average, errors = Stage("average", _average, 5), Stage("estimators", _errors, 15)["error"]
    relative = average["relative"].sel(level=LEVELS[1:])
    yield number(
        "A1",
        "mean gradient less the gradient of the mean MDP, one kernel: largest entry",
        exact(average["largest"].sel(level=0.0)),
        (None, 1e-12),
        published="equal",
        reference=9.4e-16,
    )
    yield number(
        "A1b",
        "the same relative to its norm, kernels differ by 0.01, 0.1, 0.3, 1",
        exact(relative),
        ((1e-4, None), (1e-3, None), (1e-3, None), (1e-3, None)),
        reference=(1.3e-3, 1.3e-2, 3.8e-2, 1.3e-1),
    )
    yield number(
        "A1b linear",
        "of which that at 0.1 in parts of that at 0.01",
        exact(relative.sel(level=0.1) / relative.sel(level=0.01)),
        (8, 12),
        reference=10,
    )
    right = errors.then(lambda own: own.drop_sel(estimator=list(WRONG)).max("estimator"))
    yield number(
        "A8",
        "expected error of gradients, weights, Hessian-vector products by enumeration: largest",
        exact(right),
        (None, 1e-12),
        reference=3e-16,
    )
    yield control(
        "A8 null",
        f"the same without a part of them: {', '.join(WRONG)}",
        exact(errors.sel(estimator=WRONG)),
        ((None, 1e-12),) * len(WRONG),
    )
    words = {"x": "level by which the kernels differ", "y": "relative difference"}
    title = "mean gradient − that of the mean MDP"
    yield page("average", against(relative, "level", title=title, ideal=(1, "∝ level"), **words))


def _average(meter) -> xr.Dataset:
    """How far the mean gradient is from that of the mean MDP, by level of the kernels."""
    report = meter.stage("average")
    logits = np.random.default_rng(2).normal(size=(10, 4))

    @jax.jit
    def both(mdps, mean):
        gradient = jax.grad(lambda x, mdp: objective.value(mdp, x, 0.05))
        each = jax.vmap(gradient, (None, 0))(logits, mdps)
        return jnp.mean(each, axis=0), gradient(jnp.asarray(logits), mean)

    found, sizes = [], {"num_states": 10, "num_actions": 4, "discount": 0.9}
    with jax.enable_x64(True):
        for level in LEVELS:
            mdps = envs.dirichlet_mdps(kernels=level, concentration=0.3, **sizes)
            own, mean = (np.asarray(x) for x in both(mdps, envs.average_mdp(mdps)))
            apart = own - mean
            found.append((np.abs(apart).max(), np.linalg.norm(apart) / np.linalg.norm(own)))
            report(len(found), len(LEVELS))
    largest, relative = ((("seed", "level"), [own]) for own in zip(*found, strict=True))
    return xr.Dataset({"largest": largest, "relative": relative}, {"level": list(LEVELS)})


def _errors(meter) -> xr.Dataset:
    """Largest entries of the expected errors of estimators, by enumeration of 1,296 episodes.

    Returns:
      `error` [seed, estimator], of the gradient at one policy, or of its difference from that at
      another by products along the line between them.
    """
    report = meter.stage("estimators")
    mdp = envs.dirichlet_mdp(num_states=3, num_actions=2, discount=0.9, concentration=0.5)
    made, chance = enumeration.all_trajectories(mdp, 4)
    policy, discount = learner.SoftmaxTable(3, 2), float(mdp.discount)
    usual = learner.AdvantageRule()
    target, behaviour = np.random.default_rng(1).normal(0, 1.0, (2, 6))
    direction = target - behaviour

    def plain(x, one, rule=usual):
        return learner.estimate(policy, x, one, discount, rule, ENTROPY)

    def weighted(of, under, one, **more):
        own = (policy, of, under, one, discount, usual, ENTROPY)
        return learner.weighted_gradient(*own, **more)[0]

    def product(x, one):
        return learner.hessian_vector(policy, x, direction, one, discount, usual, ENTROPY)

    def unscored(x, one):
        return jax.jvp(lambda y: plain(y, one), (x,), (jnp.asarray(direction),))[1]

    # Where episodes are made, in parts of the way from one policy to the other, and their mass.
    here, there = ((np.array([part]), np.ones(1)) for part in (1.0, 0.0))
    nodes, masses = np.polynomial.legendre.leggauss(16)
    line = (nodes + 1) / 2, masses / 2
    whole = learner.AdvantageRule(estimator="reinforce")
    cases = {
        "GPOMDP": (plain, here),
        "REINFORCE": (lambda x, one: plain(x, one, whole), here),
        "weights": (lambda x, one: weighted(target, x, one), there),
        "by decision": (lambda x, one: weighted(target, x, one, kind="per_decision"), there),
        "weight left out": (lambda x, one: plain(target, one), there),
        "weight upside down": (lambda x, one: weighted(x, target, one), there),
        "weight at most 1.8": (lambda x, one: weighted(target, x, one, clip=1.8), there),
        "Hessian-vector product": (product, line),
        "score left out": (unscored, line),
    }
    points = {k: behaviour + parts[:, None] * direction for k, (_, (parts, _)) in cases.items()}

    @jax.jit
    def everything(points):
        def of(name, function):
            return jax.vmap(lambda x: jax.vmap(lambda one: function(x, one))(made))(points[name])

        def value(x):
            return objective.truncated_value(mdp, policy.logits(x), 4, ENTROPY)

        own = {name: of(name, function) for name, (function, _) in cases.items()}
        return own, [jax.grad(value)(jnp.asarray(x)) for x in (target, behaviour)]

    with jax.enable_x64(True):
        found, (at_target, at_behaviour) = jax.device_get(everything(points))
    errors = []
    for name, (_, (parts, masses)) in cases.items():
        chances = [enumeration.probabilities(made, chance, x) for x in points[name]]
        wanted = at_target - at_behaviour if len(parts) > 1 else at_target
        errors.append(np.abs(np.einsum("p,pm,pmq", masses, chances, found[name]) - wanted).max())
    report(1, 1)
    return xr.Dataset({"error": (("seed", "estimator"), [errors])}, {"estimator": list(cases)})
