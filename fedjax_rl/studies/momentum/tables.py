"""Sampled gradients on M2: the estimator's error, agents, rates, the server's step."""

# ruff: noqa: RUF001 -- the labels say λ and − as the papers do

from __future__ import annotations

from fedjax_rl import algorithms
from fedjax_rl.analysis import around
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import (
    exponent,
    mean,
    of_means,
    ratio,
    share_of_trials,
    together,
)
from fedjax_rl.studies.numbers import along, beside
from fedjax_rl.studies.pictures import against, page
from fedjax_rl.studies.policy_gradients import ENTROPY, m2
from fedjax_rl.studies.runs import STILL, runs

ERROR_BETAS = (1.0, 0.5, 0.2, 0.1, 0.05)
AGENTS = (2, 4, 8, 16, 32)
ERROR_SAMPLES = 8 * 10  # gradients in a round of the runs over beta: N H
FAR = (8, 16, 32)  # within the limit of stability
FEW = (2, 8, 32)
LAMBDAS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
START = 0.359148  # J* - J of M2 before anything is learned
SV, HA, PLAIN, CLIPPED = "FedSVRPG-M", "FedHAPG-M", "no momentum", "FedSVRPG-M, clipped"
TODAY = "FedSVRPG-M, anchor of today"
TABLE = ("gap", "gradient_norm", "estimator_error")
GAP, NORM, ERROR = "gap J* − J", "norm of the gradient of J", "squared error of u"


def sampled(make, **more):
    """An algorithm on M2 with sampled gradients."""
    return make(m2(1.0, 20), entropy=ENTROPY, **more)


def law(beta):
    """The error of the momentum in parts of that without: what its recursion sums up to."""
    return beta / (2 - beta)


def _error_runs(size, name, methods, axes, **more):
    """Runs of the error of the momentum."""
    more |= {"num_steps": size.error_rounds, "trials": size.trials, "seconds": 60}
    return runs(f"error-{name}", methods, axes, metrics=("estimator_error",), **more)


def error_of_betas(size):
    """Both methods, and the runs of the error of their momentum over beta; N = 8, H = 10."""
    own = {"learning_rate": 0.001, "server_learning_rate": 0.05, "momentum": 0.2}
    sv, ha = (sampled(make, **own) for make in (algorithms.fedsvrpg_m, algorithms.fedhapg_m))
    return {SV: sv, HA: ha}, _error_runs(
        size, "beta", {SV: sv, HA: ha}, {"momentum": ERROR_BETAS}, num_agents=8
    )


@figure("estimator-error", "error of the momentum against beta, N and H")
def error(size):
    """The error of u as an estimate of the gradient is β / (2 − β) / (N H) of that without.

    It does so whether anything is learned or not, so that no control belongs here.
    """
    kept, betas = error_of_betas(size)
    agents = {f"N = {n}": {"num_agents": n} for n in AGENTS}
    steps = {f"H = {h}": {"num_agents": 8, "local_steps": h} for h in size.error_steps}
    # Together, in one program.
    sizes = _error_runs(size, "sizes", {SV: kept[SV]}, {"setting": agents | steps})
    of_beta, of_size = (made["estimator_error"].late() for made in (betas, sizes))
    of_n = along(of_size, "num_agents", dict(zip(agents, AGENTS, strict=True)))
    of_h = along(of_size, "local_steps", dict(zip(steps, size.error_steps, strict=True)))

    def to_law(beta):
        return ratio(of_beta[SV].sel(momentum=beta) / law(beta), of_beta[SV].sel(momentum=1.0))

    yield number(
        "B4",
        "error in parts of that of β = 1 over β / (2 − β), β = 0.5, 0.2, 0.1; exponents in N, H",
        together(
            *map(to_law, (0.5, 0.2, 0.1)),
            exponent(of_n, "num_agents"),
            exponent(of_h, "local_steps"),
        ),
        (*((0.8, 1.2),) * 3, (-1.1, -0.85), (-1.1, -0.85)),
        reference=(1, 1, 1, -1, -1),
    )
    one = of_beta.sel(momentum=1.0).then(lambda array: array.mean("seed"))
    parts = (of_beta / one).then(lambda array: array / law(array["momentum"]))
    yield page(
        "estimator-error",
        against(
            parts,
            "momentum",
            title="N = 8, H = 10",
            x="β",
            y="error of u over β / (2 − β), 1 at β = 1",
            log="x",
            dodge=0.06,
            level=(1.0, "law"),
        ),
        against(of_n, "num_agents", title="β = 0.2, H = 10", x="agents N", y=ERROR, power=AGENTS),
        against(
            of_h,
            "local_steps",
            title="β = 0.2, N = 8",
            x="steps H",
            y=ERROR,
            power=size.error_steps,
        ),
        title=f"M2, λ = 0.05, {size.trials} trials, 95 % intervals; dotted: power laws",
    )


