"""Rates on M2: how the squared gradient norm falls with rounds and agents, and why no faster."""

from __future__ import annotations

import numpy as np

from fedjax_rl import algorithms
from fedjax_rl.analysis import Measured
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import Estimate, exactly, measured, of_means, together
from fedjax_rl.studies.momentum import linear
from fedjax_rl.studies.momentum.tables import (
    ERROR_SAMPLES,
    FEW,
    PLAIN,
    SV,
    error_of_betas,
    sampled,
)
from fedjax_rl.studies.numbers import beside
from fedjax_rl.studies.pictures import against, page
from fedjax_rl.studies.runs import STILL, runs

FAR_ROUNDS = (10**10, 10**11)
BELOW = """At these rounds the server's step times the curvature is below β. There what noise leaves
falls as that step, as R^(-1/3), whatever β. The theorem's rate is that of a step above it: by the
linear model (`rate linear`) of more than 10^5 rounds, settled at some 10^10 (`rate linear far`)."""
SLOWER = """While the server's step times the curvature is below β, what noise leaves falls as the
step, which theory makes R^(-1/3) with momentum and R^(-1/2) without. A linear model has the same
order at these rounds, and the paper's after very many (`rate linear order`)."""
CURVATURE = 17.0  # variance of the correction per squared step, between 14 and 20 on M2


def exponents(means, agents, lengths) -> tuple[float, float]:
    """Exponents in R and in N of means [N, R], by least squares between logarithms."""
    x = np.log(np.array(np.meshgrid(agents, lengths, indexing="ij"))).reshape(2, -1)
    solved = np.linalg.pinv(np.vstack([x, np.ones(x.shape[1])]).T)
    of_agents, of_rounds, _ = solved @ np.log(means).ravel()
    return of_rounds, of_agents


