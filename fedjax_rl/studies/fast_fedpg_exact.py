"""What is exact of the study `fast-fedpg`: estimators by enumeration, gradients of whole tables."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.envs import objective
from fedjax_rl.learners import enumeration
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.studies import policy_gradients as common
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.policy_gradients import ENTROPY, m1
from fedjax_rl.studies.study import Meter, Scale
from fedjax_rl.studies.variant_runs import Variant

METHODS = {
    "FedPG": frl.fedpg,
    "SCAFFOLD-PG": frl.scaffold_pg,
    "Fast-FedPG": frl.fast_fedpg,
}
LEVELS = (0.0, 0.01, 0.1, 0.3, 1.0)  # of kernels that differ
SPREADS = (0.25, 0.5, 1.0)  # of rewards that differ
STEPS = (2, 5, 10, 20)  # local, where the bias is measured
RATES = (0.05, 0.1, 0.2, 0.5)
LENGTHS = (5, 10, 20, 40)  # of an episode


def average(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """How far the mean gradient is from that of the mean MDP, by level of the kernels."""
    del scale
    report = meter.stage(stage)
    logits = np.random.default_rng(2).normal(size=(10, 4))

    @jax.jit
    def both(mdps, mean):
        gradient = jax.grad(lambda x, mdp: objective.value(mdp, x, 0.05))
        each = jax.vmap(gradient, (None, 0))(logits, mdps)
        return jnp.mean(each, axis=0), gradient(jnp.asarray(logits), mean)

    largest, relative = [], []
    with jax.enable_x64(True):
        for level in LEVELS:
            mdps = envs.dirichlet_mdps(
                kernels=level, num_states=10, num_actions=4, discount=0.9, concentration=0.3
            )
            found, mean = (np.asarray(x) for x in both(mdps, envs.average_mdp(mdps)))
            largest.append(np.abs(found - mean).max())
            relative.append(np.linalg.norm(found - mean) / np.linalg.norm(found))
            report(len(largest), len(LEVELS))
    return xr.Dataset(
        {"largest": ("level", largest), "relative": ("level", relative)}, {"level": list(LEVELS)}
    )


def estimators(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Expected error of estimators, by enumeration of 1,296 episodes.

    Returns:
      `error` [estimator]: largest deviation of the expectation from the gradient, or from the
      difference of two, and `right` [estimator]: whether it should vanish.
    """
    del scale
    report = meter.stage(stage)
    with jax.enable_x64(True):
        errors = _errors()
    report(1, 1)
    right = [name for name, (_, is_right) in errors.items() if is_right]
    names = [*right, *(name for name in errors if name not in right)]
    return xr.Dataset(
        {
            "error": ("estimator", [errors[name][0] for name in names]),
            "right": ("estimator", [name in right for name in names]),
        },
        {"estimator": names},
    )


def _errors() -> dict[str, tuple[float, bool]]:
    mdp = envs.dirichlet_mdp(num_states=3, num_actions=2, discount=0.9, concentration=0.5)
    made, chance = enumeration.all_trajectories(mdp, 4)
    policy, rule = learner.SoftmaxTable(3, 2), learner.AdvantageRule()
    target, behaviour = np.random.default_rng(1).normal(0, 1.0, (2, 6))

    @jax.jit
    @jax.grad
    def exact(parameters):
        return objective.truncated_value(mdp, policy.logits(parameters), 4, ENTROPY)

    @functools.partial(jax.jit, static_argnums=0)
    def each(function, *parameters):
        return jax.vmap(lambda one: function(*parameters, one))(made)

    def error(function, wanted, at, *parameters) -> float:
        chances = enumeration.probabilities(made, chance, at)
        found = np.tensordot(chances, np.asarray(each(function, *parameters)), 1)
        return float(np.abs(found - np.asarray(wanted)).max())

    def plain(parameters, one, rule=rule):
        return learner.estimate(policy, parameters, one, mdp_discount, rule, ENTROPY)

    def weighted(parameters, behaviour, one, **options):
        return learner.weighted_gradient(
            policy, parameters, behaviour, one, mdp_discount, rule, ENTROPY, **options
        )[0]

    mdp_discount = float(mdp.discount)
    here, there = exact(target), exact(behaviour)
    whole = learner.AdvantageRule(estimator="reinforce")
    later = learner.AdvantageRule(discount_weight=False)
    out = {
        "GPOMDP": (error(plain, here, target, target), True),
        "REINFORCE": (
            error(functools.partial(plain, rule=whole), here, target, target),
            True,
        ),
        "weights of episodes": (error(weighted, here, behaviour, target, behaviour), True),
        "weights of decisions": (
            error(
                functools.partial(weighted, kind="per_decision"),
                here,
                behaviour,
                target,
                behaviour,
            ),
            True,
        ),
        "later rewards undiscounted": (
            error(functools.partial(plain, rule=later), here, target, target),
            False,
        ),
        "weight left out": (error(plain, here, behaviour, target), False),
        "weight upside down": (
            error(lambda a, b, one: weighted(b, a, one), here, behaviour, target, behaviour),
            False,
        ),
    }
    for clip in (1.2, 1.8, 5.0):
        cut = functools.partial(weighted, clip=clip)
        out[f"weight at most {clip:g}"] = error(cut, here, behaviour, target, behaviour), False

    direction = target - behaviour

    def product(parameters, one):
        return learner.hessian_vector(
            policy, parameters, direction, one, mdp_discount, rule, ENTROPY
        )

    def unscored(parameters, one):
        return jax.jvp(lambda x: plain(x, one), (parameters,), (jnp.asarray(direction),))[1]

    def along(function, places, masses) -> float:
        total = 0.0
        for place, mass in zip(places, masses, strict=True):
            at = behaviour + place * direction
            chances = enumeration.probabilities(made, chance, at)
            total += mass * np.tensordot(chances, np.asarray(each(function, at)), 1)
        return float(np.abs(total - np.asarray(here - there)).max())

    places, masses = np.polynomial.legendre.leggauss(16)
    line = (places + 1) / 2, masses / 2
    out["Hessian-vector product"] = along(product, *line), True
    out["its score left out"] = along(unscored, *line), False
    out["only at the middle"] = along(product, [0.5], [1.0]), False
    return out