@figure("speedup", "tables: gap against the number of agents")
def speedup(size):
    """More agents lower the gap that sampling leaves, with momentum and without it alike.

    N = 2 and 4 are past the limit of stability of the momentum at this step. An agent alone has its
    own environment as the optimum, and all the noise.
    """
    own = {"local_steps": 5, "learning_rate": 0.005, "server_learning_rate": 0.5}
    sv, ha = (sampled(make, **own) for make in (algorithms.fedsvrpg_m, algorithms.fedhapg_m))
    methods = {
        SV: (sv, {"momentum": 0.3}),
        HA: (ha, {"momentum": 0.3}),
        PLAIN: (sv, {"momentum": 1.0}),
        "still": (sv, {"server_learning_rate": STILL}),
    }
    more = {"num_steps": size.rounds, "trials": size.trials, "metrics": TABLE[:2], "seconds": 60}
    made = runs("speedup", methods, {"num_agents": AGENTS}, **more)
    more["trials"] = size.lone_trials
    lone = runs("speedup-alone", {"independent": (sv, {"momentum": 1.0})}, **more)
    gap, norm, alone = made["gap"].late(), made["gradient_norm"].late(), lone["gap"].late()
    learned = [SV, HA, PLAIN]
    far = gap.sel(num_agents=FAR)
    found = (0.129, 0.043, 0.023, 0.113, 0.048, 0.025, 0.108, 0.044, 0.023)
    yield number(
        "B5",
        "late gap at N = 8, 16, 32: FedSVRPG-M, FedHAPG-M, without momentum",
        mean(far[learned]),
        around(found, 0.25),
        reference=found,
    )
    yield number(
        "claim 2",
        "linear speedup: exponent of the gap in N, N = 8, 16, 32: FedSVRPG-M, FedHAPG-M",
        exponent(far[[SV, HA]], "num_agents"),
        ((-1.5, -0.85), (-1.5, -0.85)),
        published=(-1, -1),
    )
    yield effect(
        "claim 2b",
        "gap at N = 8 less that at N = 32: FedSVRPG-M, FedHAPG-M",
        mean((gap.sel(num_agents=8) - gap.sel(num_agents=32))[[SV, HA]]),
        published="more agents, a smaller gap",
        band=((0, None), (0, None)),
    )
    yield effect(
        "claim 2c",
        "gap of an agent alone on its own environment less that of N = 32: FedSVRPG-M, FedHAPG-M",
        together(*(alone["independent"] - gap[m].sel(num_agents=32) for m in (SV, HA))),
        published="collaboration helps where environments differ",
        band=((0, None), (0, None)),
    )
    yield control(
        "claim 2 null",
        "exponent of the gap in N where nothing is learned",
        exponent(far["still"], "num_agents"),
        (-1.5, -0.85),
    )
    yield page(
        "speedup",
        against(
            beside(gap[learned], alone) if size.lone_trials else gap[learned],
            "num_agents",
            title="mean over the second half of the rounds",
            x="agents N",
            y=GAP,
            power=FAR,
            ideal=(-1, "1 / N"),
            level=(START, "untrained"),
            dodge=0.07,
            dashed=("independent",),
        ),
        against(
            norm[learned],
            "num_agents",
            title="a small gradient is no small gap",
            x="agents N",
            y=NORM,
            dodge=0.07,
        ),
        title=f"M2, λ = 0.5, H = 5, β = 0.3 or 1, {size.trials} trials, 95 % intervals",
        caption="dotted: power laws through N = 8 to 32",
        height=2.9,
    )


# The server's step -------------------------------------------------------------------------------