@figure("rates", "tables: squared gradient norm against rounds and agents, steps as in the theorem")
def rates(size):
    """Trajectories to reach a squared gradient norm ε, with the steps that the theorem takes.

    For R rounds β = (N H / R²)^(1/3) and λ is in proportion to √(β N H); without momentum λ is in
    proportion to √(N H / R), and the same at N = 8, R = 100. The theorem says (N H R)^(-2/3), that
    is ε^(-3/2) / N trajectories of an agent; without variance reduction it is (N H R)^(-1/2). These
    are rates of very many rounds: a linear model with the curvature and the noise of M2 comes near
    the exponents that are measured here, and has those of the theorem from some 10^10 rounds on.
    """
    steps = 5
    sv = sampled(algorithms.fedsvrpg_m, local_steps=steps, learning_rate=0.005)

    def momentum(at):
        beta = min(1.0, (at["num_agents"] * steps / at["length"] ** 2) ** (1 / 3))
        step = 0.5 * np.sqrt(beta * at["num_agents"] * steps / CURVATURE)
        return {"momentum": float(beta), "server_learning_rate": float(step)}

    def plain(at):
        step = 0.5 * np.sqrt(at["num_agents"] * steps / at["length"])
        return {"momentum": 1.0, "server_learning_rate": float(step)}

    def expected(errors, agents, lengths, rule=momentum):
        """Exponents in R and N of the linear law, with the noise that was measured."""
        of_one = errors["estimator_error"].sel({"method": SV, "momentum": 1.0})
        late = of_one.isel(time=slice(-len(of_one["time"]) // 2, None))
        of_one = float(late.mean()) * ERROR_SAMPLES
        table = np.empty((len(agents), len(lengths)))
        for i, n in enumerate(agents):
            for j, length in enumerate(lengths):
                own = rule({"num_agents": n, "length": length})
                step, noise = own["server_learning_rate"], of_one / (n * steps)
                table[i, j] = linear.squared_norm(length, own["momentum"], step, noise)
        return exponents(table, agents, lengths)

    methods = {
        SV: (sv, momentum),
        PLAIN: (sv, plain),
        "still": (sv, lambda at: {"server_learning_rate": STILL * at["length"]}),
    }
    axes = {"num_agents": FEW, "length": {length: {} for length in size.lengths}}
    more = {"num_steps": size.lengths[-1], "record_every": 1, "trials": size.trials}
    more |= {"metrics": ("gradient_norm",), "seconds": 40}
    # A stage each, so that a run that was stopped goes on from the last of them.
    made = [
        runs(f"rates-{n}", {m: own}, axes, **more) for n, (m, own) in enumerate(methods.items())
    ]
    squared = beside(*(stage["gradient_norm"] for stage in made)).then(
        lambda array: (array**2).where(array["time"] <= array["length"]).mean("time")
    )

    def powers(means):
        return exponents(means, FEW, size.lengths)[::-1]

    def both(method):
        return together(*(of_means(lambda m, i=i: powers(m)[i], squared[method]) for i in (1, 0)))

    betas = error_of_betas(size)[1]

    def beside_law(results):
        law = expected(results[betas], FEW, size.lengths)
        return [
            Measured(own.value - x, own.low - x, own.high - x, own.runs)
            for own, x in zip(both(SV)(results), law, strict=True)
        ]

    yield number(
        "rate",
        "exponents of the mean squared gradient norm in rounds R and in agents N, FedSVRPG-M",
        both(SV),
        ((-1.0, -0.55), (-1.0, -0.55)),
        reference=(-2 / 3, -2 / 3),
        why=BELOW,
    )
    yield number(
        "rate linear",
        "the same less what a linear model of M2 has at these rounds",
        Estimate(beside_law, (betas, *made)),
        ((-0.15, 0.15), (-0.15, 0.15)),
    )
    yield number(
        "rate linear far",
        "exponents in R and N of the linear model at 10^10 to 10^11 rounds",
        measured(lambda errors: [exactly(x) for x in expected(errors, FEW, FAR_ROUNDS)], betas),
        ((-0.72, -0.62), (-0.72, -0.62)),
        reference=(-2 / 3, -2 / 3),
    )

    def order_of_law(errors):
        both = [expected(errors, FEW, size.lengths, rule)[0] for rule in (plain, momentum)]
        far = [expected(errors, FEW, FAR_ROUNDS, rule)[0] for rule in (plain, momentum)]
        return [exactly(without - own) for without, own in (both, far)]

    yield number(
        "rate ε",
        "exponents of the trajectories of an agent until ε, in ε and in N, FedSVRPG-M",
        together(
            of_means(lambda m: 1 / powers(m)[1], squared[SV]),
            of_means(lambda m: -powers(m)[0] / powers(m)[1], squared[SV]),
        ),
        ((-1.8, -1.0), (-1.25, -0.75)),
        published=(-1.5, -1),
        why=BELOW,
    )
    yield effect(
        "rate order",
        "exponent in R without momentum less that of FedSVRPG-M, each with steps as in theory",
        of_means(lambda a, b: powers(a)[1] - powers(b)[1], squared[PLAIN], squared[SV]),
        published="ε^(-3/2) instead of ε^(-2)",
        why=SLOWER,
    )
    yield number(
        "rate linear order",
        "exponent in R without momentum less that of FedSVRPG-M, of the linear model: at these "
        "rounds, at 10^10 to 10^11",
        measured(order_of_law, betas),
        ((None, 0), (0.1, 0.25)),
        reference=(None, 1 / 6),
    )
    yield control(
        "rate null",
        "exponents of the mean squared gradient norm in R and N where nothing is learned",
        both("still"),
        ((None, -0.55), (None, -0.55)),
    )
    shown = squared[[SV, PLAIN]]
    yield page(
        "rates",
        *(
            against(
                shown.sel(num_agents=n),
                "length",
                title=f"N = {n}",
                x="rounds R",
                y="mean squared norm of the gradient" if n == FEW[0] else "",
                power=size.lengths,
                dodge=0.05,
            )
            for n in FEW
        ),
        title=f"M2, H = {steps}, steps as in the theorem for R, {size.trials} trials",
        caption="dotted: power laws",
    )