def _exact(label: str, make, steps: int, kernels: float = 0.0, **more) -> Variant:
    """One exact run at eta 0.5."""
    properties = common.exactly(local_steps=steps, learning_rate=0.5, **more)
    return Variant(label, make(m1(kernels=kernels), **properties), 8, {}, 1)


def exact(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Exact gradients, M1, eta 0.5, 200 rounds."""
    del scale
    variants = [
        *(_exact(f"{name} H=10", make, 10) for name, make in METHODS.items()),
        *(_exact(f"Fast-FedPG H={steps}", frl.fast_fedpg, steps) for steps in (20, 40, 80)),
        *(_exact(f"{name} kernels", METHODS[name], 10, 0.7) for name in ("FedPG", "Fast-FedPG")),
    ]
    return variant_runs.run(
        variants, 200, meter, stage, metrics=("gap", "gradient_norm", "objective"), double=True
    )


def bias(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Fixed points of FedPG, [steps, rate] at spread 1 and [spread] at rate 0.1 and 10 steps."""
    del scale

    def plain(steps, spread=1.0):
        return frl.fedpg(m1(spread), **common.exactly(local_steps=steps))

    def fixed(variants, steps, part):
        rounds = 24_000 // steps
        found = variant_runs.run(
            variants,
            rounds,
            part,
            stage,
            metrics=("gap", "gradient_norm"),
            record_every=rounds,
            double=True,
        )
        return meter.count(found).isel(seed=0, time=-1)

    *meters, last = meter.split(stage, len(STEPS) + 1)
    parts = []
    for steps, part in zip(STEPS, meters, strict=True):
        one = plain(steps)
        lines = [Variant(f"{rate:g}", one, 8, {"learning_rate": rate}, 1) for rate in RATES]
        parts.append(fixed(lines, steps, part))
    own = {"learning_rate": 0.1}
    apart = fixed([Variant(f"{x:g}", plain(10, x), 8, own, 1) for x in SPREADS], 10, last)
    data = {}
    for name in ("gap", "gradient_norm"):
        data[name] = ("steps", "rate"), [part[name].values for part in parts]
        data[f"{name}_by_spread"] = "spread", apart[name].values
    coordinates = {"steps": list(STEPS), "rate": list(RATES), "spread": list(SPREADS)}
    return xr.Dataset(data, coordinates, variant_runs.spent([*parts, apart]))


def formula(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """The gradient at the fixed point of FedPG and its prediction, eta 0.01, H 10: [entry]."""
    del scale
    report = meter.stage(stage)
    mdps = envs.dirichlet_mdps(8)
    rate, steps = 0.01, 10
    with jax.enable_x64(True):
        properties = common.exactly(local_steps=steps, learning_rate=rate)
        algorithm = frl.fedpg(m1(), **properties)
        program = jax.jit(
            lambda: frl.simulate(
                algorithm, num_agents=8, num_steps=12_000, record_every=12_000
            ).state.server.parameters[0]
        )
        end = program()

        def value(parameters, mdp):
            return objective.value(mdp, parameters.reshape(5, 3), ENTROPY)

        each = jax.vmap(jax.grad(value), (None, 0))(end, mdps)
        hessians = jax.vmap(jax.hessian(value), (None, 0))(end, mdps)
        predicted = -rate * (steps - 1) / 2 * jnp.mean(jax.vmap(jnp.matmul)(hessians, each), axis=0)
        measured = jnp.mean(each, axis=0)
    report(1, 1)
    return xr.Dataset(
        {"measured": ("entry", np.asarray(measured)), "predicted": ("entry", np.asarray(predicted))}
    )


def truncation(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Fast-FedPG whose gradients end with the episode: exact ones of K steps; M1."""
    del scale
    return variant_runs.run(
        [
            Variant(
                f"{length}",
                frl.fast_fedpg(
                    m1(max_steps=length),
                    gradient="truncated",
                    entropy=ENTROPY,
                    learning_rate=0.5,
                    local_steps=10,
                ),
                8,
                {},
                1,
            )
            for length in LENGTHS
        ],
        200,
        meter,
        stage,
        metrics=("gap", "gradient_norm"),
        double=True,
    )