def tuned_runs(size):
    """Methods over the server's step; none at all is the first."""
    own = {"learning_rate": 0.005, "episodes_per_step": 4, "momentum": 0.1}
    sv, ha = (sampled(make, **own) for make in (algorithms.fedsvrpg_m, algorithms.fedhapg_m))
    methods = {PLAIN: (sv, {"momentum": 1.0}), SV: sv, CLIPPED: (sv, {"weight_clip": 1.5}), HA: ha}
    more = {"num_steps": size.tuned_rounds or 1, "trials": size.tuned_trials, "record_every": 1}
    more |= {"num_agents": 8, "metrics": TABLE, "seconds": 120}
    made = runs("tuned", methods, {"server_learning_rate": (STILL, *LAMBDAS)}, **more)
    today = {"FedSVRPG-M, anchor of today": sampled(algorithms.fedsvrpg_m, **own, anchor="current")}
    other = runs("tuned-anchor", today, {"server_learning_rate": (0.1, 0.5, 1.0)}, **more)
    return made, other


@figure("tuned", "tables: gap, gradient norm and error against the server's step")
def tuned(size):
    """Momentum makes the estimate of the gradient ten times better and more, the model by a tenth.

    The noise of the model at a fixed step is nearly independent of β: what is correlated in time
    adds up to the same diffusion. Without momentum every step was stable, with it larger ones lose
    runs, which then end worse than they began. B6: the prototype's numbers are of a few runs.
    """
    made, _ = tuned_runs(size)
    gap, worse = made["gap"].late(0.25), made["gap"].late(0.1)
    norm = made["gradient_norm"].then(lambda array: array**2).late(0.25)
    err = made["estimator_error"].late(0.25)
    half = [own.sel(server_learning_rate=0.5) for own in (gap, norm, err)]
    found = (1.30e-2, 2.5e-3, 9.3e-2, 1.11e-2, 1.8e-3, 5.5e-3, 1.28e-2, 1.9e-3, 5.5e-3)
    yield number(
        "B6",
        "λ = 0.5: gap, squared gradient norm, error of the estimator: β = 1, FedSVRPG-M 0.1, "
        "FedHAPG-M 0.1",
        together(*(own[method] for method in (PLAIN, SV, HA) for own in half)),
        around(found, 0.3),
        reference=found,
    )
    lost = worse.then(lambda array: ~(array < START))

    def share(method, most):
        kept = [step for step in LAMBDAS if step <= most]
        some = lost[method].sel(server_learning_rate=kept)
        return share_of_trials(some.then(lambda array: array.any("server_learning_rate")))

    yield number(
        "B6b",
        "share of seeds at which a run is lost, up to λ = 4 without momentum, 2 (FedSVRPG-M, w ≤ "
        "1.5), 1 (FedHAPG-M)",
        together(share(PLAIN, 4.0), share(CLIPPED, 2.0), share(HA, 1.0)),
        ((0, 0.05),) * 3,
        reference=(0, 0, 0),
    )
    yield effect(
        "claim 3",
        "β = 1 less β = 0.1 of FedSVRPG-M, λ = 0.5: gap, squared gradient norm, error",
        together(*(own[PLAIN] - own[SV] for own in half)),
        published="momentum improves the model",
        band=((0, None),) * 3,
        why="""The error of the estimate falls by more than a factor of ten (B4, B6), the gap by
        about a tenth.""",
    )

    def best(method):
        return gap[method].sel(server_learning_rate=list(LAMBDAS))

    yield effect(
        "claim 3b",
        "gap of β = 1 less that of FedSVRPG-M, of FedHAPG-M, each at its best λ",
        together(
            *(of_means(lambda a, b: a.min() - b.min(), best(PLAIN), best(m)) for m in (SV, HA))
        ),
        published="momentum improves the model",
        band=((0, None), (0, None)),
        why="""At its best step, which is shorter, the method without momentum leaves nearly as
        small a gap.""",
    )
    still = gap.sel(server_learning_rate=STILL)
    yield control(
        "claim 3 null",
        "λ = 0: gap of β = 1 in parts of that of FedSVRPG-M, less 1",
        ratio(still[PLAIN], still[SV]),
        (1.01, None),
    )
    yield page(
        "tuned",
        *(
            against(
                own.sel(server_learning_rate=list(LAMBDAS)),
                "server_learning_rate",
                x="server's step λ",
                y=words,
                dodge=0.05,
                level=(START, "untrained", True) if words == GAP else None,
            )
            for own, words in ((gap, GAP), (norm, "squared " + NORM), (err, ERROR))
        ),
        title=f"M2, N = 8, H = 10, B = 4, {size.tuned_rounds} rounds, {size.tuned_trials} trials",
        caption="β = 0.1 with momentum; clipped: w ≤ 1.5; worse than untrained: lost",
    )
